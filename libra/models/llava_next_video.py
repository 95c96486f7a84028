"""LLaVA-NeXT-Video: LLaVA-NeXT with video, four patches of a frame pooled to one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LlavaNextVideoForConditionalGeneration

from libra.errors import InputError
from libra.media import Media
from libra.models.features import Features
from libra.models.frames import load_frame_processor, noted_frames, prepare_frames
from libra.models.llava_next import LlavaNext
from libra.models.prepared import Prepared


class LlavaNextVideo(LlavaNext):
    """LLaVA-NeXT-Video: pictures as LLaVA-NeXT; frames without newline tokens, pooled."""

    name = "llava-next-video"
    takes_video = True
    model_class = LlavaNextVideoForConditionalGeneration

    def __init__(self, model, tokenizer, image_processor, frame_processor):
        super().__init__(model, tokenizer, image_processor)
        self.frame_processor = frame_processor
        if model.config.spatial_pool_mode == "conv":
            raise InputError("A LLaVA-NeXT-Video that pools by convolution is not supported.")

    @property
    def frames(self) -> int:
        """As many as are noted down with the checkpoint."""
        return noted_frames(self.frame_processor)

    @classmethod
    def load_processors(cls, path: str) -> tuple:
        """Of pictures and of frames."""
        return (*super().load_processors(path), load_frame_processor(path))

    def prepare(self, media: Media, pooled: bool = True) -> Prepared:
        """Two views of every picture, or the frames of a video."""
        if not media.is_video:
            return super().prepare(media, pooled)
        stride = self.model.config.spatial_pool_stride if pooled else 1
        grid = tuple(n // stride for n in self.grid)
        return prepare_frames(media, grid, self.frame_processor.do_center_crop)

    def pixels(self, prepared: Prepared) -> Tensor:
        """The model's own processing of frames, or of pictures and their tiles."""
        if not prepared.media.is_video:
            return super().pixels(prepared)
        return self.frame_processor(prepared.media.pictures, return_tensors="pt").pixel_values

    def pack(self, patches: Sequence[Tensor], prepared: Prepared) -> Tensor:
        """The model's own pooling of frames."""
        if not prepared.media.is_video:
            return super().pack(patches, prepared)
        return self.model.model.vision_resampler(torch.stack(list(patches))).flatten(0, 1)

    def specials(self, features: Features, prepared: Prepared) -> Tensor | None:
        """Newline tokens of pictures; frames have none."""
        return None if prepared.media.is_video else super().specials(features, prepared)
