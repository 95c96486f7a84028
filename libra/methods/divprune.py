"""DivPrune: keep the most diverse subset of tokens."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from libra.methods.base import RatioMethod, Tokens
from libra.methods.operations import cosines
from libra.reduction import Reduction

BLOCK = 64  # candidates that one round looks at


@dataclass(frozen=True)
class DivPrune(RatioMethod):
    """Max-min diversity, solved greedily: the next token is the one farthest from those chosen.

    The first token is the one whose nearest neighbour is farthest; distance is 1 - cosine. A round
    chooses as many tokens as it can at once, so there are some tens of rounds, not one per token.
    """

    name = "divprune"
    title = "DivPrune"
    summary = "Keeps the subset of patches that differ most from each other."
    paper = "Alvar et al., DivPrune, CVPR 2025, section 3"
    kind = "prune"
    site = "connector"
    presets: ClassVar[dict[str, dict]] = {"keep 9.8 %": {"ratio": 0.902}}

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Select `n_keep` tokens round by round."""
        distance = 1 - cosines(tokens.hidden, tokens.hidden)
        # Two that are each other's nearest are equally far: rounding shall not choose between them.
        distance = torch.maximum(distance, distance.T)
        nearest = distance.clone().fill_diagonal_(torch.inf).amin(1)
        chosen = nearest.argmax()[None]
        gap = torch.full_like(nearest, torch.inf)  # to the closest token chosen so far
        left = n_keep
        while True:
            gap = torch.minimum(gap, distance[chosen].amin(0))
            gap[chosen] = -torch.inf  # and stays so
            left -= len(chosen)
            if not left:
                return Reduction.select((gap == -torch.inf).nonzero()[:, 0], len(tokens))
            chosen = _next(distance, gap, min(left, BLOCK))


def _next(distance: Tensor, gap: Tensor, most: int) -> Tensor:
    """The tokens that a greedy choice would take next, one to `most` of them.

    By falling gap, up to the first whose gap one of those before it makes smaller: until there
    each is the farthest in its turn, since gaps never grow.
    """
    order = gap.argsort(descending=True, stable=True)[:most]
    between = distance[order][:, order]
    among = between.masked_fill(torch.ones_like(between).triu().bool(), torch.inf).amin(1)
    shrunk = (among < gap[order]).int()
    return order[shrunk.cumsum(0) == 0]
