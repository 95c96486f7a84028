"""Selected tokens (PruMerge Fig. 1b, 3b, 4): the patches whose place in the sequence lives on."""

import numpy as np
from PIL import Image

from libra.errors import InputError
from libra.reduction import Fate
from libra.trace import Trace
from viz.canvas import PATCH, Canvas, blend
from viz.colour import CARD, rgb
from viz.marks import SWATCH, draw_borders, draw_frames, to_image, with_legend

MODES = ("dim", "flat")


def selected(
    trace: Trace,
    stage: int,
    image: int = 0,
    mode: str = "dim",
    *,
    legend: bool = False,
    patch: int = PATCH,
) -> Image.Image:
    """The patches of one picture that are kept at `stage`.

    Args:
        trace: the answer.
        stage: index into `trace.stages`.
        image: index into `trace.images`.
        mode: "dim" fades the other patches to white; "flat", as in the paper, replaces them by
            their mean colour and outlines the kept ones.
        legend: add how many patches are kept, and how many are not.
        patch: pixels per patch.
    """
    canvas = Canvas.of(trace, image, patch)
    kept = (trace.lineage(stage).fate() == Fate.KEPT).numpy()
    picture = to_image(paint_selection(canvas, kept, mode))
    if not legend:
        return picture
    words = selection_words(kept[canvas.tokens])
    return with_legend(picture, [(_sample(there, mode), text) for there, text in words.items()])


def selection_words(kept: np.ndarray) -> dict[bool, str]:
    """How many of some patches (bool [n]) are kept and how many are not, where there are any."""
    counts = {there: int((kept == there).sum()) for there in (True, False)}
    return {there: f"{'' if there else 'not '}kept {n}" for there, n in counts.items() if n}


def paint_selection(canvas: Canvas, kept: np.ndarray, mode: str = "dim") -> np.ndarray:
    """The pixels of the canvas with the tokens `kept` (bool [N]) set off from the others."""
    shown = canvas.spread(kept, outside=False)
    lost = (canvas.token < canvas.n) & ~shown
    if mode == "dim":
        pixels = blend(canvas.pixels, rgb(CARD), lost * np.float32(0.7))
        return draw_borders(pixels, canvas.spread(kept.astype(np.int8), outside=-1))
    if mode == "flat":
        pixels = canvas.pixels.copy()
        if lost.any():
            pixels[lost] = pixels[lost].mean(0)
        return draw_frames(pixels, canvas.token, shown, canvas.patch)
    raise InputError(
        f"The mode of selected tokens must be one of {', '.join(MODES)}, not {mode!r}."
    )


def _sample(kept: bool, mode: str) -> Image.Image:
    """A patch that is kept or not."""
    return to_image(paint_selection(Canvas.swatch(SWATCH), np.array([kept]), mode))
