"""FasterVLM: keep the patches that the CLS token attends to most."""

from dataclasses import dataclass
from typing import ClassVar

from libra.methods.fastv import FastV


@dataclass(frozen=True)
class FasterVLM(FastV):
    """Keep the tokens of highest CLS attention, before the language model sees them."""

    name = "fastervlm"
    title = "FasterVLM"
    summary = "Keeps the patches with the highest attention of the encoder's CLS token."
    paper = "Zhang et al., [CLS] Attention is All You Need for Training-Free Pruning, 2024"
    site = "connector"
    presets: ClassVar[dict[str, dict]] = {"keep 25 %": {"ratio": 0.75}}
