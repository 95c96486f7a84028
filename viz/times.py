"""Time shares (iLLaVA Fig. 2a): which part of the model an answer's time goes to."""

from matplotlib.figure import Figure

from libra.trace import Trace
from viz.colour import INK
from viz.costs import PARTS, measured_on, stack_parts
from viz.style import SMALL, chart, label


def time_shares(traces: dict[str, Trace]) -> Figure:
    """One bar of 100 % per trace: encoder, connector, prefill and decode; keys are the labels.

    Wall-clock times as measured, with their sum right of the bar.
    """
    figure, (ax,) = chart(6.4, 1.3 + 0.5 * len(traces))
    totals = [trace.timings.total or 1.0 for trace in traces.values()]
    stack_parts(ax, [100 / total for total in totals], list(traces.values()))
    for y, trace in enumerate(traces.values()):
        total = trace.timings.total
        text = f"{1000 * total:.3g} ms" if total < 1 else f"{total:.3g} s"
        ax.text(101, y, text, va="center", fontsize=SMALL, color=INK)
    ax.set_yticks(range(len(traces)), list(traces), fontsize=SMALL + 1)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(0, 112)
    ax.set_xticks(range(0, 101, 20))
    label(ax, "share of the answer's time (%)")
    measured_on(figure, (trace.timings.where for trace in traces.values()))
    figure.legend(loc="outside upper left", ncols=len(PARTS), frameon=False, fontsize=SMALL)
    return figure
