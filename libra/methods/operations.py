"""Tensor operations that several methods share."""

import torch
from torch import LongTensor, Tensor
from torch.nn.functional import normalize

from libra.reduction import Reduction


def at_least_fp32(x: Tensor) -> Tensor:
    """`x` in fp32, or as it is where it is float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit(x: Tensor) -> Tensor:
    """Rows of `x` [N, D] scaled to length one, so that products of rows are cosines."""
    return normalize(at_least_fp32(x), dim=-1)


def products(a: Tensor, b: Tensor) -> Tensor:
    """Products of the rows of `a` [..., N, D] and `b` [..., M, D], added up in fp32 at least.

    A GPU multiplies halves without making fp32 copies of them: the sums are the same, its matrix
    units are fast. (`matmul` has no such output type, and a CPU has none at all.)
    """
    if a.is_cuda and a.dtype == b.dtype in (torch.float16, torch.bfloat16):
        multiply = torch.mm if a.ndim == 2 else torch.bmm
        return multiply(a, b.transpose(-1, -2), out_dtype=torch.float32)
    return at_least_fp32(a) @ at_least_fp32(b).transpose(-1, -2)


def projections(a: Tensor, b: Tensor) -> Tensor:
    """[N, M] how far each row of `a` [N, D] goes in the direction of each row of `b` [M, D].

    In each row they rank like the cosines, whose greatest is to be had without dividing them all.
    """
    return products(a, b).div_(lengths(b))


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """[N, M] cosines between the rows of `a` [N, D] and `b` [M, D]; zero where a row is."""
    return projections(a, b).div_(lengths(a)[:, None])


def nearest(x: Tensor, chosen: LongTensor) -> tuple[Tensor, LongTensor]:
    """[N] the cosine of each row of `x` [N, D] and the most similar of the `chosen` ones, and [N]
    which of them that is; of equals the first."""
    length = lengths(x)
    value, best = products(x, x[chosen]).div_(length[chosen]).max(1)
    return value / length, best


def lengths(x: Tensor) -> Tensor:
    """[N] lengths of the rows of `x` [N, D], in fp32 at least; never zero."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return torch.linalg.vector_norm(x, dim=-1, dtype=dtype).clamp_min_(1e-12)


def top(score: Tensor, k: int) -> LongTensor:
    """Indices of the `k` highest scores, best first; of equal scores the first comes first."""
    return score.sort(descending=True, stable=True).indices[:k]


def complement(indices: LongTensor, n: int) -> LongTensor:
    """The members of 0..n-1 that are not in `indices`, which all differ; ascending.

    How many there are is known, so a GPU need not be asked: sorting is what `nonzero` would do.
    """
    taken = torch.zeros(n, dtype=torch.uint8, device=indices.device).index_fill_(0, indices, 1)
    return taken.argsort(stable=True)[: n - len(indices)]


def inverse(order: LongTensor) -> LongTensor:
    """The permutation that undoes `order`; cheaper than to sort it."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def group_sum(value: Tensor, group: LongTensor, n_groups: int) -> Tensor:
    """[n_groups] sum of the values of each group."""
    return value.new_zeros(n_groups).index_add_(0, group, value)


def group_share(value: Tensor, group: LongTensor, n_groups: int) -> Tensor:
    """Each value as a share of its group's sum."""
    return value / group_sum(value, group, n_groups)[group]


def group_softmax(logit: Tensor, group: LongTensor, n_groups: int) -> Tensor:
    """Softmax of the logits within each group."""
    peak = logit.new_full((n_groups,), -torch.inf).scatter_reduce_(0, group, logit, "amax")
    return group_share((logit - peak[group]).exp(), group, n_groups)


def interval_of(
    places: range, n: int, n_intervals: int, device: torch.device | None = None
) -> LongTensor:
    """The interval of each of some places, most of them out of 0..n-1.

    b_i <= place < b_{i+1}, with b_i = floor(i * n / n_intervals).
    """
    first, end, k = places.start, places.stop, n_intervals
    return torch.arange(first * k + k - 1, end * k + k - 1, k, device=device) // n


def spread(n: int, k: int, device: torch.device | None = None) -> LongTensor:
    """[k] the middles of `k` equal parts of 0..n-1; all different for k <= n."""
    return (2 * torch.arange(k, device=device) + 1) * n // (2 * k)


def merge_groups(
    owner: LongTensor,
    size: Tensor,
    evidence: dict[str, Tensor] | None = None,
    owners: LongTensor | None = None,
) -> Reduction:
    """Merge each token into the group of its owner [N], by a mean weighted with `size` [N].

    Owners own themselves, and give their group its slot. Where it is known who they are, say so
    (`owners`, ascending): finding out makes a GPU wait.
    """
    slot = owner.unique() if owners is None else owners
    group = torch.searchsorted(slot, owner)
    return Reduction(
        n_in=len(owner),
        source=torch.arange(len(owner), device=owner.device),
        target=group,
        weight=group_share(size, group, len(slot)),
        slot=slot,
        evidence=evidence or {},
    )
