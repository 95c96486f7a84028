"""CLS attention (PruMerge Fig. 3a): a few patches hold most of the encoder's attention."""

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from libra import methods
from libra.errors import InputError
from libra.reduction import Fate
from libra.trace import Trace
from viz.colour import BLUE, GREY, INK, VERMILION
from viz.style import chart, label, legend, power_of_ten, scientific


def cls_row(trace: Trace) -> Tensor:
    """[N] the CLS token's attention to each patch: as the method ranked by it, if it did.

    Raises:
        InputError: there is none: no CLS token, no tracing, or patches merged inside the encoder.
    """
    row = trace.cls_attention
    if row is None:
        raise InputError(
            "This trace has no CLS attention to all patches: that takes an encoder with a CLS "
            "token, tracing, and a method that does not act inside the encoder."
        )
    if _ranked(trace):
        row = trace.events[0].reduction.evidence["importance"]
    return row.float()


def _ranked(trace: Trace) -> bool:
    """Whether the first event, right behind the encoder, left what it ranked by."""
    first = trace.events[0] if trace.events else None
    return bool(first and first.site == "connector" and "importance" in first.reduction.evidence)


def cls_distribution(trace: Trace) -> Figure:
    """The CLS token's attention to each patch, log10, one line per visual token.

    Dashed: the fence Q3 + 1.5 IQR (linear quartiles), above which PruMerge selects. Ticks below
    the axis mark the tokens kept by the first event, whatever the method.
    """
    attention = cls_row(trace).numpy()
    low, high = np.quantile(attention, [0.25, 0.75])
    fence = high + 1.5 * (high - low)
    token = np.arange(len(attention))
    above = attention > fence

    figure, (ax,) = chart(9.6, 3.2)
    floor = attention[attention > 0].min(initial=1) / 3
    for some, colour, name in ((~above, GREY, "below the fence"), (above, VERMILION, "above")):
        ax.vlines(
            token[some],
            floor,
            attention[some],
            color=colour,
            linewidth=1,
            label=f"{name}: {some.sum()}",
        )
    ax.axhline(
        fence, color=INK, linestyle="--", linewidth=1.2, label=f"Q3 + 1.5 IQR = {scientific(fence)}"
    )
    if trace.events:
        kept = trace.events[0].reduction.fate().numpy() == Fate.KEPT
        ax.plot(
            token[kept],
            np.full(kept.sum(), -0.04),
            "|",
            color=BLUE,
            markersize=7,
            transform=ax.get_xaxis_transform(),
            clip_on=False,
            label=f"kept {trace.events[0].name}: {kept.sum()}",
        )
    ax.set_yscale("log")
    ax.set_ylim(floor)
    ax.set_xlim(-1, len(token))
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(lambda value, _: power_of_ten(value))
    ax.tick_params(axis="x", pad=12)
    label(ax, "visual token", f"CLS attention,\n{_where(trace)}")
    legend(ax, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _where(trace: Trace) -> str:
    """Which attention `cls_row` is: methods that rank by it differ in layer and heads."""
    if not _ranked(trace):
        return "last layer, mean of heads"
    try:
        method = methods.create(trace.method, **trace.params)
    except InputError:  # a method of somebody else
        return "as the method ranks"
    layer = {-1: "last layer", -2: "features' layer"}[method.encoder_layer]
    return f"{layer}, {'heads as one' if method.joint_attention else 'mean of heads'}"
