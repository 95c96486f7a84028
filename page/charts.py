"""The figures of the Efficiency tab and the numbers behind them. No components."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.figure import Figure

import viz
from libra.report import facts
from libra.roofline import Device, Estimate
from libra.statistics import percent
from libra.workload import Workload
from page import texts
from page.costing import Costing
from page.readouts import flops, in_units, seconds, size, tip
from viz.costs import measured_on
from viz.estimates import estimate_bars
from viz.roofline import roofline
from viz.theory import theory_against_measurement


@dataclass(frozen=True)
class Spec:
    """One figure of the Efficiency tab."""

    name: str
    title: str
    explanation: str
    draw: Callable[[Costing], Figure]
    numbers: Callable[[Costing], list[dict]]
    counted: bool = False  # whether the model's sizes have to be known
    against: bool = False  # whether vanilla has to be there

    def missing(self, costing: Costing) -> str | None:
        """Why there is no figure, as a sentence; None if there is one."""
        if self.counted and not costing.works:
            return texts.NO_SIZES.format(next(iter(costing.traces.values())).model)
        if self.against and costing.vanilla is None:
            return texts.NO_VANILLA
        if self.against and costing.follows:
            return texts.FOLLOWS
        if self.against and not all(t.timings.prefill for t in costing.traces.values()):
            return texts.NO_TIMES
        return None


def _layers(costing: Costing) -> list[dict]:
    """Every decoder layer of every answer; beyond its tokens where sizes are known."""
    if costing.works:
        return [
            {"method": name, **row} for name, w in costing.works.items() for row in w.per_layer()
        ]
    return [
        {"method": name, "layer": layer, "visual_tokens": n}
        for name, trace in costing.traces.items()
        for layer, n in enumerate(trace.counts)
    ]


def _theory_figure(costing: Costing) -> Figure:
    figure = theory_against_measurement(costing.speed_ups())
    measured_on(figure, (trace.timings.where for trace in costing.traces.values()))
    return figure


def _theory(costing: Costing) -> list[dict]:
    return [
        {
            "method": name,
            "implied": s.implied,
            "measured": s.measured,
            "share": s.reached,
            "turns": s.turns,
            "measured_on": costing.traces[name].timings.where,
        }
        for name, s in costing.speed_ups().items()
    ]


def _points(costing: Costing) -> list[dict]:
    device = {"device": costing.device.name, "peak_flops": costing.device.flops}
    device |= {"bandwidth": costing.device.bandwidth}
    return [
        {
            "method": p.method,
            "part": p.part,
            "flops_per_byte": p.intensity,
            "attainable": p.attainable,
            "measured": "" if p.reached is None else p.reached,
            **device,
        }
        for p in costing.points()
    ]


def _estimates(costing: Costing) -> list[dict]:
    return [_estimate(name, work, costing.device) for name, work in costing.works.items()]


def _estimate(name: str, work: Workload, device: Device) -> dict:
    parts = {
        "encoder": work.encoder(),
        "connector": work.connector(),
        "prefill": work.prefill(),
        "decode": work.decode(),
    }
    found = Estimate.of(work, device)
    return {
        "method": name,
        "model": work.architecture.name,
        "device": device.name,
        "visual_tokens": work.n,
        "text": work.text,
        **{f"{part}_flops": sum(o.flops for o in ops) for part, ops in parts.items()},
        **{f"{part}_bytes": sum(o.bytes for o in ops) for part, ops in parts.items()},
        **{f"{part}_s": getattr(found, part) for part in parts},
        "kv_bytes": sum(work.kv_bytes()),
        "peak_activation_bytes": work.peak_activation(),
    }


def table(costing: Costing) -> str:
    """What the answers would cost, as HTML, each amount with what it saves beside vanilla."""
    if not costing.works:
        return ""
    heads = ("All FLOPs", "First word", "Each further word", "Whole KV cache", "Activations")
    found = [_amounts(row) for row in _estimates(costing)]
    units = in_units(found, (flops, seconds, seconds, size, size))
    rows = ""
    for (name, work), ours, cells in zip(costing.works.items(), found, units, strict=True):
        plain = _amounts(_estimate("", work.vanilla, costing.device))
        saved = map(_saved, ours, plain) if costing.traces[name].events else [""] * len(ours)
        columns = "".join(f"<td>{cell}{less}</td>" for cell, less in zip(cells, saved, strict=True))
        rows += f'<tr><th scope="row">{escape(name)}</th>{columns}</tr>'
    columns = "".join(f'<th scope="col">{head}{tip(head)}</th>' for head in heads)
    return (
        f'<div class="scroll"><table class="numbers"><thead><tr><th scope="col">Method</th>'
        f"{columns}</tr></thead><tbody>{rows}</tbody></table></div>"
        f'<p class="note">{texts.ESTIMATED} {texts.OUTRUN if costing.outrun else ""}</p>'
    )


def _saved(ours: float, plain: float) -> str:
    """An amount beside vanilla's: `−40 %`, `+2 %`, `±0 %`."""
    sign = "−" if ours < plain else "+" if ours > plain else "±"
    return f"<small>{sign}{percent(abs(ours - plain) / plain)}</small>" if plain else ""


def _amounts(row: dict) -> Sequence[float]:
    """What the columns of the table say."""
    before_words = ("encoder", "connector", "prefill")
    return (
        sum(row[f"{part}_flops"] for part in before_words),
        sum(row[f"{part}_s"] for part in before_words),
        row["decode_s"],
        row["kv_bytes"],
        row["peak_activation_bytes"],
    )


# Of the answers as they were asked; and as if in another model, on another device.
MEASURED = (
    Spec("staircase", *texts.CHARTS[0], lambda c: viz.staircase(c.traces), _layers),
    Spec(
        "theory",
        *texts.CHARTS[1],
        _theory_figure,
        _theory,
        counted=True,
        against=True,
    ),
    Spec(
        "costs",
        *texts.CHARTS[2],
        lambda c: viz.cost_bars(c.traces),
        lambda c: [facts(trace) for trace in c.traces.values()],
    ),
)
ELSEWHERE = (
    Spec(
        "roofline",
        *texts.CHARTS[3],
        lambda c: roofline(c.points(), c.device, c.focus),
        _points,
        counted=True,
    ),
    Spec(
        "estimates",
        *texts.CHARTS[4],
        lambda c: estimate_bars(c.estimates(), c.subject),
        _estimates,
        counted=True,
    ),
)
