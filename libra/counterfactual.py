"""Counterfactuals: what would the answer be, had these patches survived, or those not?

Attention tells what a model looked at; only taking a patch away, or giving it back, tells what
the answer depended on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import LongTensor, Tensor

from libra.errors import InputError
from libra.methods import Method, Tokens
from libra.methods.operations import complement
from libra.reduction import TOKEN_EVIDENCE, Reduction


def check_forced(keep: Sequence[int], drop: Sequence[int], n: int) -> None:
    """Raise InputError unless these patches out of `n` can be kept and dropped."""
    for name, patches in (("keep", keep), ("drop", drop)):
        if any(not isinstance(p, int) or not 0 <= p < n for p in patches):
            raise InputError(f"{name}: patches are whole numbers from 0 to {n - 1}.")
    both = sorted(set(keep) & set(drop))
    if both:
        raise InputError(f"Patch {both[0]} cannot be kept and dropped at once.")
    if len(set(drop)) == n:
        raise InputError("At least one patch must remain: do not drop all of them.")


def check_budget(method: Method, n_kept: int, n: int) -> None:
    """Raise InputError unless `method` can be told to keep so many of an event's `n` tokens."""
    budget = _budget(method, n)
    if n_kept and budget is not None and n_kept >= budget:
        raise InputError(
            f"{n_kept} patches are to be kept, but at this ratio {method.title} keeps {budget} of "
            f"these {n}: choose fewer patches or a lower ratio."
        )


def reduce_forced(
    method: Method, tokens: Tokens, keep: Sequence[int], drop: Sequence[int]
) -> Reduction:
    """What `method` decides when some tokens are decided beforehand.

    Tokens in `drop` leave before the method sees them, so no output takes anything from them.
    Tokens in `keep` stay exactly as they are, at their own place, and nothing merges into them.
    The method decides about the others alone, down to the count that makes the total the same as
    without this intervention: the token budget, and with it the cost, do not change.
    """
    n, device = len(tokens), tokens.hidden.device
    kept = torch.tensor(sorted(set(keep)), dtype=torch.long, device=device)
    gone = torch.tensor(sorted(set(drop)), dtype=torch.long, device=device)
    rest = complement(torch.cat([kept, gone]), n)
    if len(rest) == 0:
        return Reduction.select(kept, n)
    inner = _within_budget(method, n, len(kept)).reduce(_subset(tokens, rest))

    slot = torch.cat([kept, rest[inner.slot]])
    place = _ascending(slot, inner.compensation, len(kept)).argsort()  # output -> its new place
    own = torch.arange(len(kept), device=device)
    return Reduction(
        n_in=n,
        source=torch.cat([kept, rest[inner.source]]),
        target=place[torch.cat([own, inner.target + len(kept)])],
        weight=torch.cat([torch.ones_like(own, dtype=inner.weight.dtype), inner.weight]),
        slot=slot[place.argsort()],
        compensation=(
            None if inner.compensation is None else int(place[inner.compensation + len(kept)])
        ),
        evidence={
            name: _spread(rest[fact] if name in TOKEN_EVIDENCE else fact, rest, n)
            for name, fact in inner.evidence.items()
        },
    )


def _budget(method: Method, n: int) -> int | None:
    """How many of `n` tokens the method keeps; None where it finds that out itself."""
    given = (getattr(method, name, None) for name in ("ratio", "keep"))
    return method.count(n) if any(value is not None for value in given) else None


def _within_budget(method: Method, n: int, n_kept: int) -> Method:
    """The method set to keep what is left of its budget; one without a budget as it is."""
    budget = _budget(method, n)
    return method if budget is None else method.keeping(max(1, budget - n_kept))


def _subset(tokens: Tokens, indices: LongTensor) -> Tokens:
    """Some of the tokens, with all that is known about them."""
    values = {f.name: getattr(tokens, f.name) for f in fields(tokens)}
    chosen = {name: v[indices] for name, v in values.items() if isinstance(v, Tensor)}
    layout = tokens.layout.select(indices.cpu()) if tokens.layout is not None else None
    return replace(tokens, **chosen, layout=layout, may_wait=True)


def _ascending(slot: LongTensor, compensation: int | None, n_kept: int) -> LongTensor:
    """The outputs in the order of their slots; a compensation token stays at its end."""
    key = slot.clone()
    if compensation is not None:
        key[n_kept + compensation] = -1 if compensation == 0 else slot.max() + 1
    return key.argsort(stable=True)


def _spread(fact: Tensor, indices: LongTensor, n: int) -> Tensor:
    """Facts about some of `n` tokens; NaN or -1 for those the method never saw."""
    missing = torch.nan if fact.is_floating_point() else -1
    return fact.new_full((n,), missing).index_copy_(0, indices, fact)
