"""What a trace file has to fulfil before anything is drawn from it.

Trace files come from anywhere. Whatever is drawn, named or computed from one may rely on the types
of `Trace`, on finite numbers, and on parts that belong together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from libra import methods
from libra.detail import MAX_PAIRED, SEGMENTS, AttentionMatrix, Similarity
from libra.layout import TokenLayout
from libra.methods.base import checked
from libra.reduction import TOKEN_EVIDENCE, Reduction

if TYPE_CHECKING:
    from libra.trace import Event, Trace

MAX_TEXT = 100_000  # characters
MAX_PLACE = 300  # characters that say where times were taken
MAX_MEASURED = 1000  # how often times were taken
MAX_GRID = 1024  # rows, columns, frames
MAX_LAYERS = 1024
MAX_UNITS = 4096
MAX_HEADS = 1024
MAX_PATHS = 10**7  # edges met while events are composed
FLOATS = (torch.float16, torch.float32, torch.float64)


def check(trace: Trace) -> None:
    """Raise ValueError for the first thing in a trace that no answer leaves behind."""
    _check_settings(trace)
    _check_words(trace)
    _check_layout(trace.layout, len(trace.images))
    _check_counts(trace)
    _check_paths(trace)
    _check_attention(trace)
    _check_costs(trace)
    _check_times(trace)
    if trace.detail is not None:
        _check_detail(trace)


def _need(fulfilled: bool, what: str) -> None:
    if not fulfilled:
        raise ValueError(what)


def is_text(value: str) -> bool:
    """Whether a string can be stored and sent: halves of characters, as JSON may hold, cannot."""
    return not re.search("[\ud800-\udfff]", value)


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT and is_text(value)


def _number(value: object, low: float = 0.0, high: float = math.inf) -> bool:
    """Whether this is a finite number within limits; a bool is none."""
    return type(value) in (int, float) and math.isfinite(value) and low <= value <= high


def _whole(value: object, low: int = 0, high: float = math.inf) -> bool:
    return type(value) is int and low <= value <= high


def _tensor(x: Tensor, shape: Sequence[int], dtypes: Sequence[torch.dtype]) -> bool:
    """Whether a tensor has this shape and one of these types, and only finite numbers."""
    return x.shape == torch.Size(shape) and x.dtype in dtypes and bool(x.isfinite().all())


def _within(x: Tensor, low: int, high: int) -> bool:
    """Whether whole numbers [n], at least one, lie in low..high."""
    return _tensor(x, [len(x)], [torch.int64]) and bool(((x >= low) & (x <= high)).all())


def _check_settings(trace: Trace) -> None:
    texts = (trace.model, trace.family, trace.method, trace.question, trace.answer)
    texts += tuple(words for turn in trace.history for words in turn)
    _need(all(map(_text, texts)), "model, method, questions and answers are text")
    _need(_number(trace.ratio, 0, 1), "the ratio lies in 0..1")
    _need(all(_whole(layer, 0, MAX_LAYERS) for layer in trace.layers), "layers are numbers")
    _need(isinstance(trace.params, dict), "parameters have names")
    own = {f.name: f for f in fields(methods.get(trace.method))}
    for name, value in trace.params.items():
        _need(re.fullmatch(r"\w{1,64}", name) is not None, "parameters have plain names")
        plain = value is None or isinstance(value, bool)
        layers = isinstance(value, list) and all(_whole(x, 0, MAX_LAYERS) for x in value)
        _need(plain or layers or _text(value) or _number(value, -math.inf), "parameters are plain")
        if name in own:
            checked(trace.method, own[name], value)


def _check_words(trace: Trace) -> None:
    for word in trace.words:
        for text, probability in [(word.text, word.probability), *word.top]:
            _need(_text(text) and _number(probability, 0, 1 + 1e-6), "words have probabilities")


def _check_layout(layout: TokenLayout, n_images: int) -> None:
    n = len(layout.image)
    _need(n > 0 and n_images > 0, "there are visual tokens")
    for x, low, high in (
        (layout.image, 0, n_images - 1),
        (layout.frame, 0, MAX_GRID),
        (layout.row, -1, MAX_GRID),
        (layout.column, -1, MAX_GRID),
    ):
        _need(len(x) == n and _within(x, low, high), "every token has its place")
    box = layout.box
    _need(_tensor(box, [n, 4], FLOATS) and bool((box.abs() <= 100).all()), "every token has a box")


def _check_counts(trace: Trace) -> None:
    """Events follow upon each other, and make the counts of the layers."""
    n, depth = len(trace.layout), len(trace.counts)
    _need(0 < depth <= MAX_LAYERS, "there are decoder layers")
    expected = [n] * depth
    for event in trace.events:
        _check_event(event, n, depth)
        n = event.reduction.n_out
        first = event.layer + 1 if event.site == "decoder" else 0
        expected[first:] = [n] * (depth - first)
    _need(all(map(_whole, trace.counts)) and trace.counts == expected, "counts fit the events")


def _check_event(event: Event, n: int, depth: int) -> None:
    low, high = {"connector": (-1, -1), "decoder": (0, depth - 1), "encoder": (0, MAX_LAYERS)}[
        event.site
    ]
    _need(_whole(event.layer, low, high), "events happen at layers that exist")
    r: Reduction = event.reduction
    _need(_whole(r.n_in) and r.n_in == n and r.n_out > 0, "events take what the last one left")
    _need(all(map(_whole, r.extras)), "compensation tokens are outputs")
    for index, limit in ((r.source, r.n_in), (r.target, r.n_out), (r.slot, r.n_in)):
        _need(_within(index, 0, limit - 1), "edges lead from tokens to tokens")
    _need(_tensor(r.weight, [len(r.source)], FLOATS), "edges have weights")
    for name, fact in r.evidence.items():
        _need(re.fullmatch(r"\w{1,64}", name) is not None, "evidence has plain names")
        # Not a number is a fact about a token that the method never saw.
        whole = name in TOKEN_EVIDENCE or fact.dtype not in (torch.bool, *FLOATS)
        fits = _within(fact, -1, n) if whole else fact.shape == (n,)
        _need(fits, "evidence is about tokens")
    if "interval" in r.evidence:
        _need("importance" in r.evidence, "intervals have winners")
        _need(bool((r.evidence["interval"] >= 0).any()), "intervals have tokens")
    if "importance" in r.evidence:
        _need(bool(r.evidence["importance"].isfinite().any()), "importance of some token is known")


def _check_paths(trace: Trace) -> None:
    """Composing the events (`Trace.lineage`) must not fill the memory."""
    n = len(trace.layout)
    fan = torch.ones(n, dtype=torch.int64)  # upper bound of the edges into each output
    for event in trace.events:
        r = event.reduction
        paths = fan[r.source]
        _need(int(paths.sum()) <= MAX_PATHS, "events can be composed")
        fan = torch.zeros(r.n_out, dtype=torch.int64).index_add_(0, r.target, paths).clamp_(max=n)


def _check_attention(trace: Trace) -> None:
    """Rows of all layers for every word, or none at all."""
    steps = [trace.importance, *trace.attention] if trace.importance else []
    _need(len(trace.attention) == (len(trace.words) if steps else 0), "every word has its rows")
    for rows in steps:
        _need(len(rows) == len(trace.counts), "every layer has its row")
        for row, n in zip(rows, trace.counts, strict=True):
            _need(_tensor(row, [n], FLOATS), "rows fit the token counts")
    if trace.cls_attention is not None:
        _need(_tensor(trace.cls_attention, [len(trace.layout)], FLOATS), "CLS attends to patches")


def _check_costs(trace: Trace) -> None:
    times = trace.timings
    _need(isinstance(times.decode, list), "decoding has a time per word")
    seconds = [times.encoder, times.connector, times.prefill, *times.decode]
    _need(all(map(_number, seconds)), "times are seconds")
    _need(_text(times.where) and len(times.where) <= MAX_PLACE, "times say where they were taken")
    _need(_whole(times.turns, 1, MAX_MEASURED), "prefills are measured some times")
    _need(times.read is None or _whole(times.read, 1, MAX_TEXT), "something was read")
    cost = trace.cost
    _need(_text(cost.attention) and len(cost.attention) <= MAX_PLACE, "attention has a name")
    spent = (cost.flops, cost.vanilla_flops, cost.kv_bytes, cost.vanilla_kv_bytes)
    _need(all(_number(x) and x > 0 for x in spent), "costs are numbers above zero")
    _need(cost.text is None or _whole(cost.text, 0, MAX_TEXT), "prompts have words")
    most = len(trace.layout)
    _need(cost.visual is None or _whole(cost.visual, 1, most), "visual tokens become no more")
    if cost.units is not None:
        _need(0 < len(cost.units) <= MAX_UNITS, "some units, not too many")
        _need(all(_whole(n, 1, MAX_GRID**2) for n in cost.units), "units have patches")


def _check_times(trace: Trace) -> None:
    if trace.times is not None:
        _need(isinstance(trace.times, list), "a video has times")
        seconds = len(trace.times) == len(trace.images) and all(map(_number, trace.times))
        _need(seconds, "every frame has its second")


def _check_detail(trace: Trace) -> None:
    """What full tracing adds belongs to the layers, tokens and events of the trace."""
    detail, n, depth = trace.detail, len(trace.layout), len(trace.counts)
    _need(len(trace.importance) == depth, "full tracing has rows, too")
    for layer, row in detail.encoder.items():
        _need(_whole(layer, 0, MAX_LAYERS) and row.shape == (n,), "encoder rows are about patches")
        _need(bool((row.isnan() | _finite_share(row)).all()), "attention is a share")
    _need(len(detail.heads) == depth, "every layer has its heads")
    for heads, count in zip(detail.heads, trace.counts, strict=True):
        _need(0 < len(heads) <= MAX_HEADS, "layers have heads")
        _need(_shares(heads, [len(heads), count]), "heads attend to the tokens of their layer")
    for layer, matrix in detail.matrices.items():
        _need(_whole(layer, 0, depth - 1), "matrices are about layers that exist")
        _check_matrix(matrix, trace.counts[layer])
    for event, similarity in detail.similarity.items():
        _need(_whole(event, 0, len(trace.events) - 1), "similarities are about events")
        _check_similarity(similarity, trace.events[event].reduction.n_in)


def _check_matrix(matrix: AttentionMatrix, n_visual: int) -> None:
    segments = matrix.segments
    sizes = len(segments) == len(SEGMENTS) and all(_whole(n, 0, MAX_TEXT) for n in segments)
    _need(sizes and segments[1] >= n_visual and segments[2] > 0, "segments hold the sequence")
    size, total = len(matrix.starts), sum(segments)
    _need(_shares(matrix.pooled, [size, size]), "bins attend to bins")
    if matrix.raw is not None:
        fits = total <= MAX_PAIRED and _tensor(matrix.raw, [total, total], [torch.uint8])
        _need(fits, "tokens attend to tokens")


def _check_similarity(similarity: Similarity, n_in: int) -> None:
    own = _whole(similarity.n, n_in, min(n_in, MAX_PAIRED))
    _need(own, "similarities are between the tokens of the event")
    low, high = similarity.low, similarity.high
    _need(_number(low, -1.01, 1.01) and _number(high, low, 1.01), "cosines lie in -1..1")
    _need(_tensor(similarity.codes, [n_in * (n_in - 1) // 2], [torch.uint8]), "pairs have codes")


def _shares(x: Tensor, shape: Sequence[int]) -> bool:
    """Whether a tensor of this shape holds shares of attention."""
    return _tensor(x, shape, FLOATS) and bool(_finite_share(x).all())


def _finite_share(x: Tensor) -> Tensor:
    return (x >= 0) & (x < 1.001)
