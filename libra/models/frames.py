"""What the families share that take a video frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil

from libra.layout import TokenLayout
from libra.media import Media
from libra.models.folder import video_settings
from libra.models.prepared import Prepared
from libra.models.tower import TowerFamily
from libra.video import FRAMES

_SETTINGS = (
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale"),
    *("rescale_factor", "do_normalize", "image_mean", "image_std", "do_convert_rgb"),
    "num_frames",
)


class FrameFamily(TowerFamily):
    """A family whose frames go through a processor of their own, unlike its pictures."""

    takes_video = True
    frames_like: ClassVar[type] = CLIPImageProcessorPil  # a processor with the same defaults

    def __init__(self, model, tokenizer, image_processor, frame_processor):
        super().__init__(model, tokenizer, image_processor)
        self.frame_processor = frame_processor

    @property
    def frames(self) -> int:
        """As many as are noted down with the checkpoint, else the usual number."""
        return getattr(self.frame_processor, "num_frames", None) or FRAMES

    @classmethod
    def load_processors(cls, path: str) -> tuple:
        """Of pictures and of frames."""
        return (*super().load_processors(path), _load_frame_processor(path, cls.frames_like))

    def pixels(self, prepared: Prepared) -> Tensor:
        """The model's own processing of frames, or what the family does with pictures."""
        if not prepared.media.is_video:
            return super().pixels(prepared)
        return self.frame_processor(prepared.media.pictures, return_tensors="pt").pixel_values


def _load_frame_processor(path: str, like: type) -> CLIPImageProcessorPil:
    """PIL's counterpart of a model's video processor, which would need torchvision.

    Args:
        path: folder or hub id.
        like: the processor of pictures that has the same defaults.
    """
    saved = video_settings(path)
    return CLIPImageProcessorPil(
        **{name: saved.get(name, getattr(like, name, None)) for name in _SETTINGS}
    )


def square_grids(
    pictures: Sequence[Image.Image], grid: tuple[int, int], crops: bool
) -> TokenLayout:
    """A grid in the centre of each picture, or over all of it where none is cut out."""
    return TokenLayout.cat(
        [
            TokenLayout.square_crop(*(picture.size if crops else (1, 1)), grid, i)
            for i, picture in enumerate(pictures)
        ]
    )


def prepare_frames(
    media: Media, grid: tuple[int, int], crops: bool, before: int = 0, after: int = 0
) -> Prepared:
    """A video as one span of frames with a grid each, one unit each.

    Args:
        media: the video.
        grid: (rows, columns) of a frame's visual tokens.
        crops: whether the model sees the centre alone.
        before: other tokens before each frame.
        after: other tokens after the last frame.
    """
    layout = square_grids(media.pictures, grid, crops)
    frame = torch.arange(before + grid[0] * grid[1]) >= before
    span = torch.cat([*[frame] * len(media.pictures), torch.zeros(after, dtype=torch.bool)])
    return Prepared.of_pictures(media, layout, [span])
