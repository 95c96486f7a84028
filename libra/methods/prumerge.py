"""LLaVA-PruMerge: keep the outliers of CLS attention, enriched by their neighbours."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import LongTensor, Tensor

from libra.methods.base import FOLLOW, RATIO, RatioMethod, Tokens
from libra.methods.operations import at_least_fp32, complement, top, unit
from libra.reduction import Reduction


@dataclass(frozen=True)
class PruMerge(RatioMethod):
    """PruMerge, sections 3.2 and 3.3. How many tokens stay depends on the picture.

    `follow="code"`: a kept token adds its most similar tokens to itself, weighted with their raw
    CLS attention, and one extra token sums up all that were dropped. `follow="paper"`
    (Algorithm 1): the neighbours replace the centre, and there is no extra token. A ratio or a
    count takes the place of the outliers. There is at least one centre, even without outliers.
    """

    name = "prumerge"
    title = "PruMerge"
    summary = (
        "Keeps the patches whose CLS attention is an outlier and adds similar patches to each."
    )
    paper = "Shang et al., LLaVA-PruMerge, ICCV 2025, sections 3.2 and 3.3"
    kind = "merge"
    site = "connector"
    needs = ("importance", "keys")
    joint_keys = True
    presets: ClassVar[dict[str, dict]] = {
        "adaptive": {},
        "40 tokens, without merging (Table 5)": {"keep": 40, "merge": "none"},
    }

    ratio: float | None = field(
        default=None, metadata={**RATIO, "help": f"{RATIO['help']}; empty = as many as outliers"}
    )
    follow: str = field(default="code", metadata=FOLLOW)
    merge: str = field(
        default="neighbours",
        metadata={
            "help": "merge the neighbours of the kept tokens into them, or only select (AITS)",
            "choices": ("neighbours", "none"),
        },
    )
    neighbours: int = field(
        default=32, metadata={"help": "how many similar tokens each adds", "range": (1, 1000)}
    )

    @property
    def encoder_layer(self) -> int:
        """The published code looks at the last layer, the paper at the one before."""
        return -1 if self.follow == "code" else -2

    @property
    def joint_attention(self) -> bool:
        """The published code does not split the heads."""
        return self.follow == "code"

    def reduce(self, tokens: Tokens) -> Reduction:
        """Reduce to the outliers, or to the ratio or count that is given."""
        self.require(tokens)
        if self.ratio is not None or self.keep is not None:
            return super().reduce(tokens)
        alpha = tokens.scores("importance")
        return self.merge_into(tokens, alpha, self.adaptive_centres(alpha))

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Reduce to `n_keep` tokens and the extra one."""
        alpha = tokens.scores("importance")
        return self.merge_into(tokens, alpha, self.centres(alpha, n_keep))

    def adaptive_centres(self, alpha: Tensor) -> LongTensor:
        """The outliers, in descending attention."""
        return top(alpha, count_outliers(alpha))

    def centres(self, alpha: Tensor, n_keep: int) -> LongTensor:
        """The tokens of highest attention, in descending attention."""
        return top(alpha, n_keep)

    def merge_into(self, tokens: Tokens, alpha: Tensor, centres: LongTensor) -> Reduction:
        """The map to the centres [m], in their order, and to the extra token."""
        n, m, device = len(tokens), len(centres), alpha.device
        evidence = {"importance": alpha}
        if self.merge == "none":
            return Reduction.select(centres, n, evidence)
        k = min(self.neighbours, n - 1)
        own, dropped = torch.arange(m, device=device), complement(centres, n)
        keys = unit(tokens.keys) if self.follow == "code" else at_least_fp32(tokens.keys)
        similarity = keys[centres] @ keys.T
        similarity[own, centres] = -torch.inf
        # Stable, unlike topk: of equally similar tokens the first ones count.
        nearest = similarity.sort(dim=1, descending=True, stable=True).indices[:, :k].flatten()

        source, target, weight = [nearest], [own.repeat_interleave(k)], [alpha[nearest]]
        slot, extra = [centres], None
        if self.follow == "code" or k == 0:
            source += [centres]
            target += [own]
            weight += [torch.ones_like(alpha[centres])]
        if self.follow == "code" and len(dropped) > 0:
            source += [dropped]
            target += [torch.full_like(dropped, m)]
            weight += [alpha[dropped]]
            slot, extra = [centres, centres.new_tensor([n - 1])], m
        return Reduction(
            n_in=n,
            source=torch.cat(source),
            target=torch.cat(target),
            weight=torch.cat(weight),
            slot=torch.cat(slot),
            compensation=extra,
            evidence=evidence,
        )


def count_outliers(alpha: Tensor) -> int:
    """How many scores lie above Q3 + 1.5 IQR (section 3.2), at least one.

    By way of their share, as published: for a few lengths it comes to one less.
    """
    q1, q3 = torch.quantile(alpha, alpha.new_tensor([0.25, 0.75]))
    n, outliers = len(alpha), int((alpha > q3 + 1.5 * (q3 - q1)).sum())
    return max(1, int(n * (outliers / n)))
