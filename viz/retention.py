"""Retention per picture or frame (iLLaVA 4.7): how much of each one is kept, stage by stage."""

import numpy as np
from matplotlib.figure import Figure

from libra.errors import InputError
from libra.reduction import Fate
from libra.trace import Trace
from viz.colour import BLUE, FAINT, INK, rgb
from viz.marks import percent
from viz.style import chart, label, legend

MOST_NAMES = 16  # along the axis; of more pictures, every second or third is named


def retention(trace: Trace) -> Figure:
    """A bar per picture or frame: the share of its patches that is kept after each event.

    The bars of later events stand in front of those of earlier ones, darker. The dashed line is
    the share of all patches that is kept in the end; below the name of each picture, its own.

    Raises:
        InputError: no event has removed any.
    """
    kept, names = shares_kept(trace), picture_names(trace)
    figure, (ax,) = chart(max(5.6, min(11, 1.4 + 0.6 * len(names))), 3.6)
    places = np.arange(len(names))
    for stage, (name, share) in enumerate(zip(trace.stages[1:], kept, strict=True), start=1):
        ax.bar(places, 100 * share, 0.72, color=_shade(stage / len(kept)), label=name)
    fate = trace.lineage(len(trace.events)).fate()
    overall = 100 * float((fate == Fate.KEPT).float().mean())
    ax.axhline(overall, linestyle="--", color=INK, linewidth=1.2, label="all together, in the end")
    step = -(-len(names) // MOST_NAMES)
    below = [f"{name}\n{percent(share)}" for name, share in zip(names, kept[-1], strict=True)]
    ax.set_xticks(places[::step], below[::step])
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.6, len(names) - 0.4)
    label(ax, "second of the video" if trace.times else "picture", "patches kept (%)")
    legend(ax, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def shares_kept(trace: Trace) -> np.ndarray:
    """[events, pictures] the share of each picture's patches that is kept after each event.

    Raises:
        InputError: no event has removed any.
    """
    if not trace.events:
        raise InputError("Every patch of this trace is kept: ask with a compression method.")
    image = trace.layout.image.numpy()
    whole = np.bincount(image, minlength=len(trace.images))
    kept = [
        np.bincount(image[(trace.lineage(stage).fate() == Fate.KEPT).numpy()], minlength=len(whole))
        for stage in range(1, len(trace.stages))
    ]
    return np.stack(kept) / np.maximum(whole, 1)


def picture_names(trace: Trace) -> list[str]:
    """What to call each picture of a trace: its number from 1, or its second of the video."""
    if trace.times is None:
        return [str(i + 1) for i in range(len(trace.images))]
    return [f"{time:.1f}" for time in trace.times]


def place(trace: Trace, image: int) -> str:
    """Which of several pictures or frames this is: `picture 2 of 3`, `frame 3 of 8, 1.1 s`."""
    n = len(trace.images)
    if trace.times is None:
        return f"picture {image + 1} of {n}"
    return f"frame {image + 1} of {n}, {picture_names(trace)[image]} s"


def kept_of(trace: Trace, stage: int, image: int) -> int:
    """How many tokens of one picture are kept at a stage."""
    fate = trace.lineage(stage).fate()[trace.layout.image == image]
    return int((fate == Fate.KEPT).sum())


def _shade(share: float) -> np.ndarray:
    """From pale, for what will still go, to blue."""
    return (rgb(FAINT) + (rgb(BLUE) - rgb(FAINT)) * share) / 255
