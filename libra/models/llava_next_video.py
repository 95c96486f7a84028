"""LLaVA-NeXT-Video: LLaVA-NeXT with video, four patches of a frame pooled to one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LlavaNextVideoForConditionalGeneration

from libra.errors import InputError
from libra.media import Media
from libra.models.features import Features
from libra.models.frames import FrameFamily, prepare_frames
from libra.models.llava_next import LlavaNext
from libra.models.prepared import Prepared


class LlavaNextVideo(FrameFamily, LlavaNext):
    """LLaVA-NeXT-Video: pictures as LLaVA-NeXT; frames without newline tokens, pooled."""

    name = "llava-next-video"
    model_class = LlavaNextVideoForConditionalGeneration

    def __init__(self, model, *parts):
        super().__init__(model, *parts)
        if model.config.spatial_pool_mode == "conv":
            raise InputError("A LLaVA-NeXT-Video that pools by convolution is not supported.")

    def prepare(self, media: Media, pooled: bool = True) -> Prepared:
        """Two views of every picture, or the frames of a video."""
        if not media.is_video:
            return super().prepare(media, pooled)
        stride = self.model.config.spatial_pool_stride if pooled else 1
        grid = tuple(n // stride for n in self.grid)
        return prepare_frames(media, grid, self.frame_processor.do_center_crop)

    def pack(self, patches: Sequence[Tensor], prepared: Prepared) -> Tensor:
        """The model's own pooling of frames."""
        if not prepared.media.is_video:
            return super().pack(patches, prepared)
        return self.model.model.vision_resampler(torch.stack(list(patches))).flatten(0, 1)

    def specials(self, features: Features, prepared: Prepared) -> Tensor | None:
        """Newline tokens of pictures; frames have none."""
        return None if prepared.media.is_video else super().specials(features, prepared)
