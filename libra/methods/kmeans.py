"""k-means merging: clusters of similar tokens become their means."""

from dataclasses import dataclass, field

import torch
from torch import LongTensor, Tensor

from libra.methods.base import Baseline, Tokens
from libra.methods.operations import at_least_fp32, merge_groups, spread, top
from libra.reduction import Reduction


@dataclass(frozen=True)
class KMeans(Baseline):
    """A few iterations of Lloyd's algorithm on the hidden states.

    The first centres are evenly spaced tokens. A cluster that runs empty takes over the token that
    is farthest from its centre. A merged token stands where the first of its cluster stood.
    """

    name = "kmeans"
    title = "k-means merging"
    summary = "Clusters the visual tokens by k-means and keeps the mean of each cluster."
    paper = "baseline in iLLaVA, Tables 4 and 7 (5 iterations)"
    kind = "merge"
    weighs = True

    iterations: int = field(
        default=5, metadata={"help": "rounds of assigning and averaging", "range": (1, 100)}
    )

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Cluster, then merge each cluster into its first token."""
        hidden, size = at_least_fp32(tokens.hidden), tokens.sizes()
        centre = hidden[spread(len(tokens), n_keep, hidden.device)]
        for _ in range(self.iterations):
            first, owner = assign(hidden, centre)
            reduction = merge_groups(owner, size, owners=first.sort().values)
            centre = reduction.apply(hidden)
        return reduction


def assign(hidden: Tensor, centre: Tensor) -> tuple[LongTensor, LongTensor]:
    """The clusters of the tokens `hidden` [N, D] around `centre` [K, D]; none of them is empty.

    A cluster that nothing falls into gets the token farthest from its own centre, out of those that
    are no first tokens.

    Returns:
        [K] the first token of each cluster, and [N] that of the cluster of each token.
    """
    n, k = len(hidden), len(centre)
    distance, cluster = torch.cdist(hidden, centre).min(1)
    token = torch.arange(n, device=hidden.device)
    first = token.new_full((k,), n).scatter_reduce_(0, cluster, token, "amin")
    # How many are empty is not known, so that a GPU need not be asked: all clusters line up for a
    # token, the empty ones in front, and only they take theirs.
    empty = first == n
    line = empty.argsort(descending=True, stable=True)
    spare = top(distance.masked_fill(first[cluster] == token, -torch.inf), k)
    takes = empty[line]
    cluster[spare] = torch.where(takes, line, cluster[spare])
    first[line] = torch.where(takes, spare, first[line])
    return first, first[cluster]
