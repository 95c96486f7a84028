"""Random: a seeded random subset."""

from dataclasses import dataclass

import torch

from libra.methods.base import Baseline, Tokens
from libra.reduction import Reduction


@dataclass(frozen=True)
class Random(Baseline):
    """Keep tokens drawn at random, in their original order.

    The draw comes from the generator of the request; without one the seed is 0.
    """

    name = "random"
    title = "Random"
    summary = "Keeps a random subset of the visual tokens: what any method has to beat."
    paper = "baseline in iLLaVA, Tables 4 and 7"
    kind = "prune"

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Select `n_keep` tokens at random."""
        generator = tokens.generator or torch.Generator().manual_seed(0)
        drawn = torch.randperm(len(tokens), generator=generator, device=generator.device)
        kept = drawn[:n_keep].sort().values
        return Reduction.select(kept.to(tokens.hidden.device, non_blocking=True), len(tokens))
