"""Spatial sampling: tokens evenly spread over the picture."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from libra.errors import InputError
from libra.methods.base import RatioMethod, Tokens
from libra.methods.operations import interval_of
from libra.reduction import Reduction


@dataclass(frozen=True)
class Spatial(RatioMethod):
    """Keep a uniform grid of tokens: `rows` x `columns`, or as near to one as the ratio allows.

    Without `rows` and `columns`, rows lie about as far apart as columns, and may differ by one
    token, so that the count is exact. Pictures or frames of one width count as one tall picture.
    """

    name = "spatial"
    title = "Spatial sampling"
    summary = "Keeps a uniform grid of patches, whatever the picture shows."
    paper = "baseline in PruMerge, section 4.4.1 and Table 4"
    kind = "prune"
    site = "connector"
    needs = ("layout",)
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

    def reduce(self, tokens: Tokens) -> Reduction:
        """Check that the grid fits, then as ever."""
        self.require(tokens)
        height, width = full_grid(tokens)
        if self.rows is not None and (self.rows > height or self.columns > width):
            raise InputError(
                f"spatial: {self.rows} x {self.columns} does not fit into a grid of {height} x "
                f"{width} patches. Choose fewer rows or columns."
            )
        return super().reduce(tokens)

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Select evenly spaced tokens of evenly spaced rows."""
        height, width = full_grid(tokens)
        square = round(math.sqrt(n_keep * height / width))
        rows = self.rows or min(height, max(square, math.ceil(n_keep / width)))
        token = torch.arange(n_keep)
        row = interval_of(range(n_keep), n_keep, rows)
        start, end = row * n_keep // rows, (row + 1) * n_keep // rows
        y = (2 * row + 1) * height // (2 * rows)
        x = (2 * (token - start) + 1) * width // (2 * (end - start))
        return Reduction.select((y * width + x).to(tokens.hidden.device), len(tokens))


def full_grid(tokens: Tokens) -> tuple[int, int]:
    """(rows, columns) of the tokens, with all pictures and frames below each other."""
    layout, n = tokens.layout, len(tokens)
    column = layout.column - layout.column.min()  # of a tile, its own
    line = torch.stack([layout.image, layout.frame, layout.row])
    height = 1 + int((line[:, 1:] != line[:, :-1]).any(0).sum())
    width = n // height
    if not torch.equal(column.cpu(), torch.arange(width).repeat(height)):
        raise InputError(
            "spatial needs the full grid of patches, row by row: use it before any other reduction."
        )
    return height, width
