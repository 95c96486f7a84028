"""Attention matrices of the decoder (iLLaVA Fig. 2c, FastV): who looks at whom, layer by layer."""

from itertools import accumulate, pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from libra.detail import SEGMENTS, AttentionMatrix, from_log_codes
from libra.errors import InputError
from libra.trace import Trace
from viz.colour import BLUE, CARD, GREEN, INK, PURPLE, VERMILION
from viz.style import DPI, SMALL, power_of_ten

SIDE, GAP = 2.7, 0.3  # inches: of a matrix, and between two
LEFT, TOP, BELOW, SCALE = 0.25, 0.35, 0.6, 0.95  # and around them
COLOURS = dict(zip(SEGMENTS, (GREEN, BLUE, PURPLE, VERMILION), strict=True))
FAINTEST = 1e-6  # share of the attention at the lower end of the scale, at the least


def attention_matrix(trace: Trace, raw: bool = False) -> Figure:
    """The attention (mean over heads) of every token to every earlier one, in spread layers.

    Rows look, columns are looked at; what a row cannot see is blank. Coloured brackets are the
    segments of the sequence, in the order of the legend. All panels share one log scale.

    Args:
        trace: an answer with full tracing.
        raw: one cell per token, instead of the means of bins that divide each segment evenly.

    Raises:
        InputError: the trace was made without full tracing, or is too long for `raw`.
    """
    matrices = stored_matrices(trace, raw)
    cells = [_cells(matrix, raw) for matrix in matrices.values()]
    norm = _common_scale([shares for shares, _ in cells])

    width = LEFT + len(cells) * (SIDE + GAP) + SCALE
    height = TOP + SIDE + BELOW
    figure = Figure((width, height), dpi=DPI, facecolor=CARD)

    def place(x: float, w: float) -> Axes:
        return figure.add_axes((x / width, BELOW / height, w / width, SIDE / height))

    for i, (layer, (shares, edges)) in enumerate(zip(matrices, cells, strict=True)):
        ax = place(LEFT + i * (SIDE + GAP), SIDE)
        hidden = np.triu(np.ones_like(shares, bool), 1)
        shown = np.ma.masked_where(hidden, shares.clip(norm.vmin))
        ax.imshow(shown, "viridis", norm, interpolation="nearest")
        ax.set(xticks=[], yticks=[])  # ticks cost time even where the axes are off
        ax.set_axis_off()
        tokens = sum(matrices[layer].segments)
        ax.set_title(f"layer {layer}: {tokens} tokens", fontsize=SMALL + 1, color=INK, loc="left")
        _brackets(ax, edges)
        ax.set(xlim=(-0.5, len(shares) - 0.5), ylim=(len(shares) - 0.5, -0.5))
    _legend(figure, place(width - SCALE, 0.12), norm)
    return figure


def stored_matrices(trace: Trace, raw: bool = False) -> dict[int, AttentionMatrix]:
    """The attention matrices of a trace by layer, with one cell per token if `raw`.

    Raises:
        InputError: there are none.
    """
    if trace.detail is None:
        raise InputError("This trace has no attention matrices: ask with full tracing.")
    matrices = trace.detail.matrices
    if raw and any(matrix.raw is None for matrix in matrices.values()):
        raise InputError("The sequence is too long for one cell per token: leave out `raw`.")
    return matrices


def _cells(matrix: AttentionMatrix, raw: bool) -> tuple[np.ndarray, list[int]]:
    """The shares [n, n] to draw, and where the segments begin and end in them."""
    shares = from_log_codes(matrix.raw) if raw else matrix.pooled
    starts = np.arange(len(shares)) if raw else matrix.starts.numpy()
    ends = list(accumulate(matrix.segments, initial=0))
    return shares.numpy(), np.searchsorted(starts, ends).tolist()


def _common_scale(panels: list[np.ndarray]) -> LogNorm:
    """A log scale that holds nearly all cells of all panels."""
    shares = np.concatenate([panel[panel > 0] for panel in panels])
    low, high = np.quantile(shares, [0.02, 0.999])
    return LogNorm(max(FAINTEST, min(low, high / 10)), max(high, 10 * FAINTEST))


def _brackets(ax: Axes, edges: list[int]) -> None:
    """Below and left of the matrix, one bracket per segment that has tokens."""
    near, far = (edges[-1] * share for share in (0.015, 0.035))
    for colour, (a, b) in zip(COLOURS.values(), pairwise(edges), strict=True):
        if a == b:
            continue
        along = np.array([a, a, b, b]) - 0.5 + np.array([1, 1, -1, -1]) * min(near, 0.2)
        away = np.array([near, far, far, near])
        style = {"color": colour, "linewidth": 2, "clip_on": False, "solid_joinstyle": "miter"}
        ax.plot(along, edges[-1] - 0.5 + away, **style)
        ax.plot(-0.5 - away, along, **style)


def _legend(figure: Figure, ax: Axes, norm: LogNorm) -> None:
    """The colour scale at the right, the names of the segments below."""
    bar = figure.colorbar(ScalarMappable(norm, "viridis"), cax=ax, extend="min")
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=SMALL, labelcolor=INK)
    bar.formatter = lambda share, _: power_of_ten(share)
    bar.ax.set_title("attention", fontsize=SMALL, color=INK, loc="left")
    keys = [
        Line2D([], [], color=colour, linewidth=3, label=name) for name, colour in COLOURS.items()
    ]
    figure.legend(
        handles=keys,
        loc="lower left",
        bbox_to_anchor=(0, 0),
        ncols=len(keys),
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
    )
