"""The tour of the plain model: what there is to save."""

from libra.trace import Trace
from viz.inspector.tours.steps import enter, step


def tour(trace: Trace) -> list[dict]:
    """Steps through an answer without compression."""
    n, last = len(trace.layout), len(trace.counts) - 1
    best, share = int(trace.importance[last].argmax()), float(trace.importance[last].sum())
    return [
        enter(n),
        step(
            f"Nothing is compressed here: all {n} tokens go through all {last + 1} layers, and "
            "each layer compares every token with those before it. That is what the other methods "
            "save on.",
            overlay="fate",
        ),
        step(
            f"This is where the token that starts the answer looks in layer {last}. {share:.1%} of "
            "its attention is left on the picture there, and most patches get next to nothing: "
            "they are what a method can hope to remove.",
            overlay="importance",
        ),
        step(
            "This patch gets the most of what is left. Its place in the histogram is marked.",
            overlay="importance",
            patch=best,
        ),
        step(
            "Move the layer: the early ones look everywhere, the middle ones at what the question "
            "is about, the last at little. That is why most methods wait for some layers before "
            "they choose.",
            overlay="attention",
        ),
    ]
