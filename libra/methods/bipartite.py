"""Bipartite soft matching (ToMe, section 3): even tokens look for a partner among the odd ones."""

import torch
from torch import Tensor

from libra.errors import InputError
from libra.methods.operations import complement, merge_groups, top, unit
from libra.reduction import Reduction


def bipartite_merge(
    title: str, metric: Tensor, n_remove: int, size: Tensor, reluctance: Tensor | None = None
) -> Reduction:
    """Merge the `n_remove` even tokens with the closest partners into these partners.

    Args:
        title: of the method, for the error message.
        metric: [N, Dk] features that are compared, by their cosine.
        n_remove: at most as many as there are even tokens.
        size: [N] weight of each token in the mean of its group.
        reluctance: [N] taken off the similarity of an even token, to protect important ones.

    Raises:
        InputError: more than half of the tokens are to be removed.
    """
    n = len(metric)
    n_even = (n + 1) // 2
    if n_remove > n_even:
        raise InputError(
            f"{title} can merge at most half of the tokens at once ({n_even} of {n}), not "
            f"{n_remove}: choose a ratio of at most 0.5, and more layers to go further."
        )
    metric = unit(metric)
    similarity, partner = (metric[0::2] @ metric[1::2].T).max(1)
    score = similarity if reluctance is None else similarity - reluctance[0::2]
    merged = top(score, n_remove)
    owner = torch.arange(n, device=metric.device)
    owner[2 * merged] = 2 * partner[merged] + 1
    return merge_groups(owner, size, owners=complement(2 * merged, n))
