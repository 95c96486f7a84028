"""Spatial sampling: tokens evenly spread over the picture."""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from libra.errors import InputError
from libra.methods.base import RatioMethod, Tokens
from libra.methods.operations import interval_of, spread
from libra.reduction import Reduction


@dataclass(frozen=True)
class Spatial(RatioMethod):
    """Keep a uniform grid of tokens: `rows` x `columns`, or as near to one as the ratio allows.

    Without `rows` and `columns`, rows lie about as far apart as columns, and may differ by one
    token, so that the count is exact. Pictures or frames of one width count as one tall picture.
    Where patches are missing, taken away or already merged, the ratio spreads over the sequence.
    """

    name = "spatial"
    title = "Spatial sampling"
    summary = "Keeps a uniform grid of patches, whatever the picture shows."
    paper = "baseline in PruMerge, section 4.4.1 and Table 4"
    kind = "prune"
    site = "connector"
    needs = ("layout",)
    instead_of_ratio = ("keep", "rows", "columns")
    presets: ClassVar[dict[str, dict]] = {
        f"{rows} x {columns} (PruMerge, Table 4)": {"rows": rows, "columns": columns}
        for rows, columns in ((6, 6), (5, 8), (8, 5), (5, 7), (7, 5), (4, 4))
    }

    rows: int | None = field(
        default=None,
        metadata={"help": "rows of the grid: with columns, instead of a ratio", "range": (1, 1000)},
    )
    columns: int | None = field(
        default=None,
        metadata={"help": "columns of the grid: with rows, instead of a ratio", "range": (1, 1000)},
    )

    def __post_init__(self):
        super().__post_init__()
        if (self.rows is None) != (self.columns is None):
            raise InputError("spatial: give both rows and columns, or neither.")

    def count(self, n: int) -> int:
        """How many of `n` tokens stay: the given grid, or what the ratio says."""
        return super().count(n) if self.rows is None else self.rows * self.columns

    def keeping(self, n: int) -> "Spatial":
        """So many tokens, whatever the grid."""
        return replace(self, keep=n, rows=None, columns=None)

    def reduce(self, tokens: Tokens) -> Reduction:
        """Check that the grid fits, then as ever."""
        self.require(tokens)
        if self.rows is not None:
            self._check_fit(full_grid(tokens))
        return super().reduce(tokens)

    def _check_fit(self, grid: tuple[int, int] | None) -> None:
        """Raise InputError unless the rows and columns fit into a grid."""
        if grid is None:
            raise InputError(
                "spatial: rows and columns need the full grid of patches, row by row: give a ratio."
            )
        height, width = grid
        if self.rows > height or self.columns > width:
            raise InputError(
                f"spatial: {self.rows} x {self.columns} does not fit into a grid of {height} x "
                f"{width} patches. Choose fewer rows or columns."
            )

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Select evenly spaced tokens of evenly spaced rows."""
        n, device, grid = len(tokens), tokens.hidden.device, full_grid(tokens)
        if grid is None:
            return Reduction.select(spread(n, n_keep, device), n)
        height, width = grid
        square = round(math.sqrt(n_keep * height / width))
        rows = self.rows or min(height, max(square, math.ceil(n_keep / width)))
        token = torch.arange(n_keep)
        row = interval_of(range(n_keep), n_keep, rows)
        start, end = row * n_keep // rows, (row + 1) * n_keep // rows
        y = (2 * row + 1) * height // (2 * rows)
        x = (2 * (token - start) + 1) * width // (2 * (end - start))
        return Reduction.select((y * width + x).to(device), n)


def full_grid(tokens: Tokens) -> tuple[int, int] | None:
    """(rows, columns) of the tokens, with all pictures and frames below each other.

    None where they are no full grid any more.
    """
    layout, n = tokens.layout, len(tokens)
    column = layout.column - layout.column.min()  # of a tile, its own
    line = torch.stack([layout.image, layout.frame, layout.row])
    height = 1 + int((line[:, 1:] != line[:, :-1]).any(0).sum())
    width = n // height
    full = torch.equal(column.cpu(), torch.arange(width).repeat(height))
    return (height, width) if full else None
