"""The way of every token through the stages, as an animated picture for slides."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from libra.errors import InputError
from libra.reduction import Fate, Reduction
from libra.trace import Trace
from viz.canvas import Canvas, blend
from viz.colour import CARD, rgb
from viz.fates import sample
from viz.marks import SWATCH, to_image

PATCH = 14  # pixels of a patch's side
FORMATS = ("gif", "webp")
STEPS = 16  # frames of one event
MOVE, REST = 70, 900  # milliseconds of a moving frame, and of a stage at rest
GONE, COMPENSATION = -1, -2  # places that are no patches


def save_animation(trace: Trace, path: str | Path, image: int = 0) -> None:
    """Write a GIF or WebP in which the tokens of one picture move from stage to stage.

    Merged tokens move into the token that takes them in, compensated ones into the hatched square
    at the lower right; dropped ones fade where they stand.

    Raises:
        InputError: another ending than gif or webp, no such picture, or nothing that moves.
    """
    path = Path(path)
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        raise InputError(f"{path.name}: animations are saved as {' or '.join(FORMATS)}.")
    if not trace.events:
        raise InputError("Without compression no token moves: there is nothing to animate.")
    frames, durations = animate(trace, image)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)


def animate(trace: Trace, image: int = 0) -> tuple[list[Image.Image], list[int]]:
    """The frames and the milliseconds that each is shown."""
    canvas = Canvas.of(trace, image, PATCH)
    places = [_places(trace.lineage(stage)) for stage in range(len(trace.stages))]
    frames, durations = [_frame(canvas, places[0], places[0], 0)], [REST]
    for before, after in pairwise(places):
        for time in np.linspace(0, 1, STEPS + 1)[1:]:
            frames.append(_frame(canvas, before, after, time * time * (3 - 2 * time)))
            durations.append(MOVE)
        frames.append(_frame(canvas, after, after, 0))
        durations.append(REST)
    return frames, durations


def _places(lineage: Reduction) -> np.ndarray:
    """The patch whose place each patch's token takes, int [N]; or where else it is."""
    place = np.append(lineage.slot.numpy(), GONE)
    place[list(lineage.extras)] = COMPENSATION
    return place[lineage.group().numpy()]  # of a dropped token, -1: the last


def _frame(canvas: Canvas, before: np.ndarray, after: np.ndarray, time: float) -> Image.Image:
    """The picture while the tokens are on their way, `time` from 0 to 1."""
    height, width = canvas.token.shape
    pixels = blend(canvas.pixels, rgb(CARD), 0.85)
    standing = canvas.tokens[before[canvas.tokens] == canvas.tokens]  # tokens, not their members
    goal = after[standing]
    corner = np.array([height - canvas.patch, width - canvas.patch])
    start = _corners(canvas)
    end = np.where((goal == COMPENSATION)[:, None], corner, start[goal])
    end[goal == GONE] = start[standing[goal == GONE]]
    moving = goal != standing
    for some, fading in ((moving, True), (~moving, False)):
        tokens = standing[some]
        place = np.round(start[tokens] + time * (end[some] - start[tokens])).astype(int)
        alpha = np.where(goal[some] == GONE, 1 - time, 1 - 0.75 * time**2)
        _paste(pixels, canvas, start[tokens], place, alpha if fading else np.ones(len(tokens)))
    picture = to_image(pixels)
    if (before == COMPENSATION).any() or ((after == COMPENSATION).any() and time > 0.5):
        picture.paste(sample(Fate.COMPENSATED), (width - SWATCH, height - SWATCH))
    return picture


def _corners(canvas: Canvas) -> np.ndarray:
    """Upper left pixel (y, x) of each token's patch, int [N, 2]."""
    height, width = canvas.token.shape
    first = np.full(canvas.n + 1, height * width)
    np.minimum.at(first, canvas.token.ravel(), np.arange(height * width))
    return np.stack(np.divmod(np.minimum(first[: canvas.n], height * width - 1), width), axis=1)


def _paste(
    pixels: np.ndarray, canvas: Canvas, start: np.ndarray, place: np.ndarray, alpha: np.ndarray
) -> None:
    """Draw the patches whose corners are `start` [n, 2] in the picture at `place`, all at once."""
    tile = np.stack(np.mgrid[: canvas.patch, : canvas.patch], axis=-1)
    last = np.array(canvas.token.shape) - 1
    source, target = (
        tuple(np.moveaxis((corner[:, None, None] + tile).clip(0, last), -1, 0))
        for corner in (start, place)
    )
    pixels[target] += (canvas.pixels[source] - pixels[target]) * alpha[:, None, None, None]
