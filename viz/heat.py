"""Attention heat map: what the token that produces a word looks at, layer by layer."""

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from libra.errors import InputError
from libra.reduction import Fate, Reduction
from libra.trace import Trace
from viz.canvas import PATCH, Canvas, blend
from viz.colour import CARD, INK, rgb
from viz.marks import (
    SWATCH,
    borders,
    draw_lines,
    font,
    hatch,
    percent,
    to_image,
    with_legend,
)

COLOURMAP = "magma"
WITHIN = 0.99  # of a row lies within its own scale: attention sinks would leave the rest black
FAINT = 0.01  # of a layer's attention: with less on the picture, its heat map is but noise
ZERO, BAR = 18, 130  # px, of a legend's scale: from its zero to its colours, and those
NO_TOKEN = "no token here any more"


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

    A token's attention is painted on every patch that it stands for, whole and not divided among
    them; patches of one token share a border. Those in a compensation token are hatched; only
    dropped patches, for which no token stands any more, are faded.

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
    lineage, canvas = trace.lineage(stage_at(trace, layer)), Canvas.of(trace, image, patch)
    token = standing(lineage)
    value = np.append(row, np.float32(np.nan))[token]  # of a dropped patch, -1: the last
    size = np.append(np.bincount(token[token >= 0], minlength=len(row)), 0)
    group = np.where(size[token] > 1, token, -1)
    fate = lineage.fate().numpy()
    picture = to_image(paint_heat(canvas, value, vmax, group, fate == Fate.COMPENSATED))
    if not legend:
        return picture
    marks = heat_marks(fate[canvas.tokens], extra_words(lineage, row))
    return with_scale(picture, vmax, is_clipped(row, vmax), share_words(row), marks)


def standing(lineage: Reduction) -> np.ndarray:
    """The token that stands for each patch, int [N]; -1 where none does.

    It is the one where the patch weighs most, but a token in the patch's own place comes first.
    """
    token, slot = lineage.group().numpy().copy(), lineage.slot.numpy()
    own = ~lineage.is_extra.numpy()
    token[slot[own]] = np.flatnonzero(own)
    return token


def paint_heat(
    canvas: Canvas,
    value: np.ndarray,
    vmax: float,
    group: np.ndarray | None = None,
    summed: np.ndarray | None = None,
) -> np.ndarray:
    """Values per patch [N] in colours from 0 to `vmax` over the grey picture; NaN fades a patch.

    Patches of one `group` (int [N], -1: in none) share a border, and of these, those `summed`
    (bool [N]) into a compensation token are hatched. Both or neither are given.
    """
    level = np.nan_to_num(value / vmax).clip(0, 1) * 255
    heat = blend(canvas.grey, canvas.spread(heat_colours()[level.astype(np.uint8)]), 0.78)
    faded = blend(canvas.grey, rgb(CARD), 0.72)
    there = canvas.spread((~np.isnan(value)).astype(np.int8), outside=-1)
    pixels = np.where((there == 1)[..., None], heat, faded)
    gone = borders(there)
    if group is not None:
        _draw_tokens(pixels, canvas, group, summed, ~gone)
    return draw_lines(pixels, gone)


def _draw_tokens(
    pixels: np.ndarray, canvas: Canvas, group: np.ndarray, summed: np.ndarray, where: np.ndarray
) -> None:
    """Borders of groups and a hatch over the `summed`, drawn into `pixels` where `where` holds.

    The borders are soft, and softer among small patches: the colours count, not the lines.
    """
    fine = canvas.patch < 20
    edge = borders(canvas.spread(group, outside=-1)) & where
    draw_lines(pixels, edge * np.float32(0.35 if fine else 0.6))
    lines = hatch(edge.shape, "/", period=4 if fine else 7, width=1)
    draw_lines(pixels, lines * (canvas.spread(summed, outside=False) & where & ~edge))


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


def loudest(trace: Trace, layers: Iterable[int], words: Sequence[int] = (0,)) -> int:
    """Of these layers, the one that attends most to the pictures for these words together."""
    return max(layers, key=lambda i: sum(float(attention_row(trace, i, w).sum()) for w in words))


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


def scale_words(vmax: float, clipped: bool) -> str:
    """What the end of a colour scale stands for; `clipped`: for more than that, too."""
    # A scale may end at much less than a share that is worth telling.
    end = np.format_float_positional(100 * vmax, 3, fractional=False, trim="-")
    return f"{'≥ ' * clipped}{end} % of the attention per token"


def share_words(row: np.ndarray) -> str:
    """What a row [n_l] says of all visual tokens together."""
    return f"visual tokens take {percent(row.sum())} of the attention"


def is_clipped(row: np.ndarray, vmax: float) -> bool:
    """Whether a row [n_l] has more than the end of its scale."""
    return bool(row.max(initial=0) > vmax)


def extra_words(lineage: Reduction, row: np.ndarray) -> str:
    """What a row [n_l] gives to the compensation tokens: "extra token 3 %"."""
    n, share = len(lineage.extras), row[lineage.is_extra.numpy()].sum()
    return f"{extra_tokens(n)} {percent(share)}"


def extra_tokens(n: int) -> str:
    """What to call the compensation tokens, where there are so many."""
    return f"{n} extra tokens" if n > 1 else "extra token"


def heat_marks(there: Collection[int], extra: str = "extra token") -> dict[Fate, str]:
    """The marks of a heat map beside its colours, in words, where patches of these fates are.

    `extra` is what to say of compensation tokens.
    """
    words = {Fate.COMPENSATED: extra, Fate.DROPPED: NO_TOKEN}
    return {fate: text for fate, text in words.items() if fate in there}


def _sample(fate: Fate) -> Image.Image:
    """A patch of this fate in a heat map."""
    value = np.array([np.nan if fate == Fate.DROPPED else 0.5])
    summed = np.array([fate == Fate.COMPENSATED])
    return to_image(paint_heat(Canvas.swatch(SWATCH), value, 1, np.array([-1]), summed))


def with_scale(
    picture: Image.Image,
    vmax: float,
    clipped: bool,
    text: str,
    marks: dict[Fate, str] | None = None,
) -> Image.Image:
    """The picture above a text, its colour scale, and what its marks mean.

    Args:
        picture: one heat map, or a panel of them.
        vmax: the end of the scale, as a share of all attention.
        clipped: whether the last colour stands for more than that, too.
        text: what the picture is about.
        marks: see `heat_marks`.
    """
    entries = [(None, text), (_bar(), scale_words(vmax, clipped))]
    entries += [(_sample(fate), words) for fate, words in (marks or {}).items()]
    return with_legend(picture, entries)


def _bar() -> Image.Image:
    """The colour scale behind its zero."""
    bar = Image.new("RGB", (ZERO + BAR, SWATCH), CARD)
    ImageDraw.Draw(bar).text((0, SWATCH / 2), "0", INK, font(), anchor="lm")
    row = heat_colours()[np.linspace(0, 255, BAR).astype(int)]
    bar.paste(to_image(np.repeat(row[None], 20, axis=0)), (ZERO, 2))
    return bar
