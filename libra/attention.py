"""Hybrid attention: one explicit softmax row beside the fast attention of the model.

Fused attention (SDPA, flash) never forms the attention matrix, and a compression method needs
one row of it: that of the output token. So the configured attention function is wrapped under
its own name in transformers' registry; a call that carries a `tap` computes that row from the
query and key it receives (after rotary embedding), every other call goes straight through. Eager
attention, which is not in the registry, returns its matrix and is read by a forward hook.

The tap travels in the keyword arguments of the layer, so requests share a model without
sharing state.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

TAP = "attention_tap"  # name of the keyword argument; its value takes one row [T]


def last_row(query: Tensor, key: Tensor, scaling: float, mask: Tensor | None = None) -> Tensor:
    """Attention of the last query over all keys, mean over heads, fp32.

    Grouped-query attention: each key head serves H / Hk query heads.

    Args:
        query: [1, H, S, d] after rotary embedding.
        key: [1, Hk, T, d].
        scaling: factor on the scores.
        mask: None, bool or additive [1, 1, S, T].

    Returns:
        [T], sums to one.
    """
    _, heads, _, width = query.shape
    key_heads = key.shape[1]
    dtype = torch.promote_types(query.dtype, torch.float32)
    last = query[0, :, -1].reshape(key_heads, heads // key_heads, width).to(dtype)
    scores = last @ key[0].to(dtype).transpose(-1, -2) * scaling  # [Hk, H / Hk, T]
    if mask is not None:
        visible = mask[0, 0, -1, : key.shape[2]]
        scores = (
            scores.masked_fill(~visible, -torch.inf)
            if mask.dtype == torch.bool
            else scores + visible
        )
    return scores.softmax(-1).mean((0, 1)).float()


class HybridAttention:
    """Makes the attention of some modules tappable, until `remove`.

    Args:
        modules: self-attention modules to tap.
        implementation: the model's attention implementation ("sdpa", "eager", ...).
    """

    def __init__(self, modules: Iterable[nn.Module], implementation: str):
        self._implementation = implementation
        self._hooks: list[RemovableHandle] = []
        if implementation == "eager":
            self._hooks = [
                module.register_forward_hook(_read_weights, with_kwargs=True) for module in modules
            ]
        else:
            _wrap(implementation)

    def remove(self) -> None:
        """Leave the modules and the registry as they were."""
        if self._implementation != "eager":
            _unwrap(self._implementation)
        for hook in self._hooks:
            hook.remove()


def _read_weights(module: nn.Module, args: tuple, kwargs: dict, output: tuple) -> None:
    """Forward hook for eager attention, whose second output is the matrix [1, H, S, T]."""
    if tap := kwargs.get(TAP):
        tap(output[1][0, :, -1].float().mean(0))


# The registry is one per process while models come and go, so the wrapping counts its users.
_lock = threading.Lock()
_users: Counter[str] = Counter()
_plain: dict[str, Callable] = {}


def _wrap(name: str) -> None:
    with _lock:
        _users[name] += 1
        if _users[name] == 1:
            _plain[name] = ALL_ATTENTION_FUNCTIONS[name]
            ALL_ATTENTION_FUNCTIONS.register(name, _hybrid(_plain[name]))


def _unwrap(name: str) -> None:
    with _lock:
        _users[name] -= 1
        if _users[name] == 0:
            ALL_ATTENTION_FUNCTIONS.register(name, _plain.pop(name))


def _hybrid(plain: Callable) -> Callable:
    """The attention function `plain`, which also feeds the tap of the call, if it has one."""

    def hybrid(module, query, key, value, attention_mask, *args, scaling=None, **kwargs):
        if tap := kwargs.pop(TAP, None):
            factor = scaling if scaling is not None else query.shape[-1] ** -0.5
            tap(last_row(query, key, factor, attention_mask))
        return plain(module, query, key, value, attention_mask, *args, scaling=scaling, **kwargs)

    return hybrid
