"""Compensation-token lens: what extra tokens that sum up others hold, and who looks at them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from libra.errors import InputError
from libra.reduction import Reduction
from libra.trace import Trace
from viz.canvas import Canvas
from viz.colour import BLUE, GREY, VERMILION
from viz.heat import paint_heat, stage_at
from viz.marks import percent, to_image
from viz.panel import PATCH
from viz.retention import place
from viz.style import chart, label, legend, power_of_ten

FAINTEST = 1e-7  # attention that the axis still shows
EXTRA = "extra token"
LINES = {  # colour, style, marker
    EXTRA: (VERMILION, "-", "o"),
    "best of the others": (BLUE, "--", "s"),
    "median of the others": (GREY, ":", "^"),
}


def compensation_lens(trace: Trace, image: int | None = None) -> Figure:
    """Left, the patches that the last compensation token holds; right, the attention it gets.

    Bright patches weigh most in it; faded ones are elsewhere. The lines are the attention behind
    the words, their mean: to the compensation token, and for comparison to the best and to the
    median of the other visual tokens, in each layer that has a compensation token. Where several
    pictures have one each, it is about all of them, and about the mean of their attention.

    Args:
        trace: the answer.
        image: index into `trace.images`; default: the one that most of the tokens comes from.

    Raises:
        InputError: no event left a compensation token, or there are no attention rows.
    """
    weight, n = held(trace), len(_last(trace).extras)
    if image is None:
        image = int(np.bincount(trace.layout.image.numpy(), np.nan_to_num(weight)).argmax())

    figure, (ax, beside) = chart(9.6, 4.2, 2, width_ratios=(1, 1.25))
    heaviest = float(np.nanmax(weight))
    count, share = int((~np.isnan(weight)).sum()), heaviest / float(np.nansum(weight))
    ax.imshow(to_image(paint_heat(Canvas.of(trace, image, PATCH), weight, heaviest)))
    ax.set(xticks=[], yticks=[], anchor="N")
    ax.spines[:].set_visible(False)
    words = f"{count} of {len(weight)} patches;\nthe brightest has {percent(share)} of their weight"
    if len(trace.images) > 1:
        words = f"{place(trace, image)}; of all together, {words}"
    label(
        ax,
        words,
        title=f"What the extra token{'s sum' if n > 1 else ' sums'} up",
    )
    _draw_attention(beside, *attended(trace), n)
    return figure


def held(trace: Trace) -> np.ndarray:
    """[N] what each patch weighs in the last compensation tokens; NaN where it is elsewhere.

    Raises:
        InputError: no event left a compensation token, or there are no attention rows.
    """
    last = _last(trace)
    held = last.is_extra[last.target]
    weight = np.full(last.n_in, np.nan, np.float32)
    weight[last.source[held].numpy()] = last.weight[held].numpy()
    return weight


def _last(trace: Trace) -> Reduction:
    """The last lineage that has compensation tokens: one, or one of each picture.

    Raises:
        InputError: there is none, or there are no attention rows.
    """
    lineages = (trace.lineage(stage) for stage in reversed(range(len(trace.stages))))
    last = next((lineage for lineage in lineages if lineage.extras), None)
    if last is None or not trace.importance:
        raise InputError("This figure needs attention rows, and a method with an extra token.")
    return last


def attended(trace: Trace) -> tuple[list[int], dict[str, np.ndarray]]:
    """The layers that have a compensation token, and the attention behind the words there, their
    mean: to this token (of several, their mean), and to the best and the median of the others."""
    extra = [trace.lineage(stage).is_extra.numpy() for stage in range(len(trace.stages))]
    words = trace.attention or [trace.importance]
    layers, lines = [], []
    for layer in range(len(trace.counts)):
        here = extra[stage_at(trace, layer)]
        if not here.any():
            continue
        row = np.mean([word[layer].numpy() for word in words], axis=0)
        own, others = row[here].mean(), row[~here]
        layers.append(layer)
        lines.append((own, others.max(initial=0), np.median(others) if len(others) else 0))
    return layers, dict(zip(LINES, np.reshape(lines, (-1, len(LINES))).T, strict=True))


def _draw_attention(ax: Axes, layers: list[int], lines: dict[str, np.ndarray], n: int) -> None:
    """Lines over the layers: the `n` compensation tokens, the best and the median of the others."""
    for name, line in lines.items():
        colour, style, marker = LINES[name]
        name = "mean of the extra tokens" if n > 1 and name == EXTRA else name
        ax.plot(layers, line.clip(FAINTEST), style, color=colour, marker=marker, label=name)
    ax.set_yscale("log")
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(lambda value, _: power_of_ten(value))
    ax.xaxis.get_major_locator().set_params(integer=True)
    label(ax, "decoder layer", "attention per token")
    legend(ax, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
