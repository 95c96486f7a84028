"""Video-LLaVA: one CLIP-like tower for pictures and one for frames, and a Llama decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import VideoLlavaForConditionalGeneration, VideoLlavaImageProcessor

from libra.media import Media
from libra.models.features import EncoderAttention, Features
from libra.models.frames import FrameFamily, prepare_frames, square_grids
from libra.models.prepared import Prepared


class VideoLlava(FrameFamily):
    """Video-LLaVA: the decoder gets the CLS token of each frame, too, before its patches.

    CLS is no patch: it stays in the prompt, like text.
    """

    name = "video-llava"
    model_class = VideoLlavaForConditionalGeneration
    processor_class = VideoLlavaImageProcessor

    @property
    def tower(self) -> nn.Module:
        """The tower for pictures; that for frames has as many layers."""
        return self.model.model.image_tower

    def tower_for(self, prepared: Prepared) -> nn.Module:
        """The tower for pictures or for frames."""
        return self.model.model.video_tower if prepared.media.is_video else self.tower

    def encode(self, prepared: Prepared, *how) -> Features:
        """Features of the configured layers, and of each layer looked at which tower it is of."""
        features, tower = super().encode(prepared, *how), self.tower_for(prepared)
        seen = {i: [(tower, x) for x in inputs] for i, inputs in features.inputs.items()}
        return replace(features, inputs=seen)

    def encode_each(self, prepared: Sequence[Prepared]) -> list[Features]:
        """One after the other: pictures and frames have towers of their own."""
        return [self.encode(media) for media in prepared]

    def encoder_attention(self, layer: int, hidden: tuple[nn.Module, Tensor]) -> EncoderAttention:
        """Queries and keys of a layer of the tower that comes with its input."""
        tower, x = hidden
        return self._attention(tower.encoder.layers[self._layer(layer)], x, n_front=1)

    def prepare(self, media: Media, pooled: bool = True) -> Prepared:
        """A square grid in the centre of each picture or frame."""
        if media.is_video:
            return prepare_frames(media, self.grid, self.frame_processor.do_center_crop, before=1)
        crops = self.image_processor.do_center_crop
        return Prepared.of_pictures(media, square_grids(media.pictures, self.grid, crops))

    def pixels(self, prepared: Prepared) -> Tensor:
        """The model's own processing."""
        if prepared.media.is_video:
            return super().pixels(prepared)
        return self.image_processor(
            prepared.media.pictures,
            input_data_format="channels_last",  # which it cannot guess of one pixel
            return_tensors="pt",
            return_legacy_image_output=False,
        ).pixel_values

    def specials(self, features: Features, prepared: Prepared) -> Tensor | None:
        """[K, d] the CLS token of each frame."""
        if not prepared.media.is_video:
            return None
        return self.connect(torch.cat([x[:1] for x in features.special]))
