"""DivPrune: keep the most diverse subset of tokens."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from libra.methods.base import RatioMethod, Tokens
from libra.methods.operations import unit
from libra.reduction import Reduction


@dataclass(frozen=True)
class DivPrune(RatioMethod):
    """Max-min diversity, solved greedily: each step adds the token farthest from those chosen.

    The first token is the one whose nearest neighbour is farthest; distance is 1 - cosine. Every
    choice depends on the one before it, so this is a loop of `n_keep` steps over N distances.
    """

    name = "divprune"
    title = "DivPrune"
    summary = "Keeps the subset of patches that differ most from each other."
    paper = "Alvar et al., DivPrune, CVPR 2025, section 3"
    kind = "prune"
    site = "connector"
    presets: ClassVar[dict[str, dict]] = {"keep 9.8 %": {"ratio": 0.902}}

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Select `n_keep` tokens one after the other."""
        direction = unit(tokens.hidden)
        distance = 1 - direction @ direction.T
        nearest = distance.clone().fill_diagonal_(torch.inf).amin(1)
        gap = torch.full_like(nearest, torch.inf)  # to the closest token chosen so far
        chosen = torch.empty(n_keep, dtype=torch.long, device=gap.device)
        for i in range(n_keep):
            chosen[i] = (gap if i else nearest).argmax()
            gap = torch.minimum(gap, distance[chosen[i]])
            gap[chosen[i]] = -torch.inf  # and stays so
        return Reduction.select(chosen.sort().values, len(tokens))
