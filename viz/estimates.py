"""What answers would cost on some device: times by the roofline, and the KV cache."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from libra.roofline import Estimate
from viz.colour import BLUE, INK
from viz.costs import PARTS
from viz.style import SMALL, chart, label


def estimate_bars(estimates: dict[str, tuple[Estimate, float]], title: str) -> Figure:
    """Three panels, a row per method; keys are the labels, values estimate and bytes of KV cache.

    Time to the first word in its parts, time of each further word, and KV cache.
    """
    figure, axes = chart(9.6, 1.7 + 0.36 * max(2, len(estimates)), 3, sharey=True)
    found, cache = zip(*estimates.values(), strict=True)
    first = [f.encoder + f.connector + f.prefill for f in found]
    unit, factor = ("s", 1) if max(first) >= 1 else ("ms", 1e3)
    start = [0.0] * len(found)
    for part in ("encoder", "connector", "prefill"):
        colour, hatch = PARTS[part]
        spent = [factor * getattr(f, part) for f in found]
        look = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
        axes[0].barh(range(len(spent)), spent, 0.62, start, label=part, **look)
        start = [a + b for a, b in zip(start, spent, strict=True)]
    _labels(axes[0], f"First word ({unit})", start)
    unit, factor = ("s", 1) if max(f.decode for f in found) >= 1 else ("ms", 1e3)
    decode = [factor * f.decode for f in found]
    axes[1].barh(range(len(decode)), decode, 0.62, color=PARTS["decode"][0])
    _labels(axes[1], f"Each further word ({unit})", decode)
    unit, factor = ("GiB", 2**30) if max(cache) >= 2**30 else ("MiB", 2**20)
    sizes = [size / factor for size in cache]
    axes[2].barh(range(len(cache)), sizes, 0.62, color=BLUE)
    _labels(axes[2], f"KV cache ({unit})", sizes)
    axes[0].set_yticks(range(len(found)), list(estimates), fontsize=SMALL)
    axes[0].set_ylim(len(found) - 0.4, -0.6)
    figure.suptitle(title, x=0.01, ha="left", fontsize=SMALL, color=INK)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=SMALL)
    return figure


def _labels(ax: Axes, title: str, values: Sequence[float]) -> None:
    """Every value at the end of its bar."""
    for y, value in enumerate(values):
        ax.text(value, y, f" {value:.3g}", va="center", fontsize=SMALL, color=INK)
    ax.set_xlim(0, max(values) * 1.25)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    label(ax, title=title)
