"""Merge-group map (Libra-Merging Fig. A, after Turbo and ToMe): which patches became one token."""

from dataclasses import replace
from itertools import accumulate

import numpy as np
from PIL import Image

from libra.errors import InputError
from libra.reduction import Fate, Reduction
from libra.trace import Trace
from viz.canvas import PATCH, Canvas, blend
from viz.colour import PALETTE, dsatur, unique_hues
from viz.fates import fate_legend, paint
from viz.marks import draw_borders, to_image, with_legend

MODES = ("mean", "label", "hue")
LOST = (Fate.COMPENSATED, Fate.DROPPED)  # in no group


def group_map(
    trace: Trace,
    stage: int,
    image: int = 0,
    mode: str = "mean",
    *,
    colours: np.ndarray | None = None,
    legend: bool = True,
    patch: int = PATCH,
) -> Image.Image:
    """The patches of one picture, one colour per token that they have become by `stage`.

    Every event up to the stage is composed, so the map speaks of original patches. Groups have
    one-pixel borders. A patch alone in its group keeps its pixels; dropped and compensated patches
    look as in the fate map.

    Args:
        trace: the answer.
        stage: index into `trace.stages`.
        image: index into `trace.images`.
        mode: "mean", the mean image colour of the group's patches; "label", colours that differ
            between touching groups; "hue", a hue per group. The last two follow the root of a
            group (the patch whose place it takes) through the stages.
        colours: what `group_colours` gives for this trace and mode; by default it is asked.
        legend: add the line that says how many groups there are.
        patch: pixels per patch.
    """
    if mode not in MODES:
        raise InputError(f"The group map's mode must be one of {', '.join(MODES)}, not {mode!r}.")
    canvas = Canvas.of(trace, image, patch)
    lineage = trace.lineage(stage)
    root, fate = group_roots(lineage), lineage.fate().numpy()
    grouped = canvas.spread(root >= 0)
    if mode == "mean":
        fill = canvas.spread(_mean_colours(canvas, root)[root])
    else:  # grey pixels below, so that the colour of the picture does not mix with the label's
        colours = group_colours(trace, mode) if colours is None else colours
        fill = blend(canvas.grey, canvas.spread(colours[root]), 0.7)
    pixels = np.where(grouped[..., None], fill, canvas.pixels)
    lost = np.isin(fate, LOST)
    pixels = paint(replace(canvas, pixels=pixels), np.where(lost, fate, -1))
    region = np.where(lost, -1 - fate, root)
    picture = to_image(draw_borders(pixels, canvas.spread(region, outside=-1)))
    return with_legend(picture, _legend(root, fate, canvas.tokens)) if legend else picture


def group_roots(lineage: Reduction) -> np.ndarray:
    """The root of each token's group, int [N]: the token whose place the group takes.

    -1 for tokens alone in their group, in a compensation token, or dropped.
    """
    group = lineage.group().numpy()
    size = np.bincount(group[group >= 0], minlength=lineage.n_out)
    size[lineage.is_extra.numpy()] = 0
    root = np.append(np.where(size > 1, lineage.slot.numpy(), -1), -1)
    return root[group]  # of a dropped token, -1: the last


def group_colours(trace: Trace, mode: str = "label") -> np.ndarray:
    """A colour for each token as the root of a group, float32 [N, 3], the same at every stage.

    "label" colours the graph of the groups that touch at any stage, in any picture; "hue" gives
    each root a hue of its own.
    """
    lineages = accumulate((event.reduction for event in trace.events), Reduction.then)
    stages = [group_roots(lineage) for lineage in lineages]
    n = len(trace.layout)
    roots = np.unique(np.concatenate([np.array([], int), *stages]))
    roots = roots[roots >= 0]
    colours = np.zeros((n, 3), np.float32)
    if mode == "hue":
        colours[roots] = unique_hues(len(roots))
        return colours
    touching = [Canvas.of(trace, i, patch=4).touching() for i in range(len(trace.images))]
    pairs = np.concatenate([np.zeros((0, 2), int), *(r[t] for r in stages for t in touching)])
    pairs = pairs[(pairs >= 0).all(1)]
    label = dsatur(len(roots), np.searchsorted(roots, pairs))
    colours[roots] = PALETTE[label % len(PALETTE)]
    return colours


def _mean_colours(canvas: Canvas, root: np.ndarray) -> np.ndarray:
    """The mean colour of each group's pixels in this picture, float32 [N, 3], by root."""
    colour, area = canvas.token_colours()
    inside = root >= 0
    total = np.bincount(root[inside], area[inside], canvas.n)
    sums = [np.bincount(root[inside], (c * area)[inside], canvas.n) for c in colour.T]
    return (np.stack(sums, axis=1) / np.maximum(total, 1)[:, None]).astype(np.float32)


def group_words(root: np.ndarray, fate: np.ndarray, here: np.ndarray | None = None) -> str:
    """How many tokens some patches are, by their roots and fates: "9 groups, 4 single patches".

    Of several pictures, a group may reach into one and have its token in another. Where `here`, the
    patches themselves, is given, those that have it among them are counted: they and the single
    patches are what is kept of the picture.
    """
    roots = np.unique(root[root >= 0])
    groups, single = len(roots), int(((root < 0) & (fate == Fate.KEPT)).sum())
    counts = ((groups, "group", "groups"), (single, "single patch", "single patches"))
    words = [f"{n} {many if n != 1 else one}" for n, one, many in counts if n]
    own = groups if here is None else int(np.isin(roots, here).sum())
    if own < groups:
        words[0] += f" ({own or 'none'} with {'its' if groups == 1 else 'their'} token here)"
    return ", ".join(words) or "no groups"


def _legend(
    root: np.ndarray, fate: np.ndarray, here: np.ndarray
) -> list[tuple[Image.Image | None, str]]:
    """How many groups the patches `here` show, and the looks of what is in none."""
    groups = group_words(root[here], fate[here], here)
    return [(None, groups), *fate_legend(fate[here], LOST)]
