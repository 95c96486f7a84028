"""Accuracy against FLOPs: what each method pays for what it saves."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from libra.errors import InputError
from libra.statistics import wilson
from viz.colour import GREY, SERIES
from viz.style import LINES, chart, label, legend

MARKERS = "osD^vP"


def accuracy_against_flops(
    rows: Iterable[Mapping], style: str | None = None, kinds: Sequence[str] | None = None
) -> Figure:
    """One line per method over its ratios, with Wilson's 95 % intervals; dashed: no compression.

    Args:
        rows: results as `python -m tiny.evaluate --out` writes them: dicts with `style`,
            `method`, `ratio`, `layers`, `kind`, `right`, `asked`, and `flops`, the share of the
            plain model's visual prefill summed over the questions.
        style: only this drawing style.
        kinds: only these kinds of question.

    Raises:
        InputError: no row is left.
    """
    points: dict[tuple, np.ndarray] = defaultdict(lambda: np.zeros(3))
    for row in rows:
        if style in (None, row["style"]) and (kinds is None or row["kind"] in kinds):
            plan = row["method"], tuple(row["layers"]), row["ratio"]
            points[plan] += row["right"], row["asked"], row["flops"]
    if not points:
        raise InputError("There are no results to draw: evaluate first, or choose another style.")
    series = defaultdict(list)
    for (method, layers, _), (right, asked, flops) in sorted(points.items()):
        series[method, layers].append((flops / asked, right / asked, *wilson(right, asked)))

    figure, (ax,) = chart(6.4, 4.0)
    plain = series.pop(("vanilla", ()), None)
    if plain:
        ax.axhline(100 * plain[0][1], color=GREY, linestyle="--", label="no compression")
    for i, ((method, layers), values) in enumerate(series.items()):
        flops, accuracy, low, high = 100 * np.array(values).T
        ax.errorbar(
            flops,
            accuracy,
            (accuracy - low, high - accuracy),
            color=SERIES[i % len(SERIES)],
            linestyle=LINES[i % len(LINES)],
            marker=MARKERS[i % len(MARKERS)],
            capsize=3,
            label=f"{method}, after {'layer' if len(layers) == 1 else 'layers'} "
            + ", ".join(map(str, layers)),
        )
    ax.set_xlim(0, 105)
    label(ax, "FLOPs of the visual prefill (% of no compression)", "accuracy (%)")
    legend(ax, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure
