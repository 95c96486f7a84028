"""PruMerge+: PruMerge with spatially uniform tokens added."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import LongTensor, Tensor

from libra.methods.operations import complement, spread, top
from libra.methods.prumerge import PruMerge, count_outliers


@dataclass(frozen=True)
class PruMergePlus(PruMerge):
    """PruMerge+, section 3.4. Given a ratio or a count, a part of it goes by attention.

    That part is a quarter for `follow="code"`, which adds about three times the outliers, and a
    half for `follow="paper"`, which adds as many again; the rest is spread evenly.
    """

    name = "prumerge+"
    title = "PruMerge+"
    summary = "PruMerge with further patches spread evenly over the picture."
    paper = "Shang et al., LLaVA-PruMerge, ICCV 2025, section 3.4"
    presets: ClassVar[dict[str, dict]] = {"adaptive": {}}

    def adaptive_centres(self, alpha: Tensor) -> LongTensor:
        """The outliers, then the even steps between them that are no outliers."""
        n, m = len(alpha), count_outliers(alpha)
        if self.follow == "paper":
            return self.with_spread(alpha, m, min(2 * m, n))
        step = max(1, int(int(1 / (m / n)) / 3))  # to the digit as published
        outliers = top(alpha, m)
        steps = torch.arange(0, n - 1, step, device=alpha.device)
        return torch.cat([outliers, steps[~torch.isin(steps, outliers)]])

    def centres(self, alpha: Tensor, n_keep: int) -> LongTensor:
        """The most attended tokens and, of the others, evenly spread ones."""
        parts = 4 if self.follow == "code" else 2
        return self.with_spread(alpha, -(-n_keep // parts), n_keep)

    def with_spread(self, alpha: Tensor, m: int, n_keep: int) -> LongTensor:
        """The `m` tokens of highest attention, filled up to `n_keep` evenly from the others."""
        best = top(alpha, m)
        rest = complement(best, len(alpha))
        return torch.cat([best, rest[spread(len(rest), n_keep - m, alpha.device)]])
