"""The drawing surface of every picture overlay: a photo and the visual token behind each pixel.

Overlays are array operations: a value per token is spread to pixels by one `take`, whatever the
number of tokens or groups. Geometry comes from the boxes of the layout alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from libra.errors import InputError
from libra.trace import Trace
from viz.colour import CARD, LUMA, rgb

PATCH = 28  # pixels of a patch's side; larger in coarse grids, smaller in fine ones
SHORTEST, LONGEST = 24, 36  # bounds of the picture's longest side, as multiples of that
CONTEXT = 0.5  # how much of what the model did not see is drawn, as a share of what it saw
UNSEEN = 0.75  # how far what the model did not see fades to white, without colour


@dataclass(frozen=True)
class Canvas:
    """One picture at drawing size.

    Attributes:
        pixels: float32 [H, W, 3] in 0..255; what the model did not see is faded.
        token: int32 [H, W], the visual token behind each pixel; N where the model saw nothing.
            Where boxes overlap (a tile over the whole-picture view) the later token shows.
        tokens: int [n], the visual tokens that have a patch in this picture.
        n: N, the number of visual tokens of the trace.
        patch: pixels of a patch's side.
    """

    pixels: np.ndarray
    token: np.ndarray
    tokens: np.ndarray
    n: int
    patch: int

    @classmethod
    def of(cls, trace: Trace, image: int = 0, patch: int = PATCH) -> Canvas:
        """The picture `image` of the trace, its patches about `patch` whole pixels wide."""
        if not 0 <= image < len(trace.images):
            raise InputError(f"Picture {image} does not exist: the trace has {len(trace.images)}.")
        trace = framed(trace)
        layout = trace.layout
        tokens = np.flatnonzero(layout.of_picture(image).numpy())
        boxes = layout.box.numpy()[tokens].astype(np.float64)
        picture = Image.fromarray(trace.images[image])
        width, height, side = _drawing_size(boxes, *picture.size, patch)
        # The nudge keeps the shared edge of two patches on one pixel in spite of rounding errors.
        edges = np.floor(boxes * [width, height, width, height] + 0.501).astype(np.int64)
        token = _raster(tokens.tobytes(), edges.tobytes(), len(layout), height, width)
        scaled = picture.resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.array(scaled, np.float32)
        unseen = token == len(layout)
        pixels[unseen] = blend(pixels[unseen] @ LUMA[:, None], rgb(CARD), UNSEEN)
        return cls(pixels, token, tokens, len(layout), side)

    @classmethod
    def swatch(cls, side: int) -> Canvas:
        """One token over a square of mid grey: the sample of a look in a legend."""
        pixels = np.full((side, side, 3), 150, np.float32)
        return cls(pixels, np.zeros((side, side), np.int32), np.array([0]), 1, side)

    @property
    def grey(self) -> np.ndarray:
        """The pixels without colour, float32 [H, W, 3]."""
        return np.repeat((self.pixels @ LUMA)[..., None], 3, axis=2)

    def spread(self, values: np.ndarray, outside: float = 0) -> np.ndarray:
        """A value per token [N, ...] as a value per pixel [H, W, ...]; `outside` where unseen."""
        table = np.concatenate([values, np.full_like(values[:1], outside)])
        return table.take(self.token, axis=0)

    def token_colours(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean colour [N, 3] of each token's pixels and their number [N]; zeros if not in view."""
        token = self.token.ravel()
        area = np.bincount(token, minlength=self.n + 1)[: self.n]
        channels = self.pixels.reshape(-1, 3).T
        sums = np.stack([np.bincount(token, c, self.n + 1)[: self.n] for c in channels], axis=1)
        return sums / np.maximum(area, 1)[:, None], area

    def touching(self) -> np.ndarray:
        """The pairs of tokens with a common edge in this picture, int [E, 2]."""
        token = self.token
        right = np.stack([token[:, :-1], token[:, 1:]], axis=-1)
        below = np.stack([token[:-1], token[1:]], axis=-1)
        pairs = np.concatenate([p[p[..., 0] != p[..., 1]] for p in (right, below)])
        pairs = pairs[(pairs < self.n).all(1)].astype(np.int64)
        codes = np.unique(pairs.min(1) * self.n + pairs.max(1))
        return np.stack(np.divmod(codes, self.n), axis=1)


def framed(trace: Trace) -> Trace:
    """The trace with its pictures cut to what the model saw and a little around it.

    Of a panorama that a model saw the middle of, the patches would be too small to look at.
    """
    layout, boxes, images = trace.layout, trace.layout.box.double(), list(trace.images)
    for i, pixels in enumerate(images):
        here = layout.image == i
        seen = boxes[layout.of_picture(i)]
        if not len(seen):
            continue
        size = torch.tensor(pixels.shape[1::-1])
        low, high = seen[:, :2].amin(0) * size, seen[:, 2:].amax(0) * size
        context = CONTEXT * (high - low).min()
        corner = (low - context).round().long().clamp_min(0).minimum(size - 1)
        end = (high + context).round().long().minimum(size).maximum(corner + 1)
        (left, top), (right, bottom) = corner.tolist(), end.tolist()
        images[i] = pixels[top:bottom, left:right]
        shown = end - corner
        if (shown < size).any():
            boxes[here] = (boxes[here] * size.repeat(2) - corner.repeat(2)) / shown.repeat(2)
    return replace(trace, images=images, layout=replace(layout, box=boxes))


def blend(pixels: np.ndarray, colour: np.ndarray, alpha: np.ndarray | float) -> np.ndarray:
    """Mix `colour` ([3] or [H, W, 3]) into `pixels` [H, W, 3] with `alpha` ([H, W] or a number)."""
    alpha = np.asarray(alpha, np.float32)
    return pixels + (colour - pixels) * (alpha[..., None] if alpha.ndim else alpha)


def _drawing_size(boxes: np.ndarray, width: int, height: int, patch: int) -> tuple[int, int, int]:
    """Width, height and patch side in whole pixels; the side is `patch` where that fits."""
    low, high = (bound * patch / max(width, height) for bound in (SHORTEST, LONGEST))
    if not len(boxes):
        return max(1, round(width * low)), max(1, round(height * low)), patch
    side = np.median(boxes[:, 2] - boxes[:, 0]) * width  # in pixels of the picture
    drawn = max(1, min(max(patch, int(side * low)), int(side * high)))
    scale = min(drawn / side, 2 * high)  # twice: for an endless panorama of very small patches
    return max(1, round(width * scale)), max(1, round(height * scale)), drawn


@lru_cache(maxsize=8)
def _raster(tokens: bytes, edges: bytes, n: int, height: int, width: int) -> np.ndarray:
    """The token behind each pixel. A slice per box costs a millisecond, and that once."""
    token = np.full((height, width), n, np.int32)
    corners = np.frombuffer(edges, np.int64).reshape(-1, 4).clip(0)
    for i, (x0, y0, x1, y1) in zip(np.frombuffer(tokens, np.int64), corners, strict=True):
        token[y0:y1, x0:x1] = i
    token.flags.writeable = False  # shared by every figure of this layout
    return token
