"""FastV: keep the visual tokens that the output token attends to most, drop the others."""

from dataclasses import dataclass
from typing import ClassVar

from libra.methods.base import RatioMethod, Tokens
from libra.methods.operations import top
from libra.reduction import Reduction


@dataclass(frozen=True)
class FastV(RatioMethod):
    """Keep the tokens of highest importance, in their original order; of equals the first."""

    name = "fastv"
    title = "FastV"
    summary = "Keeps the visual tokens with the highest attention of the output token."
    paper = "Chen et al., An Image is Worth 1/2 Tokens After Layer 2, ECCV 2024, section 4.1"
    kind = "prune"
    needs = ("importance",)
    presets: ClassVar[dict[str, dict]] = {
        "Libra-Merging's tables": {"ratio": 0.5, "layers": (3,)},
        "K=3 as published by FastV": {"ratio": 0.5, "layers": (2,)},
    }

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Select the `n_keep` most important tokens."""
        kept = top(tokens.importance, n_keep).sort().values
        return Reduction.select(kept, len(tokens), {"importance": tokens.importance})
