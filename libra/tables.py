"""The settings of the papers' FLOPs tables, so that `python -m libra flops` can reproduce them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

from libra.cost import prefill_flops, token_counts


@dataclass(frozen=True)
class PaperModel:
    """A model of the papers, with the rows of the table: (setting, layers, ratio)."""

    name: str
    d: int
    m: int
    d_kv: int | None
    n_layers: int
    lengths: tuple[int, ...]  # visual tokens; of several lengths the mean FLOPs count
    rows: tuple[tuple[str, tuple[int, ...], float], ...]


_VANILLA = ("vanilla", (), 0.0)
_EARLY = ("FastV / Turbo R=50 %", (3,), 1 / 2)

MODELS = (
    PaperModel(
        "LLaVA-1.5-7B",
        *(4096, 11008, None, 32, (576,)),
        rows=(
            _VANILLA,
            _EARLY,
            ("Libra-Merging R=50 %", (7, 15, 23), 1 / 2),
            ("Libra-Merging R=67 %", (7, 15, 23), 2 / 3),
            ("Libra-Merging R=80 %", (7, 15, 23), 4 / 5),
        ),
    ),
    PaperModel(
        "LLaVA-1.5-13B",
        *(5120, 13824, None, 40, (576,)),
        rows=(
            _VANILLA,
            _EARLY,
            ("Libra-Merging R=50 %", (9, 19, 29), 1 / 2),
            ("Libra-Merging R=67 %", (9, 19, 29), 2 / 3),
        ),
    ),
    # The number of tokens varies with the picture and the paper prints means over a benchmark:
    # these lengths give all four of its figures.
    PaperModel(
        "LLaVA-NeXT-8B",
        *(4096, 14336, 1024, 32, (2266, 2267)),
        rows=(
            _VANILLA,
            _EARLY,
            ("Libra-Merging R=50 %", (7, 15, 23), 1 / 2),
            ("Libra-Merging R=67 %", (7, 15, 23), 2 / 3),
        ),
    ),
    PaperModel(
        "VideoLLaMA-2-7B",
        *(3584, 18944, 512, 28, (3331,)),
        rows=(_VANILLA, ("R=75 %", (3,), 3 / 4)),
    ),
)


def paper_flops() -> Iterator[tuple[str, str, tuple[int, ...], float]]:
    """Rows of the table: model, setting, layers, TFLOPs of the visual part of the prefill."""
    for model in MODELS:
        for setting, layers, ratio in model.rows:
            flops = mean(
                prefill_flops(
                    token_counts(n, model.n_layers, layers, ratio), model.d, model.m, model.d_kv
                )
                for n in model.lengths
            )
            yield model.name, setting, layers, flops / 1e12
