"""Guided tours: a few steps that drive the inspector through one answer, for teaching.

A step is a sentence or two, and what to show with it: stage, overlay, patch, and what else they
speak of. The patches are chosen from the trace, so a tour fits any picture.
"""

from libra.trace import Trace
from viz.inspector.tours import fastv, libra, told, vanilla

WRITTEN = {"fastv": fastv, "libra": libra}  # the others are told by their story


def tour(trace: Trace, vanilla: Trace | None = None) -> list[dict]:
    """Five to eight steps through an answer; none where it has no attention or nothing happened.

    Args:
        trace: the answer.
        vanilla: the answer to the same question without compression, to end with; if it is known.
    """
    *steps, last = _steps(trace) or [None]
    if last is None:
        return []
    if vanilla is not None and trace.events:
        last = last | {"text": f"{_outcome(trace.answer, vanilla.answer)} {last['text']}"}
    return [*steps, last]


def _outcome(answer: str, plain: str) -> str:
    """What compression did to the answer."""
    if answer == plain:
        return f"The answer is “{answer}”, as it is without compression."
    return f"Compression has changed the answer: it is “{answer}”, and “{plain}” without."


def _steps(trace: Trace) -> list[dict]:
    """The steps through an answer alone."""
    if not trace.importance:
        return []
    if not trace.events:
        return vanilla.tour(trace)
    first, written = trace.events[0].reduction, WRITTEN.get(trace.method)
    if written and written.fits(trace):
        return written.tour(trace)
    return told.tour(trace) if first.n_out < first.n_in else []
