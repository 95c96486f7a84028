"""Interval strip (Libra-Merging Fig. 1 and 2): one event, token by token, in a cut of the sequence.

The sequence runs in lines as wide as the patch grid, so that an interval which wraps into the next
row of patches is seen to do so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle
from PIL import Image

from libra import methods
from libra.errors import InputError
from libra.reduction import Fate, Reduction
from libra.trace import Trace
from viz.colour import BLUE, CARD, GREY, INK, ORANGE, SERIES, VERMILION
from viz.style import SMALL, chart

LINES = 3  # of tokens in a cut
THUMB = 28  # pixels of a token's patch
PITCH = 3.2  # from line to line, in widths of a token
ARCS = tuple(colour for colour in SERIES if colour != VERMILION)
_STYLE = {
    Fate.KEPT: {"facecolor": "none", "edgecolor": VERMILION, "linewidth": 2.4},
    Fate.COMPENSATED: {"facecolor": "#C9CED4D0", "edgecolor": GREY, "hatch": "////"},
    Fate.DROPPED: {"facecolor": "#1F2328C0", "edgecolor": "#8B949E", "hatch": "\\\\\\\\"},
}


@dataclass(frozen=True)
class _Cut:
    """The input tokens `first` to `last - 1` of an event, in lines of `width`."""

    reduction: Reduction
    first: int
    last: int
    width: int

    def __contains__(self, token: int) -> bool:
        return self.first <= token < self.last

    def lines(self) -> Iterator[tuple[float, range]]:
        """The lower edge and the tokens of each line."""
        for i, start in enumerate(range(self.first, self.last, self.width)):
            yield -PITCH * i, range(start, min(start + self.width, self.last))

    def place(self, token: int) -> tuple[int, float]:
        """Left and lower edge of a token."""
        line, column = divmod(token - self.first, self.width)
        return column, -PITCH * line

    def fact(self, name: str) -> np.ndarray:
        """Evidence on the tokens, [n_in]."""
        return self.reduction.evidence[name].numpy()


def interval_strip(trace: Trace, event: int = 0, line: int | None = None) -> Figure:
    """How one event of Libra-Merging treats three lines of the token sequence.

    Bars are the importance of the tokens below them, brackets the intervals, frames their winners.
    Arcs lead from a similar token (positive set) to its target; a dot stands for a target outside
    the cut. Hatched tokens (negative set) go into the compensation token.

    Args:
        trace: the answer.
        event: index into `trace.events`.
        line: the first line to show; default: such that the most important token is in the middle.

    Raises:
        InputError: the event has no intervals.
    """
    if not 0 <= event < len(trace.events):
        raise InputError(f"Event {event} does not exist: the trace has {len(trace.events)}.")
    reduction = trace.events[event].reduction
    if "interval" not in reduction.evidence:
        raise InputError(
            f"{methods.title(trace.method)} cut no intervals here: this figure needs Libra-Merging."
        )
    cut = _cut(trace, reduction, line)
    figure, (ax,) = chart(10, 5.1)
    ax.set_axis_off()
    ax.set_aspect("equal", anchor="NW")
    ax.set_xlim(-0.2, cut.width + 0.2)
    ax.set_ylim(-PITCH * (LINES - 1) - 1.6, 2.2)
    _draw_tokens(ax, cut, trace, trace.lineage(event).slot.tolist())
    _draw_brackets(ax, cut)
    _draw_fates(ax, cut)
    _draw_arcs(ax, cut)
    _draw_key(ax, cut)
    title = f"{trace.events[event].name}: tokens {cut.first} to {cut.last - 1} of {reduction.n_in}"
    ax.set_title(title, fontsize=SMALL + 1, color=INK, loc="left", fontweight="bold")
    return figure


def _cut(trace: Trace, reduction: Reduction, line: int | None) -> _Cut:
    """The lines to show, out of the tokens that lie in intervals."""
    body = reduction.evidence["interval"].ge(0).nonzero().flatten().tolist()
    start, end = body[0], body[-1] + 1
    width = max(1, trace.layout.grid()[1])
    if line is None:
        best = int(reduction.evidence["importance"][start:end].argmax())
        line = best // width - LINES // 2
    n_lines = -(-len(body) // width)
    first = start + width * max(0, min(line, n_lines - LINES))
    return _Cut(reduction, first, min(end, first + LINES * width), width)


def _draw_tokens(ax: Axes, cut: _Cut, trace: Trace, original: list[int]) -> None:
    """The patch of each token, and above it a bar for its importance."""
    pictures = [Image.fromarray(pixels) for pixels in trace.images]
    importance = cut.fact("importance")
    highest = importance[cut.first : cut.last].max() or 1
    for y, tokens in cut.lines():
        thumbs = Image.new("RGB", (THUMB * len(tokens), THUMB), CARD)
        for i, token in enumerate(tokens):
            patch = original[token]
            picture = pictures[trace.layout.image[patch]]
            x0, y0, x1, y1 = trace.layout.box[patch].clamp(0, 1).tolist()
            w, h = picture.size
            thumb = picture.resize((THUMB - 2, THUMB), box=(x0 * w, y0 * h, x1 * w, y1 * h))
            thumbs.paste(thumb, (i * THUMB, 0))
        ax.imshow(thumbs, extent=(0, len(tokens), y, y + 1))
        height = 0.9 * importance[tokens.start : tokens.stop] / highest
        ax.bar(np.arange(len(tokens)) + 0.5, height, 0.6, y + 1.12, color=ORANGE, zorder=2)


def _draw_brackets(ax: Axes, cut: _Cut) -> None:
    """A bracket below each interval, open where the interval goes on in another line."""
    changes = np.diff(cut.fact("interval"), prepend=-1, append=-1) != 0
    segments = []
    for y, tokens in cut.lines():
        ends = changes[tokens.start : tokens.stop + 1]  # ends[i]: one begins left of token i
        cuts = sorted({0, len(tokens), *np.flatnonzero(ends).tolist()})
        for a, b in pairwise(cuts):
            line = [(a + 0.1 * ends[a], y - 0.22), (b - 0.1 * ends[b], y - 0.22)]
            hooks = [
                [(x, y - 0.08), (x, low)]
                for (x, low), end in zip(line, (a, b), strict=True)
                if ends[end]
            ]
            segments += [line, *hooks]
    ax.add_collection(LineCollection(segments, colors=INK, linewidths=1.2))


def _draw_fates(ax: Axes, cut: _Cut) -> None:
    """Frames for the winners, hatches for what is compensated or dropped."""
    fate = cut.reduction.fate()[cut.first : cut.last].numpy()
    for f in (Fate.COMPENSATED, Fate.DROPPED, Fate.KEPT):
        places = [cut.place(cut.first + i) for i in np.flatnonzero(fate == f).tolist()]
        squares = [Rectangle(place, 1, 1) for place in places]
        ax.add_collection(PatchCollection(squares, zorder=3, **_STYLE[f]))


def _draw_arcs(ax: Axes, cut: _Cut) -> None:
    """From each merged token to its target; a dot where the target is outside the cut."""
    if "best_target" not in cut.reduction.evidence:  # nothing is merged by similarity
        return
    fate, best = cut.reduction.fate().tolist(), cut.fact("best_target").tolist()
    outside = []
    for token in range(cut.first, cut.last):
        if fate[token] != Fate.MERGED:
            continue
        x, y = cut.place(token)
        if best[token] not in cut:
            outside.append((x + 0.5, y - 0.45))
            continue
        target_x, target_y = cut.place(best[token])
        if y == target_y:  # below the line
            ends = (x + 0.5, y - 0.24), (target_x + 0.5, y - 0.24)
            distance = target_x - x
            bend = np.sign(distance) * min(0.45, 1.8 / abs(distance))
        else:  # from one line to another, between the bars
            down = target_y < y
            ends = (x + 0.5, y - 0.24 if down else y + 1), (target_x + 0.5, target_y + down)
            bend = 0.12
        ax.add_patch(
            FancyArrowPatch(
                *ends,
                arrowstyle="-|>",
                mutation_scale=8,
                connectionstyle=f"arc3,rad={bend}",
                shrinkA=0,
                shrinkB=0,
                color=ARCS[best[token] % len(ARCS)],
                linewidth=1.3,
                zorder=4,
            )
        )
    if outside:
        ax.plot(*zip(*outside, strict=True), "o", color=BLUE, markersize=4, zorder=4)


def _draw_key(ax: Axes, cut: _Cut) -> None:
    """What the marks mean, with the counts of the whole event, at the left above the tokens."""
    number = cut.reduction.fate().bincount(minlength=len(Fate)).tolist()
    keys = {
        "importance": Patch(color=ORANGE),
        "interval": Line2D([], [], color=INK, linewidth=1.2),
        f"target: {number[Fate.KEPT]}": Patch(**_STYLE[Fate.KEPT]),
        f"merged: {number[Fate.MERGED]}": Line2D([], [], color=ARCS[0], marker=">", markersize=5),
        "… into a target outside the cut": Line2D([], [], color=BLUE, marker="o", linestyle=""),
        f"summed up: {number[Fate.COMPENSATED]}": Patch(**_STYLE[Fate.COMPENSATED]),
        f"dropped: {number[Fate.DROPPED]}": Patch(**_STYLE[Fate.DROPPED]),
    }
    words = {"handles": keys.values(), "labels": keys.keys(), "fontsize": SMALL, "labelcolor": INK}
    ax.figure.legend(loc="outside upper left", ncols=2, frameon=False, **words)
