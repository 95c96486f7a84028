"""The numbers behind the figures: rows for a CSV file, pure functions of a trace."""

from __future__ import annotations

from collections.abc import Callable

from libra.reduction import TOKEN_EVIDENCE, Fate, Reduction
from libra.trace import Trace
from viz.heat import attention_row, stage_at
from viz.retention import picture_names, shares_kept

Rows = list[dict[str, object]]

COMPENSATION = "compensation token"  # the one token that stands for no patch


def patches(trace: Trace) -> Rows:
    """What became of every patch: at each stage its fate and the token that it is part of."""
    rows = _places(trace)
    for stage, name in enumerate(trace.stages[1:], 1):
        lineage = trace.lineage(stage)
        tokens, group = [*_names(lineage), "gone"], lineage.group().tolist()  # -1: the last
        for row, fate, token in zip(rows, lineage.fate().tolist(), group, strict=True):
            row[f"fate {name}"] = Fate(fate).name.lower()
            row[f"token {name}"] = tokens[token]
    return rows


def decisions(trace: Trace) -> Rows:
    """What every event knew about each of its tokens, and what it did with it."""
    rows = []
    for i, event in enumerate(trace.events):
        names, reduction = [*_names(trace.lineage(i)), ""], event.reduction
        facts = {fact: v.tolist() for fact, v in reduction.evidence.items() if v.ndim == 1}
        facts |= {
            fact: [names[token] for token in facts[fact]]
            for fact in TOKEN_EVIDENCE
            if fact in facts
        }
        facts["fate"] = [Fate(fate).name.lower() for fate in reduction.fate().tolist()]
        for token, known in enumerate(zip(*facts.values(), strict=True)):
            known = ("" if fact != fact else fact for fact in known)  # NaN: it was never asked
            row = {"event": event.name, "token": names[token]}
            rows.append(row | dict(zip(facts, known, strict=True)))
    return _aligned(rows)


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
    return _aligned(rows)


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


def attention_layers(trace: Trace) -> Rows:
    """Attention of the first word to the token at each patch, layer by layer."""
    return _attention(trace, {f"layer {i}": (i, 0) for i in range(len(trace.counts))})


def attention_words(trace: Trace) -> Rows:
    """Attention of every word to the token at each patch, at the middle layer."""
    middle = len(trace.counts) // 2
    names = [word.text.strip() for word in trace.words] or [""]
    return _attention(trace, {f"{i + 1} {name}": (middle, i) for i, name in enumerate(names)})


def cls(trace: Trace) -> Rows:
    """Attention of the encoder's CLS token to each patch."""
    values = trace.cls_attention.tolist()
    return [row | {"attention": v} for row, v in zip(_places(trace), values, strict=True)]


NUMBERS: dict[str, Callable[[Trace], Rows]] = {
    **dict.fromkeys(
        ("fate_map", "group_map", "group_map_label", "selected", "selected_through_model"), patches
    ),
    "merging_masks": patches,
    "retention": retained,
    "token_strip": patches,
    "interval_strip": decisions,
    "similarity_histogram": decisions,
    "attention_through_layers": attention_layers,
    "attention_per_word": attention_words,
    "staircase": layers,
    "cost_bars": costs,
    "time_shares": shares,
    "cls_distribution": cls,
}


def _places(trace: Trace) -> Rows:
    """Number, picture, frame, row and column of every patch."""
    layout = trace.layout
    columns = (layout.image, layout.frame, layout.row, layout.column)
    places = zip(*(column.tolist() for column in columns), strict=True)
    names = ("picture", "frame", "row", "column")
    return [{"patch": p} | dict(zip(names, place, strict=True)) for p, place in enumerate(places)]


def _times(trace: Trace) -> Rows:
    """Measured seconds of each part of the answer."""
    times = trace.timings
    parts = {"encoder": times.encoder, "connector": times.connector, "prefill": times.prefill}
    parts["decode"] = sum(times.decode)
    return [{"part": part, "seconds": seconds} for part, seconds in parts.items()]


def _attention(trace: Trace, columns: dict[str, tuple[int, int]]) -> Rows:
    """One column per (layer, word); empty where no token takes the place of the patch."""
    rows = _places(trace)
    if any(event.reduction.compensation is not None for event in trace.events):
        rows.append({"patch": COMPENSATION})
    for name, (layer, word) in columns.items():
        tokens = _names(trace.lineage(stage_at(trace, layer)))
        attention = dict(zip(tokens, attention_row(trace, layer, word).tolist(), strict=True))
        for row in rows:
            row[name] = attention.get(row["patch"], "")
    return _aligned(rows)


def _names(lineage: Reduction) -> list[object]:
    """Tokens by the patches whose places they take."""
    names = lineage.slot.tolist()
    if lineage.compensation is not None:
        names[lineage.compensation] = COMPENSATION
    return names


def _aligned(rows: Rows) -> Rows:
    """Rows with the same columns: events may know different things."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name, "") for name in names} for row in rows]
