"""The tour of the plain model: what there is to save."""

from libra.trace import Trace
from viz.inspector.tours.steps import enter, step
from viz.marks import percent


def tour(trace: Trace) -> list[dict]:
    """Steps through an answer without compression."""
    n, last = len(trace.layout), len(trace.counts) - 1
    best = int(trace.importance[last].argmax())
    shares = [float(row.sum()) for row in trace.importance]
    peak = shares.index(max(shares))
    return [
        enter(n),
        step(
            f"Nothing is compressed here: all {n} tokens go through all {last + 1} layers, and "
            "each layer compares every token with those before it. That is what the other methods "
            "save on.",
            overlay="fate",
        ),
        step(
            f"This is where the token that starts the answer looks in layer {last}, the last one, "
            f"with {percent(shares[last])} of its attention. In layer {peak} it was "
            f"{percent(shares[peak])}: what it needed of the picture it has taken in by then.",
            overlay="importance",
        ),
        step(
            "This patch gets the most of what is left there. Its place in the histogram is marked: "
            "few patches get much, in any layer. The others are what a method can hope to remove.",
            overlay="importance",
            patch=best,
            look="importance",
        ),
        step(
            "This is the layer that looks at the picture most. Move the layer: which patches get "
            "the attention, and how much the picture gets in all, changes from layer to layer. So "
            "it matters after which one a method chooses.",
            overlay="attention",
            look="layer",
        ),
    ]
