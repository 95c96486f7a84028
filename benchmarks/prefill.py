"""What compression saves from end to end: every method beside vanilla, on models of published size.

    python -m benchmarks.prefill [--models llava-1.5-7b] [--tokens 576,2304] [--ratios 0.5,0.8]
        [--methods all] [--width 4] [--depth 5] [--repeats 5] [--json FILE]

Weights are random. On a GPU models have their published size, and every method is measured on all
models at all numbers of tokens. On a CPU widths and depths are divided, the divisors are printed,
and without options a run takes minutes: `ON_CPU` are its defaults. Encoder and connector are times
of the engine, which waits for the device before and after each; the encoder runs once a round for
all methods that leave it be. Prefill and decode are the model's own forward calls, the method's
decisions included, by CUDA events on a GPU. Each ratio is to vanilla in the same round, and the
median over the rounds:

    implied   FLOPs of vanilla's prefill / FLOPs of the method's, all tokens and layers
    reached   vanilla's prefill time / the method's
    share     reached / implied
    causal    the same share, of a speed-up whose FLOPs leave out what causal attention hides:
              the papers count all pairs of tokens, fused kernels compute half of them
    answer    vanilla's time for the whole answer, encoder to last word / the method's

Known reasons for a share below one:

- Short prompts do not fill a GPU: weights are read for few tokens, so times fall less than FLOPs.
- Launching a layer's kernels takes a GPU's host as long as a small layer takes the GPU: beside an
  H100 0.7 ms, about a 7B layer of 576 tokens. `benchmarks.batch` keeps it busy.
- A decision is work that no FLOPs are counted for. PruMerge waits for the device once, for how many
  tokens stay; DivPrune once per round of choices, some tens of times; greedy merging for every
  single pair: it is slow by construction and kept as a baseline.
- Attention rows of fp32 models are computed from the keys of all tokens: T * d_kv numbers.
- Answers come one at a time here: decoding reads all weights for one token. `benchmarks.batch`
  answers several at once.
- On a CPU: an event comes after every second or third layer of a shallow model, where published
  depths have several times as many layers for it to pay off.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median

import torch

from benchmarks.measure import (
    Stopwatch,
    counts,
    dtype,
    give_or_take,
    parser,
    peak_memory,
    report,
    rounds,
    run,
    scalable,
    setup,
    spread,
)
from benchmarks.models import QUESTION, Model, Scale, network, scaled
from libra import methods
from libra.cli import count, numbers, words
from libra.errors import InputError
from libra.trace import Trace
from libra.workload import Workload

MODELS = "llava-1.5-7b,llava-1.5-13b,qwen2-vl-7b"
ON_CPU = {
    "models": "llava-1.5-7b,qwen2-vl-7b",
    "tokens": "576,2304",
    "methods": "fastv,libra,prumerge+",
    "width": 4,
    "depth": 5,
    "repeats": 3,
}


@dataclass(frozen=True)
class Run:
    """One answer: its trace, and milliseconds and bytes that the trace does not have."""

    trace: Trace
    prefill: float
    decode: float  # median of the later tokens
    kv_bytes: int  # of all tokens, after the prefill
    peak: int | None  # bytes beyond the weights

    @property
    def total(self) -> float:
        """Seconds of the whole answer."""
        return self.trace.timings.total


@dataclass(frozen=True)
class Row:
    """One method on one model; medians, times in milliseconds."""

    model: str
    tokens: int  # visual, before compression
    text: int
    method: str
    ratio: float | None
    layers: tuple[int, ...]
    last: int  # visual tokens in the last layer
    encoder: float
    connector: float
    prefill: float
    prefill_spread: float | None
    decode: float
    peak_bytes: int | None
    kv_bytes: int
    kv_formula: int
    implied: float
    implied_causal: float  # where attention counts only what causality lets be seen
    reached: float
    reached_spread: float | None
    answer: float  # encoder to last word
    faster: float  # than vanilla's answer

    @property
    def shares(self) -> dict[str, float]:
        """What is reached of the speed-ups that FLOPs imply."""
        return {
            "share": self.reached / self.implied,
            "share_causal": self.reached / self.implied_causal,
        }


class ForwardCalls:
    """Times every forward call of a model, and weighs the KV cache that the second one finds."""

    def __init__(self, model: torch.nn.Module, device: torch.device):
        self.spent, self.kv_bytes = [], None
        self._watch = Stopwatch(device)
        self._handles = [
            model.register_forward_pre_hook(self._start, with_kwargs=True),
            model.register_forward_hook(self._stop),
        ]

    def _start(self, module, args, kwargs) -> None:
        if len(self.spent) == 1:
            layers = kwargs["past_key_values"].layers
            self.kv_bytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
        self._watch.start()

    def _stop(self, module, args, output) -> None:
        self.spent.append(self._watch.stop())

    def __enter__(self) -> ForwardCalls:
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()


class Encoded:
    """The encoder's features of a model's pictures, those of the round."""

    def __init__(self, model: Model):
        self._model = model
        self.refresh()

    def refresh(self) -> None:
        """Run the encoder."""
        self.features = self._model.lvlm.encode(images=self._model.pictures)


def answer(model: Model, device: torch.device, encoded: Encoded, **request: object) -> Run:
    """One answer through the engine, measured."""
    family = model.lvlm.family
    request |= {"images": model.pictures, "features": encoded.features}
    with ForwardCalls(family.model, device) as calls:
        ask = partial(model.lvlm.answer, question=QUESTION, tracing=False)
        answered, peak = peak_memory(lambda: ask(**request), device)
    prefill, *decode = (read() for read in calls.spent)
    return Run(answered.trace, prefill, median(decode), calls.kv_bytes, peak)


def settings(names: Sequence[str], ratios: Sequence[float]) -> dict[tuple, dict]:
    """(method, ratio) -> arguments of `LVLM.stream`; vanilla comes first."""
    found = {("vanilla", None): {"method": "vanilla"}}
    for name in names:
        if name != "vanilla":
            for ratio in ratios if methods.takes(name, "ratio") else [None]:
                own = {} if ratio is None else {"ratio": ratio}
                found[name, ratio] = {"method": name, **own}
    return found


@torch.inference_mode()
def measure(
    model: Model, device: torch.device, chosen: dict[tuple, dict], n_words: int, repeats: int
) -> list[Row]:
    """Every setting in every round; what cannot be done is left out, and said."""
    encoded, variants, refused = Encoded(model), {}, {}
    for key, request in chosen.items():
        run = partial(answer, model, device, encoded, max_new_tokens=n_words, **request)
        try:
            run()
        except InputError as error:
            refused[key[0]] = error
            continue
        variants[key] = run
    for name, error in refused.items():
        print(f"{model.lvlm.name}, {name} left out: {error}", file=sys.stderr)
    found = rounds(variants, repeats, warmup=0, before=encoded.refresh)  # all have run once
    plain = found["vanilla", None]
    return [_row(model, key, found[key], plain) for key in variants]


def _row(model: Model, key: tuple, runs: list[Run], plain: list[Run]) -> Row:
    """The medians of one setting beside vanilla's in the same rounds."""
    trace = runs[0].trace
    works = [Workload.of(x[0].trace, model.architecture) for x in (plain, runs)]
    reached = [b.prefill / a.prefill for a, b in zip(runs, plain, strict=True)]
    itemsize = model.lvlm.family.model.dtype.itemsize
    text = 2 * model.lvlm.family.geometry.d_kv * itemsize * trace.cost.text * len(trace.counts)
    peaks = [run.peak for run in runs]
    return Row(
        model=model.lvlm.name,
        tokens=trace.cost.visual,
        text=trace.cost.text,
        method=key[0],
        ratio=key[1],
        layers=trace.layers,
        last=trace.counts[-1],
        encoder=1e3 * median([run.trace.timings.encoder for run in runs]),
        connector=1e3 * median([run.trace.timings.connector for run in runs]),
        prefill=median([run.prefill for run in runs]),
        prefill_spread=spread([run.prefill for run in runs]),
        decode=median([run.decode for run in runs]),
        peak_bytes=None if None in peaks else max(peaks),
        kv_bytes=runs[0].kv_bytes,
        kv_formula=trace.cost.kv_bytes + text,
        implied=_implied(*works, causal=False),
        implied_causal=_implied(*works, causal=True),
        reached=median(reached),
        reached_spread=spread(reached),
        answer=1e3 * median([run.total for run in runs]),
        faster=median([b.total / a.total for a, b in zip(runs, plain, strict=True)]),
    )


def _implied(vanilla: Workload, ours: Workload, causal: bool) -> float:
    """How many times as many FLOPs vanilla's prefill takes, all tokens and layers."""
    flops = [sum(o.flops for o in work.prefill(causal)) for work in (vanilla, ours)]
    return flops[0] / flops[1]


def cells(row: Row) -> dict:
    """A row as it is printed."""
    return {
        "model": row.model,
        "tokens": row.tokens,
        "method": row.method,
        "R": "-" if row.ratio is None else f"{row.ratio:.0%}",
        "last": row.last,
        "encoder ms": f"{row.encoder:.2f}",
        "connector": f"{row.connector:.2f}",
        "prefill": f"{row.prefill:.2f}{give_or_take(row.prefill_spread)}",
        "decode": f"{row.decode:.2f}",
        "peak MiB": "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f}",
        "KV MiB": f"{row.kv_bytes / 2**20:.1f}{'' if row.kv_bytes == row.kv_formula else ' (!)'}",
        "implied": f"{row.implied:.2f}x",
        "reached": f"{row.reached:.2f}x{give_or_take(row.reached_spread)}",
        "share": f"{row.shares['share']:.0%}",
        "causal": f"{row.shares['share_causal']:.0%}",
        "answer": f"{row.answer:.0f} ms, {row.faster:.2f}x",
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; see the module's docstring."""
    options = parser(__doc__)
    options.add_argument("--models", type=words, default=MODELS, help=f"default: {MODELS}")
    options.add_argument(
        "--tokens", type=counts, default="576,2304,3331,8192", help="visual tokens"
    )
    options.add_argument("--ratios", type=numbers, default="0.5,2/3,0.8", help="shares to remove")
    options.add_argument("--methods", type=words, default="all", help="names, or all")
    options.add_argument("--words", type=count, default=8, help="words after the first one")
    options.add_argument("--attention", default="sdpa", help="sdpa, eager or flash_attention_2")
    scalable(options)
    return run(_measure_all, options, arguments, ON_CPU)


def _measure_all(options: argparse.Namespace) -> None:
    if any(not 0 <= ratio <= 1 for ratio in options.ratios):
        raise InputError(f"Ratios are shares from 0 to 1, not {options.ratios}.")
    device, scale = torch.device(options.device), Scale(options.width, options.depth)
    plan = settings(methods.chosen(options.methods), options.ratios)
    architectures = [scaled(name, scale) for name in options.models]

    def rows() -> Iterator[Row]:
        for architecture in architectures:
            weights = network(architecture, device, dtype(options), options.attention)
            for n in options.tokens:
                model = Model.around(weights, architecture, n)
                with model.lvlm:
                    yield from measure(model, device, plan, 1 + options.words, options.repeats)
                print(f"{architecture.name} with {model.n} tokens measured", file=sys.stderr)

    about = setup(options, attention=options.attention, scale=str(scale), words=options.words)
    report(about, rows(), cells, options.json, lambda row: asdict(row) | row.shares)


if __name__ == "__main__":
    sys.exit(main())
