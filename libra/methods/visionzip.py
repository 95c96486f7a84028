"""VisionZip: dominant tokens by CLS attention, and contextual tokens for the rest."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from libra.errors import InputError
from libra.methods.base import RatioMethod, Tokens
from libra.methods.operations import complement, group_share, top, unit
from libra.reduction import Reduction


@dataclass(frozen=True)
class VisionZip(RatioMethod):
    """Keep dominant tokens; every contextual token is one token plus the mean of those like it.

    Dominant tokens come first, in their original order, then the contextual ones. A ratio or count
    is divided as 54 : 10, as in the paper.
    """

    name = "visionzip"
    title = "VisionZip"
    summary = "Keeps the dominant patches by CLS attention and summarises the rest by similarity."
    paper = "Yang et al., VisionZip, CVPR 2025, section 3.2"
    kind = "merge"
    site = "connector"
    encoder_score = "either"  # without a CLS token: what each patch receives from all
    needs = ("importance", "keys")
    instead_of_ratio = ("keep", "dominant", "contextual")
    presets: ClassVar[dict[str, dict]] = {
        "64 tokens": {"dominant": 54, "contextual": 10},
        "128 tokens": {"dominant": 108, "contextual": 20},
        "192 tokens": {"dominant": 162, "contextual": 30},
    }

    dominant: int | None = field(
        default=None,
        metadata={"help": "tokens kept by attention, instead of a ratio", "range": (1, 10_000)},
    )
    contextual: int | None = field(
        default=None,
        metadata={"help": "summaries of the other tokens, with dominant", "range": (0, 10_000)},
    )

    def __post_init__(self):
        super().__post_init__()
        if (self.dominant is None) != (self.contextual is None):
            raise InputError("visionzip: give both dominant and contextual, or neither.")

    def count(self, n: int) -> int:
        """How many of `n` tokens stay: both kinds together, or what the ratio says."""
        if self.dominant is None:
            return super().count(n)
        return min(n, self.dominant + self.contextual)

    def keeping(self, n: int) -> "VisionZip":
        """So many tokens of both kinds together."""
        return replace(self, keep=n, dominant=None, contextual=None)

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Select the dominant tokens and merge the others into evenly spaced ones of them."""
        n, alpha = len(tokens), tokens.scores("importance")
        n_context = round(n_keep * 10 / 64) if self.contextual is None else self.contextual
        dominant = top(alpha, n_keep - n_context).sort().values
        evidence = {"importance": alpha}
        if n_context == 0:
            return Reduction.select(dominant, n, evidence)
        rest = complement(dominant, n)
        context = rest[:: len(rest) // n_context][:n_context]
        slot = torch.cat([dominant, context])
        others = complement(slot, n)
        keys = unit(tokens.keys)
        joined = (keys[others] @ keys[context].T).argmax(1)
        share = group_share(torch.ones_like(alpha[others]), joined, n_context)
        return Reduction(
            n_in=n,
            source=torch.cat([slot, others]),
            target=torch.cat([torch.arange(n_keep, device=slot.device), len(dominant) + joined]),
            weight=torch.cat([torch.ones_like(alpha[slot]), share]),
            slot=slot,
            evidence=evidence,
        )
