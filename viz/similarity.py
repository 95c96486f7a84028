"""Similarity histogram: how much each token resembles the best target, and where tau cuts."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from libra import methods
from libra.errors import InputError
from libra.reduction import Fate
from libra.trace import Trace
from viz.colour import GREY, INK, SKY, VERMILION
from viz.style import chart, label, legend

CROWDED = 0.95  # where half of the tokens are above, bars of one width would be a single one
NEAREST = 6  # nines: what is nearer to 1 in single precision is 1


def similarity_histogram(trace: Trace, event: int | None = None) -> Figure:
    """s_max of the non-target tokens of one event (Libra-Merging, section 3.3 and Table 4).

    By default that is the first that merged by similarity. Merged tokens are blue, compensated or
    dropped ones grey and hatched. Where nearly all are alike, the axis is stretched towards 1.
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

    figure, (ax,) = chart(5.4, 3.5)
    low = min(0.0, similarity[counted].min(initial=0))
    bins = np.linspace(low, 1, 41)
    if counted.any() and np.median(similarity[counted]) > CROWDED:
        _stretch(ax)
        bins = _likeness(np.linspace(_nines(low), NEAREST, 41))
        bins[[0, -1]] = low, 1
    below, above = (np.histogram(similarity[some].clip(low, 1), bins)[0] for some in (rest, merged))
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
        ax.axvline(mean, color=INK, linewidth=1.5, linestyle=":", label=f"mean {in_digits(mean)}")
    ax.set_xlim(low, 1)
    ax.yaxis.get_major_locator().set_params(integer=True)
    label(ax, f"cosine similarity to the best target, {trace.events[event].name}", "tokens")
    legend(ax, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def in_digits(similarity: float) -> str:
    """A similarity in two digits, or as many as tell it from 1: `0.84`, `0.99995`."""
    rest = 1 - similarity
    digits = int(-np.log10(rest)) + 1 if 10**-NEAREST < rest < 1 else 2
    return f"{similarity:.{max(2, digits)}f}"


def _stretch(ax: Axes) -> None:
    """An axis on which 0.9, 0.99 and 0.999 are as far apart."""
    ax.set_xscale("function", functions=(_nines, _likeness))
    ax.xaxis.set_major_locator(FixedLocator([*_likeness(np.arange(NEAREST)), 1]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.6g}")


def _nines(similarity: np.ndarray | float) -> np.ndarray:
    """How many nines a similarity begins with, in fractions: 0.99 has two."""
    return -np.log10(np.maximum(1 - np.asarray(similarity, np.float64), 10.0**-NEAREST))


def _likeness(nines: np.ndarray) -> np.ndarray:
    """The similarity that begins with so many nines."""
    return 1 - 10.0 ** -np.asarray(nines, np.float64)
