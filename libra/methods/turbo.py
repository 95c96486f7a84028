"""Turbo: merge away the tokens of much redundancy and little attention."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from libra.methods.base import RatioMethod, Tokens
from libra.methods.bipartite import bipartite_merge
from libra.methods.operations import complement, lengths, merge_groups, projections, top
from libra.reduction import Reduction


@dataclass(frozen=True)
class Turbo(RatioMethod):
    """Turbo as Libra-Merging compares with it (greedy), or as first published (bipartite).

    Differs from the first paper: bipartite matching compares keys where there are any and hidden
    states otherwise, since a decoder hands over no keys.
    """

    name = "turbo"
    title = "Turbo"
    summary = (
        "Ranks tokens by redundancy minus attention and averages the redundant ones into their "
        "most similar tokens."
    )
    paper = "Ju et al., Turbo, ECCV 2024; Libra-Merging, supplement C"
    kind = "merge"
    weighs = True
    needs = ("importance",)
    presets: ClassVar[dict[str, dict]] = {
        "Libra-Merging's tables": {"ratio": 0.5, "layers": (3,)},
        "bipartite matching (iLLaVA, Table 7)": {
            "ratio": 0.3,
            "layers": (1,),
            "matching": "bipartite",
            "weight": 0.0,
        },
        "as first published": {"ratio": 0.3, "matching": "bipartite", "weight": 30.0},
    }

    weight: float = field(
        default=6.0,
        metadata={"help": "weight of the attention against redundancy", "range": (0.0, math.inf)},
    )
    matching: str = field(
        default="greedy",
        metadata={
            "help": "partners: the most similar target of all, or of the other half (bipartite)",
            "choices": ("greedy", "bipartite"),
        },
    )

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Merge the tokens of highest information degree into their partners."""
        alpha = tokens.scores("importance")
        if self.matching == "bipartite":
            metric = tokens.hidden if tokens.keys is None else tokens.keys
            return bipartite_merge(
                self.title, metric, len(tokens) - n_keep, tokens.sizes(), self.weight * alpha
            )
        similarity = projections(tokens.hidden, tokens.hidden).fill_diagonal_(-torch.inf)
        redundancy = similarity.amax(1) / lengths(tokens.hidden)
        merged = top(redundancy - self.weight * alpha, len(tokens) - n_keep)
        targets = complement(merged, len(tokens))
        owner = torch.arange(len(tokens), device=merged.device)
        owner[merged] = targets[similarity[merged][:, targets].argmax(1)]
        evidence = {"importance": alpha, "redundancy": redundancy}
        return merge_groups(owner, torch.ones_like(alpha), evidence, targets)
