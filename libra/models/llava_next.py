"""LLaVA-NeXT (1.6): a picture as a whole and in tiles, a CLIP tower, any decoder."""

from __future__ import annotations

from PIL import Image
from torch import Tensor
from transformers import LlavaNextForConditionalGeneration, LlavaNextImageProcessorPil

from libra.models.anyres import AnyresFamily


class LlavaNext(AnyresFamily):
    """LLaVA-NeXT: a newline token ends each row of the detailed view."""

    name = "llava-next"
    model_class = LlavaNextForConditionalGeneration
    processor_class = LlavaNextImageProcessorPil

    def pack_picture(
        self, units: Tensor, picture: Image.Image, newline: Tensor | None, pooled: bool
    ) -> Tensor:
        """Tiles side by side, without the margin."""
        size = (picture.height, picture.width)
        packed, _ = self.model.model.pack_image_features([units], [size], "default", newline)
        return packed[0]
