"""Merging step by step (iLLaVA Fig. 3a): the picture and one mask per event."""

import numpy as np
from PIL import Image

from libra.reduction import Fate, Reduction
from libra.trace import Trace
from viz.canvas import Canvas, blend
from viz.colour import GREY, rgb
from viz.marks import SWATCH, draw_frames, hatch, to_image, with_legend
from viz.panel import PATCH, captions, wrapped

KEPT, LOST = "#67001F", "#1A1A1A"  # the paper's, never rescaled
COLUMNS = 4


def merging_masks(trace: Trace, image: int = 0) -> Image.Image:
    """After each event: kept patches red, discarded ones near black and hatched.

    The framed patches are the slots that collect merged tokens.
    """
    canvas = Canvas.of(trace, image, PATCH)
    pictures = [to_image(canvas.pixels)]
    for stage in range(1, len(trace.stages)):
        lineage = trace.lineage(stage)
        kept = (lineage.fate() == Fate.KEPT).numpy()
        pictures.append(to_image(_paint(canvas, kept, collectors(lineage))))
    panel = wrapped(pictures, captions(trace), COLUMNS)
    looks = {"kept": (True, False), "kept, collects others": (True, True), "gone": (False, False)}
    return with_legend(panel, [(_sample(*look), name) for name, look in looks.items()])


def collectors(lineage: Reduction) -> np.ndarray:
    """Bool [N]: the tokens in whose place a token stands that holds several others."""
    fed = lineage.target.bincount(minlength=lineage.n_out) > 1
    if lineage.compensation is not None:
        fed[lineage.compensation] = False
    mask = np.zeros(lineage.n_in, bool)
    mask[lineage.slot[fed].numpy()] = True
    return mask


def _paint(canvas: Canvas, kept: np.ndarray, collects: np.ndarray) -> np.ndarray:
    """The mask of bool [N] over the canvas, the picture faintly below."""
    fill = np.where(kept[:, None], rgb(KEPT), rgb(LOST))
    seen = canvas.token < canvas.n
    pixels = blend(canvas.grey, canvas.spread(fill), seen * np.float32(0.85))
    gone = canvas.spread(~kept, outside=False)
    pixels = blend(pixels, rgb(GREY), hatch(gone.shape, "\\") * gone)
    frames = canvas.spread(collects, outside=False)
    return draw_frames(pixels, canvas.token, frames, canvas.patch)


def _sample(kept: bool, collects: bool) -> Image.Image:
    """A patch of this look."""
    return to_image(_paint(Canvas.swatch(SWATCH), np.array([kept]), np.array([collects])))
