"""The numbers behind the figures of attention: rows for a CSV file, pure functions of a trace."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from libra.detail import SEGMENTS, AttentionMatrix, from_log_codes
from libra.trace import Trace
from viz.attention_matrix import stored_matrices
from viz.cls import cls_row
from viz.compensation import attended, held
from viz.encoder import received
from viz.heads import head_rows, ranking_layer
from viz.heat import attention_row, stage_at
from viz.heat_panels import word_layer
from viz.rows import Rows, aligned, extra_names, names, places


def attention_layers(trace: Trace) -> Rows:
    """Attention of the first word to the token at each patch, layer by layer."""
    return _attention(trace, {f"layer {i}": (i, 0) for i in range(len(trace.counts))})


def attention_words(trace: Trace) -> Rows:
    """Attention of every word to the token at each patch, at the layer that looks most."""
    layer = word_layer(trace)
    said = [word.text.strip() for word in trace.words] or [""]
    return _attention(trace, {f"{i + 1} {word}": (layer, i) for i, word in enumerate(said)})


def cls(trace: Trace) -> Rows:
    """Attention of the encoder's CLS token to each patch."""
    values = cls_row(trace).tolist()
    return [row | {"attention": v} for row, v in zip(places(trace), values, strict=True)]


def heads(trace: Trace) -> Rows:
    """Attention of each head of the layer that the first event ranks by, for the first word."""
    layer = ranking_layer(trace)
    heads = range(len(head_rows(trace, layer)))
    return _attention(trace, {f"layer {layer} head {i}": (layer, 0, i) for i in heads})


def encoder(trace: Trace) -> Rows:
    """Mean attention that each patch receives in the encoder; empty where it is merged away."""
    rows = places(trace)
    for layer, attention in received(trace).items():
        for row, value in zip(rows, attention.tolist(), strict=True):
            row[f"encoder layer {layer}"] = value if value == value else ""
    return rows


def compensation(trace: Trace) -> Rows:
    """What each patch weighs in the last compensation tokens; then, what each layer attends to."""
    rows = places(trace)
    for row, weight in zip(rows, held(trace).tolist(), strict=True):
        row["weight"] = weight if weight == weight else ""
    layers, lines = attended(trace)
    for i, layer in enumerate(layers):
        rows.append({"layer": layer} | {name: float(line[i]) for name, line in lines.items()})
    return aligned(rows)


def matrices(trace: Trace) -> Rows:
    """Mean attention of each bin of tokens to each earlier one, in spread layers.

    A bin is named by its segment and its first token.
    """
    rows = []
    for layer, matrix in stored_matrices(trace).items():
        bins = list(zip(*_bins(matrix, matrix.starts.numpy()), strict=True))
        for i, shares in enumerate(matrix.pooled.tolist()):
            segment, token = bins[i]
            known = {"layer": layer, "segment": segment, "token": token}
            rows += [
                known | {"to segment": to, "to token": other, "attention": share}
                for (to, other), share in zip(bins[: i + 1], shares, strict=False)
            ]
    return rows


def raw_matrices(trace: Trace) -> Rows:
    """Attention of each token (a row) to each earlier one (a column), in spread layers."""
    matrices = stored_matrices(trace, raw=True)
    return aligned([row for layer, m in matrices.items() for row in _raw_rows(layer, m)])


def _raw_rows(layer: int, matrix: AttentionMatrix) -> Iterator[dict[str, object]]:
    """The rows of one layer."""
    shares = from_log_codes(matrix.raw).tolist()
    for segment, token in zip(*_bins(matrix, np.arange(len(shares))), strict=True):
        known = {"layer": layer, "segment": segment, "token": token}
        seen = shares[token][: token + 1]
        yield known | {f"to {other}": f"{share:.3g}" for other, share in enumerate(seen)}


def _bins(matrix: AttentionMatrix, tokens: np.ndarray) -> tuple[list[str], list[int]]:
    """The segment of each of these tokens, and their numbers."""
    ends = np.cumsum(matrix.segments)
    segments = np.searchsorted(ends, tokens, side="right")
    return [SEGMENTS[i] for i in segments], tokens.tolist()


def _attention(trace: Trace, columns: dict[str, tuple[int, ...]]) -> Rows:
    """One column per (layer, word) or (layer, word, head).

    Empty where no token takes the place of the patch.
    """
    rows = places(trace)
    counts = {len(event.reduction.extras) for event in trace.events}
    rows += [{"patch": name} for n in sorted(counts) for name in extra_names(n)]
    for name, which in columns.items():
        tokens = names(trace.lineage(stage_at(trace, which[0])))
        attention = dict(zip(tokens, attention_row(trace, *which).tolist(), strict=True))
        for row in rows:
            row[name] = attention.get(row["patch"], "")
    return aligned(rows)
