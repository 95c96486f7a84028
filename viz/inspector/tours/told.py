"""The tour of any method: its idea in words, and the patches of an answer that show it."""

import numpy as np
import torch

from libra.reduction import Fate, Reduction
from libra.trace import Trace
from viz.inspector.decisions import measure, rule
from viz.inspector.tours.steps import enter, step
from viz.inspector.tours.stories import STORIES, Story

UNTOLD = Story(
    "This method decides which tokens stay, and what becomes of the others.",
    "Compare the patches that stay with what the question is about.",
)


def tour(trace: Trace) -> list[dict]:
    """Steps through an answer of any method that made tokens fewer."""
    last, event = len(trace.events), trace.events[0]
    story, first = STORIES.get(trace.method, UNTOLD), event.reduction
    steps = [enter(len(trace.layout)), _idea(trace, story), _change(event.name, first)]
    steps += _examples(first)[:2]
    if last > 1:
        final = trace.lineage(last)
        steps.append(
            step(
                f"The same happens {last - 1} more time{'s' * (last > 2)}, to the tokens that are "
                f"left; {final.n_out} remain. Follow this one through the strip. Play, above the "
                "picture, shows all of them move.",
                overlay="groups",
                stage=last,
                patch=int(final.slot[0]),
                look="strip",
            )
        )
    return [
        *steps,
        step(story.lesson, overlay="fate", stage=last, look=story.look),
        step(
            "Choose a word of the answer to see where the model looked for it among the tokens "
            "that are left. Or try the Quiz: which patches would you have kept?",
            overlay="attention",
            stage=last,
            look="answer",
        ),
    ]


def _idea(trace: Trace, story: Story) -> dict:
    """The idea, with the patch that ranks first where the method ranks."""
    importance = measure(trace, trace.events[0])[1]
    ranks = rule(trace.events[0], ()) in ("top", "redundancy")
    if not ranks:
        return step(story.idea, overlay="fate")
    best = int(torch.where(importance.isnan(), -torch.inf, importance).argmax())
    marked = "Bright patches get the most attention; this one gets more than any other."
    return step(f"{story.idea} {marked}", overlay="importance", patch=best)


def _change(stage: str, reduction: Reduction) -> dict:
    """What an event made of the tokens, in numbers."""
    fates = reduction.fate()
    counts = {fate: int((fates == fate).sum()) for fate in Fate}
    n = len(reduction.extras)
    extra = f"{n} extra tokens, one for each picture" if n > 1 else "one extra token"
    parts = [
        f"{counts[fate]} {done}"
        for fate, done in (
            (Fate.MERGED, "merge into others"),
            (Fate.COMPENSATED, f"go into {extra}"),
            (Fate.DROPPED, "are dropped"),
        )
        if counts[fate]
    ]
    where = f"Inside {stage}" if stage.startswith("encoder") else stage.capitalize()
    text = f"{where}, {counts[Fate.KEPT]} of {reduction.n_in} tokens stay in their"
    more = f" {n} tokens more sum" if n > 1 else " One token more sums"
    summed = f"{more} up all that were not chosen, besides." * (n and not counts[Fate.COMPENSATED])
    return step(f"{text} places; {' and '.join(parts)}.{summed}", overlay="fate", stage=1)


def _examples(reduction: Reduction) -> list[dict]:
    """One patch of each kind that the first event makes."""
    fate, steps = reduction.fate().numpy(), []
    members = reduction.target.bincount(minlength=reduction.n_out).numpy()
    members[reduction.is_extra.numpy()] = 0
    if members.max() > 1:
        steps.append(
            step(
                f"This token now stands for {members.max()} patches, its own and those that "
                "merged into it. They light up together, in picture and strip.",
                overlay="groups",
                stage=1,
                patch=int(reduction.slot[members.argmax()]),
                look="strip",
            )
        )
    for kind, text in (
        (Fate.COMPENSATED, "This patch went into the extra token that holds all of its kind: "
         "something of it is left, mixed with the others."),
        (Fate.DROPPED, "This patch is gone. No later layer can look at it, however much the "
         "answer may need it."),
    ):  # fmt: skip
        if (fate == kind).any():
            those = np.flatnonzero(fate == kind)
            patch = int(those[len(those) // 2])
            steps.append(step(text, overlay="fate", stage=1, patch=patch))
    return steps
