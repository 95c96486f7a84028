"""The numbers behind the figures: rows for a CSV file, pure functions of a trace."""

from __future__ import annotations

from collections.abc import Callable

from libra.reduction import TOKEN_EVIDENCE, Fate
from libra.trace import Trace
from viz.accuracy import accuracy_rows
from viz.numbers_attention import (
    attention_layers,
    attention_words,
    cls,
    compensation,
    encoder,
    heads,
    matrices,
    raw_matrices,
)
from viz.retention import picture_names, shares_kept
from viz.rows import Rows, aligned, names, places
from viz.sampling import samples


def patches(trace: Trace) -> Rows:
    """What became of every patch: at each stage its fate and the token that it is part of."""
    rows = places(trace)
    for stage, name in enumerate(trace.stages[1:], 1):
        lineage = trace.lineage(stage)
        tokens, group = [*names(lineage), "gone"], lineage.group().tolist()  # -1: the last
        for row, fate, token in zip(rows, lineage.fate().tolist(), group, strict=True):
            row[f"fate {name}"] = Fate(fate).name.lower()
            row[f"token {name}"] = tokens[token]
    return rows


def decisions(trace: Trace) -> Rows:
    """What every event knew about each of its tokens, and what it did with it."""
    rows = []
    for i, event in enumerate(trace.events):
        tokens, reduction = [*names(trace.lineage(i)), ""], event.reduction
        facts = {fact: v.tolist() for fact, v in reduction.evidence.items() if v.ndim == 1}
        facts |= {
            fact: [tokens[token] for token in facts[fact]]
            for fact in TOKEN_EVIDENCE
            if fact in facts
        }
        facts["fate"] = [Fate(fate).name.lower() for fate in reduction.fate().tolist()]
        for token, known in enumerate(zip(*facts.values(), strict=True)):
            known = ("" if fact != fact else fact for fact in known)  # NaN: it was never asked
            row = {"event": event.name, "token": tokens[token]}
            rows.append(row | dict(zip(facts, known, strict=True)))
    return aligned(rows)


def layers(trace: Trace) -> Rows:
    """Visual tokens per decoder layer."""
    return [{"layer": layer, "visual tokens": n} for layer, n in enumerate(trace.counts)]


def costs(trace: Trace) -> Rows:
    """FLOPs and KV cache beside the plain model's, and the measured times in seconds."""
    cost = trace.cost
    rows = [
        {"what": "FLOPs", "value": cost.flops, "plain model": cost.vanilla_flops},
        {"what": "KV cache, bytes", "value": cost.kv_bytes, "plain model": cost.vanilla_kv_bytes},
        *({"what": f"{row['part']}, seconds", "value": row["seconds"]} for row in _times(trace)),
    ]
    return aligned(rows)


def shares(trace: Trace) -> Rows:
    """Seconds of each part of the answer, and its share."""
    total = trace.timings.total or 1.0
    return [row | {"share": row["seconds"] / total} for row in _times(trace)]


def retained(trace: Trace) -> Rows:
    """The share of each picture's patches, or each frame's, that is kept after each event."""
    columns = [f"kept {name}" for name in trace.stages[1:]]
    shares = shares_kept(trace).T.tolist()
    what = "second" if trace.times else "picture"
    named = zip(picture_names(trace), shares, strict=True)
    return [{what: name} | dict(zip(columns, kept, strict=True)) for name, kept in named]


def sampled(trace: Trace) -> Rows:
    """Which patches of each picture the method keeps, and which the blind samples take."""
    rows = places(trace)
    for image in range(len(trace.images)):
        (_, own), (_, first), *grids = samples(trace, len(trace.events), image).items()
        columns = {trace.method: own, "in sequence": first, **dict(grids)}
        for row in rows:
            if row["picture"] == image:
                row |= {name: int(taken[row["patch"]]) for name, taken in columns.items()}
    return aligned(rows)


NUMBERS: dict[str, Callable[[Trace], Rows]] = {
    **dict.fromkeys(("fate_map", "group_map", "group_map_label", "group_map_hue"), patches),
    **dict.fromkeys(("selected", "selected_flat", "selected_through_model"), patches),
    "merging_masks": patches,
    "retention": retained,
    "sampling_panel": sampled,
    "token_strip": patches,
    "interval_strip": decisions,
    "similarity_histogram": decisions,
    "attention_through_layers": attention_layers,
    "attention_per_word": attention_words,
    "attention_heads": heads,
    "attention_matrix": matrices,
    "attention_matrix_raw": raw_matrices,
    "encoder_attention": encoder,
    "compensation_lens": compensation,
    "staircase": layers,
    "cost_bars": costs,
    "time_shares": shares,
    "cls_distribution": cls,
    "accuracy": accuracy_rows,
}


def _times(trace: Trace) -> Rows:
    """Measured seconds of each part of the answer."""
    times = trace.timings
    parts = {"encoder": times.encoder, "connector": times.connector, "prefill": times.prefill}
    parts["decode"] = sum(times.decode)
    return [{"part": part, "seconds": seconds} for part, seconds in parts.items()]
