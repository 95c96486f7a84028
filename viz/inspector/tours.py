"""Guided tours: a few steps that drive the inspector through one answer, for teaching.

A step is a sentence or two, and what to show with it: stage, overlay, patch, layer. The patches are
chosen from the trace, so a tour fits any picture.
"""

from collections.abc import Callable

import numpy as np

from libra.reduction import Fate, Reduction
from libra.trace import Trace


def tour(trace: Trace) -> list[dict]:
    """The written tour of the trace's method; empty where there is none or nothing happened."""
    write, needed = TOURS.get(trace.method, (None, ""))
    facts = trace.events[0].reduction.evidence if trace.events else {}
    told = needed in facts and not facts[needed].isnan().all()
    return write(trace) if told and trace.importance else []


def _fastv(trace: Trace) -> list[dict]:
    n, last = len(trace.layout), len(trace.events)
    importance = trace.events[0].reduction.evidence["importance"].numpy()
    fate = trace.lineage(last).fate().numpy()
    kept = int((fate == Fate.KEPT).sum())
    layer = trace.events[0].layer
    best, worst = int(np.nanargmax(importance)), int(np.nanargmin(importance))
    edge = int(np.where(fate == Fate.KEPT, importance, np.inf).argmin())
    return [
        _step(
            f"The picture enters as {n} visual tokens, one per patch. The strip below shows them "
            "in reading order. Point anywhere: picture, strip and histogram answer together.",
            overlay="fate",
        ),
        _step(
            f"FastV asks one question, once: how much does the last token of the prompt, the one "
            f"that starts the answer, attend to each patch in layer {layer}? Bright patches get "
            "the most.",
            overlay="importance",
        ),
        _step(
            "This patch gets the most attention of all. Its place in the histogram is marked.",
            overlay="importance",
            patch=best,
        ),
        _step(
            f"After layer {layer} the {kept} most attended tokens stay; the other {n - kept} are "
            "gone for good, from every later layer.",
            overlay="fate",
            stage=last,
        ),
        _step(
            "This patch was the last to stay: a little less attention and it would have been "
            "dropped. Its neighbours in rank may hold just as much of the picture.",
            overlay="fate",
            stage=last,
            patch=edge,
        ),
        _step(
            "And this one came last. Nothing of it is left: pruning keeps no summary of what it "
            "drops. If the answer needs it, the answer will be wrong.",
            overlay="fate",
            stage=last,
            patch=worst,
        ),
        _step(
            "Choose a word of the answer to see where the model looked for it. Then move “tokens "
            "kept” under What if: the choice is made again at once, without running the model.",
            overlay="attention",
            stage=last,
        ),
    ]


def _libra(trace: Trace) -> list[dict]:
    n, last = len(trace.layout), len(trace.events)
    first = trace.events[0].reduction
    fate = first.fate().numpy()
    intervals = int((fate == Fate.KEPT).sum())
    layer, tau = trace.events[0].layer, trace.params.get("tau", 0.7)
    group = first.group().numpy()
    merges = fate == Fate.MERGED
    largest = int(np.bincount(group[merges]).argmax()) if merges.any() else -1
    root = int(first.slot[largest])
    merged = _strongest(first, merges & (group == largest))
    lost = _strongest(first, fate == Fate.COMPENSATED)
    survivor = int(trace.lineage(last).slot[0])
    steps = [
        _step(
            f"The picture enters as {n} visual tokens, one per patch, in reading order. "
            "Libra-Merging makes them fewer in several steps, and tries to lose nothing.",
            overlay="fate",
        ),
        _step(
            f"After layer {layer} the sequence is cut into {intervals} intervals, and the most "
            "important token of each becomes a target. So targets come from all over the picture, "
            "not only from its brightest spot.",
            overlay="importance",
        ),
        _step(
            "Outlined patches are the targets. All others look for the target that resembles them "
            "most.",
            overlay="fate",
            stage=1,
        ),
    ]
    if merged is not None:
        steps += [
            _step(
                f"This patch resembles a target by more than τ = {tau:g}, so it merges into it. "
                "The card says which interval it lost, and to whom.",
                overlay="fate",
                stage=1,
                patch=merged,
            ),
            _step(
                "The whole group lights up: these patches are one token now. Important members "
                "weigh more in it.",
                overlay="groups",
                stage=1,
                patch=root,
            ),
        ]
    if lost is not None:
        steps.append(
            _step(
                f"This patch resembles no target by more than τ = {tau:g}. Instead of being "
                "dropped it joins the compensation token, one extra token for all of its kind.",
                overlay="fate",
                stage=1,
                patch=lost,
            )
        )
    return [
        *steps,
        _step(
            "The same happens again after later layers, to the tokens that are left. Follow one "
            "of the last survivors through the strip, or press Play to see all of them move.",
            overlay="groups",
            stage=last,
            patch=survivor,
        ),
        _step(
            "Drag τ in the similarity histogram: a low τ merges nearly everything, a high one "
            "sends nearly everything to the compensation token. No model run is needed for that.",
            overlay="fate",
            stage=1,
        ),
    ]


# Method: its tour, and the evidence that the tour speaks of.
TOURS: dict[str, tuple[Callable[[Trace], list[dict]], str]] = {
    "fastv": (_fastv, "importance"),
    "libra": (_libra, "interval"),
}


def _strongest(reduction: Reduction, which: np.ndarray) -> int | None:
    """The most important token among `which`, bool [n_in]; None where there is none."""
    importance = reduction.evidence["importance"].numpy()
    there = np.flatnonzero(which & ~np.isnan(importance))
    return int(there[importance[there].argmax()]) if len(there) else None


def _step(text: str, overlay: str, stage: int = 0, patch: int | None = None) -> dict:
    return {"text": text, "overlay": overlay, "stage": stage, "patch": patch}
