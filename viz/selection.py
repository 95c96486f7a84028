"""Selected tokens (PruMerge Fig. 1b, 3b, 4): the patches whose place in the sequence lives on."""

import numpy as np
from PIL import Image

from libra.errors import InputError
from libra.reduction import Fate
from libra.trace import Trace
from viz.canvas import PATCH, Canvas, blend
from viz.colour import CARD, rgb
from viz.marks import draw_borders, draw_frames, to_image

MODES = ("dim", "flat")


def selected(
    trace: Trace, stage: int, image: int = 0, mode: str = "dim", *, patch: int = PATCH
) -> Image.Image:
    """The patches of one picture that are kept at `stage`.

    Args:
        trace: the answer.
        stage: index into `trace.stages`.
        image: index into `trace.images`.
        mode: "dim" fades the other patches to white; "flat", as in the paper, replaces them by
            their mean colour and outlines the kept ones.
        patch: pixels per patch.
    """
    kept = (trace.lineage(stage).fate() == Fate.KEPT).numpy()
    return to_image(paint_selection(Canvas.of(trace, image, patch), kept, mode))


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
