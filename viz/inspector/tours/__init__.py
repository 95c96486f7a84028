"""Guided tours: a few steps that drive the inspector through one answer, for teaching.

A step is a sentence or two, and what to show with it: stage, overlay, patch. The patches are chosen
from the trace, so a tour fits any picture.
"""

from libra.trace import Trace
from viz.inspector.tours import fastv, libra, told, vanilla

WRITTEN = {"fastv": fastv, "libra": libra}  # the others are told by their story


def tour(trace: Trace) -> list[dict]:
    """Five to eight steps through an answer; none where it has no attention or nothing happened."""
    if not trace.importance:
        return []
    if not trace.events:
        return vanilla.tour(trace)
    first, written = trace.events[0].reduction, WRITTEN.get(trace.method)
    facts = first.evidence
    if written and written.NEEDS in facts and not facts[written.NEEDS].isnan().all():
        return written.tour(trace)
    return told.tour(trace) if first.n_out < first.n_in else []
