"""Units side by side: what an encoder does to each is asked for once for many.

A GPU is done with a small operation before its host has asked for the next one. So units of one
length, which methods inside the encoder leave behind, go through a layer as one batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils.generic import is_flash_attention_requested

from libra.models.base import EncoderReducers
from libra.models.features import EncoderAttention, LayerInput


def alike(keys: Iterable[Hashable]) -> list[list[int]]:
    """The places of equal keys, group by group."""
    groups = defaultdict(list)
    for i, key in enumerate(keys):
        groups[key].append(i)
    return list(groups.values())


def together(run: Callable[[Tensor], Tensor], units: Sequence[Tensor]) -> list[Tensor]:
    """What `run` makes of every unit [L, D], in one call [U, L, D] for all of one length."""
    out = list(units)
    for same in alike(map(len, units)):
        for i, x in zip(same, run(torch.stack([units[i] for i in same])), strict=True):
            out[i] = x
    return out


def packed(seen: LayerInput, counts: Sequence[int], config: PreTrainedConfig) -> dict:
    """Arguments of a layer that takes units one after the other.

    Args:
        seen: what it sees of them, [P, ...].
        counts: how many of the P tokens are of each unit.
        config: the encoder's.
    """
    bounds = torch.tensor([0, *accumulate(counts)], dtype=torch.int32)
    if is_flash_attention_requested(config):  # all others ask for the numbers: a GPU would wait
        bounds = bounds.to(seen.hidden.device)
    return {
        "cu_seqlens": bounds,
        "max_seqlen": max(counts),
        "position_embeddings": seen.tables,
    }


def reduce_together(
    reducers: EncoderReducers,
    hidden: Sequence[Tensor],
    fronts: Sequence[int],
    attention: Callable[[list[int]], EncoderAttention],
) -> list[Tensor]:
    """One event inside the encoder.

    Args:
        reducers: what shrinks the units; one that has none stays as it is.
        hidden: [F + n, D] of every unit.
        fronts: F of every unit.
        attention: of some units of equal F and n, the layer's attention [U, ...].
    """
    out = list(hidden)
    chosen = [i for i in range(len(hidden)) if i in reducers]
    for same in alike((fronts[i], len(hidden[i])) for i in chosen):
        units = [chosen[i] for i in same]
        tokens = torch.stack([hidden[i] for i in units])
        reduced = reducers.reduce_in_encoder(units, tokens, lambda units=units: attention(units))
        for i, x in zip(units, reduced, strict=True):
            out[i] = x
    return out
