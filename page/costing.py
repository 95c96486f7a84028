"""What the answers of a comparison cost, counted in full, here and elsewhere. No components."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from libra import methods, roofline
from libra.architecture import ARCHITECTURES
from libra.errors import InputError
from libra.roofline import DEVICES, Device, Estimate, verdict
from libra.trace import Trace
from libra.workload import Workload
from page import engine, texts
from page.shown import Shown
from viz.roofline import Point, points
from viz.theory import SpeedUp

HERE, OWN = "this machine", "as asked"
MAX_TOKENS = 100_000


@dataclass(frozen=True)
class Costing:
    """Answers to one question, and the model and device that their cost is asked for."""

    traces: dict[str, Trace]  # by title
    focus: str  # the title of the answer that is in colour
    device: Device
    works: dict[str, Workload]  # empty where the model's sizes are not known
    measured: bool  # whether the times are those of this very model on this very device

    @classmethod
    def of(cls, shown: Shown, model: str = OWN, device: str = HERE, n: int | None = None):
        """What is shown, as if asked of `model` with `n` visual tokens on `device`.

        Raises:
            InputError: a number of visual tokens that is none.
        """
        traces = {methods.title(trace.method): trace for trace in shown.traces}
        asked = methods.title(shown.trace.method) if shown.trace else ""
        others = [name for name, trace in traces.items() if trace.method != "vanilla"]
        rates = machine() if device == HERE else DEVICES[device]
        found = cls(
            traces=traces,
            focus=asked if asked in traces else next(iter(others or traces), ""),
            device=rates,
            works=_works(traces, model, n, None if (model, device) == (OWN, HERE) else rates),
            measured=(model, device) == (OWN, HERE) and not n and not shown.stored,
        )
        return replace(found, device=machine(again=True)) if found.outrun else found

    @property
    def follows(self) -> bool:
        """Whether an answer went behind the cache of another: its times are of a part alone."""
        return any(trace.follows for trace in self.traces.values())

    @property
    def vanilla(self) -> Trace | None:
        """Vanilla's answer, if it is among them."""
        return next((t for t in self.traces.values() if t.method == "vanilla"), None)

    @property
    def subject(self) -> str:
        """`llava-1.5-7b on A100, 576 visual tokens`"""
        work = next(iter(self.works.values()))
        return f"{work.architecture.name} on {self.device.name}, {work.n} visual tokens"

    @property
    def verdict(self) -> str:
        """Where the answer in the focus saves, as a sentence."""
        if not self.works:
            return texts.NO_SIZES.format(next(iter(self.traces.values())).model)
        work = self.works[self.focus]
        sentence = verdict(work, work.vanilla, self.device)
        return f"{self.focus}: {sentence[0].lower()}{sentence[1:]}"

    def speed_ups(self) -> dict[str, SpeedUp]:
        """By title: how many times faster the prefill is than vanilla's, by FLOPs and by clock."""
        plain, found = self.vanilla, {}
        for name, trace in self.traces.items():
            work = self.works[name]
            implied = _flops(work.vanilla) / _flops(work)
            ours, theirs = trace.timings, plain.timings
            turns = min(ours.turns, theirs.turns)
            found[name] = SpeedUp(implied, theirs.prefill / ours.prefill, turns)
        return found

    def points(self) -> list[Point]:
        """The parts of every answer on the roofline."""
        timings = {name: trace.timings for name, trace in self.traces.items()}
        return points(
            self.works, self.device, timings if self.measured and not self.follows else None
        )

    @property
    def outrun(self) -> bool:
        """Whether something was measured that is faster than the device's rates allow."""
        return self.measured and any(p.reached and p.share > 1 for p in self.points())

    def estimates(self) -> dict[str, tuple[Estimate, float]]:
        """By title: times by the roofline, and bytes of KV cache."""
        return {
            name: (Estimate.of(work, self.device), sum(work.kv_bytes()))
            for name, work in self.works.items()
        }


def _works(
    traces: dict[str, Trace], model: str, n: int | None, device: Device | None
) -> dict[str, Workload]:
    """What every answer would have to process in a model; none where sizes are not known.

    Its numbers are of the precision that a device's rates are of; None: of that which was used.
    """
    if n is not None and not (isinstance(n, int) and 1 <= n <= MAX_TOKENS):
        raise InputError(f"Visual tokens: choose a whole number from 1 to {MAX_TOKENS:,}.")
    works = {}
    for name, trace in traces.items():
        own = engine.architecture(trace.model)
        target = own if model == OWN else ARCHITECTURES[model]
        if target is None:
            return {}
        work = Workload.of(trace, own or target)
        if target is not own or n:
            usual = work.n if target is own else target.tokens
            work = work.elsewhere(target, n or usual, work.itemsize)
        works[name] = replace(work, itemsize=device.itemsize) if device else work
    return works


def _flops(work: Workload) -> float:
    return sum(operation.flops for operation in work.prefill())


@engine.GPU
def machine(again: bool = False) -> Device:
    """The best rates of this machine so far: measured the first time, and `again` if asked for.

    Other work on the machine can only slow it down, so the best are the nearest to the truth.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if again or device not in _rates:
        found = roofline.measure(device)
        best = _rates.get(device, found)
        _rates[device] = replace(
            found,
            flops=max(found.flops, best.flops),
            bandwidth=max(found.bandwidth, best.bandwidth),
        )
    return _rates[device]


_rates: dict[str, Device] = {}  # by kind of device
