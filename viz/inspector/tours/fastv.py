"""The tour of FastV: one ranking, one cut."""

import numpy as np

from libra.reduction import Fate
from libra.trace import Trace
from viz.inspector.tours.steps import enter, step


def fits(trace: Trace) -> bool:
    """Whether an answer is one that the tour can speak of: it knows what was ranked."""
    importance = trace.events[0].reduction.evidence.get("importance")
    return importance is not None and not bool(importance.isnan().all())


def tour(trace: Trace) -> list[dict]:
    """Steps through an answer of FastV."""
    n, last = len(trace.layout), len(trace.events)
    importance = trace.events[0].reduction.evidence["importance"].numpy()
    fate = trace.lineage(last).fate().numpy()
    kept = int((fate == Fate.KEPT).sum())
    layer = trace.events[0].layer
    best, worst = int(np.nanargmax(importance)), int(np.nanargmin(importance))
    edge = int(np.where(fate == Fate.KEPT, importance, np.inf).argmin())
    return [
        enter(n),
        step(
            f"FastV asks one question, once: how much does the last token of the prompt, the one "
            f"that starts the answer, attend to each patch in layer {layer}? Bright patches get "
            "the most.",
            overlay="importance",
        ),
        step(
            "This patch gets the most attention of all. Its place in the histogram is marked.",
            overlay="importance",
            patch=best,
            look="importance",
        ),
        step(
            f"After layer {layer} the {kept} most attended tokens stay; the other {n - kept} are "
            "gone for good, from every later layer. Play, above the picture, shows them go.",
            overlay="fate",
            stage=last,
            look="play",
        ),
        step(
            "This patch was the last to stay: a little less attention and it would have been "
            "dropped. Its neighbours in rank may hold just as much of the picture.",
            overlay="fate",
            stage=last,
            patch=edge,
        ),
        step(
            "And this one came last. Nothing of it is left: pruning keeps no summary of what it "
            "drops. If the answer needs it, the answer will be wrong.",
            overlay="fate",
            stage=last,
            patch=worst,
        ),
        step(
            "Choose a word of the answer to see where the model looked for it. Then move “tokens "
            "kept” under What if: the choice is made again at once, without running the model.",
            overlay="attention",
            stage=last,
            look="whatif",
        ),
    ]
