"""Token staircase: how many visual tokens each decoder layer processes, method by method."""

import numpy as np
from matplotlib.figure import Figure

from libra.trace import Trace
from viz.colour import BLUE, GREY, INK, SERIES
from viz.style import LINES, SMALL, chart, label, legend


def staircase(traces: dict[str, Trace]) -> Figure:
    """One stepped line per trace over the decoder layers; keys of `traces` are the labels.

    More lines than there are colours would hide each other: then each trace has a row of its own.
    Compensation tokens are counted, because the layers process them.
    """
    if len(traces) > len(SERIES):
        return _rows(traces)
    figure, (ax,) = chart(5.4, 3 + 0.2 * len(traces))
    for i, (name, trace) in enumerate(traces.items()):
        plain = not trace.events
        ax.stairs(
            trace.counts,
            np.arange(len(trace.counts) + 1) - 0.5,
            baseline=None,
            color=GREY if plain else SERIES[i % len(SERIES)],
            linestyle=LINES[i % len(LINES)],
            linewidth=3.2 - 0.5 * min(i, 4),  # so that lines on top of each other all show
            label=f"{name}: {sum(trace.counts) / len(trace.counts):.0f} per layer",
        )
    most = max((max(t.counts) for t in traces.values()), default=1)
    ax.set_ylim(0, most * 1.12)
    ax.margins(x=0)
    label(ax, "decoder layer", "visual tokens")
    ax.xaxis.get_major_locator().set_params(integer=True)
    legend(ax, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _rows(traces: dict[str, Trace]) -> Figure:
    """A filled staircase per trace, all of one scale, the mean at the right."""
    figure, (ax,) = chart(5.4, 1.3 + 0.36 * len(traces))
    most, depth = (max(map(size, (t.counts for t in traces.values()))) for size in (max, len))
    for y, trace in enumerate(traces.values()):
        edges = np.arange(len(trace.counts) + 1) - 0.5
        tops = y + 0.4 - 0.8 * np.array(trace.counts) / most
        colour = BLUE if trace.events else GREY
        ax.stairs(tops, edges, baseline=y + 0.4, fill=True, color=colour, alpha=0.85)
        mean = f"{sum(trace.counts) / len(trace.counts):.0f}"
        ax.text(depth - 0.4, y, mean, va="center", fontsize=SMALL, color=INK)
    ax.set_yticks(range(len(traces)), list(traces), fontsize=SMALL)
    ax.set_ylim(len(traces) - 0.4, -0.6)
    ax.set_xlim(-0.5, depth - 0.5 + 0.1 * depth)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.xaxis.get_major_locator().set_params(integer=True)
    label(ax, "decoder layer", title=f"Visual tokens, {most} at most;\nat the right, the mean")
    return figure
