"""k-means merging: clusters of similar tokens become their means."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import LongTensor, Tensor

from libra.methods.base import RatioMethod, Tokens
from libra.methods.operations import at_least_fp32, complement, merge_groups, spread, top
from libra.reduction import Reduction


@dataclass(frozen=True)
class KMeans(RatioMethod):
    """A few iterations of Lloyd's algorithm on the hidden states.

    The first centres are evenly spaced tokens. A cluster that runs empty takes over the token that
    is farthest from its centre. A merged token stands where the token nearest to the centre stood.
    """

    name = "kmeans"
    title = "k-means merging"
    summary = "Clusters the visual tokens by k-means and keeps the mean of each cluster."
    paper = "baseline in iLLaVA, Tables 4 and 7 (5 iterations)"
    kind = "merge"
    presets: ClassVar[dict[str, dict]] = {"iLLaVA, Table 7": {"ratio": 0.3, "layers": (1,)}}

    iterations: int = field(
        default=5, metadata={"help": "rounds of assigning and averaging", "range": (1, math.inf)}
    )

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Cluster, then merge each cluster into its middle."""
        hidden, size = at_least_fp32(tokens.hidden), tokens.sizes()
        centre = hidden[spread(len(tokens), n_keep, hidden.device)]
        for _ in range(self.iterations):
            cluster, middle = assign(hidden, centre)
            centre = merge_groups(middle[cluster], size).apply(hidden)[middle.argsort().argsort()]
        return merge_groups(middle[cluster], size)


def assign(hidden: Tensor, centre: Tensor) -> tuple[LongTensor, LongTensor]:
    """Clusters of `hidden` [N, D] around `centre` [K, D], none of them empty.

    Returns:
        [N] the cluster of each token, and [K] the token in the middle of each cluster.
    """
    n, k = len(hidden), len(centre)
    distance, cluster = torch.cdist(hidden, centre).min(1)
    middle = first_of_each(cluster, distance, k)
    empty = (middle == n).nonzero().flatten()
    spare = complement(middle[middle < n], n)
    moved = spare[top(distance[spare], len(empty))]
    cluster[moved], middle[empty] = empty, moved
    return cluster, middle


def first_of_each(cluster: LongTensor, distance: Tensor, k: int) -> LongTensor:
    """[k] the nearest member of each cluster, of equals the first; n where it has none."""
    order = distance.argsort(stable=True)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    best = rank.new_full((k,), len(order)).scatter_reduce_(0, cluster, rank, "amin")
    return torch.cat([order, order.new_tensor([len(order)])])[best]
