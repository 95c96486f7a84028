"""Libra-Merging: targets from spatial intervals, merging by similarity and importance."""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import torch
from torch import LongTensor, Tensor

from libra.methods.base import RatioMethod, Tokens
from libra.methods.operations import group_softmax, interval_of, nearest, top
from libra.reduction import Reduction

# What is said of an earlier compensation token, which has no target.
_OF_EARLIER = {"similarity": torch.nan, "best_target": -1}
_RANKED = {"ratio": 4 / 5, "identify": "topk"}  # in Tables 4 and 5


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
        "PTI alone (Table 3)": {"ratio": 2 / 3, "layers": (7, 15, 23), "merge": "average"},
        "pruning (Table 4)": _RANKED | {"layers": (3,), "merge": "prune"},
        "merging (Table 4)": _RANKED | {"layers": (3,), "merge": "average"},
        "IGM-pos (Table 5)": _RANKED | {"layers": (15,), "merge": "positive"},
        "IGM-neg (Table 5)": _RANKED | {"layers": (15,), "merge": "negative"},
        "no compensation token (Table F)": {"ratio": 1 / 2, "layers": (3,), "compensation": "none"},
        "compensation token first (Table F)": {
            "ratio": 1 / 2,
            "layers": (3,),
            "compensation": "begin",
        },
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
        if not tokens.n_previous_compensation:
            return super().unchanged(tokens)
        place = 0 if self.compensation == "begin" else len(tokens) - 1
        everyone = torch.arange(len(tokens), device=tokens.hidden.device)
        return Reduction.select(everyone, len(tokens), compensation=place, vacant=tokens.vacant)

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Identify the targets, group every token, and weigh the members of each group."""
        n, alpha = len(tokens), tokens.scores("importance")
        body, earlier = self._parts(tokens)
        identify = best_of_intervals if self.identify == "interval" else best_of_all
        targets = identify(alpha[body], n_keep)
        if body.start:
            targets += body.start
        everyone = source = torch.arange(n, device=alpha.device)
        group, evidence = self._assign(tokens.hidden, targets, everyone[:n_keep])
        there, vacant = self._compensation_of(tokens, group[body], n_keep)
        if tokens.n_previous_compensation:
            group[earlier].fill_(self._rest(n_keep))
            for name, fact in evidence.items():
                fact[earlier].fill_(_OF_EARLIER[name])
        if self.identify == "interval":
            # That of all events of this length: nobody writes to it.
            evidence["interval"] = intervals(n, body.start, body.stop, n_keep, alpha.device)
        evidence["importance"] = alpha
        if self.merge == "prune":
            return Reduction.select(targets, n, evidence)

        target, slot, place = group, targets, None
        logit = self._logit(alpha, alpha[body].mean())
        if not self._compensates:
            source = everyone[group >= 0]
            target, logit = group[source], logit[source]
        if tokens.vacant is not None:  # then it weighs nothing, also where it is alone
            logit[earlier].masked_fill_(tokens.vacant, -torch.inf)
        weight = group_softmax(logit, target, n_keep + 1)
        if tokens.vacant is not None:
            weight[earlier].masked_fill_(tokens.vacant, 0)
        if there:
            slot, place = torch.cat([targets, self._outermost(everyone, tokens.vacant)]), n_keep
            if self.compensation == "begin":
                slot, place = slot.roll(1), 0
                target = (target + 1) % (n_keep + 1)
        return Reduction(n, source, target, weight, slot, place, evidence, vacant)

    @property
    def _compensates(self) -> bool:
        """Whether tokens without a target go into the compensation token."""
        return self.compensation != "none" and self.merge != "prune"

    def _compensation_of(
        self, tokens: Tokens, group: LongTensor, n_keep: int
    ) -> tuple[bool, Tensor | None]:
        """Whether there is a compensation token, and whether it is vacant where that is open.

        Only `merge="grouped"` does not know before; for the sake of one rule all are asked.

        Args:
            tokens: those of the event.
            group: [N] of all that are no earlier compensation token, as `_assign` says.
            n_keep: number of targets.
        """
        if not self._compensates:
            return False, None
        if tokens.n_previous_compensation and tokens.vacant is None:
            return True, None
        nothing = (group != n_keep).all()
        if tokens.vacant is not None:
            return True, nothing & tokens.vacant
        return (not nothing, None) if tokens.may_wait else (True, nothing)

    def _outermost(self, everyone: LongTensor, vacant: Tensor | None) -> LongTensor:
        """[1] the last (first) of the tokens [N], but for an earlier one that is vacant."""
        outer, inner = (0, 1) if self.compensation == "begin" else (-1, -2)
        if vacant is None:
            return everyone[outer][None]
        return torch.where(vacant, everyone[inner], everyone[outer])[None]

    def _rest(self, n_keep: int) -> int:
        """The group of the tokens without a target."""
        return n_keep if self._compensates else -1

    def _parts(self, tokens: Tokens) -> tuple[slice, slice]:
        """Where the tokens are that may become targets, and an earlier compensation token."""
        n, n_earlier = len(tokens), tokens.n_previous_compensation
        if self.compensation == "begin":
            return slice(n_earlier, n), slice(n_earlier)
        return slice(0, n - n_earlier), slice(n - n_earlier, n)

    def _assign(
        self, hidden: Tensor, targets: LongTensor, own: LongTensor
    ) -> tuple[LongTensor, dict[str, Tensor]]:
        """Group every token (Eq. 5 and the two sets).

        Targets are compared like all others and then put in their places: for a GPU that is less
        work than to sort them out before.

        Args:
            hidden: [N, D] all tokens.
            targets: the tokens that give the groups their slots.
            own: the numbers of these groups, in the same order.

        Returns:
            [N] the target that each token merges into, `len(targets)` for the compensation token,
            -1 for none; and the similarities behind it.
        """
        rest = self._rest(len(targets))
        if self.merge in ("negative", "prune"):
            return targets.new_full((len(hidden),), rest).index_copy_(0, targets, own), {}
        similarity, best = nearest(hidden, targets)
        similarity.index_fill_(0, targets, 1.0)
        group = best.index_copy_(0, targets, own)
        evidence = {"similarity": similarity, "best_target": targets[group]}
        if self.merge == "grouped":
            group.masked_fill_(similarity <= self.tau, rest).index_copy_(0, targets, own)
        return group, evidence

    def _logit(self, alpha: Tensor, mean: Tensor) -> Tensor:
        """What softmax makes weights of within each group (Eq. 6 and 7): importance / eta."""
        if self.merge == "average":
            return torch.zeros_like(alpha)
        # The mean is zero only where every importance is: equal weights then, not NaN.
        return alpha / (self.eta or mean.clamp_min(torch.finfo(alpha.dtype).tiny))


def best_of_all(score: Tensor, k: int) -> LongTensor:
    """[k] indices of the highest scores, ascending."""
    return top(score, k).sort().values


def best_of_intervals(score: Tensor, n_intervals: int) -> LongTensor:
    """[n_intervals] index of the highest score of each interval; of equals the first."""
    first, members = windows(len(score), n_intervals, score.device)
    return first + score[members].argmax(1)


# What lengths alone decide about is the same for the next picture: a GPU need not be asked again.
# It is made outside of inference mode, in which it could not be used in training any more.


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def windows(n: int, n_intervals: int, device: torch.device) -> tuple[LongTensor, LongTensor]:
    """[n_intervals] the first of each interval of 0..n-1, and [n_intervals, most] all of them.

    A shorter one holds its last member twice.
    """
    bounds = torch.arange(0, n * n_intervals + 1, n, device=device) // n_intervals
    first, last = bounds[:-1], bounds[1:] - 1
    members = first[:, None] + torch.arange(-(-n // n_intervals), device=device)
    return first, members.minimum(last[:, None])


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def intervals(n: int, start: int, stop: int, n_intervals: int, device: torch.device) -> LongTensor:
    """[n] the interval of each token, of which those from `start` to `stop` have one; else -1."""
    own = interval_of(range(stop - start), stop - start, n_intervals, device)
    return torch.nn.functional.pad(own, (start, n - stop), value=-1)
