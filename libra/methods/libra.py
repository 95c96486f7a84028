"""Libra-Merging: targets from spatial intervals, merging by similarity and importance."""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import LongTensor, Tensor

from libra.methods.base import RatioMethod, Tokens
from libra.methods.operations import group_share, group_softmax, interval_of, top, unit
from libra.reduction import Reduction


@dataclass(frozen=True)
class Libra(RatioMethod):
    """Libra-Merging, sections 3.2 and 3.3, with the ablations of its Tables 3, 4, 5, E and F.

    The compensation token of an earlier event takes no part in the intervals and is not counted:
    it joins the negative set. It is expected where `compensation` puts it, last or first.
    """

    name = "libra"
    title = "Libra-Merging"
    summary = (
        "Takes the most important token of each interval, merges similar tokens into it by "
        "importance and gathers the dissimilar ones in a compensation token."
    )
    paper = "Yang et al., Libra-Merging, CVPR 2025, sections 3.2 and 3.3"
    kind = "merge"
    needs = ("importance",)
    presets: ClassVar[dict[str, dict]] = {
        "R = 50 %": {"ratio": 1 / 2, "layers": (7, 15, 23)},
        "R = 67 %": {"ratio": 2 / 3, "layers": (7, 15, 23)},
        "R = 80 %": {"ratio": 4 / 5, "layers": (7, 15, 23)},
        "one layer (Table B)": {"ratio": 1 / 2, "layers": (3,)},
    }

    tau: float = field(
        default=0.7,
        metadata={
            "help": "tokens more similar than this to a target merge into it",
            "range": (-1.0, 1.0),
            "step": 0.01,
        },
    )
    eta: float | None = field(
        default=None,
        metadata={
            "help": "temperature of the merging weights; empty = mean importance",
            "range": (1e-8, math.inf),
        },
    )
    identify: str = field(
        default="interval",
        metadata={
            "help": "targets: the best of each interval (PTI), or the best of all",
            "choices": ("interval", "topk"),
        },
    )
    merge: str = field(
        default="grouped",
        metadata={
            "help": "non-targets: similar ones merge and the rest is compensated (grouped, IGM), "
            "all merge (positive), all are compensated (negative), all merge with equal weights "
            "(average), all are dropped (prune)",
            "choices": ("grouped", "positive", "negative", "average", "prune"),
        },
    )
    compensation: str = field(
        default="end",
        metadata={
            "help": "place of the compensation token among the visual tokens",
            "choices": ("end", "begin", "none"),
        },
    )

    def counted(self, tokens: Tokens) -> int:
        """The ratio speaks of the tokens without the earlier compensation token."""
        return len(tokens) - tokens.n_previous_compensation

    def unchanged(self, tokens: Tokens) -> Reduction:
        """The identity; an earlier compensation token stays what it is."""
        place = 0 if self.compensation == "begin" else len(tokens) - 1
        return replace(
            super().unchanged(tokens),
            compensation=place if tokens.n_previous_compensation else None,
        )

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Identify the targets, group every token, and weigh the members of each group."""
        n, n_body, device = len(tokens), self.counted(tokens), tokens.hidden.device
        first = n - n_body if self.compensation == "begin" else 0
        body = torch.arange(first, first + n_body, device=device)
        alpha = tokens.scores("importance")
        evidence = {"importance": alpha}

        if self.identify == "interval":
            targets = body[best_of_intervals(alpha[body], n_keep)]
            evidence["interval"] = torch.full((n,), -1, device=device)
            evidence["interval"][body] = interval_of(n_body, n_keep, device)
        else:
            targets = body[top(alpha[body], n_keep).sort().values]

        # The output each token goes to: a target, or n_keep, which is the compensation token.
        group = torch.full((n,), n_keep, device=device)
        group[targets] = torch.arange(n_keep, device=device)
        if self.merge in ("grouped", "positive", "average"):
            others = body[group[body] == n_keep]
            similarity, best = (unit(tokens.hidden[others]) @ unit(tokens.hidden[targets]).T).max(1)
            joins = similarity > (self.tau if self.merge == "grouped" else -torch.inf)
            group[others] = torch.where(joins, best, n_keep)
            evidence["similarity"] = torch.full((n,), torch.nan, device=device)
            evidence["similarity"][others] = similarity.float()
            evidence["similarity"][targets] = 1.0
            evidence["best_target"] = torch.full((n,), -1, device=device)
            evidence["best_target"][others] = targets[best]
            evidence["best_target"][targets] = targets

        stays = group < n_keep
        if self.compensation != "none" and self.merge != "prune":
            stays = torch.ones_like(stays)
        source = stays.nonzero().flatten()
        target = group[source]
        if self.merge == "average":
            weight = group_share(torch.ones_like(alpha[source]), target, n_keep + 1)
        else:
            # Mean importance is zero only where every importance is: equal weights, not NaN.
            eta = self.eta or alpha[body].mean().clamp_min(torch.finfo(alpha.dtype).tiny)
            weight = group_softmax(alpha[source] / eta, target, n_keep + 1)

        reduction = (n, source, target, weight, targets)
        if not (target == n_keep).any():
            return Reduction(*reduction, evidence=evidence)
        return self._place_compensation(*reduction, evidence)

    def _place_compensation(
        self,
        n: int,
        source: LongTensor,
        target: LongTensor,
        weight: Tensor,
        targets: LongTensor,
        evidence: dict[str, Tensor],
    ) -> Reduction:
        """Give the compensation token (target `len(targets)`) its place and the slot there."""
        n_keep = len(targets)
        if self.compensation == "begin":
            slot, target, place = [targets.new_tensor([0]), targets], (target + 1) % (n_keep + 1), 0
        else:
            slot, place = [targets, targets.new_tensor([n - 1])], n_keep
        return Reduction(n, source, target, weight, torch.cat(slot), place, evidence)


def best_of_intervals(score: Tensor, n_intervals: int) -> LongTensor:
    """[n_intervals] index of the highest score of each interval; of equals the first."""
    n, device = len(score), score.device
    bounds = torch.arange(n_intervals + 1, device=device) * n // n_intervals
    member = bounds[:-1, None] + torch.arange(-(-n // n_intervals), device=device)
    outside = member >= bounds[1:, None]
    window = score[member.clamp_max(n - 1)].masked_fill(outside, -torch.inf)
    return bounds[:-1] + window.argmax(1)
