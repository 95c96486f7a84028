"""The legend under the large picture, as HTML: it follows the theme and the width of the page."""

from collections.abc import Collection, Iterable

import numpy as np

import viz
from libra.reduction import Fate
from libra.trace import Trace
from page import texts
from page.views import deciding_layer
from viz.fates import LOOKS
from viz.groups import LOST, group_roots, group_words
from viz.heat import (
    extra_words,
    heat_marks,
    is_clipped,
    scale_words,
    share_words,
    stage_at,
)
from viz.selection import selection_words

# The classes of the swatches; what they are called is the same as in the figures.
SWATCHES = {
    Fate.KEPT: "kept",
    Fate.MERGED: "merged",
    Fate.COMPENSATED: "compensated",
    Fate.DROPPED: "dropped",
}
IN_HEAT = {Fate.COMPENSATED: "compensated", Fate.DROPPED: "gone"}


def legend(trace: Trace, overlay: str, stage: int, word: int, image: int = 0) -> str:
    """What the marks of an overlay mean on one of the pictures, with their numbers."""
    if overlay in texts.HEAT:
        layer = deciding_layer(trace, stage)
        return _heat(trace, layer, word if overlay == "word" else 0, image)
    lineage, here = trace.lineage(stage), trace.layout.of_picture(image).numpy()
    fate = lineage.fate().numpy()[here]
    counts = {f: n for f in SWATCHES if (n := int((fate == f).sum()))}
    if overlay == "fate":
        return _keys((SWATCHES[f], f"{LOOKS[f].name} {n}") for f, n in counts.items())
    if overlay == "kept":
        words = selection_words(fate == Fate.KEPT)
        return _keys(("kept" if there else "faded", text) for there, text in words.items())
    roots = group_roots(lineage)[here]
    groups = group_words(roots, fate, np.flatnonzero(here))
    coloured = "group" if (roots >= 0).any() else ""
    lost = ((SWATCHES[f], f"{LOOKS[f].name} {counts[f]}") for f in LOST if f in counts)
    return _keys([(coloured, groups), *lost])


def marks(overlay: str, there: Collection[Fate]) -> str:
    """What the marks of an overlay mean, where these fates occur."""
    if overlay == "fate":
        return _keys((look, LOOKS[f].name) for f, look in SWATCHES.items() if f in there)
    if overlay == "kept":
        return _keys((("kept", "kept"), ("faded", "not kept")))
    lost = ((SWATCHES[f], LOOKS[f].name) for f in LOST if f in there)
    return _keys((("group", "one token per group"), *lost))


def heat(there: Collection[int], extra: str = "extra token") -> str:
    """What the marks of a heat map mean, where these fates occur, as entries for `scale`."""
    return _entries((IN_HEAT[f], text) for f, text in heat_marks(there, extra).items())


def scale(top: float, more: str = "", clipped: bool = False) -> str:
    """The colour scale of a heat map that ends at `top`, a share of all attention, or goes on."""
    text = scale_words(top, clipped)
    return f'<ul class="legend"><li>0<i class="scale"></i>{text}</li>{more}</ul>'


def _heat(trace: Trace, layer: int, word: int, image: int) -> str:
    """The scale of one heat map, its marks, and the share of attention that all pictures get."""
    row, lineage = viz.attention_row(trace, layer, word), trace.lineage(stage_at(trace, layer))
    top = viz.heat_scale([row])
    fate = lineage.fate()[trace.layout.of_picture(image)].numpy()
    marks = heat(fate, extra_words(lineage, row))
    return scale(top, f"{marks}<li>{share_words(row)}</li>", is_clipped(row, top))


def _keys(entries: Iterable[tuple[str, str]]) -> str:
    """A list of keys."""
    return f'<ul class="legend">{_entries(entries)}</ul>'


def _entries(entries: Iterable[tuple[str, str]]) -> str:
    """A text per entry, and a swatch where it has a look."""
    swatches = ((f'<i class="swatch {look}"></i>' if look else "", text) for look, text in entries)
    return "".join(f"<li>{swatch}{text}</li>" for swatch, text in swatches)
