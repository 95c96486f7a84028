"""The tour of Libra-Merging: intervals, targets, the two sets."""

import numpy as np

from libra.reduction import Fate, Reduction
from libra.trace import Trace
from viz.inspector.tours.steps import step

PUBLISHED = 0.7  # the paper's tau


def fits(trace: Trace) -> bool:
    """Whether an answer is one that the tour can speak of: its intervals and both sets."""
    facts = trace.events[0].reduction.evidence
    grouped = trace.params.get("merge", "grouped") == "grouped"
    return grouped and {"interval", "similarity"} <= facts.keys()


def tour(trace: Trace) -> list[dict]:
    """Steps through an answer of Libra-Merging."""
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
    higher = f" The paper's τ is {PUBLISHED}; a higher one sends more there." * (tau > PUBLISHED)
    survivor = int(trace.lineage(last).slot[0])
    steps = [
        step(
            f"The picture enters as {n} visual tokens, one per patch, in reading order. "
            "Libra-Merging makes them fewer in several steps, and tries to lose nothing.",
            overlay="fate",
        ),
        step(
            f"After layer {layer} the sequence is cut into {intervals} intervals, and the most "
            "important token of each becomes a target. So targets come from all over the picture, "
            "not only from its brightest spot.",
            overlay="importance",
        ),
        step(
            "Outlined patches are the targets. All others look for the target that resembles them "
            "most.",
            overlay="fate",
            stage=1,
        ),
    ]
    if merged is not None:
        steps += [
            step(
                f"This patch resembles a target by more than τ = {tau:g}, so it merges into it. "
                "The card says which interval it lost, and to whom.",
                overlay="fate",
                stage=1,
                patch=merged,
                look="card",
            ),
            step(
                "The whole group lights up: these patches are one token now. Important members "
                "weigh more in it.",
                overlay="groups",
                stage=1,
                patch=root,
            ),
        ]
    if lost is not None:
        steps.append(
            step(
                f"This patch resembles no target by more than τ = {tau:g}. Instead of being "
                "dropped it joins the compensation token, one extra token for all of its kind."
                + higher,
                overlay="fate",
                stage=1,
                patch=lost,
            )
        )
    else:
        steps.append(
            step(
                f"Every patch here resembles a target by more than τ = {tau:g}. One that did not "
                "would join the compensation token, one extra token for all of its kind.",
                overlay="fate",
                stage=1,
            )
        )
    return [
        *steps,
        step(
            "The same happens again after later layers, to the tokens that are left. Follow one "
            "of the last survivors through the strip. Play, above the picture, shows all of them "
            "move.",
            overlay="groups",
            stage=last,
            patch=survivor,
            look="strip",
        ),
        step(
            "Drag τ in the similarity histogram: a low τ merges nearly everything, the closer it "
            "comes to 1 the more goes to the compensation token. No model run is needed for that.",
            overlay="fate",
            stage=1,
            look="similarity",
        ),
    ]


def _strongest(reduction: Reduction, which: np.ndarray) -> int | None:
    """The most important token among `which`, bool [n_in]; None where there is none."""
    importance = reduction.evidence["importance"].numpy()
    there = np.flatnonzero(which & ~np.isnan(importance))
    return int(there[importance[there].argmax()]) if len(there) else None
