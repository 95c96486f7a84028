"""Units side by side: what an encoder does to each is asked for once for many.

A GPU is done with a small operation before its host has asked for the next one. So units of one
length, which methods inside the encoder leave behind, go through a layer as one batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Protocol

import torch
from torch import LongTensor, Tensor, nn
from transformers import PreTrainedConfig
from transformers.utils.generic import is_flash_attention_requested

from libra.methods.operations import complement
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


def bounds(counts: Sequence[int], config: PreTrainedConfig, device: torch.device) -> Tensor:
    """Where each of some units begins, and the end of the last one.

    Flash attention wants them on the device. All others ask for the numbers, which a GPU would
    have to wait for in every layer: on the CPU.
    """
    found = torch.tensor([0, *accumulate(counts)], dtype=torch.int32)
    return found.to(device, non_blocking=True) if is_flash_attention_requested(config) else found


def packed(seen: LayerInput, counts: Sequence[int], config: PreTrainedConfig) -> dict:
    """Arguments of a layer that takes units one after the other.

    Args:
        seen: what it sees of them, [P, ...].
        counts: how many of the P tokens are of each unit.
        config: the encoder's.
    """
    return {
        "cu_seqlens": bounds(counts, config, seen.hidden.device),
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


class Steps(Protocol):
    """An encoder that takes units one after the other, and how its layers are taken apart."""

    tower: nn.Module
    encoder_layers: nn.ModuleList

    def attend(self, layer: nn.Module, hidden: Tensor, place: dict) -> Tensor:
        """[P, D] what goes into a layer, and its attention's output added to it."""

    def feed(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        """[P, D] what comes out of the attention, and the MLP's output added to it."""

    def attention(self, layer: nn.Module, seen: LayerInput, n_front: int) -> EncoderAttention:
        """Queries and keys of a layer for some units, after rotary embedding."""


def run_reduced(
    steps: Steps,
    whole: LayerInput,
    counts: Sequence[int],
    reducers: EncoderReducers,
    wanted: Collection[int],
) -> tuple[list[Tensor], list[int], dict[int, list[LayerInput]]]:
    """An encoder that takes units one after the other, whatever their lengths, while they shrink.

    A chosen layer is taken apart, because what is merged between attention and MLP changes the
    length of the residual too, which no hook reaches. Patches keep their rotary embedding. Those
    that become no token stand in front of their unit.

    Args:
        steps: the encoder.
        whole: what the first layer sees of all units, as they come.
        counts: of how many patches each.
        reducers: what shrinks them.
        wanted: layers whose inputs are wanted.

    Returns:
        what the last layer gives [F + n, D] and F, of each unit; the wanted inputs by layer.
    """
    starts, device = [0, *accumulate(counts)], whole.hidden.device
    fronts = [complement(reducers[i].patches, n).to(device) for i, n in enumerate(counts)]
    lengths = [len(front) for front in fronts]

    def places(name: str) -> LongTensor:
        """Where in `whole` the patches of all units stand: their fronts, then those named."""
        own = [getattr(reducers[i], name).to(device) for i in range(len(fronts))]
        units = zip(fronts, own, starts, strict=False)
        return torch.cat([torch.cat([front, patches]) + start for front, patches, start in units])

    order, states = places("patches"), {}
    seen = whole.at(order, whole.hidden[order])
    for i, layer in enumerate(steps.encoder_layers):
        if i in wanted:
            states[i] = seen.split(counts)
        place = packed(seen, counts, steps.tower.config)
        if i not in reducers.encoder_layers:
            seen = replace(seen, hidden=layer(seen.hidden, **place))
            continue

        def attention(
            units: Sequence[int], layer: nn.Module = layer, seen: Sequence = seen.split(counts)
        ) -> EncoderAttention:
            same = LayerInput.stack([seen[i] for i in units])
            return steps.attention(layer, same, lengths[units[0]])

        attended = steps.attend(layer, seen.hidden, place).split(counts)
        units = reduce_together(reducers, attended, lengths, attention)
        counts = [len(x) for x in units]
        seen = whole.at(places("left"), steps.feed(layer, torch.cat(units)))
    return list(seen.hidden.split(counts)), lengths, states
