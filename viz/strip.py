"""Token strip: the sequence of visual tokens, equally long at every stage so that places stay."""

import numpy as np
from PIL import Image

from libra.reduction import Fate
from libra.trace import Trace
from viz.canvas import Canvas
from viz.colour import CARD, GREY, rgb
from viz.fates import LOOKS, sample
from viz.marks import SWATCH, to_image
from viz.panel import captions, grid

LENGTH, HEIGHT, GAP = 1152, 44, 8  # pixels; longer where there are more tokens than pixels
CLEAR = f"{CARD}00"  # shows what is below it; white where nothing can
LEVELS = {Fate.KEPT: 1.0, Fate.MERGED: 0.55, Fate.COMPENSATED: 0.3, Fate.DROPPED: 0.12}


def token_strip(trace: Trace, stage: int) -> Image.Image:
    """The patches of all pictures in raster order at one stage, a bar each.

    The height tells the fate: full = kept (in the mean colour of its patch), half = merged, low =
    summed up in an extra token, a stub = dropped. The square at the end is for such tokens.
    Between and behind the pictures there is nothing: a page shows through.
    """
    lineage = trace.lineage(stage)
    fate = lineage.fate().numpy()
    colour = np.stack([rgb(LOOKS[f].tint) for f in sorted(Fate)])[fate]
    kept = fate == Fate.KEPT
    colour[kept] = patch_colours(trace)[kept]
    level = np.array([LEVELS[f] for f in sorted(Fate)])[fate]

    token = _columns(trace.layout.image.numpy())
    above = np.round(HEIGHT * (1 - level))[token]
    bar = (token >= 0) & (np.arange(HEIGHT)[:, None] >= above)
    ground = np.where((token >= 0)[:, None], rgb(GREY), rgb(CARD))  # pale patches show on it
    strip = to_image(np.where(bar[..., None], colour[token], ground)).convert("RGBA")
    strip.putalpha(to_image(np.broadcast_to(255.0 * (token >= 0), bar.shape)))
    # Where any stage has one there is room in all, so that bars keep their places.
    room = GAP + SWATCH if trace.sums_up else 0
    card = Image.new("RGBA", (strip.width + room, HEIGHT), CLEAR)
    card.paste(strip)
    if lineage.extras:
        card.paste(sample(Fate.COMPENSATED), (strip.width + GAP, HEIGHT - SWATCH))
    return card


def strips(trace: Trace) -> Image.Image:
    """The token strips of all stages, one below the other."""
    rows = [[token_strip(trace, stage)] for stage in range(len(trace.stages))]
    return grid(rows, [[caption] for caption in captions(trace)])


def _columns(image: np.ndarray) -> np.ndarray:
    """The token behind each pixel column; -1 in the gaps between pictures."""
    width = max(1, LENGTH // max(1, len(image)))
    column = np.arange(len(image)).repeat(width)
    ends = (np.flatnonzero(np.diff(image)) + 1) * width
    return np.insert(column, ends.repeat(GAP), -1)


def patch_colours(trace: Trace) -> np.ndarray:
    """The mean colour of each token's patch, float [N, 3]; grey for tokens without one."""
    colours = np.tile(rgb(GREY), (len(trace.layout), 1))
    for image in range(len(trace.images)):
        canvas = Canvas.of(trace, image, patch=6)
        colours[canvas.tokens] = canvas.token_colours()[0][canvas.tokens]
    return colours
