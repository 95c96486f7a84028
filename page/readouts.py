"""The numbers of an answer beside vanilla's, with units, as HTML."""

from collections.abc import Callable, Iterator, Sequence
from html import escape

from libra import methods
from libra.report import where_removed
from libra.statistics import percent
from libra.trace import Trace
from page import plan, texts
from page.shown import Result
from viz.panel import left

SAVING = 0.05  # share of the tokens: to remove less is hardly to compress


def readouts(trace: Trace | None, vanilla: Trace | None = None) -> str:
    """Tokens, FLOPs, KV cache and prefill time of an answer beside vanilla's."""
    if trace is None:
        return ""
    cost = trace.cost
    rows = (
        _row("Visual tokens", staircase(trace), _columns(trace)),
        _row("FLOPs", *_against(cost.flops, cost.vanilla_flops, flops)),
        _row("KV cache", *_against(cost.kv_bytes, cost.vanilla_kv_bytes, size)),
        _row("Prefill", *_prefill(trace, vanilla)),
    )
    return f'<h2 class="unseen">{texts.COSTS}</h2><dl class="readouts">{"".join(rows)}</dl>'


def numbers(trace: Trace, vanilla: Trace) -> dict:
    """The same as plain numbers: counts, FLOPs, bytes and seconds, each beside vanilla's."""
    return {
        "method": trace.method,
        "ratio": trace.ratio,
        "layers": list(trace.layers),
        "tokens": [len(trace.layout), *(event.reduction.n_kept for event in trace.events)],
        "tokens_per_layer": trace.counts,
        "flops": trace.cost.flops,
        "vanilla_flops": trace.cost.vanilla_flops,
        "kv_bytes": trace.cost.kv_bytes,
        "vanilla_kv_bytes": trace.cost.vanilla_kv_bytes,
        "prefill_seconds": trace.timings.prefill,
        "vanilla_prefill_seconds": vanilla.timings.prefill,
        "total_seconds": trace.timings.total,
        "vanilla_total_seconds": vanilla.timings.total,
        "vanilla_answer": vanilla.answer,
    }


def comparison(results: Sequence[Result], stored: bool = False) -> str:
    """The costs of all methods as a table; what went wrong stands in the row of its method.

    Answers that are `stored` were measured elsewhere.
    """
    complete = [result for result in results if result.complete]
    if not complete:
        return ""
    terms = ("Visual tokens", "FLOPs", "KV cache", "Prefill", "Whole answer")
    heads = "".join(f'<th scope="col">{term}{tip(term)}</th>' for term in terms)
    traces = [result.trace for result in complete if result.trace is not None]
    amounts = iter(in_units([*map(_amounts, traces)], (flops, size, seconds, seconds)))
    rows = "".join(
        f'<tr><th scope="row">{escape(methods.title(result.method))}</th>'
        f"{_costs(result, len(terms), amounts)}</tr>"
        for result in complete
    )
    notes = [texts.MEASURED.format(clock(traces, stored), how_often(traces))]
    notes += [f"{methods.title(t.method)}: {words}" for t in traces if (words := hardly(t))]
    return (
        f'<div class="scroll"><table class="numbers"><thead><tr><th scope="col">Method</th>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        + "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    )


def clock(traces: Sequence[Trace], stored: bool) -> str:
    """Where times were measured: here, or where the stored answers come from."""
    if not stored:
        return texts.MEASURED_HERE
    # Of "CPU (AMD EPYC), float32, sdpa, batch 1, ..." what all the answers have in common.
    places = {trace.timings.where.partition(", batch")[0] for trace in traces} - {""}
    return texts.STORED_TIMES.format("; ".join(sorted(places)) or texts.ANOTHER_MACHINE)


def how_often(traces: Sequence[Trace]) -> str:
    """How many measurements there are behind the times: slow prefills have but one."""
    turns = max((trace.timings.turns for trace in traces), default=1)
    if turns == 1:
        return texts.MEASURED_ONCE
    once = ", ".join(methods.title(t.method) for t in traces if t.timings.turns == 1)
    return texts.MEASURED_IN_TURNS.format(texts.BUT_FOR.format(once) if once else "", turns)


def _amounts(trace: Trace) -> tuple[float, ...]:
    """What the table says in units: FLOPs, bytes of the cache, seconds of prefill and of all."""
    return trace.cost.flops, trace.cost.kv_bytes, trace.timings.prefill, trace.timings.total


def _costs(result: Result, columns: int, amounts: Iterator[Sequence[str]]) -> str:
    """The cells of one method: tokens, shares of vanilla's work and memory, measured times.

    An answer takes the next of the amounts.
    """
    trace = result.trace
    if trace is None:
        return f'<td class="error" colspan="{columns}">{escape(result.error)}</td>'
    cost, (work, cache, prefill, total) = trace.cost, next(amounts)
    cells = (
        f"{staircase(trace)}<small>{escape(where_removed(trace))}</small>",
        f"{percent(cost.flops / cost.vanilla_flops)}<small>{work}</small>",
        f"{percent(cost.kv_bytes / cost.vanilla_kv_bytes)}<small>{cache}</small>",
        prefill,
        total,
    )
    return "".join(f"<td>{cell}</td>" for cell in cells)


def in_units(
    rows: Sequence[Sequence[float]], units: Sequence[Callable[[float, float], str]]
) -> list[list[str]]:
    """The amounts of a table's rows as text, in the unit that suits the most of each column."""
    most = [max(column) for column in zip(*rows, strict=True)]
    return [
        [unit(amount, top) for unit, amount, top in zip(units, row, most, strict=True)]
        for row in rows
    ]


def per_layer(traces: Sequence[Trace]) -> str:
    """Visual tokens that each decoder layer works on, as a table with a row per trace."""
    layers = "".join(f'<th scope="col">{layer}</th>' for layer in range(len(traces[0].counts)))
    rows = "".join(
        f'<tr><th scope="row">{escape(methods.title(trace.method))}</th>'
        + "".join(f"<td>{count:d}</td>" for count in trace.counts)
        + "</tr>"
        for trace in traces
    )
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{texts.PER_LAYER}">'
        f'<table class="numbers"><thead><tr><th scope="col">Decoder layer</th>{layers}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def hardly(trace: Trace) -> str:
    """What is to be said where a method saves nothing, or hardly anything."""
    if not trace.events:
        return ""
    last, n = trace.events[-1], len(trace.layout)
    extra = len(last.reduction.extras)
    if _by_own_rule(trace):
        summed = texts.AND_SUMS.format(_more(extra, " that")) if extra else ""
        words = texts.HARDLY.format(last.reduction.n_kept, n, summed)
        return words if trace.ratio < SAVING else ""
    if all(event.reduction.n_kept == event.reduction.n_in for event in trace.events):
        return texts.NOTHING_REMOVED
    if trace.counts[-1] < n:
        return ""
    if last.site == "decoder" and last.layer == len(trace.counts) - 1:
        return texts.AFTER_THE_LAST
    return texts.AS_MANY.format(last.reduction.n_kept, n, _more(extra))


def _more(n: int, that: str = "") -> str:
    """The subject and the verb of a sentence on so many extra tokens: "one more that sums"."""
    return f"{n} more{that} sum" if n > 1 else f"one more{that} sums"


def _by_own_rule(trace: Trace) -> bool:
    """Whether the method found out itself how many tokens stay.

    A trace has no more than the ratio. One that was given is a round number, which hardly any count
    of tokens comes to; where all stay there is nothing to tell.
    """
    name, first = trace.method, trace.events[0].reduction
    if name not in methods.names() or not methods.takes(name, "ratio") or plan.slides(name):
        return False
    return "keep" not in trace.params and 0 < trace.ratio == 1 - first.n_kept / first.n_in


def tip(term: str) -> str:
    """A question mark that explains a term on hover and focus."""
    explanation = escape(texts.TERMS[term])
    return (
        f'<button type="button" class="tip" aria-label="{term}: {explanation}" '
        f'data-tip="{explanation}">?</button>'
    )


def staircase(trace: Trace) -> str:
    """Visual tokens from stage to stage, like `576 › 288 › 144 › 72`; `+ 1`: one sums up others."""
    return " › ".join([f"{len(trace.layout)}", *(left(e.reduction) for e in trace.events)])


def flops(value: float, most: float | None = None) -> str:
    """`1.2 GFLOPs`; in the unit of `most`, where that is given."""
    return _scaled(value, most, 1000, ("FLOPs", "kFLOPs", "MFLOPs", "GFLOPs", "TFLOPs"))


def size(value: float, most: float | None = None) -> str:
    """`2.4 MiB`; in the unit of `most`, where that is given."""
    return _scaled(value, most, 1024, ("B", "KiB", "MiB", "GiB"))


def seconds(value: float, most: float | None = None) -> str:
    """`0.017 ms`, `1.3 ms`, `61 ms`, `1.24 s`; in the unit of `most`, where that is given."""
    if max(value, most or 0) >= 1:
        return f"{value:.2f} s" if value >= 0.1 else f"{value:.2g} s"
    digits = ".0f" if value >= 0.01 else ".1f" if value >= 0.001 else ".2g"
    return f"{value * 1000:{digits}} ms"


def _scaled(value: float, most: float | None, base: int, units: tuple[str, ...]) -> str:
    """A value in three digits, in the unit that suits `most` (default: itself)."""
    most, power = value if most is None else most, 0
    while most >= 999.5 and power < len(units) - 1:  # 1000 has a digit too many
        most, power = most / base, power + 1
    return f"{value / base**power:.3g} {units[power]}"


def _row(term: str, value: str, picture: str) -> str:
    return f"<div><dt>{term}{tip(term)}</dt><dd>{value}</dd><dd>{picture}</dd></div>"


def _against(ours: float, vanillas: float, unit) -> tuple[str, str]:
    """A value as a share of vanilla's, and both as bars."""
    share = ours / vanillas if vanillas else 1.0
    note = f"{unit(ours)}, vanilla {unit(vanillas)}"
    return f"{percent(share)} <small>of vanilla</small>", _bar(share, note)


def _prefill(trace: Trace, vanilla: Trace | None) -> tuple[str, str]:
    """The measured prefill time; its bar waits, without moving anything, for vanilla's."""
    ours = trace.timings.prefill
    if trace.method == "vanilla":
        return seconds(ours), _bar(1.0, "this is vanilla")
    if vanilla is None:
        return seconds(ours), _bar(None, "vanilla not measured yet")
    theirs = vanilla.timings.prefill
    if trace.timings.read != vanilla.timings.read:
        return seconds(ours), _bar(None, texts.UNEQUAL.format(seconds(theirs)))
    return seconds(ours), _bar(ours / theirs if theirs else 1, f"vanilla {seconds(theirs)}")


def _bar(share: float | None, note: str) -> str:
    style = "" if share is None else f' style="--share:{min(share, 1):.4f}"'
    over = " over" if share is not None and share > 1 else ""
    return f'<div class="gauge{over}"{style} role="presentation"><i></i></div><p>{note}</p>'


def _columns(trace: Trace) -> str:
    """One column per decoder layer, as high as the share of tokens it works on."""
    n = len(trace.layout)
    columns = "".join(
        f'<i style="--share:{count / n:.4f}" title="Layer {layer}: {count:d} visual tokens"></i>'
        for layer, count in enumerate(trace.counts)
    )
    layers = f"layers 0 to {len(trace.counts) - 1}"
    counts = ", ".join(map(str, trace.counts))
    earlier = sum(event.site != "decoder" for event in trace.events)
    which = "first step comes" if earlier == 1 else f"first {earlier} steps come"
    steps = f"; the {which} before them" if earlier else ""
    return (
        f'<div class="columns" role="img" aria-label="Visual tokens in each of {layers}: {counts}">'
        f"{columns}</div><p>tokens that each decoder layer works on, {layers}{steps}</p>"
    )
