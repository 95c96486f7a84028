"""Reduction: one compression event as a sparse linear map from `n_in` tokens to `n_out` tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property, partial
from itertools import accumulate
from numbers import Integral

import torch
from numpy.typing import ArrayLike
from torch import LongTensor, Tensor
from torch.nn.functional import embedding_bag

from libra.errors import InputError

# Evidence that names input tokens, and so is renumbered with them.
TOKEN_EVIDENCE = ("best_target",)


class Fate(IntEnum):
    """What became of an input token."""

    DROPPED = 0
    KEPT = 1  # it owns an output: its place in the sequence lives on
    MERGED = 2  # it went into another token
    COMPENSATED = 3  # it went into the compensation (or fused) token


@dataclass(frozen=True, eq=False)
class Reduction:
    """`out[target[e]] += weight[e] * hidden[source[e]]` for every edge e.

    Pruning, merging, fused and compensation tokens are all maps of this kind. Weights are fp32, or
    float64 where the hidden states are: rounding them to fp32 would cost nine digits. Lists and
    arrays become tensors, whole numbers of any kind int64.

    Raises:
        InputError: edges that are no whole numbers or out of range, an output that no edge feeds
            (unless it may be vacant), or lengths that disagree. On an accelerator, which would have
            to stop for it, the edges are looked at only when the map comes back to the CPU.
    """

    n_in: int
    source: LongTensor  # [E] input token
    target: LongTensor  # [E] output token
    weight: Tensor  # [E]
    slot: LongTensor  # [n_out] input token whose place and position id each output takes
    compensation: int | None = None  # output index of a compensation or fused token
    evidence: dict[str, Tensor] = field(default_factory=dict)  # [n_in] facts behind the decision
    vacant: Tensor | None = None  # bool []: it gathers nothing and will go, see `libra.vacancy`
    further: tuple[int, ...] = ()  # outputs of the kind of `compensation`, of further pictures

    @classmethod
    def identity(cls, n: int, device: torch.device | str | None = None) -> "Reduction":
        """The map that changes nothing, for `n` tokens."""
        return cls.select(torch.arange(n, device=device), n)

    @classmethod
    def select(
        cls,
        indices: ArrayLike,
        n_in: int,
        evidence: dict[str, Tensor] | None = None,
        compensation: int | None = None,
        vacant: Tensor | None = None,
    ) -> "Reduction":
        """Keep the tokens `indices` (in this order) out of `n_in` and drop the others.

        Args:
            indices: [n_out] which ones, or bool [n_in]: whether to keep each. An accelerator has to
                stop to count those; what runs there is better told the numbers.
            n_in: how many there are.
            evidence: [n_in] facts behind the decision.
            compensation: the output that is a compensation token already.
            vacant: whether that one is none.
        """
        indices = _kept(indices, n_in)
        selection = cls(
            n_in=n_in,
            source=indices,
            target=torch.arange(len(indices), device=indices.device),
            weight=torch.ones(len(indices), device=indices.device),
            slot=indices,
            evidence=evidence or {},
            compensation=compensation,
            vacant=vacant,
        )
        vars(selection)["is_selection"] = True  # known without a look at the numbers
        return selection

    @classmethod
    def side_by_side(cls, reductions: Sequence["Reduction"]) -> "Reduction":
        """The maps of several pictures as one map of all their tokens.

        Each picture's extra token stays one.
        """
        if len(reductions) == 1:
            return reductions[0]
        first_in = [0, *accumulate(r.n_in for r in reductions)]
        first_out = [0, *accumulate(r.n_out for r in reductions)]
        shared = set.intersection(*(set(r.evidence) for r in reductions))
        facts = {name: [r.evidence[name] for r in reductions] for name in shared}
        extras = [n + e for r, n in zip(reductions, first_out, strict=False) for e in r.extras]
        whole = cls(
            n_in=first_in[-1],
            source=_raised([r.source for r in reductions], first_in),
            target=_raised([r.target for r in reductions], first_out),
            weight=torch.cat([r.weight for r in reductions]),
            slot=_raised([r.slot for r in reductions], first_in),
            evidence={
                name: _raised(fact, first_in) if name in TOKEN_EVIDENCE else torch.cat(fact)
                for name, fact in facts.items()
            },
            **_as_fields(extras),
        )
        vars(whole)["is_selection"] = all(r.is_selection for r in reductions)
        return whole

    @classmethod
    def chunks(cls, n_in: int, n: int) -> "Reduction":
        """Every `n` tokens in a row, and what is left, become their mean in the first's place."""
        source = torch.arange(n_in)
        target = source // n
        return cls(
            n_in=n_in,
            source=source,
            target=target,
            weight=1 / target.bincount()[target],
            slot=source[::n],
        )

    def __post_init__(self):
        weight = _vector(self.weight, "weight")
        exact = torch.promote_types(weight.dtype, torch.float32)
        own = {name: _numbers(getattr(self, name), name) for name in ("source", "target", "slot")}
        own["weight"] = weight.to(exact)
        own["evidence"] = {name: torch.as_tensor(fact) for name, fact in self.evidence.items()}
        if not isinstance(self.n_in, Integral) or self.n_in < 0:
            raise InputError(f"Reduction: n_in must be a whole number from 0 on, not {self.n_in}.")
        vars(self).update(own, n_in=int(self.n_in))
        if not len(self.source) == len(self.target) == len(self.weight):
            raise InputError("Reduction: source, target and weight must have one entry per edge.")
        if any(not 0 <= extra < self.n_out for extra in self.extras):
            raise InputError("Reduction: the compensation token must be one of the outputs.")
        if len(set(self.extras)) < len(self.extras) or (self.further and self.compensation is None):
            raise InputError("Reduction: further extra tokens must be others than the first.")
        if self.vacant is not None and len(self.extras) != 1:
            raise InputError("Reduction: only a compensation token may be vacant.")
        if any(len(fact) != self.n_in for fact in self.evidence.values()):
            raise InputError("Reduction: evidence must have one entry per input token.")
        if self.source.device.type == "cpu":
            self._check_edges()

    def _check_edges(self) -> None:
        """Look at the numbers themselves."""
        if not _within(self.source, self.n_in) or not _within(self.slot, self.n_in):
            raise InputError(f"Reduction: sources and slots must lie in 0..{self.n_in - 1}.")
        if not _within(self.target, self.n_out):
            raise InputError(f"Reduction: targets must lie in 0..{self.n_out - 1}.")
        fed = torch.zeros(self.n_out, dtype=torch.bool, device=self.target.device)
        if self.vacant is not None:
            fed[self.compensation] = True
        if not fed.index_fill_(0, self.target, True).all():
            raise InputError("Reduction: every output token must be fed by at least one edge.")

    @property
    def n_out(self) -> int:
        """Number of output tokens."""
        return len(self.slot)

    @property
    def extras(self) -> tuple[int, ...]:
        """The outputs that are compensation or fused tokens, picture by picture."""
        return () if self.compensation is None else (self.compensation, *self.further)

    @property
    def is_extra(self) -> Tensor:
        """Bool [n_out], on the CPU: which outputs are compensation or fused tokens."""
        return ~_all_but(self.extras, self.n_out)

    @property
    def n_kept(self) -> int:
        """Number of output tokens, compensation and fused tokens not counted."""
        return self.n_out - len(self.extras)

    @cached_property
    def is_selection(self) -> bool:
        """Whether every output is one input, unchanged.

        An accelerator, which would have to stop for it, is not asked: no, unless it is known.
        """
        return (
            self.source.device.type == "cpu"
            and len(self.source) == self.n_out
            and bool((self.weight == 1).all())
            and torch.equal(self.target, torch.arange(self.n_out, device=self.target.device))
        )

    def apply(self, hidden: Tensor) -> Tensor:
        """Map `hidden` [..., n_in, D] to [..., n_out, D], in its own dtype.

        A selection copies rows bit for bit. Anything else is one weighted gather-and-sum,
        accumulated in fp32 at least; unlike `index_add_` it is deterministic on a GPU.
        """
        if hidden.ndim < 2:
            raise InputError(f"Reduction: hidden states are [..., N, D], not {[*hidden.shape]}.")
        if hidden.shape[-2] != self.n_in:
            raise InputError(f"Reduction of {self.n_in} tokens applied to {hidden.shape[-2]}.")
        if self.is_selection:
            return hidden.index_select(-2, self.source)
        lead, width = hidden.shape[:-2], hidden.shape[-1]
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        rows = hidden.movedim(-2, 0).reshape(self.n_in, -1).to(dtype)  # a view for one sequence
        target, order = self.target.sort(stable=True)
        out = embedding_bag(
            self.source[order],
            rows,
            offsets=torch.searchsorted(target, torch.arange(self.n_out, device=target.device)),
            mode="sum",
            per_sample_weights=self.weight[order].to(dtype),
        )
        return out.to(hidden.dtype).reshape(self.n_out, *lead, width).movedim(0, -2)

    def then(self, later: "Reduction") -> "Reduction":
        """Compose: the map of this event followed by `later`.

        Evidence belongs to one decision and is not carried over. The compensation tokens are those
        of `later`, or else this event's, where `later` left them in place.
        """
        if later.n_in != self.n_out:
            raise InputError(f"{self.n_out} tokens cannot be followed by a map of {later.n_in}.")
        # Join the edges of both maps on the token between them, then add up parallel paths.
        fan = self.target.bincount(minlength=self.n_out)
        by_target, start = self.target.argsort(stable=True), fan.cumsum(0) - fan
        fan = fan[later.source]  # [E of later] how many of our edges lead into each of its edges
        second = torch.arange(len(fan), device=fan.device).repeat_interleave(fan)
        rank = torch.arange(len(second), device=fan.device) - (fan.cumsum(0) - fan)[second]
        first = by_target[start[later.source[second]] + rank]
        source, target, weight = _without_parallels(
            self.n_in,
            source=self.source[first],
            target=later.target[second],
            weight=later.weight[second] * self.weight[first],
        )
        return Reduction(
            n_in=self.n_in,
            source=source,
            target=target,
            weight=weight,
            slot=self.slot[later.slot],
            **_as_fields(later.extras or self._left_by(later)),
        )

    def _left_by(self, later: "Reduction") -> list[int]:
        """The outputs of `later` in the places of this event's extra tokens."""
        slots = later.slot.tolist() if self.extras else []
        return [slots.index(extra) for extra in self.extras if extra in slots]

    def dense(self) -> Tensor:
        """The map as a matrix [n_out, n_in]."""
        matrix = self.weight.new_zeros(self.n_out, self.n_in)
        return matrix.index_put_((self.target, self.source), self.weight, accumulate=True)

    def group(self) -> LongTensor:
        """[n_in] the output where each input weighs most, of equals the first; -1 = nowhere."""
        edges = self.source, self.target, self.weight
        source, target, weight = _without_parallels(self.n_in, *edges)
        best = weight.new_full((self.n_in,), -torch.inf)
        best.scatter_reduce_(0, source, weight, "amax")
        top = weight == best[source]
        group = target.new_full((self.n_in,), self.n_out)
        group.scatter_reduce_(0, source[top], target[top], "amin")
        return group.masked_fill(group == self.n_out, -1)

    def fate(self) -> LongTensor:
        """[n_in] what became of each input, as a `Fate`."""
        group = self.group()
        fate = torch.full_like(group, Fate.MERGED)
        fate[group < 0] = Fate.DROPPED
        for extra in self.extras:
            fate[group == extra] = Fate.COMPENSATED
        fate[self.slot[~self.is_extra.to(group.device)]] = Fate.KEPT
        return fate

    def renumbered(self, tokens: LongTensor) -> "Reduction":
        """The same map where input i is called `tokens[i]`, a permutation [n_in]."""
        tokens = tokens.to(self.source.device)
        origin = tokens.argsort()
        named = {
            name: torch.where(fact < 0, fact, tokens[fact.clamp(min=0)])
            for name, fact in self.evidence.items()
            if name in TOKEN_EVIDENCE
        }
        return replace(
            self,
            source=tokens[self.source],
            slot=tokens[self.slot],
            evidence={name: f[origin] for name, f in (self.evidence | named).items()},
        )

    def reordered(self, order: LongTensor) -> "Reduction":
        """The same map with its outputs in another order, a permutation [n_out]."""
        # Asked of `order` as it came, from the CPU: no accelerator has to answer.
        now = order.argsort().tolist() if self.extras else []
        order = order.to(self.target.device)
        place = order.argsort()
        target, edge = place[self.target].sort(stable=True)
        return replace(
            self,
            source=self.source[edge],
            target=target,
            weight=self.weight[edge],
            slot=self.slot[order],
            **_as_fields([now[extra] for extra in self.extras]),
        )

    def without(self, source: int | None = None, target: int | None = None) -> "Reduction":
        """The same map where an input, an output or both never were, and none may be vacant."""
        inputs = _all_but([] if source is None else [source], self.n_in)
        outputs = _all_but([] if target is None else [target], self.n_out)
        extras = [e - (target is not None and e > target) for e in self.extras if e != target]
        inputs, outputs = inputs.to(self.source.device), outputs.to(self.target.device)
        number_in, number_out = inputs.cumsum(0) - 1, outputs.cumsum(0) - 1
        edges = inputs[self.source] & outputs[self.target]
        facts = {name: fact[inputs] for name, fact in self.evidence.items()}
        for name in facts.keys() & TOKEN_EVIDENCE:
            facts[name] = torch.where(facts[name] < 0, -1, number_in[facts[name].clamp(min=0)])
        return replace(
            self,
            n_in=int(number_in[-1]) + 1,
            source=number_in[self.source[edges]],
            target=number_out[self.target[edges]],
            weight=self.weight[edges],
            slot=number_in[self.slot[outputs]],
            vacant=None,
            evidence=facts,
            **_as_fields(extras),
        )

    def to(self, device: torch.device | str) -> "Reduction":
        """A copy of the map on a device."""
        copy = partial(Tensor.to, device=device, copy=True)
        return replace(
            self,
            source=copy(self.source),
            target=copy(self.target),
            weight=copy(self.weight),
            slot=copy(self.slot),
            vacant=None if self.vacant is None else copy(self.vacant),
            evidence={name: copy(fact) for name, fact in self.evidence.items()},
        )


def _numbers(values: ArrayLike, name: str) -> LongTensor:
    """Whole numbers as a vector of int64, on their device, which is not waited for."""
    vector = _vector(values, name)
    if vector.dtype == torch.int64:
        return vector
    if len(vector) and (vector.dtype == torch.bool or vector.is_floating_point()):
        kind = str(vector.dtype).removeprefix("torch.")
        raise InputError(f"Reduction: {name} must hold whole numbers, not {kind}.")
    return vector.long()


def _vector(values: ArrayLike, name: str) -> Tensor:
    """A tensor of one dimension."""
    try:
        vector = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        kind = type(values).__name__
        raise InputError(f"Reduction: {name} must be a list or a tensor, not {kind}.") from None
    if vector.ndim != 1:
        raise InputError(f"Reduction: {name} must have one dimension, not {vector.ndim}.")
    return vector


def _kept(chosen: ArrayLike, n_in: int) -> LongTensor:
    """The numbers of the tokens that are chosen by number or by a mask."""
    vector = _vector(chosen, "indices")
    if vector.dtype != torch.bool:
        return _numbers(vector, "indices")
    if len(vector) != n_in:
        raise InputError(f"Reduction: the mask has {len(vector)} entries for {n_in} tokens.")
    return vector.nonzero()[:, 0]


def _raised(parts: Sequence[LongTensor], firsts: Sequence[int]) -> LongTensor:
    """The parts one after the other, each raised by its first number; in few operations."""
    counts = torch.tensor([len(part) for part in parts])
    raised = torch.tensor(firsts[: len(parts)]).repeat_interleave(counts)
    return torch.cat(list(parts)) + raised.to(parts[0].device, non_blocking=True)


def _as_fields(extras: Sequence[int]) -> dict[str, int | tuple[int, ...] | None]:
    """The fields of a map that make these outputs its extra tokens."""
    first, *further = extras or [None]
    return {"compensation": first, "further": tuple(further)}


def _all_but(some: Sequence[int], n: int) -> Tensor:
    """[n] which of the numbers from 0 to n-1 are none of some."""
    others = torch.ones(n, dtype=torch.bool)
    others[list(some)] = False
    return others


def _without_parallels(
    n_in: int, source: LongTensor, target: LongTensor, weight: Tensor
) -> tuple[LongTensor, LongTensor, Tensor]:
    """The same edges [E], and those from one input to one output as one, in ascending order."""
    path, edge = (target * n_in + source).unique(return_inverse=True)
    weight = weight.new_zeros(len(path)).index_add_(0, edge, weight)
    return path % n_in, path // n_in, weight


def _within(index: LongTensor, limit: int) -> bool:
    """Whether all entries lie in 0..limit-1."""
    return len(index) == 0 or (int(index.min()) >= 0 and int(index.max()) < limit)
