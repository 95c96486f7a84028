"""Compensation tokens that may turn out to be none.

Whether any token is left over for Libra-Merging's compensation token is a number, and to ask a GPU
for one is to wait until it has done all that is queued; only then could the next layers be queued.
So the question stays open until the first word, for which everybody waits anyway. Until then there
is a compensation token, and `Reduction.vacant` tells, on the device, whether it gathers nothing. If
so it weighs nothing in later events, and it stands behind the output token, where causal attention
shows it to nobody. Then `settle` removes it.

Where one has to wait anyway, the question is asked at once: on a CPU, under full tracing, and where
patches are forced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from transformers import Cache

from libra.devices import runs_ahead
from libra.trace import Event


def stays_open(device: torch.device, cache: Cache) -> bool:
    """Whether the question is left open: where it costs time, and no window has lost tokens."""
    return runs_ahead(device) and not any(layer.is_sliding for layer in cache.layers)


def settle(events: Sequence[Event], n_layers: int) -> Iterator[tuple[int, range]]:
    """After the prefill: make vacant tokens disappear from the maps of events in the decoder.

    Args:
        events: those of one request inside the decoder, in their order.
        n_layers: of the decoder.

    Yields:
        For each vacant token: its number among the visual tokens, and the layers that it was in.
    """
    asked = [event.reduction.vacant for event in events if event.reduction.vacant is not None]
    if not asked:
        return
    answers = iter(torch.stack([vacant.to(asked[0].device) for vacant in asked]).tolist())
    gone = None
    for event, end in zip(events, [*(e.layer for e in events[1:]), n_layers - 1], strict=True):
        reduction, earlier, gone = event.reduction, gone, None
        if reduction.vacant is not None and next(answers):
            gone = reduction.compensation
            yield gone, range(event.layer + 1, end + 1)
        if earlier is gone is None:
            event.reduction = replace(reduction, vacant=None)
        else:
            # On the CPU, where it ends anyway: a GPU would be asked for every list that is cut.
            event.reduction = reduction.to("cpu").without(earlier, gone)
