"""Roofline: how fast a device could go at each part of an answer, and what limits it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from libra.roofline import Device, seconds
from libra.trace import Timings
from libra.workload import Workload
from viz.colour import GREY, INK, VERMILION
from viz.style import SMALL, chart, label, legend

MARKS = {"encoder": "s", "prefill": "o", "decode": "^"}


@dataclass(frozen=True)
class Point:
    """One part of one answer on the roofline."""

    method: str
    part: str  # key of MARKS
    intensity: float  # FLOPs per byte moved
    attainable: float  # FLOPs per second on the device
    reached: float | None  # FLOPs per second as measured there, if they were

    @property
    def share(self) -> float | None:
        """What was reached of what is attainable."""
        return None if self.reached is None else self.reached / self.attainable


def points(
    workloads: dict[str, Workload], device: Device, timings: dict[str, Timings] | None = None
) -> list[Point]:
    """The parts of each answer; `timings` are those measured on this very device."""
    found = []
    for name, work in workloads.items():
        parts = {"encoder": work.encoder(), "prefill": work.prefill(), "decode": work.decode()}
        times = timings[name] if timings else Timings()
        spent = {
            "encoder": times.encoder,
            "prefill": times.prefill,
            "decode": float(np.median(times.decode)) if times.decode else 0.0,
        }
        for part, operations in parts.items():
            flops = sum(o.flops for o in operations)
            moved = sum(o.bytes for o in operations)
            reached = flops / spent[part] if spent[part] else None
            attainable = flops / seconds(operations, device)
            found.append(Point(name, part, flops / moved, attainable, reached))
    return found


def roofline(shown: Sequence[Point], device: Device, focus: str) -> Figure:
    """Attainable and measured rates over arithmetic intensity, both axes logarithmic.

    The line is the device: rising where memory is the limit, flat where arithmetic is. An answer
    stands on it, or a little below where some of its operations are limited by memory and others
    by arithmetic. Filled marks are attainable, hollow ones measured; the answer of `focus` is in
    colour, vanilla black, all others grey.
    """
    figure, (ax,) = chart(6.2, 4.4)
    ax.set_xscale("log")
    ax.set_yscale("log")
    reach = [point.intensity for point in shown]
    low, high = min([*reach, device.ridge]) / 3, max([*reach, 5 * device.ridge]) * 4
    x = np.array([low, device.ridge, high])
    ax.plot(x, np.minimum(x * device.bandwidth, device.flops), color=INK, linewidth=2)
    ax.axvline(device.ridge, color=GREY, linewidth=0.8, linestyle=":")
    for point in shown:
        colour, order = _look(point.method, focus)
        size = 8 if point.method == focus else 12  # what is hidden behind the focus still shows
        style = {"marker": MARKS[point.part], "color": colour, "zorder": order, "linewidth": 0}
        style["markersize"] = size
        ax.plot(point.intensity, point.attainable, markeredgecolor="white", **style)
        if point.reached:
            ends = (point.reached, point.attainable)
            ax.plot([point.intensity] * 2, ends, color=colour, linewidth=1, zorder=order - 1)
            ax.plot(point.intensity, point.reached, fillstyle="none", **style)
    rates = [rate for point in shown for rate in (point.attainable, point.reached) if rate]
    ax.set_xlim(low, high)
    ax.set_ylim(min([*rates, device.flops]) / 3, device.flops * 4)
    for axis, (least, most) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        if most < 100 * least:  # or else hardly a number would stand there
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(_rate)
        axis.set_minor_formatter(NullFormatter())
    ends = {"va": "bottom", "fontsize": SMALL, "color": INK}
    ax.text(high / 1.1, device.flops * 1.15, f"{_rate(device.flops)}FLOP/s", ha="right", **ends)
    ax.text(device.ridge * 1.08, ax.get_ylim()[0] * 1.2, "arithmetic is the limit", **ends)
    left = ax.get_ylim()[0] * 1.2
    ax.text(device.ridge / 1.08, left, "memory is the limit", ha="right", **ends)
    filling = " (filled: attainable, hollow: measured)" if any(p.reached for p in shown) else ""
    label(ax, "FLOPs per byte moved", "FLOPs per second", f"Roofline of {device.name}{filling}")
    _explain(ax, sorted({p.method for p in shown}, key=lambda m: -_look(m, focus)[1]), focus)
    return figure


def _look(method: str, focus: str) -> tuple[str, int]:
    """Colour and order of a method's marks."""
    if method == focus:
        return VERMILION, 6
    return (INK, 5) if method.lower().startswith("vanilla") else (GREY, 4)


def _explain(ax, methods: Sequence[str], focus: str) -> None:
    """The legend: what colours, shapes and fillings stand for."""
    others = sum(_look(method, focus)[0] == GREY for method in methods)
    for method in methods:
        colour = _look(method, focus)[0]
        if colour != GREY:
            ax.plot([], [], color=colour, linewidth=7, label=method)
    if others:
        words = "one other method" if others == 1 else f"{others} other methods"
        ax.plot([], [], color=GREY, linewidth=7, label=words)
    for part, mark in MARKS.items():
        ax.plot([], [], mark, color=INK, label=part)
    legend(ax, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.08))


def _rate(value: float, _=None) -> str:
    """`990 T`, `0.5`, without trailing zeros."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
