"""EViT: keep the attentive tokens and fuse the others into one."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from libra.methods.base import RATIO, RatioMethod, Tokens
from libra.methods.operations import complement, top
from libra.reduction import Reduction


@dataclass(frozen=True)
class EViT(RatioMethod):
    """Keep the most attended tokens; the rest becomes one token, summed with raw attention."""

    name = "evit"
    title = "EViT"
    summary = "Keeps the most attended tokens and fuses all others into a single extra token."
    paper = "Liang et al., EViT, ICLR 2022, section 3.2"
    kind = "merge"
    site = "encoder"
    needs = ("importance",)
    presets: ClassVar[dict[str, dict]] = {
        "keep rate 0.7": {"ratio": 0.3, "encoder_layers": (6, 12, 18)}
    }

    ratio: float = field(default=0.3, metadata=RATIO)

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Select the `n_keep` most attended tokens and append the fused one."""
        n, alpha = len(tokens), tokens.scores("importance")
        kept = top(alpha, n_keep).sort().values
        rest = complement(kept, n)
        place = torch.arange(n_keep, device=kept.device)
        return Reduction(
            n_in=n,
            source=torch.cat([kept, rest]),
            target=torch.cat([place, torch.full_like(rest, n_keep)]),
            weight=torch.cat([torch.ones_like(alpha[kept]), alpha[rest]]),
            slot=torch.cat([kept, torch.full_like(kept[:1], n - 1)]),
            compensation=n_keep,
            evidence={"importance": alpha},
        )
