"""Prefills measured again, in turns.

A machine is not always equally fast: times that were taken once, one after the other, say more
about when they were taken than about what took them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING

from libra.errors import ShortageError
from libra.trace import Trace

if TYPE_CHECKING:
    from libra.lvlm import LVLM

TURNS, QUICK = 3, 1.0  # a prefill of less than so many seconds is measured so often


def measure_in_turns(lvlm: LVLM, runs: Sequence[tuple[dict, Trace]]) -> Iterator[Trace]:
    """Measure quick prefills again and again, one after the other; their traces get the medians.

    They get them in the end, all at once: what is stopped before, or runs out of memory that was
    there for the answers, leaves them as they were. Nothing is traced meanwhile. One answer alone
    has nothing to take turns with, and what went behind an earlier answer cannot be done again.

    Args:
        lvlm: the model.
        runs: arguments of `LVLM.stream`, and the trace that came of them.

    Yields:
        The trace whose prefill was just measured: it can be stopped there. In the end, each of
        them once more, with its median.
    """
    timed = [run for run in runs if not run[1].follows and run[1].timings.prefill < QUICK]
    if len(timed) < 2:
        return
    seconds: list[list[float]] = [[] for _ in timed]
    for _ in range(TURNS):
        for own, (request, trace) in zip(seconds, timed, strict=True):
            try:
                own.append(prefill(lvlm, request))
            except ShortageError:
                return
            yield trace
    for own, (_, trace) in zip(seconds, timed, strict=True):
        trace.timings.prefill, trace.timings.turns = median(own), TURNS
    yield from (trace for _, trace in timed)


def prefill(lvlm: LVLM, request: dict) -> float:
    """Seconds of the prefill that arguments of `LVLM.stream` ask for."""
    request = request | {"max_new_tokens": 1, "tracing": False, "memory": None}
    return lvlm.answer(**request).trace.timings.prefill
