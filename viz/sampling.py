"""Sampling strategies (PruMerge Fig. 4): a method's own choice beside blind samples."""

import numpy as np
from PIL import Image

from libra import methods
from libra.reduction import Fate
from libra.trace import Trace
from viz.canvas import Canvas
from viz.marks import to_image
from viz.panel import PATCH, named, own_extras, with_extra, wrapped
from viz.selection import paint_selection

SHAPES = ((6, 6), (5, 8), (8, 5), (5, 7), (7, 5), (4, 4))  # rows and columns of the paper's grids
COLUMNS = 3


def sampling_panel(trace: Trace, stage: int | None = None, image: int = 0) -> Image.Image:
    """The patches kept at `stage` (default: the last), as many taken in sequence, and the paper's
    spatial grids, all of one picture."""
    stage = len(trace.events) if stage is None else stage
    canvas = Canvas.of(trace, image, PATCH)
    choices = samples(trace, stage, image)
    pictures = [
        to_image(canvas.pixels),
        *(to_image(paint_selection(canvas, c)) for c in choices.values()),
    ]
    return named(wrapped(pictures, ["picture", *choices], COLUMNS), trace, image)


def samples(trace: Trace, stage: int, image: int) -> dict[str, np.ndarray]:
    """Bool [N] of each choice: the method's own at a stage, as many in sequence, and grids."""
    own = np.flatnonzero(trace.layout.of_picture(image).numpy())
    lineage = trace.lineage(stage)
    kept = (lineage.fate() == Fate.KEPT).numpy()
    count = int(kept[own].sum())
    tokens = with_extra(count, own_extras(trace, lineage, image))
    chosen = {
        f"{methods.title(trace.method)}: {tokens}": np.flatnonzero(kept),
        f"first {count}": own[:count],
    }
    height, width = trace.layout.grid(image)
    for rows, columns in ((r, c) for r, c in SHAPES if r <= height and c <= width):
        chosen[f"{rows} x {columns} grid: {rows * columns}"] = spread_tokens(
            trace, image, rows, columns
        )
    return {name: np.isin(np.arange(len(kept)), tokens) for name, tokens in chosen.items()}


def spread_tokens(trace: Trace, image: int, rows: int, columns: int) -> np.ndarray:
    """The tokens at the centres of a `rows` x `columns` division of the patch grid."""
    layout = trace.layout
    height, width = layout.grid(image)
    chosen_rows = ((np.arange(rows) + 0.5) * height / rows).astype(int)
    chosen_columns = ((np.arange(columns) + 0.5) * width / columns).astype(int)
    inside = (layout.image == image).numpy()
    inside &= np.isin(layout.row.numpy(), chosen_rows)
    return np.flatnonzero(inside & np.isin(layout.column.numpy(), chosen_columns))
