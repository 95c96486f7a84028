"""Fate map: which patches were kept, merged, summed up in an extra token, or dropped."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from libra.reduction import Fate
from libra.trace import Trace
from viz.canvas import PATCH, Canvas, blend
from viz.colour import GREY, INK, SKY, rgb
from viz.marks import SWATCH, draw_frames, hatch, to_image, with_legend

FINE = 8  # pixels per patch: below, outlines of all patches are a mesh


@dataclass(frozen=True)
class Look:
    """How a patch of one fate is drawn."""

    name: str
    tint: str = INK
    strength: float = 0.0  # how far the tint covers the pixels
    hatch: tuple[str, str] | None = None  # direction and colour
    outlined: bool = False


LOOKS = {
    Fate.KEPT: Look("kept", outlined=True),
    Fate.MERGED: Look("merged", SKY, 0.6),
    Fate.COMPENSATED: Look("summed up", "#C9CED4", 0.8, ("/", GREY)),
    Fate.DROPPED: Look("dropped", INK, 0.75, ("\\", "#8B949E")),
}
_PLAIN = Look("plain")
_BY_INDEX = [*(LOOKS[fate] for fate in sorted(Fate)), _PLAIN]  # the last one also answers to -1


def fate_map(
    trace: Trace, stage: int, image: int = 0, *, legend: bool = True, patch: int = PATCH
) -> Image.Image:
    """What became of each patch of one picture by `stage` (an index into `trace.stages`).

    Kept patches keep their pixels in an outline; merged ones are tinted blue; those that
    an extra token sums up are grey and hatched; dropped ones are dark and hatched the other way.
    """
    canvas = Canvas.of(trace, image, patch)
    fate = trace.lineage(stage).fate().numpy()
    untouched = patch < FINE and (fate == Fate.KEPT).all()  # nothing but outlines would be seen
    picture = to_image(paint(canvas, np.full_like(fate, -1) if untouched else fate))
    return with_legend(picture, fate_legend(fate[canvas.tokens])) if legend else picture


def paint(canvas: Canvas, fate: np.ndarray) -> np.ndarray:
    """The pixels of the canvas under the look of each token's fate, int [N]; -1 = left alone."""
    tint = np.stack([rgb(look.tint) for look in _BY_INDEX])[fate]
    strength = np.array([look.strength for look in _BY_INDEX], np.float32)[fate]
    pixels = blend(canvas.pixels, canvas.spread(tint), canvas.spread(strength))
    shown = canvas.spread(fate, outside=-1)
    for index, look in LOOKS.items():
        if look.hatch:
            kind, colour = look.hatch
            pixels = blend(pixels, rgb(colour), hatch(shown.shape, kind) * (shown == index))
        if look.outlined:
            draw_frames(pixels, canvas.token, shown == index, canvas.patch)
    return pixels


def fate_legend(fate: np.ndarray, shown: Iterable[Fate] = LOOKS) -> list[tuple[Image.Image, str]]:
    """Legend entries with the number of tokens of each of the fates `shown` that there is."""
    there = [f for f in shown if (fate == f).any()]
    return [(sample(f), f"{LOOKS[f].name} {(fate == f).sum()}") for f in there]


def sample(fate: Fate) -> Image.Image:
    """A patch of mid grey under the look of one fate."""
    return to_image(paint(Canvas.swatch(SWATCH), np.array([fate])))
