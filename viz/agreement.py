"""Agreement map: which patches two methods keep, alone or both, and their overlap as IoU."""

import numpy as np
from PIL import Image

from libra.errors import InputError
from libra.reduction import Fate
from libra.trace import Trace
from viz.canvas import PATCH, Canvas, blend
from viz.colour import BLUE, CARD, ORANGE, rgb
from viz.marks import SWATCH, draw_frames, hatch, to_image, with_legend


def agreement_map(
    traces: dict[str, Trace],
    stages: tuple[int, int] | None = None,
    image: int = 0,
    *,
    legend: bool = True,
    patch: int = PATCH,
) -> Image.Image:
    """The kept patches of two traces of the same picture.

    Blue, hatched "/" = kept by the first alone; orange, hatched "\\" = by the second alone;
    outlined pixels = by both; faded = by neither.

    Args:
        traces: two traces under the names that the legend shows.
        stages: a stage of each; default: their last.
        image: index into the pictures of both.
        legend: add counts and the IoU (patches kept by both over patches kept by either), beside
            what blind choice would give and what is possible.
        patch: pixels per patch.

    Raises:
        InputError: not two traces, or not of the same picture.
    """
    if len(traces) != 2:
        raise InputError(f"An agreement map takes two traces, not {len(traces)}.")
    (name_a, a), (name_b, b) = traces.items()
    _same_picture(a, b, image)
    stages = stages or (len(a.events), len(b.events))
    kept_a, kept_b = (
        (trace.lineage(stage).fate() == Fate.KEPT).numpy()
        for trace, stage in zip((a, b), stages, strict=True)
    )
    canvas = Canvas.of(a, image, patch)
    picture = to_image(_paint(canvas, kept_a, kept_b))
    if not legend:
        return picture
    here = np.zeros(canvas.n, bool)
    here[canvas.tokens] = True
    only_a, only_b = (here & kept_a & ~kept_b).sum(), (here & kept_b & ~kept_a).sum()
    both = (here & kept_a & kept_b).sum()
    iou = both / max(1, only_a + only_b + both)
    chance, most = blind_agreement(both + only_a, both + only_b, here.sum())
    entries = [
        (_sample(True, False), f"only {name_a} {only_a}"),
        (_sample(False, True), f"only {name_b} {only_b}"),
        (_sample(True, True), f"both {both}"),
        (None, f"IoU {iou:.2f} (by chance {chance:.2f}, at most {most:.2f})"),
    ]
    return with_legend(picture, entries)


def blind_agreement(a: int, b: int, n: int) -> tuple[float, float]:
    """The IoU of two sets of `a` and `b` out of `n` patches: chosen blindly, and at most.

    Blind choice is taken at the mean of what the sets share, `a * b / n`.
    """
    shared = a * b / max(1, n)
    return float(shared / max(1, a + b - shared)), float(min(a, b) / max(1, a, b))


def _paint(canvas: Canvas, kept_a: np.ndarray, kept_b: np.ndarray) -> np.ndarray:
    """The pixels of the canvas under the agreement of two bool [N]."""
    a, b = canvas.spread(kept_a, outside=False), canvas.spread(kept_b, outside=False)
    neither = (canvas.token < canvas.n) & ~a & ~b
    pixels = blend(canvas.pixels, rgb(CARD), neither * np.float32(0.7))
    for alone, colour, kind in ((a & ~b, BLUE, "/"), (b & ~a, ORANGE, "\\")):
        pixels = blend(pixels, rgb(colour), alone * np.float32(0.65))
        pixels = blend(pixels, rgb(CARD), hatch(alone.shape, kind) * alone * np.float32(0.6))
    return draw_frames(pixels, canvas.token, a & b, canvas.patch)


def _sample(a: bool, b: bool) -> Image.Image:
    """A patch of mid grey with this agreement."""
    return to_image(_paint(Canvas.swatch(SWATCH), np.array([a]), np.array([b])))


def _same_picture(a: Trace, b: Trace, image: int) -> None:
    """Raise InputError unless both traces show the same tokens of the same picture."""
    pixels = [t.images[image] if 0 <= image < len(t.images) else None for t in (a, b)]
    if any(p is None for p in pixels):
        raise InputError(f"Picture {image} is not in both traces.")
    if len(a.layout) != len(b.layout) or not np.array_equal(*pixels):
        raise InputError("The two traces show different pictures or patches: ask both of one.")
