"""A sweep over ratio and layer: what it saves, by the formula and by the clock."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from libra import methods
from viz.colour import GREY, INK, SERIES
from viz.costs import measured_on
from viz.style import LINES, SMALL, chart, label

if TYPE_CHECKING:
    from libra.sweep import Row


def sweep_lines(rows: Sequence[Row]) -> Figure:
    """Two panels over the ratio, a line per layer: FLOPs and measured prefill, beside vanilla's.

    Vanilla is the dashed line at 100 %. Hollow marks: the answer is another than vanilla's. Bars
    reach from the least to the greatest share of the prefill that was measured.
    """
    figure, axes = chart(9.6, 4.2, 2, sharex=True)
    swept = [row for row in rows if row.setting.ratio]
    layers = list(dict.fromkeys(row.setting.layer for row in swept))
    for ax, name, title in (
        (axes[0], "flops_share", "FLOPs of the visual tokens (% of vanilla)"),
        (axes[1], "prefill_share", "Prefill, measured (% of vanilla)"),
    ):
        ax.axhline(100, color=GREY, linestyle="--", linewidth=1.2)
        for i, layer in enumerate(layers):
            mine = sorted(
                (row for row in swept if row.setting.layer == layer), key=lambda r: r.setting.ratio
            )
            colour = SERIES[i % len(SERIES)]
            _line(ax, mine, name, colour, LINES[i // len(SERIES) % len(LINES)])
            if name == "prefill_share":
                _spread(ax, mine, colour)
        ax.set_ylim(0, max(110, ax.get_ylim()[1]))
        label(ax, _removed(swept), title=title)
    marks = (("same answer as vanilla", "full"), ("another answer", "none"))
    for words, filling in marks:
        axes[1].plot([], [], "o", color=INK, fillstyle=filling, label=words)
    handles, labels = axes[1].get_legend_handles_labels()
    measured_on(figure, (row.measured_on for row in rows), _about(swept))
    figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False, fontsize=SMALL)
    return figure


def _removed(rows: Sequence[Row]) -> str:
    """What the ratio says: a method may remove as much at several steps, or elsewhere, too."""
    where = ""
    if any(row.steps > 1 for row in rows):
        inside = any(row.setting.layer is not None for row in rows)
        where = " after the layer" if inside else " at each step"
    return f"tokens removed{where} (%)"


def _about(rows: Sequence[Row]) -> str:
    """What was asked of which model under which method, where that is known."""
    if not rows or not rows[0].model:
        return ""
    words = methods.title(rows[0].method), rows[0].model, rows[0].question
    return shorten(" · ".join(words), 110, placeholder=" …")


def _spread(ax: Axes, rows: Sequence[Row], colour: str) -> None:
    """From the least to the greatest share that was measured of each answer."""
    known = [row for row in rows if row.prefill_low is not None]
    x, low, high = (
        [100 * value for value in values]
        for values in (
            [row.setting.ratio for row in known],
            [row.prefill_low for row in known],
            [row.prefill_high for row in known],
        )
    )
    ax.vlines(x, low, high, color=colour, linewidth=1.2, alpha=0.6)


def _line(ax: Axes, rows: Sequence[Row], name: str, colour: str, line: str) -> None:
    """The shares of one layer, with a mark per answer."""
    x = [100 * row.setting.ratio for row in rows]
    y = [100 * getattr(row, name) for row in rows]
    layer = rows[0].setting.layer
    words = "all ratios" if layer is None else f"after layer {layer}"
    ax.plot(x, y, color=colour, linestyle=line, linewidth=1.8, label=words)
    for row, a, b in zip(rows, x, y, strict=True):
        face = colour if row.same else "white"
        ax.plot(a, b, "o", color=colour, markerfacecolor=face, markersize=7, zorder=3)
