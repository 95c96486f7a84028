"""Traces as plain data for the browser: JSON whose arrays are base64 text.

Everything speaks of original patches: each stage holds the composed map from the N patches to its
tokens. Each decision holds what one event knew about the tokens that stood before it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from libra import methods
from libra.detail import ATTENTION_SCALE
from libra.errors import InputError
from libra.reduction import Fate, Reduction
from libra.trace import Event, Trace
from viz import colour
from viz.canvas import framed
from viz.fates import LOOKS
from viz.groups import group_colours
from viz.heat import heat_colours, stage_at
from viz.inspector.decisions import extra_token, measure, rule, what_if
from viz.inspector.tours import tour
from viz.retention import picture_names
from viz.strip import patch_colours

MAX_PAIRS = 700_000  # stored similarities of all traces together: a third of it
MAX_ATTENTION = 400_000  # stored attention values of all traces together: half a file's 3 MB
QUALITY = 88  # of the pictures' JPEG


def view(
    traces: Mapping[str, Trace],
    *,
    ask: bool = False,
    tour: bool = False,
    image: int = -1,
    stage: int | None = None,
    patch: int = -1,
) -> dict:
    """The inspector's data for one or several answers, ready for JSON.

    Args:
        traces: answers under the names that the view shows; the first is shown first.
        ask: whether somebody listens to the event `again` and can answer.
        tour: whether to begin with the guided tour of the first answer.
        image: which of several pictures to show alone at first; -1 for all.
        stage: index of the stage to begin with; None: the last.
        patch: which patch is in hand at first; -1 for none.

    Raises:
        InputError: no trace at all.
    """
    if not traces:
        raise InputError("The inspector needs at least one trace.")
    traces = {name: framed(trace) for name, trace in traces.items()}
    pictures: dict[tuple, int] = {}  # equal pictures are stored once
    keys = {name: [_key(pixels) for pixels in trace.images] for name, trace in traces.items()}
    asked = {name: _asked(trace, keys[name]) for name, trace in traces.items()}
    plain = {
        asked[name]: trace
        for name, trace in traces.items()
        if trace.method == "vanilla" and not trace.events  # not one that had to do without patches
    }
    shown = [
        _trace(name, trace, plain.get(asked[name]), len(traces))
        | {"pictures": [pictures.setdefault(key, len(pictures)) for key in keys[name]]}
        for name, trace in traces.items()
    ]
    sources = {
        key: pixels
        for name, trace in traces.items()
        for key, pixels in zip(keys[name], trace.images, strict=True)
    }
    return {
        "looks": looks(),
        "pictures": [_picture(sources[key]) for key in pictures],
        "traces": shown,
        "ask": ask,
        "tour": tour,
        "image": image,
        "stage": stage,
        "patch": patch,
    }


def looks() -> dict:
    """The colours and marks of the other figures."""
    return {
        "fates": [
            {
                "name": look.name,
                "tint": look.tint,
                "strength": look.strength,
                "hatch": look.hatch,
                "outlined": look.outlined,
            }
            for look in (LOOKS[fate] for fate in sorted(Fate))
        ],
        "heat": packed(heat_colours().round().astype(np.uint8)),
        "sides": [colour.BLUE, colour.ORANGE],
        "series": colour.SERIES,
        "palette": colour.OKABE_ITO,
        "mark": colour.VERMILION,
        "hit": colour.GREEN,
        "ink": colour.INK,
    }


def packed(values: ArrayLike, dtype: type | None = None) -> str:
    """An array as `type:base64`, little endian; whole numbers in the smallest type that fits."""
    array = np.asarray(values)
    if dtype is None:
        dtype = np.float32 if array.dtype.kind == "f" else _smallest(array)
    array = np.ascontiguousarray(array.astype(np.dtype(dtype).newbyteorder("<")))
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    return f"{kind}:{base64.b64encode(array.tobytes()).decode()}"


def _smallest(array: np.ndarray) -> np.dtype:
    """The smallest integer type that holds all values."""
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    return np.min_scalar_type(high if low >= 0 else min(low, -1 - high))


def _trace(name: str, trace: Trace, vanilla: Trace | None, n_traces: int) -> dict:
    """One answer; it takes its share of the room that a file of `n_traces` has."""
    tokens, pairs = tokens_of(trace), _pairs(trace, MAX_PAIRS // n_traces)
    for i, decision in enumerate(tokens["decisions"]):
        decision["pairs"] = pairs.get(i)
    return tokens | {
        "name": name,
        "method": methods.title(trace.method),
        "model": trace.model,
        "ratio": trace.ratio,
        "question": trace.question,
        "answer": trace.answer,
        "words": [
            {"text": w.text, "probability": w.probability, "top": w.top} for w in trace.words
        ],
        "pictureNames": _picture_names(trace),
        "colour": packed(patch_colours(trace).round().astype(np.uint8)),
        "groupColour": packed(group_colours(trace).round().astype(np.uint8)),
        "counts": list(trace.counts),
        "stageAt": [stage_at(trace, layer) for layer in range(len(trace.counts))],
        "attention": _attention(trace, MAX_ATTENTION // n_traces),
        "tour": tour(trace, vanilla),
    }


def tokens_of(trace: Trace) -> dict:
    """The patches of an answer, and what the events made of them and why."""
    layout = trace.layout
    lineages = accumulate(
        (event.reduction for event in trace.events),
        Reduction.then,
        initial=Reduction.identity(len(layout)),
    )
    return {
        "params": trace.params,
        "extra": extra_token(trace),
        "video": trace.times is not None,
        "n": len(layout),
        "image": packed(layout.image),
        "row": packed(layout.row),
        "column": packed(layout.column),
        "box": packed(layout.box.float()),
        "stages": [_stage(*pair) for pair in zip(trace.stages, lineages, strict=True)],
        "decisions": [_decision(trace, i, event) for i, event in enumerate(_events(trace))],
    }


def _stage(name: str, lineage: Reduction) -> dict:
    """One stage: the map from all patches to its tokens."""
    return {
        "name": name,
        "n": lineage.n_out,
        "extras": lineage.extras,
        "fate": packed(lineage.fate()),
        "group": packed(lineage.group()),
        "slot": packed(lineage.slot),
        "source": packed(lineage.source),
        "target": packed(lineage.target),
        "weight": packed(lineage.weight.float()),
    }


def _events(trace: Trace) -> list[Event]:
    """The events; for an answer without any, the last layer's attention as one without effect."""
    if trace.events:
        return trace.events
    n, last = len(trace.layout), len(trace.importance) - 1
    return [Event("decoder", last, Reduction.identity(n))]


def _decision(trace: Trace, index: int, event: Event) -> dict:
    """What one event knew about its input tokens, and what it did with them."""
    reduction = event.reduction
    group, fate = reduction.group(), reduction.fate()
    own = reduction.target == group[reduction.source]
    weight = reduction.weight.new_zeros(reduction.n_in)
    weight.index_add_(0, reduction.source[own], reduction.weight[own])
    label, importance = measure(trace, event)
    evidence = {k: packed(v) for k, v in reduction.evidence.items() if v.ndim == 1}
    if importance is not None:
        evidence["importance"] = packed(importance.float())
    previous = trace.events[index - 1].reduction.extras if index else ()
    return {
        "site": event.site,
        "layer": event.layer,
        "fate": packed(fate),
        "group": packed(group),
        "slot": packed(reduction.slot),
        "members": packed(reduction.target.bincount(minlength=reduction.n_out)),
        "weight": packed(weight.float()),
        "measure": label,
        "evidence": evidence,
        "spare": previous,
        "rule": rule(event, previous),
        "whatIf": what_if(trace, event, previous),
        "pairs": None,
    }


def _pairs(trace: Trace, budget: int) -> dict[int, dict]:
    """How alike the tokens before an event were, by its index, for as many as the budget allows."""
    pairs, detail = {}, trace.detail
    for i, alike in (detail.similarity if detail else {}).items():
        budget -= len(alike.codes)
        if budget < 0:
            break
        known = {"n": alike.n, "low": alike.low, "high": alike.high}
        pairs[i] = known | {"codes": packed(alike.codes)}
    return pairs


def _attention(trace: Trace, budget: int) -> dict:
    """Attention rows of every word in as many layers as the budget of values allows."""
    rows = trace.attention or ([trace.importance] if trace.importance else [])
    n_layers = len(rows[0]) if rows else 0
    widest = max((len(row) for row in trace.importance), default=1)
    room = min(n_layers, max(1, budget // (max(1, len(rows)) * widest)))
    layers = np.linspace(0, n_layers - 1, room).round().astype(int).tolist()
    return {
        "layers": layers,
        "lengths": [len(rows[0][layer]) for layer in layers],
        "words": [
            packed(
                np.concatenate([np.asarray(word[layer]) for layer in layers]) * ATTENTION_SCALE,
                np.float16,
            )
            for word in rows
        ],
    }


def _picture_names(trace: Trace) -> list[str]:
    """What the choice of a picture says: numbers, or seconds of a video."""
    names = picture_names(trace)
    return [f"{name} s" for name in names] if trace.times else names


def _key(pixels: np.ndarray) -> tuple:
    """What equal pictures share."""
    return pixels.shape, pixels.tobytes()


def _asked(trace: Trace, pictures: Sequence[tuple]) -> tuple:
    """What an answer about the pictures of these keys is an answer to."""
    return trace.question, tuple(map(tuple, trace.history)), tuple(pictures)


def _picture(pixels: np.ndarray) -> dict:
    """A picture inside the data itself."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    url = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return {"source": url, "width": pixels.shape[1], "height": pixels.shape[0]}
