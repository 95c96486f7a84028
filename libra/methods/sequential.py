"""Sequential sampling: the first tokens of the raster."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from libra.methods.base import RatioMethod, Tokens
from libra.reduction import Reduction


@dataclass(frozen=True)
class Sequential(RatioMethod):
    """Keep the first tokens, that is the top rows of the picture."""

    name = "sequential"
    title = "Sequential sampling"
    summary = "Keeps the first visual tokens, that is the top of the picture."
    paper = "baseline in PruMerge, section 4.4.1 and Table 4"
    kind = "prune"
    site = "connector"
    presets: ClassVar[dict[str, dict]] = {"PruMerge, Table 4": {"keep": 40}}

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Select the first `n_keep` tokens."""
        return Reduction.select(torch.arange(n_keep, device=tokens.hidden.device), len(tokens))
