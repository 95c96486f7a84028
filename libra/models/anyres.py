"""Families that see a picture as a whole and, in tiles, in detail: LLaVA-NeXT and its heirs."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import BoolTensor, LongTensor, Tensor
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension

from libra.layout import TokenLayout
from libra.media import Media
from libra.models.features import Features
from libra.models.prepared import Prepared
from libra.models.tower import TowerFamily


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut: scaled into a canvas of tiles, with margins where it does not fit."""

    rows: int
    columns: int
    margin: Tensor  # [2] x, y of the picture's corner on the canvas, in tiles
    size: Tensor  # [2] width, height of the picture on the canvas, in tiles

    @classmethod
    def of(cls, picture: Image.Image, resolutions: list[list[int]], side: int) -> Tiling:
        """The tiling that the image processor chooses, for tiles of `side` pixels."""
        canvas = select_best_resolution((picture.height, picture.width), resolutions)
        shape = np.broadcast_to(np.uint8(0), (1, picture.height, picture.width))  # of no memory
        size = torch.tensor(get_patch_output_size(shape, canvas, ChannelDimension.FIRST)).flip(0)
        margin = (torch.tensor(canvas).flip(0) - size) // 2
        return cls(canvas[0] // side, canvas[1] // side, margin / side, size / side)

    def __len__(self) -> int:
        return self.rows * self.columns

    def boxes(self, grid: tuple[int, int]) -> Tensor:
        """[tiles, T, 4] the patches of every tile, as fractions of the picture."""
        tile = torch.cartesian_prod(torch.arange(self.rows), torch.arange(self.columns)).flip(1)
        cells = TokenLayout.square_crop(1, 1, grid).box + tile.repeat(1, 2)[:, None]
        return (cells - self.margin.repeat(2)) / self.size.repeat(2)


@dataclass(frozen=True)
class PicturePlan:
    """The visual tokens of one picture."""

    layout: TokenLayout
    unit: LongTensor  # [N] counted from this picture's first
    patch: LongTensor  # [N]
    span: BoolTensor  # [P] which of its tokens are visual
    n_units: int

    @property
    def n_views(self) -> int:
        """One, or two where details are left of it."""
        return int(self.layout.image[-1] - self.layout.image[0]) + 1


class AnyresFamily(TowerFamily):
    """A picture is one unit as a whole, and one per tile; newline tokens end its rows of patches.

    The layout has two views of each picture: as a whole, and in detail. What lies in the margin is
    taken off by the model, and is no visual token.
    """

    @abstractmethod
    def pack_picture(
        self, units: Tensor, picture: Image.Image, newline: Tensor | None, pooled: bool
    ) -> Tensor:
        """The model's own packing of one picture: units [1 + tiles, T, C] -> [P, C]."""

    def tiling(self, picture: Image.Image) -> Tiling:
        """How a picture is cut."""
        side = self.model.config.vision_config.image_size
        return Tiling.of(picture, self.model.config.image_grid_pinpoints, side)

    def prepare(self, media: Media, pooled: bool = True) -> Prepared:
        """Both views of every picture."""
        plans: list[PicturePlan] = []
        for picture in media.pictures:
            plans.append(self.plan(picture, sum(plan.n_views for plan in plans), pooled))
        number = [i for i, plan in enumerate(plans) for _ in range(plan.n_views)]
        counts = torch.tensor([plan.n_units for plan in plans])
        first = (counts.cumsum(0) - counts).tolist()
        layout = TokenLayout.cat([plan.layout for plan in plans])
        if media.is_video:
            layout = replace(layout, frame=torch.tensor(number)[layout.image])
        return Prepared(
            media=media,
            layout=layout,
            unit=torch.cat([plan.unit + i for plan, i in zip(plans, first, strict=True)]),
            patch=torch.cat([plan.patch for plan in plans]),
            spans=[plan.span for plan in plans],
            views=[media.pictures[i] for i in number],
            times=media.times and [media.times[i] for i in number],
        )

    def plan(self, picture: Image.Image, image: int, pooled: bool) -> PicturePlan:
        """What the model's own packing makes of coordinates, in the views `image` and the next."""
        tiling, n = self.tiling(picture), self.grid[0] * self.grid[1]
        whole = TokenLayout.square_crop(1, 1, self.grid, image)
        places = torch.cartesian_prod(torch.arange(1 + len(tiling)), torch.arange(n))
        boxes = torch.cat([whole.box, tiling.boxes(self.grid).flatten(0, 1)])
        known = torch.column_stack([places, boxes]).unflatten(0, (-1, n))
        packed = self.pack_picture(known, picture, None, pooled=False)  # [N, 6] before pooling
        marks = self.pack_picture(torch.ones(*known.shape[:2], 1), picture, torch.zeros(1), pooled)
        span = marks[:, 0] > 0.5

        details, rows = int(span.sum()) - n, int((~span).sum())
        unit, patch = packed[:, :2].long().T
        if details < len(packed) - n:  # scaled down: no longer patches of a tile
            unit, patch = (torch.cat([x[:n], x[n].expand(details)]) for x in (unit, patch))
        if details:  # a strip so narrow that it is less than a row or a column has none
            detail = TokenLayout.square_crop(1, 1, (rows, details // rows), image + 1)
            low, high = packed[n:, 2:4].amin(0), packed[n:, 4:].amax(0)
            box = low.repeat(2) + detail.box * (high - low).repeat(2)
            # Of a patch that is partly margin, the picture's part counts.
            whole = TokenLayout.cat([whole, replace(detail, box=box.clamp(0, 1))])
        return PicturePlan(whole, unit, patch, span, 1 + len(tiling))

    def pixels(self, prepared: Prepared) -> Tensor:
        """The whole picture and its tiles, picture by picture."""
        pictures = self.image_processor(prepared.media.pictures, do_pad=False).pixel_values
        return torch.cat([torch.from_numpy(np.asarray(units)) for units in pictures])

    def specials(self, features: Features, prepared: Prepared) -> Tensor:
        """[K, d] as many newline tokens as there are places."""
        n = sum(int((~span).sum()) for span in prepared.spans)
        return self.model.model.image_newline.expand(n, -1)
