"""Attention heat map: what the token that produces a word looks at, layer by layer."""

from collections.abc import Iterable
from functools import lru_cache
from math import ceil

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from libra.errors import InputError
from libra.trace import Trace
from viz.canvas import PATCH, Canvas, blend
from viz.colour import CARD, INK, rgb
from viz.marks import draw_borders, font, percent, to_image

COLOURMAP = "magma"
WITHIN = 0.99  # of a row lies within its own scale: attention sinks would leave the rest black


def heat_map(
    trace: Trace,
    layer: int,
    word: int = 0,
    image: int = 0,
    vmax: float | None = None,
    *,
    head: int | None = None,
    legend: bool = True,
    patch: int = PATCH,
) -> Image.Image:
    """Attention of one decoder layer over the greyscale picture.

    A token is drawn at the patch whose place it takes; patches without a token at this layer are
    faded. The compensation token stands for no place: the legend states its attention.

    Args:
        trace: the answer.
        layer: decoder layer, from 0.
        word: the generated token whose row it is; 0 is the importance the methods rank by.
        image: index into `trace.images`.
        vmax: attention at the top of the colour scale, by default `heat_scale` of this row. Maps
            that are compared need one value for all.
        head: one head of the layer instead of their mean; kept by full tracing, for word 0.
        legend: add the colour scale.
        patch: pixels per patch.
    """
    row = attention_row(trace, layer, word, head)
    vmax = heat_scale([row]) if vmax is None else vmax
    lineage = trace.lineage(stage_at(trace, layer))
    own = np.arange(len(row)) != (-1 if lineage.compensation is None else lineage.compensation)
    value = np.full(len(trace.layout), np.nan, np.float32)
    value[lineage.slot.numpy()[own]] = row[own]
    picture = to_image(paint_heat(Canvas.of(trace, image, patch), value, vmax))
    if not legend:
        return picture
    text = f"visual tokens take {percent(row.sum())} of the attention"
    if not own.all():
        text += f", compensation {percent(row[~own].sum())}"
    return with_scale(picture, vmax, bool(row[own].max(initial=0) > vmax), text)


def paint_heat(canvas: Canvas, value: np.ndarray, vmax: float) -> np.ndarray:
    """Values per token [N] in colours from 0 to `vmax` over the grey picture; NaN fades a patch."""
    level = np.nan_to_num(value / vmax).clip(0, 1) * 255
    heat = blend(canvas.grey, canvas.spread(heat_colours()[level.astype(np.uint8)]), 0.78)
    faded = blend(canvas.grey, rgb(CARD), 0.72)
    there = canvas.spread((~np.isnan(value)).astype(np.int8), outside=-1)
    return draw_borders(np.where((there == 1)[..., None], heat, faded), there)


def attention_row(trace: Trace, layer: int, word: int = 0, head: int | None = None) -> np.ndarray:
    """The attention [n_l] behind generated token `word` over the visual tokens of a layer.

    It is the mean over heads, or that of one `head`, which is kept for word 0 alone.
    """
    if not trace.importance:
        raise InputError("This trace has no attention rows: it was made without tracing.")
    rows = trace.attention or [trace.importance]
    if not 0 <= word < len(rows):
        raise InputError(f"Word {word} does not exist: the answer has {len(rows)}.")
    if not 0 <= layer < len(rows[word]):
        raise InputError(f"Layer {layer} has no attention: choose 0 to {len(rows[word]) - 1}.")
    if head is None:
        return rows[word][layer].numpy()
    if trace.detail is None or word:
        raise InputError("Heads are kept by full tracing, and for the first word alone.")
    heads = trace.detail.heads[layer]
    if not 0 <= head < len(heads):
        raise InputError(f"Head {head} does not exist: choose 0 to {len(heads) - 1}.")
    return heads[head].numpy()


def heat_scale(rows: Iterable[np.ndarray]) -> float:
    """A common top of the colour scale: all rows have 99 % of their tokens within it."""
    tops = (float(np.quantile(row, WITHIN)) for row in rows if len(row))
    return max(tops, default=0.0) or 1.0


def stage_at(trace: Trace, layer: int) -> int:
    """The stage whose tokens a decoder layer processes."""
    return sum(event.site != "decoder" or event.layer < layer for event in trace.events)


@lru_cache
def heat_colours() -> np.ndarray:
    """The colour map as float32 [256, 3]."""
    return matplotlib.colormaps[COLOURMAP](np.arange(256))[:, :3].astype(np.float32) * 255


def with_scale(picture: Image.Image, vmax: float, clipped: bool, text: str) -> Image.Image:
    """The picture above its colour scale, from 0 to `vmax` as a share of all attention."""
    bar, line = min(220, picture.width // 3), 26
    scale = f"{'≥ ' * clipped}{percent(vmax)} of the attention, per token"
    width = max(bar + 30 + font().getlength(scale), font().getlength(text) + 4)
    size = max(picture.width, ceil(width)), picture.height + 2 * line + 14
    card = Image.new("RGB", size, CARD)
    card.paste(picture)
    top = picture.height + 10
    gradient = np.repeat(heat_colours()[None, np.linspace(0, 255, bar).astype(int)], 20, axis=0)
    draw = ImageDraw.Draw(card)
    draw.text((0, top + 10), "0", INK, font(), anchor="lm")
    card.paste(to_image(gradient), (18, top))
    draw.text((bar + 26, top + 10), scale, INK, font(), anchor="lm")
    draw.text((0, top + 10 + line), text, INK, font(), anchor="lm")
    return card
