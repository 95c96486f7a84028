"""A CLIP tower, run layer by layer so that chosen layers can shrink their tokens."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from libra.models.base import EncoderReducer
from libra.models.features import EncoderAttention


def clip_states(
    tower: nn.Module, pixels: Tensor, reducer: EncoderReducer | None = None
) -> list[Tensor]:
    """Hidden states [images, T, D]: the input of each layer, then the output of the last.

    A layer in `reducer.encoder_layers` is taken apart, because what is merged between attention
    and MLP changes the length of the residual too, which no hook reaches.
    """
    chosen = reducer.encoder_layers if reducer is not None else ()
    x = tower.pre_layrnorm(tower.embeddings(pixels))
    states = [x]
    for i, layer in enumerate(tower.encoder.layers):
        if i in chosen:
            attended = x + layer.self_attn(layer.layer_norm1(x), attention_mask=None)[0]
            attention = partial(clip_attention, layer, x[0])
            h = reducer.reduce_in_encoder(i, attended[0], attention)[None]
            x = h + layer.mlp(layer.layer_norm2(h))
        else:
            x = layer(x, None)
        states.append(x)
    return states


def clip_attention(layer: nn.Module, hidden: Tensor) -> EncoderAttention:
    """Queries and keys of a CLIP layer for its input [T, D] (CLS first)."""
    heads = (layer.self_attn.num_heads, layer.self_attn.head_dim)
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    normed = layer.layer_norm1(hidden)
    query, key = (
        project(normed).unflatten(-1, heads).transpose(0, 1).to(dtype)
        for project in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    )
    return EncoderAttention(query, key, n_special=1)
