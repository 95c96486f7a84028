"""Merging step by step (iLLaVA Fig. 3a): the picture and one mask per event."""

import numpy as np
from PIL import Image

from libra.reduction import Fate, Reduction
from libra.trace import Trace
from viz.canvas import Canvas, blend
from viz.colour import GREY, rgb
from viz.marks import SWATCH, draw_frames, hatch, to_image, with_legend
from viz.panel import OF_ALL, PATCH, captions, named, wrapped

KEPT, LOST = "#67001F", "#1A1A1A"  # the paper's, never rescaled
COLUMNS = 4
# Looks by whether a patch is kept, and whether it collects others.
NAMES = {(True, False): "kept", (True, True): "kept, collects others", (False, False): "not kept"}


def merging_masks(trace: Trace, image: int = 0) -> Image.Image:
    """After each event: kept patches red, the others near black and hatched.

    The framed patches are the slots that collect merged tokens. The legend has what there is.
    """
    canvas = Canvas.of(trace, image, PATCH)
    pictures, there = [to_image(canvas.pixels)], set()
    for stage in range(1, len(trace.stages)):
        lineage = trace.lineage(stage)
        kept, collects = (lineage.fate() == Fate.KEPT).numpy(), collectors(lineage)
        pictures.append(to_image(_paint(canvas, kept, collects)))
        looks = zip(kept[canvas.tokens].tolist(), collects[canvas.tokens].tolist(), strict=True)
        there |= set(looks)
    panel = wrapped(pictures, captions(trace, image), COLUMNS)
    marks = [(_sample(*look), name) for look, name in NAMES.items() if look in there]
    return named(with_legend(panel, marks), trace, image, OF_ALL)


def collectors(lineage: Reduction) -> np.ndarray:
    """Bool [N]: the tokens in whose place a token stands that holds several others."""
    fed = (lineage.target.bincount(minlength=lineage.n_out) > 1) & ~lineage.is_extra
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
