"""Similarity histogram: how much each token resembles the best target, and where tau cuts."""

import numpy as np
from matplotlib.figure import Figure

from libra import methods
from libra.errors import InputError
from libra.reduction import Fate
from libra.trace import Trace
from viz.colour import GREY, INK, SKY, VERMILION
from viz.style import chart, label, legend


def similarity_histogram(trace: Trace, event: int | None = None) -> Figure:
    """s_max of the non-target tokens of one event (Libra-Merging, section 3.3 and Table 4).

    By default that is the first that merged by similarity. Merged tokens are blue, compensated or
    dropped ones grey and hatched.
    """
    if event is None:
        told = ("similarity" in e.reduction.evidence for e in trace.events)
        event = next((i for i, known in enumerate(told) if known), 0)
    if not 0 <= event < len(trace.events):
        raise InputError(f"Event {event} does not exist: the trace has {len(trace.events)}.")
    reduction = trace.events[event].reduction
    if "similarity" not in reduction.evidence:
        raise InputError(
            f"{methods.title(trace.method)} leaves no similarities: this figure needs a merging "
            f"method."
        )
    similarity = reduction.evidence["similarity"].float().numpy()
    fate = reduction.fate().numpy()
    counted = ~np.isnan(similarity) & (fate != Fate.KEPT)
    merged = counted & (fate == Fate.MERGED)
    rest = counted & ~merged

    figure, (ax,) = chart(5.4, 3.2)
    low = min(0.0, similarity[counted].min(initial=0))
    bins = np.linspace(low, 1, 41)
    below, above = (np.histogram(similarity[some], bins)[0] for some in (rest, merged))
    look = {"color": "#C9CED4", "edgecolor": GREY, "hatch": "///", "linewidth": 0.5}
    ax.stairs(below, bins, fill=True, label=f"not merged: {rest.sum()}", **look)
    ax.stairs(
        below + above, bins, baseline=below, fill=True, color=SKY, label=f"merged: {merged.sum()}"
    )
    tau = trace.params.get("tau")
    if tau is not None and trace.params.get("merge", "grouped") == "grouped":
        ax.axvline(tau, color=VERMILION, linewidth=2, label=f"τ = {tau:g}")
    if counted.any():
        mean = similarity[counted].mean()
        ax.axvline(mean, color=INK, linewidth=1.5, linestyle=":", label=f"mean {mean:.2f}")
    ax.set_xlim(low, 1)
    label(ax, "cosine similarity to the best target", "tokens", trace.events[event].name)
    legend(ax, loc="upper left")
    return figure
