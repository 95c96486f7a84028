"""SparseVLM: the words that speak of the picture decide which patches stay."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from libra.methods.base import RatioMethod, Tokens
from libra.methods.operations import top
from libra.reduction import Reduction


@dataclass(frozen=True)
class SparseVLM(RatioMethod):
    """Rank visual tokens by the attention of the text raters, and keep the best.

    Raters are the instruction tokens more similar to the picture than the average one.

    Differs from the paper: the ratio is given instead of found by the rank of the attention, and
    dropped tokens are not recycled into clusters.
    """

    name = "sparsevlm"
    title = "SparseVLM"
    summary = "Keeps the patches that the picture-related words of the question attend to."
    paper = "Zhang et al., SparseVLM, ICML 2025, sections 3.2 and 3.3"
    kind = "prune"
    needs = ("text_similarity", "text_attention")
    presets: ClassVar[dict[str, dict]] = {
        "layers of the code": {"ratio": 0.5, "layers": (2, 6, 15)}
    }

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Let the raters vote."""
        relevance = tokens.scores("text_similarity").softmax(1).mean(0)
        # The maximum is no less than the mean, but rounding can make it so.
        raters = relevance >= torch.minimum(relevance.mean(), relevance.max())
        attention = tokens.scores("text_attention")
        score = attention.where(raters, 0).sum(1) / raters.sum()
        return Reduction.select(
            top(score, n_keep).sort().values, len(tokens), {"importance": score}
        )
