"""How long each method's decision and merge take, as a share of one decoder layer's prefill.

    python -m benchmarks.reduction [--methods libra,fastv] [--sizes 576,2880] [--json FILE]

The layer is one LLaVA-1.5-7B decoder layer with random weights, over as many tokens. Times are
medians; the target for Libra-Merging is at most 5 % of a layer, once per compression.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from libra import methods
from libra.errors import InputError
from libra.layout import TokenLayout

HIDDEN, HEADS, INTERMEDIATE = 4096, 32, 11008
KEYS, WORDS = 1024, 40  # width of the encoder's keys, tokens of an instruction


@dataclass(frozen=True)
class Row:
    """One method at one number of tokens; times in milliseconds."""

    method: str
    n: int
    n_out: int
    reduce_ms: float
    apply_ms: float
    layer_ms: float
    percent: float  # of the layer


def median_ms(run: Callable[[], object], repeats: int, device: str) -> float:
    """Median wall time of `run`, after one run to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def decoder_layer(device: str, dtype: torch.dtype) -> Callable[[torch.Tensor], object]:
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
    rotary = LlamaRotaryEmbedding(config).to(device)

    def prefill(hidden: torch.Tensor) -> object:
        hidden = hidden[None]
        position = torch.arange(hidden.shape[1], device=device)[None]
        return layer(hidden, position_embeddings=rotary(hidden, position), position_ids=position)

    return prefill


def random_tokens(n: int, device: str, dtype: torch.dtype) -> methods.Tokens:
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
        generator=torch.Generator().manual_seed(0),
    )


@torch.inference_mode()
def measure(
    names: list[str],
    sizes: list[int],
    ratio: float = 0.5,
    repeats: int = 5,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[Row]:
    """Time every method that can remove this share, at every number of tokens."""
    rows, layer = [], decoder_layer(device, dtype)
    for n in sizes:
        tokens = random_tokens(n, device, dtype)
        layer_ms = median_ms(lambda: layer(tokens.hidden), min(repeats, 3), device)  # noqa: B023
        for name in names:
            takes_ratio = any(p.name == "ratio" for p in methods.parameters(name))
            method = methods.create(name, **({"ratio": ratio} if takes_ratio else {}))
            try:
                reduction = method.reduce(tokens)
            except InputError as error:  # this method cannot remove that much
                print(f"{name} left out: {error}", file=sys.stderr)
                continue
            reduce_ms = median_ms(lambda: method.reduce(tokens), repeats, device)  # noqa: B023
            apply_ms = median_ms(lambda: reduction.apply(tokens.hidden), repeats, device)  # noqa: B023
            share = 100 * (reduce_ms + apply_ms) / layer_ms
            rows.append(Row(name, n, reduction.n_out, reduce_ms, apply_ms, layer_ms, share))
            print(describe(rows[-1]), flush=True)
    return rows


HEADER = (
    f"{'method':<12}{'N':>6}{'out':>6}{'reduce ms':>12}{'apply ms':>11}{'layer ms':>11}{'share':>9}"
)


def describe(row: Row) -> str:
    """One line of the table."""
    return (
        f"{row.method:<12}{row.n:>6}{row.n_out:>6}{row.reduce_ms:>12.2f}{row.apply_ms:>11.2f}"
        f"{row.layer_ms:>11.1f}{row.percent:>8.2f}%"
    )


def _count(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _sizes(text: str) -> list[int]:
    """Numbers of tokens, for argparse."""
    sizes = [int(size) for size in text.split(",")]
    if min(sizes) < 2:
        raise ValueError
    return sizes


def main(arguments: list[str] | None = None) -> int:
    """Print the table; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="all", help="names separated by commas, or all")
    parser.add_argument(
        "--sizes", type=_sizes, default="576,2880", help="numbers of visual tokens, each 2 or more"
    )
    parser.add_argument("--ratio", type=float, default=0.5, help="share of the tokens to remove")
    parser.add_argument("--repeats", type=_count, default=5, help="runs whose median is taken")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="default: float32 on a CPU, bfloat16 on a GPU",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    options = parser.parse_args(arguments)
    dtype = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")
    names = methods.names() if options.methods == "all" else options.methods.split(",")
    try:
        for name in names:
            methods.get(name)
        print(f"one decoder layer of LLaVA-1.5-7B's size, {options.device}, {dtype}")
        print(HEADER)
        rows = measure(
            names,
            options.sizes,
            options.ratio,
            options.repeats,
            options.device,
            getattr(torch, dtype),
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
