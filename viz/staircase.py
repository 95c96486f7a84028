"""Token staircase: how many visual tokens each decoder layer processes, method by method."""

import numpy as np
from matplotlib.figure import Figure

from libra.trace import Trace
from viz.colour import GREY, SERIES
from viz.style import LINES, chart, label, legend


def staircase(traces: dict[str, Trace]) -> Figure:
    """One stepped line per trace over the decoder layers; keys of `traces` are the labels.

    Compensation tokens are counted, because the layers process them.
    """
    figure, (ax,) = chart(6.4, 3.4)
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
    legend(ax, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure
