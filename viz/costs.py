"""Cost bars: FLOPs, KV cache and time of each answer, beside the plain model."""

from collections.abc import Iterable, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from libra.trace import Trace
from viz.colour import BLUE, GREEN, INK, ORANGE, PURPLE, SKY
from viz.marks import percent
from viz.style import SMALL, chart, label

PARTS = {  # of an answer: colour and hatch
    "encoder": (SKY, ""),
    "connector": (PURPLE, "xxx"),
    "prefill": (ORANGE, "///"),
    "decode": (GREEN, "..."),
}


def cost_bars(traces: dict[str, Trace]) -> Figure:
    """Three panels of bars, one bar per trace; keys of `traces` are the labels.

    FLOPs are those of the visual tokens in the prefill, bytes those of their keys and values; the
    dashed line is the plain model on the same input. Times are as measured, of the whole answer.
    """
    figure, axes = chart(9.6, 1.5 + 0.5 * len(traces), 3, sharey=True)
    costs = [trace.cost for trace in traces.values()]
    flops = [(cost.flops, cost.vanilla_flops) for cost in costs]
    cache = [(cost.kv_bytes, cost.vanilla_kv_bytes) for cost in costs]
    _against_plain(axes[0], "FLOPs of the prefill", flops, 1000, ("", "k", "M", "G", "T", "P"))
    _against_plain(axes[1], "KV cache", cache, 1024, ("B", "KiB", "MiB", "GiB"))
    _times(axes[2], traces)
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=SMALL)
    measured_on(figure, (trace.timings.where for trace in traces.values()))
    axes[0].set_yticks(range(len(traces)), list(traces), fontsize=SMALL + 1)
    axes[0].set_ylim(len(traces) - 0.4, -0.6)
    for ax in axes:
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    return figure


def measured_on(figure: Figure, places: Iterable[str], about: str = "") -> None:
    """Say below a figure what its times have to be read with, where that is known.

    A line on what the figure is `about` comes before it.
    """
    known = sorted(set(places) - {""})
    lines = [about, "Measured on " + "; ".join(known) if known else ""]
    words = [fill(line, round(13 * figure.get_figwidth())) for line in lines if line]
    if words:
        figure.supxlabel("\n".join(words), x=0.01, ha="left", fontsize=SMALL, color=INK)


def _against_plain(
    ax: Axes,
    title: str,
    values: Sequence[tuple[float, float]],
    base: int,
    units: Sequence[str],
) -> None:
    """Bars of (value, plain value), each with its share of the plain value."""
    divisor, unit = 1, 0
    while max(map(max, values), default=0) / divisor >= base and unit < len(units) - 1:
        divisor, unit = divisor * base, unit + 1
    label(ax, title=f"{title} ({units[unit]})" if units[unit] else title)
    for y, (value, plain) in enumerate(values):
        ax.barh(y, value / divisor, 0.62, color=BLUE)
        ax.plot([plain / divisor] * 2, [y - 0.45, y + 0.45], "--", color=INK, linewidth=1.2)
        whole = f" of {plain / divisor:.3g}" if value != plain else ""
        share = f" · {percent(value / plain)}" if plain else ""
        text = f" {value / divisor:.3g}{whole}{share}"
        ax.text(max(value, plain) / divisor, y, text, va="center", fontsize=SMALL, color=INK)
    ax.set_xlim(0, max(map(max, values), default=1) / divisor * 2 or 1)


def _times(ax: Axes, traces: dict[str, Trace]) -> None:
    """Stacked bars of the parts of each answer's time."""
    totals = [trace.timings.total for trace in traces.values()]
    unit, factor = ("ms", 1000) if max(totals, default=0) < 1 else ("s", 1)
    stack_parts(ax, [factor] * len(totals), list(traces.values()))
    for y, total in enumerate(totals):
        text = f" {factor * total:.3g}"
        ax.text(factor * total, y, text, va="center", fontsize=SMALL, color=INK)
    ax.set_xlim(0, factor * max(totals, default=1) * 1.25 or 1)
    label(ax, title=f"Time ({unit})")


def stack_parts(ax: Axes, factors: Sequence[float], traces: Sequence[Trace]) -> None:
    """A bar per trace of its encoder, connector, prefill and decode seconds, times its factor."""
    start = np.zeros(len(traces))
    for part, (colour, hatch) in PARTS.items():
        spent = np.array([np.sum(getattr(trace.timings, part)) for trace in traces]) * factors
        ax.barh(
            range(len(spent)),
            spent,
            0.62,
            start,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0,
            label=part,
        )
        start += spent
