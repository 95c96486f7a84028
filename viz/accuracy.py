"""Accuracy against FLOPs: what each method pays for what it saves."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from libra import methods
from libra.errors import InputError
from libra.statistics import wilson
from libra.trace import Trace, at_layers
from viz.colour import GREY, INK, SERIES
from viz.costs import measured_on
from viz.style import LINES, SMALL, chart, label, legend

MARKERS = "osD^vP"
ASSETS = Path(__file__).parents[1] / "assets"
EVALUATED = {"tiny-llava": ASSETS / "tiny-llava" / "evaluation.json"}  # by model
PLAIN = ("vanilla", "", ())
ALIKE = {"linewidth": 1.5, "markersize": 6, "capsize": 3}
STRONG = {"linewidth": 2.4, "markersize": 7, "capsize": 3, "zorder": 3, "linestyle": "-"}
THIN = {"linewidth": 1, "markersize": 4, "elinewidth": 0.6, "zorder": 2}
LABEL = 0.155  # inches from one name to the next
MODELS_OWN = {"style": "training", "table": "own"}  # every method as the page sets it


def accuracy(trace: Trace) -> Figure:
    """Accuracy against FLOPs of the model that gave an answer, its method before all others.

    Raises:
        InputError: the model has not been evaluated.
    """
    focus = trace.method if trace.events else None
    return accuracy_against_flops(_evaluation(trace), **MODELS_OWN, focus=focus, about=trace.model)


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
    about: str = "",
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
        about: whose answers they are.

    Raises:
        InputError: no row is left.
    """
    found = _points(rows, style, kinds, table)
    series = defaultdict(list)
    for (*plan, _), (right, asked, flops) in found:
        series[tuple(plan)].append((flops / asked, right / asked, *wilson(right, asked)))
    lines = {plan: 100 * np.array(values).T for plan, values in series.items()}
    figure, (ax,) = chart(6, 2.2 + LABEL * len(lines))
    ax.set_ylim(
        min(v[2].min() for v in lines.values()) - 3, max(v[3].max() for v in lines.values()) + 3
    )
    plain, ends, strong = lines.pop(PLAIN, None), [], []
    ax.set_xlim(0, 1.05 * max((v[0].max() for v in lines.values()), default=100))
    if plain is not None:
        ax.axhline(plain[1][0], color=GREY, linestyle="--")
        ends.append((ax.get_xlim()[1], plain[1][0], "no compression", GREY, False))
    for i, (plan, values) in enumerate(lines.items()):
        weight = ALIKE if focus is None else STRONG if plan[0] == focus else THIN
        look, name, in_focus = _look(i, weight), _name(plan, lines), weight is STRONG
        line = _draw(ax, values, look, name, 0.4 if weight is THIN else 1)
        strong += [line] * in_focus
        last = values[0].argmax()
        ends.append((values[0][last], values[1][last], name, look["color"], in_focus))
    _name_ends(ax, ends)
    if strong:  # known at once where a narrow page begins with the left of the chart
        legend(ax, handles=strong, loc="lower left", bbox_to_anchor=(0, 1))
    kind = ", ".join(kinds) if kinds else "all kinds of questions"
    label(ax, "FLOPs of the visual prefill (% of no compression)", f"right answers, {kind} (%)")
    measured_on(figure, (), _caption(about, {int(asked) for _, (_, asked, _) in found}))
    return figure


def _look(number: int, weight: dict[str, object]) -> dict[str, object]:
    """How one line is drawn: few colours, told apart by styles and markers."""
    look = {
        "color": SERIES[number % len(SERIES)],
        "linestyle": LINES[number % len(LINES)],
        "marker": MARKERS[(number + number // len(SERIES)) % len(MARKERS)],
    }
    return look | weight


def _draw(
    ax: Axes, values: np.ndarray, look: dict[str, object], name: str, opacity: float
) -> ErrorbarContainer:
    """A line over the ratios, with intervals of this opacity."""
    flops, right, low, high = values
    line = ax.errorbar(flops, right, (right - low, high - right), label=name, **look)
    for bar in (*line.lines[1], *line.lines[2]):
        bar.set_alpha(opacity)
    return line


def _name_ends(ax: Axes, ends: Sequence[tuple[float, float, str, str, bool]]) -> None:
    """Names at the right of the axes, as near to the ends of their lines as room allows.

    Each end is x, y, name, colour, and whether the name is bold.
    """
    (low, high), right = ax.get_ylim(), ax.get_xlim()[1]
    gap = LABEL * (high - low) / (ax.figure.get_figheight() - 1)  # inch of labels below
    places = spread([y for _, y, *_ in ends], gap)
    for (x, y, name, colour, bold), place in zip(ends, places, strict=True):
        way = [x, right, 1.03 * right], [y, y, place]
        ax.plot(*way, color=colour, linewidth=0.6, clip_on=False)
        weight = "bold" if bold else "normal"
        words = {"fontsize": SMALL, "color": INK, "fontweight": weight, "va": "center"}
        ax.text(1.04 * right, place, name, **words)


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Places as near to the values as they can be at least `gap` apart, in the values' order."""
    order = np.argsort(values, kind="stable")
    steps = gap * np.arange(len(order))
    # Neighbours that touch: the mean of their values less their steps, and how many they are.
    blocks: list[tuple[float, int]] = []
    for value in np.asarray(values)[order] - steps:
        mean, n = value, 1
        while blocks and blocks[-1][0] > mean:
            before, m = blocks.pop()
            mean, n = (mean * n + before * m) / (n + m), n + m
        blocks.append((mean, n))
    places = np.empty(len(order))
    places[order] = np.repeat(*zip(*blocks, strict=True)) + steps
    return places.tolist()


def _caption(about: str, asked: set[int]) -> str:
    """Of which model, and of how many questions a point is."""
    number = " to ".join(f"{n:,}" for n in sorted({min(asked), max(asked)}))
    return (
        f"{f'{about}, ' if about else ''}{number} held-out questions a point; bars: 95 % intervals"
    )


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


def _name(plan: tuple, plans: Iterable[tuple]) -> str:
    """What a line is called: its method and settings; its layers where others differ in these."""
    method, settings, layers = plan
    parts = [methods.title(method), settings] if settings else [methods.title(method)]
    if layers and sum(other[:2] == plan[:2] for other in plans) > 1:
        parts.append(at_layers("after layer", layers))
    return ", ".join(parts)
