"""What answering several questions at once saves: answers per second beside one at a time.

    python -m benchmarks.batch [--models llava-1.5-7b] [--tokens 576] [--batches 1,2,4,8]
        [--methods vanilla,libra,fastv,illava] [--ratio 0.5] [--words 16] [--json FILE]

Weights are random. On a GPU models have their published size; on a CPU widths and depths are
divided, the divisors are printed, and `ON_CPU` are the defaults of a run of a minute or two. Every
question brings its pictures, so the time is that of whole answers, encoder to last word, by a clock
that waits for the device. Each ratio is to batch 1 of the same method in the same round:

    answers/s  questions of a batch / seconds until all of them are answered
    prefill    of all questions of the batch, milliseconds
    decode     of one word for each of them

What a batch shares are the weights, which are read once for all, and the launching of kernels.
So it pays most where words are decoded, and where compression has left few tokens of the prompt; a
long prompt keeps a device busy by itself. Attention goes question by question, as do methods'
decisions and encoders that shrink their tokens (`libra.batch`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

from benchmarks.measure import (
    counts,
    dtype,
    give_or_take,
    milliseconds,
    parser,
    peak_memory,
    report,
    rounds,
    run,
    scalable,
    setup,
    spread,
)
from benchmarks.models import QUESTION, Model, Scale, scaled
from libra import methods
from libra.cli import count, words
from libra.trace import Timings

METHODS = "vanilla,libra,fastv,illava"
ON_CPU = {"width": 4, "depth": 8, "words": 8, "repeats": 2}


@dataclass(frozen=True)
class Run:
    """A batch of answers."""

    seconds: float
    timings: Timings  # shared by all of them
    peak: int | None  # bytes beyond the weights


@dataclass(frozen=True)
class Row:
    """One method at one size of batches; medians, times in milliseconds."""

    model: str
    tokens: int  # visual, before compression
    method: str
    batch: int
    answers: float  # a second
    encoder: float
    prefill: float
    decode: float  # median of the later words
    peak_bytes: int | None
    faster: float  # answers a second, beside batch 1
    faster_spread: float | None


def answer(model: Model, device: torch.device, n: int, **request: object) -> Run:
    """`n` answers at once."""
    asked = [{"images": model.pictures, "question": QUESTION, "tracing": False} | request] * n
    answers = []

    def run() -> float:
        return milliseconds(lambda: answers.extend(model.lvlm.answer_batch(asked)), device)

    spent, peak = peak_memory(run, device)
    return Run(spent / 1e3, answers[0].trace.timings, peak)


def settings(names: Sequence[str], ratio: float) -> dict[str, dict]:
    """Arguments of `LVLM.stream` by method."""
    return {
        name: {"method": name} | ({"ratio": ratio} if methods.takes(name, "ratio") else {})
        for name in names
    }


@torch.inference_mode()
def measure(
    model: Model,
    device: torch.device,
    chosen: Mapping[str, dict],
    batches: Sequence[int],
    n_words: int,
    repeats: int,
) -> list[Row]:
    """Every method at every size of batches in every round."""
    variants: dict[tuple[str, int], Callable[[], Run]] = {
        (name, n): partial(answer, model, device, n, max_new_tokens=n_words, **request)
        for name, request in chosen.items()
        for n in batches
    }
    found = rounds(variants, repeats)
    return [_row(model, *key, runs, found[key[0], 1]) for key, runs in found.items()]


def _row(model: Model, method: str, n: int, runs: Sequence[Run], single: Sequence[Run]) -> Row:
    """The medians of one size of batches beside those of batch 1 in the same rounds."""
    faster = [n * one.seconds / run.seconds for run, one in zip(runs, single, strict=True)]
    timings, peaks = [run.timings for run in runs], [run.peak for run in runs]
    return Row(
        model=model.lvlm.name,
        tokens=model.n,
        method=method,
        batch=n,
        answers=n / median([run.seconds for run in runs]),
        encoder=1e3 * median([timing.encoder for timing in timings]),
        prefill=1e3 * median([timing.prefill for timing in timings]),
        decode=1e3 * median([median(timing.decode) for timing in timings]),
        peak_bytes=None if None in peaks else max(peaks),
        faster=median(faster),
        faster_spread=spread(faster),
    )


def cells(row: Row) -> dict:
    """A row as it is printed."""
    return {
        "model": row.model,
        "tokens": row.tokens,
        "method": row.method,
        "batch": row.batch,
        "answers/s": f"{row.answers:.2f}",
        "to batch 1": f"{row.faster:.2f}x{give_or_take(row.faster_spread)}",
        "encoder ms": f"{row.encoder:.1f}",
        "prefill": f"{row.prefill:.1f}",
        "decode": f"{row.decode:.1f}",
        "peak MiB": "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f}",
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; see the module's docstring."""
    options = parser(__doc__)
    options.add_argument("--models", type=words, default="llava-1.5-7b", help="(%(default)s)")
    options.add_argument("--tokens", type=counts, default="576", help="visual tokens (%(default)s)")
    options.add_argument("--batches", type=_batches, default="1,2,4,8", help="(%(default)s)")
    options.add_argument("--methods", type=words, default=METHODS, help="(%(default)s)")
    options.add_argument("--ratio", type=float, default=0.5, help="share to remove (%(default)s)")
    options.add_argument("--words", type=count, default=16, help="words after the first one")
    options.add_argument("--attention", default="sdpa", help="sdpa or flash_attention_2")
    scalable(options)
    return run(_measure_all, options, arguments, ON_CPU)


def _measure_all(options: argparse.Namespace) -> None:
    device, scale = torch.device(options.device), Scale(options.width, options.depth)
    chosen, n_words = settings(options.methods, options.ratio), 1 + options.words
    architectures = [scaled(name, scale) for name in options.models]

    def rows() -> Iterator[Row]:
        for architecture in architectures:
            for n in options.tokens:
                model = Model.of(architecture, n, device, dtype(options), options.attention)
                with model.lvlm:
                    yield from measure(
                        model, device, chosen, options.batches, n_words, options.repeats
                    )
                print(f"{architecture.name} with {model.n} tokens measured", file=sys.stderr)

    about = setup(
        options,
        batch=options.batches,
        attention=options.attention,
        scale=str(scale),
        words=options.words,
        ratio=options.ratio,
    )
    report(about, rows(), cells, options.json)


def _batches(text: str) -> list[int]:
    """Sizes of batches, 1 among them, for argparse."""
    return sorted({1, *map(count, text.split(","))})


if __name__ == "__main__":
    sys.exit(main())
