"""LLaVA-OneVision: a SigLIP tower, tiles, pooled video frames and a Qwen2 decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
)

from libra.media import Media
from libra.models.anyres import AnyresFamily
from libra.models.frames import FrameFamily, prepare_frames, square_grids
from libra.models.prepared import Prepared


class LlavaOnevision(FrameFamily, AnyresFamily):
    """LLaVA-OneVision.

    One picture: tiles, scaled down where they are many. Several pictures: each as a whole, padded
    to a square. Video: frames, four patches pooled to one; one newline token after the last.
    The model pools what it has projected, so methods at the connector act behind the projector.
    """

    name = "llava-onevision"
    tower_type = "siglip_vision_model"
    presets: ClassVar[Mapping[str, str]] = {"illava": "LLaVA-OneVision"}
    model_class = LlavaOnevisionForConditionalGeneration
    processor_class = frames_like = LlavaOnevisionImageProcessorPil

    def pack_picture(
        self, units: Tensor, picture: Image.Image, newline: Tensor | None, pooled: bool
    ) -> Tensor:
        """Tiles side by side, without the margin, scaled down to what the configuration allows."""
        limit = self.model.config.vision_aspect_ratio if pooled else "anyres_max_1000000"
        size = (picture.height, picture.width)
        packed, _ = self.model.model.pack_image_features([units], [size], newline, limit)
        return packed[0]

    def prepare(self, media: Media, pooled: bool = True) -> Prepared:
        """One picture in two views; several as padded squares; a video as its frames."""
        if media.is_video:
            grid = tuple(math.ceil(n / 2) if pooled else n for n in self.grid)
            return prepare_frames(media, grid, self.frame_processor.do_center_crop, after=1)
        if len(media.pictures) == 1:
            return super().prepare(media, pooled)
        grids = square_grids(media.pictures, self.grid, crops=False)
        prepared = Prepared.of_pictures(media, grids)
        newline = torch.tensor([False])
        spans = [torch.cat([span, newline]) for span in prepared.spans]
        return replace(prepared, spans=spans, views=[self._padded(p) for p in media.pictures])

    def _padded(self, picture: Image.Image) -> Image.Image:
        """The square that the model sees of one of several pictures."""
        colour = tuple(int(255 * x) for x in self.image_processor.image_mean)
        side = max(picture.size)
        square = Image.new("RGB", (side, side), colour)
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        return square

    def pixels(self, prepared: Prepared) -> Tensor:
        """The model's own processing of frames, of several pictures, or of one and its tiles."""
        media = prepared.media
        if media.is_video or len(media.pictures) == 1:
            return super().pixels(prepared)
        return self.image_processor([media.pictures], return_tensors="pt").pixel_values.flatten(
            0, 1
        )

    def project(self, hidden: Sequence[Tensor]) -> list[Tensor]:
        """Per unit [T, D] -> [T, d]."""
        return [self.model.model.multi_modal_projector(x) for x in hidden]

    def pack(self, patches: Sequence[Tensor], prepared: Prepared) -> Tensor:
        """The model's own packing and pooling."""
        units, pictures = torch.stack(list(patches)), prepared.media.pictures
        if prepared.media.is_video:
            return self.model.model.apply_pooling(units).flatten(0, 1)
        if len(pictures) == 1:
            return self.pack_picture(units, pictures[0], None, pooled=True)
        return units.flatten(0, 1)

    def connect(self, tokens: Tensor) -> Tensor:
        """They have been projected before they were packed."""
        return tokens
