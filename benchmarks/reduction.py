"""How long each method's decision and merge take, as a share of one decoder layer's prefill.

    python -m benchmarks.reduction [--methods libra,fastv] [--sizes 576,2880] [--repeats 5]
        [--json FILE]

The layer is one LLaVA-1.5-7B decoder layer with random weights, over as many tokens, and takes its
turn in every round. Times are medians, by CUDA events on a GPU, where each run stands behind a
layer as it does in a prefill. They are those of a first event; what a prefill does around it, from
the attention row to the new order of the tokens, is timed by `benchmarks.prefill`. The target for
Libra-Merging is at most 5 % of a layer on a CPU, and 1 % of a prefill of 32 layers on a GPU, for
each event.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from benchmarks.measure import (
    counts,
    dtype,
    give_or_take,
    milliseconds,
    parser,
    report,
    rounds,
    run,
    setup,
    spread,
)
from libra import methods
from libra.cli import words
from libra.devices import runs_ahead
from libra.errors import InputError
from libra.layout import TokenLayout
from libra.models.fused import fuse_norms

HIDDEN, HEADS, INTERMEDIATE, LAYERS = 4096, 32, 11008, 32
KEYS, WORDS = 1024, 40  # width of the encoder's keys, tokens of an instruction
ON_CPU = {"repeats": 3}


@dataclass(frozen=True)
class Row:
    """One method at one number of tokens; times in milliseconds."""

    method: str
    n: int
    n_out: int
    reduce_ms: float
    apply_ms: float
    layer_ms: float
    percent: float  # of the layer, the median of the rounds
    percent_spread: float | None  # of that in them

    @property
    def prefill_percent(self) -> float:
        """The share of all layers of LLaVA-1.5-7B."""
        return self.percent / LAYERS

    def facts(self) -> dict:
        """As plain values."""
        return asdict(self) | {"prefill_percent": self.prefill_percent}


def decoder_layer(device: torch.device, dtype: torch.dtype) -> Callable[[torch.Tensor], object]:
    """The prefill of one decoder layer of LLaVA-1.5-7B's size, as a function of [N, D]."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_attention_heads=HEADS,
        num_hidden_layers=1,
        attn_implementation="sdpa",
    )
    layer = LlamaDecoderLayer(config, layer_idx=0).to(device, dtype).eval()
    if runs_ahead(device):  # as in a model that is loaded
        fuse_norms(layer)
    rotary = LlamaRotaryEmbedding(config).to(device)

    def prefill(hidden: torch.Tensor) -> object:
        hidden = hidden[None]
        position = torch.arange(hidden.shape[1], device=device)[None]
        return layer(hidden, position_embeddings=rotary(hidden, position), position_ids=position)

    return prefill


def random_tokens(n: int, device: torch.device, dtype: torch.dtype) -> methods.Tokens:
    """Tokens around a tenth as many centres, so that methods find something to merge."""
    generator = torch.Generator().manual_seed(n)
    centre = torch.randn(max(1, n // 10), HIDDEN, generator=generator)
    near = centre[torch.randint(len(centre), (n,), generator=generator)]
    hidden = near + 0.5 * torch.randn(n, HIDDEN, generator=generator)
    columns = max(c for c in range(1, int(n**0.5) + 1) if n % c == 0)
    return methods.Tokens(
        hidden=hidden.to(device, dtype),
        importance=torch.rand(n, generator=generator).pow(4).to(device) / n,
        keys=torch.randn(n, KEYS, generator=generator).to(device, dtype),
        received=torch.rand(n, generator=generator).to(device) / n,
        text_similarity=torch.randn(n, WORDS, generator=generator).to(device),
        text_attention=torch.rand(n, WORDS, generator=generator).to(device) / n,
        layout=TokenLayout.square_crop(columns, n // columns, (n // columns, columns)),
        generator=torch.Generator(device).manual_seed(0),
        may_wait=not runs_ahead(device),
    )


@torch.inference_mode()
def measure(
    names: list[str],
    sizes: list[int],
    ratio: float,
    repeats: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[Row]:
    """Time every method that can remove this share, at every number of tokens."""
    layer = decoder_layer(device, dtype)
    for n in sizes:
        tokens = random_tokens(n, device, dtype)
        runs, left = {"layer": partial(layer, tokens.hidden)}, {}
        for name in names:
            own = {"ratio": ratio} if methods.takes(name, "ratio") else {}
            method = methods.create(name, **own)
            try:
                reduction = method.reduce(tokens)
            except InputError as error:  # this method cannot remove that much
                print(f"{name} left out: {error}", file=sys.stderr)
                continue
            left[name] = reduction.n_out
            runs[name, "reduce"] = partial(method.reduce, tokens)
            runs[name, "apply"] = partial(reduction.apply, tokens.hidden)
        timed = {
            key: partial(milliseconds, run, device, runs["layer"]) for key, run in runs.items()
        }
        found = rounds(timed, repeats)
        spent = {key: median(times) for key, times in found.items()}
        for name, n_out in left.items():
            own = (name, "reduce"), (name, "apply")
            each = zip(*(found[key] for key in (*own, "layer")), strict=True)
            shares = [100 * (reduce + apply) / whole for reduce, apply, whole in each]
            times = [spent[key] for key in (*own, "layer")]
            yield Row(name, n, n_out, *times, median(shares), spread(shares))


def cells(row: Row) -> dict:
    """A row as it is printed."""
    return {
        "method": row.method,
        "N": row.n,
        "out": row.n_out,
        "reduce ms": f"{row.reduce_ms:.3f}",
        "apply ms": f"{row.apply_ms:.3f}",
        "layer ms": f"{row.layer_ms:.2f}",
        "of the layer": f"{row.percent:.2f}%{give_or_take(row.percent_spread)}",
        f"of {LAYERS}": f"{row.prefill_percent:.2f}%",
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; see the module's docstring."""
    options = parser(__doc__)
    options.add_argument("--methods", type=words, default="all", help="names, or all")
    options.add_argument("--sizes", type=counts, default="576,2880", help="numbers of tokens")
    options.add_argument("--ratio", type=float, default=0.5, help="share of the tokens to remove")
    return run(_measure_all, options, arguments, ON_CPU)


def _measure_all(options: argparse.Namespace) -> None:
    names = methods.chosen(options.methods)
    device, kind = torch.device(options.device), dtype(options)
    rows = measure(names, options.sizes, options.ratio, options.repeats, device, kind)
    about = setup(options, attention="sdpa", layer="one decoder layer of LLaVA-1.5-7B's size")
    report(about, rows, cells, options.json, Row.facts)


if __name__ == "__main__":
    sys.exit(main())
