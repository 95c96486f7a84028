"""Greedy merging: the most similar pair, again and again."""

from dataclasses import dataclass

import torch

from libra.methods.base import Baseline, Tokens
from libra.methods.operations import at_least_fp32, merge_groups
from libra.reduction import Reduction


@dataclass(frozen=True)
class Greedy(Baseline):
    """Merge the two most similar tokens into their mean until few enough are left.

    Exact and slow: one step per removed token, each a search through all pairs.
    """

    name = "greedy"
    title = "Greedy merging"
    summary = "Merges the most similar pair of tokens over and over: accurate, but slow."
    paper = "baseline in iLLaVA, section 3.2 and Tables 4 and 7"
    kind = "merge"
    weighs = True

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Merge pairs; a merged token stands where the first of the two stood."""
        n, size = len(tokens), tokens.sizes()
        hidden = at_least_fp32(tokens.hidden)
        # Means are linear, so the products of merged tokens follow from those of their parts.
        product = hidden @ hidden.T
        owner = torch.arange(n, device=hidden.device)
        total = size.clone()
        norm = product.diagonal().clamp_min(0).sqrt()
        similarity = product / (norm[:, None] * norm).clamp_min(torch.finfo(norm.dtype).tiny)
        similarity.fill_diagonal_(-torch.inf)
        gone = torch.zeros(n, dtype=torch.bool, device=hidden.device)
        for _ in range(n - n_keep):
            first, second = sorted(divmod(int(similarity.argmax()), n))
            share = total[first] / (total[first] + total[second])
            mixed = torch.lerp(product[second], product[first], share)
            mixed[first] = torch.lerp(mixed[second], mixed[first], share)
            product[first], product[:, first] = mixed, mixed
            total[first] += total[second]
            owner[owner == second] = first
            gone[second] = True

            norm[first] = product[first, first].clamp_min(0).sqrt()
            row = mixed / (norm[first] * norm).clamp_min(torch.finfo(norm.dtype).tiny)
            row[first] = -torch.inf
            row[gone] = -torch.inf
            similarity[first], similarity[:, first] = row, row
            similarity[second], similarity[:, second] = -torch.inf, -torch.inf
        return merge_groups(owner, size)
