"""The legend under the large picture, as HTML: it follows the theme and the width of the page."""

from collections.abc import Collection, Iterable

import viz
from libra.reduction import Fate
from libra.trace import Trace
from page import texts
from page.readouts import percent
from page.views import deciding_layer
from viz.groups import group_roots, group_words
from viz.heat import stage_at

FATES = {
    Fate.KEPT: "kept",
    Fate.MERGED: "merged",
    Fate.COMPENSATED: "compensated",
    Fate.DROPPED: "dropped",
}
GONE = '<li><i class="swatch gone"></i>no token here any more</li>'
LOST = (Fate.COMPENSATED, Fate.DROPPED)  # in no group


def legend(trace: Trace, overlay: str, stage: int, word: int, image: int = 0) -> str:
    """What the marks of an overlay mean on one of the pictures, with their numbers."""
    if overlay in texts.HEAT:
        layer = deciding_layer(trace, stage)
        return _heat(trace, layer, word if overlay == "word" else 0, image)
    lineage, here = trace.lineage(stage), trace.layout.image == image
    fate = lineage.fate()[here]
    counts = {f: int((fate == f).sum()) for f in FATES}
    if overlay == "fate":
        return _keys((FATES[f], f"{FATES[f]} {n}") for f, n in counts.items() if n)
    gone = sum(n for f, n in counts.items() if f != Fate.KEPT)
    if overlay == "kept":
        return _keys((("kept", f"kept {counts[Fate.KEPT]}"), ("faded", f"not kept {gone}")))
    groups = group_words(group_roots(lineage)[here.numpy()], fate.numpy())
    marks = [("group", groups), *((FATES[f], f"{FATES[f]} {counts[f]}") for f in LOST if counts[f])]
    return _keys(marks)


def marks(overlay: str, there: Collection[Fate]) -> str:
    """What the marks of an overlay mean, where these fates occur."""
    if overlay == "fate":
        return _keys((name, name) for fate, name in FATES.items() if fate in there)
    if overlay == "kept":
        return _keys((("kept", "kept"), ("faded", "not kept")))
    lost = ((FATES[f], FATES[f]) for f in LOST if f in there)
    return _keys((("group", "one token per colour"), *lost))


def _keys(entries: Iterable[tuple[str, str]]) -> str:
    """A swatch and a text per entry."""
    keys = "".join(f'<li><i class="swatch {look}"></i>{text}</li>' for look, text in entries)
    return f'<ul class="legend">{keys}</ul>'


def scale(top: float, more: str = "", clipped: bool = False) -> str:
    """The colour scale of a heat map that ends at `top`, a share of all attention, or goes on."""
    text = f"{'≥ ' * clipped}{top * 100:.2g} % of the attention per token"
    return f'<ul class="legend"><li>0<i class="scale"></i>{text}</li>{more}</ul>'


def _heat(trace: Trace, layer: int, word: int, image: int) -> str:
    """The scale of one heat map and the share of attention that all pictures get."""
    row = viz.attention_row(trace, layer, word)
    share = percent(float(row.sum()))
    left, here = trace.lineage(stage_at(trace, layer)).slot, trace.layout.image == image
    gone = GONE if len(left.unique()[here[left.unique()]]) < here.sum() else ""
    return scale(viz.heat_scale([row]), f"{gone}<li>all visual tokens together: {share}</li>")
