"""What an answer cost, as plain values, text and tables."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

from libra.architecture import Architecture
from libra.roofline import DEVICES, verdict
from libra.trace import STAGE_NAMES, Trace, at_layers
from libra.workload import Workload


def facts(trace: Trace) -> dict:
    """One answer as plain values."""
    times = trace.timings
    return {
        "method": trace.method,
        "answer": trace.answer,
        "ratio": trace.ratio,
        "layers": list(trace.layers),
        "encoder_layers": _layers(trace, "encoder"),
        "where": where_removed(trace),
        "params": trace.params,
        "tokens": trace.counts,
        "flops": trace.cost.flops,
        "flops_share": trace.cost.flops / trace.cost.vanilla_flops,
        "kv_bytes": trace.cost.kv_bytes,
        "kv_share": trace.cost.kv_bytes / trace.cost.vanilla_kv_bytes,
        "encoder_s": times.encoder,
        "connector_s": times.connector,
        "prefill_s": times.prefill,
        "prefill_turns": times.turns,
        "decode_s": times.decode,
        "measured_on": times.where,
        "model": trace.model,
        "question": trace.question,
    }


def readout(trace: Trace, architecture: Architecture | None = None) -> str:
    """What the answer of a model of this architecture cost, for people."""
    values, times = facts(trace), trace.timings
    decode = (
        f", {1e3 * sum(times.decode) / len(times.decode):.1f} ms a word" if times.decode else ""
    )
    return "\n".join(
        (
            f"method   {trace.method}, ratio {trace.ratio:.3g} {values['where']}".rstrip(),
            *_frames(trace),
            f"tokens   {' '.join(map(str, trace.counts))} of {len(trace.layout)} visual tokens",
            f"FLOPs    {values['flops'] / 1e9:.3g} G for these, {values['flops_share']:.0%} of "
            "vanilla",
            f"KV cache {values['kv_bytes'] / 2**20:.3g} MiB for these, {values['kv_share']:.0%} of "
            "vanilla",
            f"time     encoder {1e3 * times.encoder:.0f} ms, connector "
            f"{1e3 * times.connector:.0f} ms, prefill {1e3 * times.prefill:.0f} ms{decode}",
            *([f"measured {times.where}"] if times.where else []),
            *_saving(trace, architecture),
        )
    )


def where_removed(trace: Trace) -> str:
    """`in encoder layers 3, 4 and after layer 5`: where tokens were removed."""
    layers = {site: _layers(trace, site) for site in STAGE_NAMES}
    places = {
        "encoder": at_layers("in encoder layer", layers["encoder"]),
        "connector": "after the encoder",
        "decoder": at_layers("after layer", layers["decoder"]),
    }
    return " and ".join(place for site, place in places.items() if layers[site])


def _layers(trace: Trace, site: str) -> list[int]:
    """The layers of one site in which tokens were removed."""
    return [event.layer for event in trace.events if event.site == site]


def _frames(trace: Trace) -> list[str]:
    """Which frames of a video were looked at: of a damaged one, the last may be missing."""
    if not trace.times:
        return []
    return [f"frames   {len(trace.times)}, at {' '.join(f'{t:.1f}' for t in trace.times)} s"]


def _saving(trace: Trace, architecture: Architecture | None) -> list[str]:
    """Where the saving is, on a device that many have; nothing for models of unknown sizes."""
    if architecture is None:
        return []
    device = DEVICES["A100"]
    work = replace(Workload.of(trace, architecture), itemsize=device.itemsize)
    sentence = verdict(work, work.vanilla, device)
    return [f"saving   counting all tokens, {sentence[0].lower()}{sentence[1:]}"]


def table(rows: list[dict]) -> str:
    """The comparison, for people."""
    return aligned(
        [
            {
                "method": row["method"],
                "answer": row["answer"],
                "ratio": f"{row['ratio']:.3g}",
                "removed": row["where"] or "-",
                "last layer": row["tokens"][-1],
                "FLOPs": f"{row['flops_share']:.0%}",
                "KV": f"{row['kv_share']:.0%}",
                "prefill": f"{1e3 * row['prefill_s']:.0f} ms",
                "decode": f"{1e3 * sum(row['decode_s']):.0f} ms",
            }
            for row in rows
        ]
    )


def sweep_table(rows: list[dict]) -> str:
    """A sweep, for people; answers unlike vanilla's are marked."""
    return aligned(
        [
            {
                "ratio": f"{row['ratio']:.0%}" if i else "vanilla",
                "after layer": "-" if row["layer"] is None else row["layer"],
                "last layer": row["tokens"],
                "FLOPs": f"{row['flops_share']:.0%}",
                "KV": f"{row['kv_share']:.0%}",
                "prefill": f"{1e3 * row['prefill_s']:.0f} ms",
                "of vanilla's": f"{row['prefill_share']:.0%}" + _spread(row),
                "answer": row["answer"] + ("" if row["same"] else "  (differs)"),
            }
            for i, row in enumerate(rows)
        ]
    )


def _spread(row: dict) -> str:
    """` (71-80%)`: the least and the greatest share of the prefill that was measured."""
    low, high = row["prefill_low"], row["prefill_high"]
    return "" if low == high else f" ({100 * low:.0f}-{high:.0%})"


def aligned(rows: list[dict]) -> str:
    """Rows as a table of columns; the keys of the first are the header."""
    lines = [list(rows[0]), *([_one_line(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _one_line(value: object) -> str:
    """A cell of a table: an answer may have several lines."""
    return re.sub(r"\s*\n\s*", " ", str(value))


def as_csv(rows: list[dict]) -> str:
    """Rows as CSV; lists with spaces between their entries."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(
            " ".join(map(str, value)) if isinstance(value, list) else value
            for value in row.values()
        )
    return out.getvalue()
