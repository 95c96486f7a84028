"""Accuracy against FLOPs: what each method pays for what it saves."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from libra import methods
from libra.errors import InputError
from libra.statistics import wilson
from libra.trace import Trace
from viz.colour import GREY, SERIES
from viz.style import LINES, chart, label, legend

MARKERS = "osD^vP"
ASSETS = Path(__file__).parents[1] / "assets"
EVALUATED = {"tiny-llava": ASSETS / "tiny-llava" / "evaluation.json"}  # by model
MODELS_OWN = {"style": "training", "table": "own"}  # every method as the page sets it


def accuracy(trace: Trace) -> Figure:
    """Accuracy against FLOPs of the model that gave an answer, its method before all others.

    Raises:
        InputError: the model has not been evaluated.
    """
    focus = trace.method if trace.events else None
    return accuracy_against_flops(_evaluation(trace), **MODELS_OWN, focus=focus)


def accuracy_rows(trace: Trace) -> list[dict[str, object]]:
    """The numbers behind `accuracy`: a row per method and ratio, with 95 % intervals."""
    rows = []
    for plan, (right, asked, flops) in _points(_evaluation(trace), **MODELS_OWN):
        low, high = wilson(right, asked)
        known = dict(zip(("method", "settings", "layers", "ratio"), plan, strict=True))
        known["layers"] = list(known["layers"])
        counts = {"right": int(right), "asked": int(asked), "accuracy": right / asked}
        rows.append(known | counts | {"low": low, "high": high, "FLOPs share": flops / asked})
    return rows


def _evaluation(trace: Trace) -> list[dict]:
    """The evaluation of the model that gave an answer."""
    if trace.model not in EVALUATED:
        raise InputError(f"{trace.model} has not been evaluated: there is no accuracy to draw.")
    return json.loads(EVALUATED[trace.model].read_text("utf-8"))


def accuracy_against_flops(
    rows: Iterable[Mapping],
    style: str | None = None,
    kinds: Sequence[str] | None = None,
    table: str | None = None,
    focus: str | None = None,
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
        focus: the method that stands out; None: all are alike.

    Raises:
        InputError: no row is left.
    """
    series = defaultdict(list)
    for (*plan, _), (right, asked, flops) in _points(rows, style, kinds, table):
        series[tuple(plan)].append((flops / asked, right / asked, *wilson(right, asked)))

    figure, (ax,) = chart(6.4, 3.6 + 0.1 * len(series))
    plain = series.pop(("vanilla", "", ()), None)
    if plain:
        ax.axhline(100 * plain[0][1], color=GREY, linestyle="--", label="no compression")
    for i, (plan, values) in enumerate(series.items()):
        flops, accuracy, low, high = 100 * np.array(values).T
        stands_out = focus in (None, plan[0])
        ax.errorbar(
            flops,
            accuracy,
            (accuracy - low, high - accuracy),
            color=SERIES[i % len(SERIES)],
            linestyle=LINES[i % len(LINES)],
            marker=MARKERS[(i + i // len(SERIES)) % len(MARKERS)],
            capsize=3,
            alpha=1 if stands_out else 0.3,
            zorder=3 if stands_out else 2,
            label=_name(*plan),
        )
    ax.set_xlim(0, 105)
    label(ax, "FLOPs of the visual prefill (% of no compression)", "accuracy (%)")
    legend(ax, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def _points(
    rows: Iterable[Mapping],
    style: str | None = None,
    kinds: Sequence[str] | None = None,
    table: str | None = None,
) -> list[tuple[tuple, np.ndarray]]:
    """What was evaluated, in order, with the sums of `right`, `asked` and `flops`."""
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
    return sorted(points.items())


def _plan(row: Mapping) -> tuple:
    """What was evaluated: method, settings, layers, and the ratio."""
    return row["method"], row["settings"], tuple(row["layers"]), row["ratio"]


def _name(method: str, settings: str, layers: Sequence[int]) -> str:
    """What the legend calls a line."""
    parts = [methods.title(method), settings] if settings else [methods.title(method)]
    if layers:
        parts.append(f"after {'layer' if len(layers) == 1 else 'layers'}")
        parts[-1] += " " + ", ".join(map(str, layers))
    return ", ".join(parts)
