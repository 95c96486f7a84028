"""What the extra attention row costs: hybrid attention against eager and plain fused attention.

    python -m benchmarks.attention [--models llava-1.5-7b,qwen2-vl-7b] [--tokens 576,2304]
        [--width 4] [--depth 4] [--repeats 5] [--json FILE]

The comparison of Libra-Merging's Table 7, without any compression: the decoder's prefill of so many
visual tokens and 40 of text, in interleaved rounds, with

    fused           SDPA or flash attention as the model has it: no attention can be read
    hybrid, events  the output token's row after three layers, as Libra-Merging needs it
    hybrid, all     the same row in every layer, as tracing needs it
    eager           attention with its matrix
    eager, outputs  the same, and all matrices handed over (`output_attentions`)

Overhead is over `fused` in the same round; the aim for `hybrid, events` is under 2 %. On a CPU one
model is measured by default, a small one (`ON_CPU`); the divisors of its sizes are printed. Of its
few layers three are tapped all the same, which overstates `hybrid, events`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig

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
from benchmarks.models import Scale, decoder_sizes, scaled
from libra.architecture import Architecture
from libra.attention import LAST, TAP, HybridAttention, Rows
from libra.cli import words
from libra.devices import runs_ahead
from libra.models.fused import fuse_norms
from libra.request import scale_layers

TEXT = 40
MODELS = "llava-1.5-7b,qwen2-vl-7b"
ON_CPU = {"models": "llava-1.5-7b", "width": 4, "depth": 8, "repeats": 7}


@dataclass(frozen=True)
class Row:
    """One way of attention; medians, milliseconds."""

    model: str
    tokens: int
    way: str
    prefill: float
    prefill_spread: float | None
    overhead: float  # over fused attention, as a share
    peak_bytes: int | None  # beyond the weights


class Taps:
    """Reads the last token's row in some layers of a decoder, as a request does."""

    def __init__(self, layers: torch.nn.ModuleList, tapped: tuple[int, ...], attention: str):
        self._hybrid = HybridAttention([layer.self_attn for layer in layers], attention)
        hooks = (layers[i].register_forward_pre_hook(self._tap, with_kwargs=True) for i in tapped)
        self._handles = list(hooks)
        self.rows: list[torch.Tensor] = []

    def _tap(self, module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args, kwargs | {TAP: self._take}

    def _take(self, rows: Rows) -> None:
        self.rows.append(rows(LAST).mean(0).float())

    def __enter__(self) -> Taps:
        return self

    def __exit__(self, *exception: object) -> None:
        self._hybrid.remove()
        for handle in self._handles:
            handle.remove()


def decoder(a: Architecture, device: torch.device, dtype: torch.dtype, attention: str):
    """The language model of an architecture, with random weights."""
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            LlamaConfig(**decoder_sizes(a)), dtype=dtype, attn_implementation=attention
        )
    if runs_ahead(device):  # as in a model that is loaded
        fuse_norms(model)
    return model.eval()


@dataclass(frozen=True)
class Way:
    """One way of running the prefill."""

    attention: str
    tapped: tuple[int, ...] = ()
    outputs: bool = False  # hand over all attention matrices

    def run(self, model: torch.nn.Module, hidden: torch.Tensor, device: torch.device) -> float:
        """Milliseconds of the forward call over embeddings [1, S, D], and of nothing else."""
        model.set_attn_implementation(self.attention)
        cache = DynamicCache(config=model.config)
        forward = partial(model, inputs_embeds=hidden, past_key_values=cache, logits_to_keep=1)
        if self.outputs:
            forward = partial(forward, output_attentions=True)
        if not self.tapped:
            return milliseconds(forward, device)
        with Taps(model.model.layers, self.tapped, self.attention):
            return milliseconds(forward, device)


def ways(n_layers: int, fused: str) -> dict[str, Way]:
    """The ways that are compared, by name; `fused` comes first."""
    return {
        "fused": Way(fused),
        "hybrid, events": Way(fused, scale_layers((7, 15, 23), n_layers)),
        "hybrid, all": Way(fused, tuple(range(n_layers))),
        "eager": Way("eager"),
        "eager, outputs": Way("eager", outputs=True),
    }


@torch.inference_mode()
def measure(
    model: torch.nn.Module, name: str, n: int, device: torch.device, fused: str, repeats: int
) -> list[Row]:
    """All ways in every round, after one run each to warm up and for the peak of memory."""
    shape = (1, n + TEXT, model.config.hidden_size)
    hidden = torch.randn(shape, device=device, dtype=model.dtype)
    compared = ways(model.config.num_hidden_layers, fused)
    runs = {key: partial(way.run, model, hidden, device) for key, way in compared.items()}
    peaks = {key: peak_memory(run, device)[1] for key, run in runs.items()}
    found = rounds(runs, repeats, warmup=0)
    return [
        Row(
            model=name,
            tokens=n,
            way=way,
            prefill=median(spent),
            prefill_spread=spread(spent),
            overhead=median([a / b - 1 for a, b in zip(spent, found["fused"], strict=True)]),
            peak_bytes=peaks[way],
        )
        for way, spent in found.items()
    ]


def cells(row: Row) -> dict:
    """A row as it is printed."""
    return {
        "model": row.model,
        "tokens": row.tokens,
        "attention": row.way,
        "prefill ms": f"{row.prefill:.2f}{give_or_take(row.prefill_spread)}",
        "overhead": f"{row.overhead:+.1%}",
        "peak MiB": "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f}",
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; see the module's docstring."""
    options = parser(__doc__)
    options.add_argument("--models", type=words, default=MODELS, help=f"default: {MODELS}")
    options.add_argument("--tokens", type=counts, default="576,2304", help="visual tokens")
    options.add_argument("--fused", default="sdpa", help="sdpa or flash_attention_2")
    scalable(options)
    return run(_measure_all, options, arguments, ON_CPU)


def _measure_all(options: argparse.Namespace) -> None:
    device, scale = torch.device(options.device), Scale(options.width, options.depth)
    architectures = [scaled(name, scale) for name in options.models]

    def rows() -> Iterator[Row]:
        for architecture in architectures:
            model = decoder(architecture, device, dtype(options), options.fused)
            name = architecture.name
            for n in options.tokens:
                yield from measure(model, name, n, device, options.fused, options.repeats)

    about = setup(options, attention=options.fused, scale=str(scale), text=TEXT)
    report(about, rows(), cells, options.json)


if __name__ == "__main__":
    sys.exit(main())
