"""Attention heat maps side by side on one colour scale: through the layers, and word by word."""

from collections.abc import Sequence

from PIL import Image

from libra.trace import Trace
from viz.heat import (
    FAINT,
    attention_row,
    heat_map,
    heat_marks,
    heat_scale,
    loudest,
    stage_at,
    with_scale,
)
from viz.marks import percent
from viz.panel import PATCH, named, wrapped

MOST, COLUMNS = 12, 4


def attention_through_layers(trace: Trace, word: int = 0, image: int = 0) -> Image.Image:
    """Heat maps of up to twelve layers, evenly spread, for one generated word."""
    n = len(trace.counts)
    layers = sorted({round(i * (n - 1) / (MOST - 1)) for i in range(MOST)})
    cells = [(layer, word) for layer in layers]
    captions = [f"layer {layer}" for layer in layers]
    scale = _scale(trace, cells)
    text = f"attention behind “{_text(trace, word)}”"
    return _panel(trace, cells, captions, image, scale, text)


def attention_per_word(trace: Trace, layer: int | None = None, image: int = 0) -> Image.Image:
    """Heat maps of the first twelve generated words at one layer (default: that of `word_layer`).

    Their scale is that of all layers, so that a layer which hardly looks at the picture is dark.
    """
    layer = word_layer(trace) if layer is None else layer
    words = _first_words(trace)
    captions = [_text(trace, word) for word in words]
    scale = _scale(trace, [(i, word) for i in range(len(trace.counts)) for word in words])
    text = f"layer {layer}, on the scale of all layers"
    most = max(float(attention_row(trace, layer, word).sum()) for word in words)
    if most < FAINT:
        text = f"layer {layer} hardly looks at the picture: {percent(most)} of its attention"
    return _panel(trace, [(layer, word) for word in words], captions, image, scale, text)


def word_layer(trace: Trace) -> int:
    """The layer that looks at the picture most while the words of the panel are said."""
    return loudest(trace, range(len(trace.counts)), _first_words(trace))


def _first_words(trace: Trace) -> range:
    """The words that the panel has room for."""
    return range(min(MOST, max(1, len(trace.words))))


def _scale(trace: Trace, cells: Sequence[tuple[int, int]]) -> float:
    """The common scale of (layer, word) cells."""
    return heat_scale(attention_row(trace, *cell) for cell in cells)


def _panel(
    trace: Trace,
    cells: Sequence[tuple[int, int]],
    captions: Sequence[str],
    image: int,
    scale: float,
    text: str,
) -> Image.Image:
    """The heat maps of (layer, word) cells in rows of four above their common scale."""
    maps = [heat_map(trace, *cell, image, scale, legend=False, patch=PATCH) for cell in cells]
    card = wrapped(maps, captions, COLUMNS)
    stages = {stage_at(trace, layer) for layer, _ in cells}
    here = trace.layout.of_picture(image)
    there = {fate for s in stages for fate in trace.lineage(s).fate()[here].unique().tolist()}
    card = with_scale(card, scale, True, text, heat_marks(there))
    return named(card, trace, image)


def _text(trace: Trace, word: int) -> str:
    """A generated token as text."""
    return trace.words[word].text.strip() or "␣" if trace.words else "the answer"
