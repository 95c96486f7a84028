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
    rows: Iterable[Mapping],
    style: str | None = None,
    kinds: Sequence[str] | None = None,
    table: str | None = None,
) -> Figure:
    """One line per method and settings over the ratios, with Wilson's 95 % intervals.

    The dashed line is the model without compression.

    Args:
        rows: results as `python -m tiny.evaluate --out` writes them: dicts with `style`,
            `method`, `settings`, `ratio`, `layers`, `kind`, `right`, `asked`, `tables`, and
            `flops`, the share of the plain model's visual prefill summed over the questions.
        style: only this drawing style; by default all in which every line has results.
        kinds: only these kinds of question.
        table: only rows of that table of the evaluation.

    Raises:
        InputError: no row is left.
    """
    points: dict[tuple, np.ndarray] = defaultdict(lambda: np.zeros(3))
    chosen = [
        row
        for row in rows
        if style in (None, row["style"])
        and (kinds is None or row["kind"] in kinds)
        and (table is None or table in row["tables"])
    ]
    styles = defaultdict(set)
    for row in chosen:
        styles[_plan(row)].add(row["style"])
    common = set.intersection(*styles.values()) if styles else set()
    for row in chosen:
        if row["style"] in common:
            points[_plan(row)] += row["right"], row["asked"], row["flops"]
    if not points:
        raise InputError("There are no results to draw: evaluate first, or choose another style.")
    series = defaultdict(list)
    for (*plan, _), (right, asked, flops) in sorted(points.items()):
        series[tuple(plan)].append((flops / asked, right / asked, *wilson(right, asked)))

    figure, (ax,) = chart(6.4, 3.6 + 0.1 * len(series))
    plain = series.pop(("vanilla", "", ()), None)
    if plain:
        ax.axhline(100 * plain[0][1], color=GREY, linestyle="--", label="no compression")
    for i, (plan, values) in enumerate(series.items()):
        flops, accuracy, low, high = 100 * np.array(values).T
        ax.errorbar(
            flops,
            accuracy,
            (accuracy - low, high - accuracy),
            color=SERIES[i % len(SERIES)],
            linestyle=LINES[i % len(LINES)],
            marker=MARKERS[(i + i // len(SERIES)) % len(MARKERS)],
            capsize=3,
            label=_name(*plan),
        )
    ax.set_xlim(0, 105)
    label(ax, "FLOPs of the visual prefill (% of no compression)", "accuracy (%)")
    legend(ax, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def _plan(row: Mapping) -> tuple:
    """What was evaluated: method, settings, layers, and the ratio."""
    return row["method"], row["settings"], tuple(row["layers"]), row["ratio"]


def _name(method: str, settings: str, layers: Sequence[int]) -> str:
    """What the legend calls a line."""
    parts = [method, settings] if settings else [method]
    if layers:
        parts.append(f"after {'layer' if len(layers) == 1 else 'layers'}")
        parts[-1] += " " + ", ".join(map(str, layers))
    return ", ".join(parts)
