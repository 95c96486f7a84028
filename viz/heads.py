"""Attention head by head: what each head of a layer looks at before the first word."""

from math import ceil, sqrt

import numpy as np
from PIL import Image

from libra.trace import Trace
from viz.heat import attention_row, heat_map, heat_scale, with_scale
from viz.panel import PATCH, named, wrapped

COLUMNS = 8


def attention_heads(trace: Trace, layer: int | None = None, image: int = 0) -> Image.Image:
    """Heat maps of all heads of one layer (default: the first that an event ranks by) for the last
    prompt token, on one scale.

    Raises:
        InputError: the trace was made without full tracing.
    """
    layer = ranking_layer(trace) if layer is None else layer
    rows = head_rows(trace, layer)
    scale = heat_scale(rows)
    maps = [
        heat_map(trace, layer, image=image, vmax=scale, head=i, legend=False, patch=PATCH)
        for i in range(len(rows))
    ]
    columns = min(COLUMNS, max(4, ceil(sqrt(len(rows)))))
    card = wrapped(maps, [f"head {i}" for i in range(len(rows))], columns)
    card = with_scale(card, scale, True, f"layer {layer}, last token of the prompt")
    return named(card, trace, image)


def ranking_layer(trace: Trace) -> int:
    """The decoder layer that the first event in the decoder ranks by; else the middle one."""
    ranked = (event.layer for event in trace.events if event.site == "decoder")
    return next(ranked, len(trace.counts) // 2)


def head_rows(trace: Trace, layer: int) -> list[np.ndarray]:
    """The attention [n_l] of each head of a layer behind the first word.

    Raises:
        InputError: the trace was made without full tracing.
    """
    first = attention_row(trace, layer, head=0)
    others = range(1, len(trace.detail.heads[layer]))
    return [first, *(attention_row(trace, layer, head=i) for i in others)]
