"""Rows for CSV files: what the tables behind the figures share."""

from __future__ import annotations

from libra.reduction import Reduction
from libra.trace import Trace

Rows = list[dict[str, object]]


def places(trace: Trace) -> Rows:
    """Number, picture, frame, row and column of every patch."""
    layout = trace.layout
    columns = (layout.image, layout.frame, layout.row, layout.column)
    found = zip(*(column.tolist() for column in columns), strict=True)
    what = ("picture", "frame", "row", "column")
    return [{"patch": p} | dict(zip(what, place, strict=True)) for p, place in enumerate(found)]


def names(lineage: Reduction) -> list[object]:
    """Tokens by the patches whose places they take."""
    found = lineage.slot.tolist()
    for extra, name in zip(lineage.extras, extra_names(len(lineage.extras)), strict=True):
        found[extra] = name
    return found


def extra_names(n: int) -> list[str]:
    """What to call tokens that stand for no patch, where there are so many."""
    return ["extra token"] if n == 1 else [f"extra token {i + 1}" for i in range(n)]


def aligned(rows: Rows) -> Rows:
    """Rows with the same columns: events may know different things."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name, "") for name in columns} for row in rows]
