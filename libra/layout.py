"""TokenLayout: the image region behind each visual token."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import BoolTensor, LongTensor, Tensor


@dataclass(frozen=True, eq=False)
class TokenLayout:
    """Picture, frame, grid cell and box of each of N visual tokens, in the order of the prompt."""

    image: LongTensor  # [N] index of the picture
    frame: LongTensor  # [N] video frame; 0 for still images
    row: LongTensor  # [N] -1 = a token without a patch (newline)
    column: LongTensor  # [N]
    box: Tensor  # [N, 4] x0, y0, x1, y1 as fractions of the upright picture

    @classmethod
    def square_crop(
        cls, width: int, height: int, grid: tuple[int, int], image: int = 0
    ) -> "TokenLayout":
        """A `grid` (rows, columns) over the centred square of a `width` x `height` picture.

        This is what CLIP's processor shows the encoder: the shorter edge is scaled to the input
        size and the middle of the longer edge is cut out, so the boxes leave both ends uncovered.
        """
        rows, columns = grid
        side = torch.tensor([min(width, height) / width, min(width, height) / height])
        row = torch.arange(rows).repeat_interleave(columns)
        column = torch.arange(columns).repeat(rows)
        cell = torch.stack([column, row, column + 1, row + 1], dim=1)
        share = cell / torch.tensor([columns, rows, columns, rows])
        return cls(
            image=torch.full_like(row, image),
            frame=torch.zeros_like(row),
            row=row,
            column=column,
            box=((1 - side) / 2).repeat(2) + share * side.repeat(2),
        )

    @classmethod
    def cat(cls, layouts: Sequence["TokenLayout"]) -> "TokenLayout":
        """The layouts one after the other, as in a prompt with several pictures."""
        return cls(*(torch.cat([getattr(x, f.name) for x in layouts]) for f in fields(cls)))

    def __len__(self) -> int:
        return len(self.image)

    def of_picture(self, image: int) -> BoolTensor:
        """[N] which of the tokens are a patch of one picture."""
        return (self.image == image) & (self.row >= 0)

    def grid(self, image: int = 0, frame: int | None = None) -> tuple[int, int]:
        """(rows, columns) of the patch grid of one picture or frame; (0, 0) where there is none."""
        here = self.of_picture(image)
        if frame is not None:
            here &= self.frame == frame
        if not here.any():
            return 0, 0
        return int(self.row[here].max()) + 1, int(self.column[here].max()) + 1

    def select(self, indices: LongTensor) -> "TokenLayout":
        """The layout of some of the tokens, for example of the slots of a reduction."""
        return TokenLayout(*(getattr(self, f.name)[indices] for f in fields(self)))
