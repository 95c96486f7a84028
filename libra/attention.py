"""Hybrid attention: a few explicit softmax rows beside the fast attention of the model.

Fused attention (SDPA, flash) never forms the attention matrix, and a compression method needs a
row or two of it: mostly that of the output token. So the configured attention function is wrapped
under its own name in transformers' registry; a call that carries a tap can compute any rows from
the query and key it receives (after rotary embedding), every other call goes straight through.
Eager attention, which is not in the registry, returns its matrix and is read by a forward hook.

The tap travels in the keyword arguments of the layer, so requests share a model without
sharing state. So do the parts of a call that packs several requests side by side
(`libra.batch`): each part attends to itself alone, behind its own cache.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import LongTensor, Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from libra.methods.operations import products

Queries = LongTensor | slice  # places [R] in a call, or its last ones, as `LAST`
Rows = Callable[[Queries], Tensor]  # queries of the call -> their rows [H, R, T]
Tap = Callable[[Rows], None]  # gets a call's rows: each that it asks for is computed then
TAP = "attention_tap"  # name of the keyword argument that holds a Tap
LAST = slice(-1, None)  # the last query of a call, which sees all: no mask and no number is needed
LAST_TWO = slice(-2, None)
PARTS = "attention_parts"  # name of the keyword argument that holds the Parts of a packed call


@dataclass(frozen=True)
class Part:
    """One request's share of a packed call."""

    n: int  # its tokens in the call
    cache: Cache  # takes in their keys and values
    tap: Tap | None


def attention_rows(
    query: Tensor, key: Tensor, scaling: float, queries: Queries, mask: Tensor | None = None
) -> Tensor:
    """Causal attention of some queries over all keys, head by head, fp32 at least.

    Grouped-query attention: each key head serves H / Hk query heads.

    Args:
        query: [1, H, S, d] after rotary embedding.
        key: [1, Hk, T, d]; the S queries belong to the last of these tokens.
        scaling: factor on the scores.
        queries: [R] out of 0..S-1, or a slice of the last ones.
        mask: None, bool or additive [1, 1, S, T], on top of causality.

    Returns:
        [H, R, T], each row sums to one.
    """
    _, heads, n_queries, width = query.shape
    key_heads, n_keys = key.shape[1:3]
    of_last = isinstance(queries, slice)
    if not of_last:
        queries = queries.to(query.device)
    wanted = query[0, :, queries].reshape(key_heads, -1, width)  # [Hk, H / Hk * R, d]
    scores = products(wanted, key[0]).view(heads, -1, n_keys) * scaling
    if mask is not None:
        allowed = mask[0, 0, queries, :n_keys]
        scores = (
            scores.masked_fill(~allowed, -torch.inf)
            if mask.dtype == torch.bool
            else scores + allowed
        )
    if of_last:
        for behind in range(1, scores.shape[1]):
            scores[:, -1 - behind, -behind:].fill_(-torch.inf)
    elif n_queries > 1:  # a single query is that of the last token, too
        places = torch.arange(n_keys, device=query.device)
        later = places > queries[:, None] + (n_keys - n_queries)
        scores = scores.masked_fill(later, -torch.inf)
    return scores.softmax(-1)


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
        tap(lambda queries: output[1][0][:, queries].float())


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
    """The attention function `plain`, part by part, which also feeds the tap of each, if any."""

    def hybrid(module, query, key, value, attention_mask, *args, scaling=None, **kwargs):
        if parts := kwargs.pop(PARTS, None):
            attend = partial(hybrid, module, scaling=scaling, **kwargs)
            return _side_by_side(attend, module.layer_idx, (query, key, value), parts, *args), None
        if tap := kwargs.pop(TAP, None):
            factor = scaling if scaling is not None else query.shape[-1] ** -0.5
            tap(partial(attention_rows, query, key, factor, mask=attention_mask))
        return plain(module, query, key, value, attention_mask, *args, scaling=scaling, **kwargs)

    return hybrid


def _side_by_side(
    attend: Callable, layer: int, projected: Sequence[Tensor], parts: Sequence[Part], *args: object
) -> Tensor:
    """The output [1, S, H, d] of a packed call, in which each part sees what its cache holds.

    Args:
        attend: the attention function of one request.
        layer: number of the layer.
        projected: query [1, H, S, d], key and value [1, Hk, S, d] of the S tokens of all parts.
        parts: the requests, in the order of their tokens.
        args: further arguments of `attend`.
    """
    lengths, outputs = [part.n for part in parts], []
    own = zip(parts, *(x.split(lengths, dim=-2) for x in projected), strict=True)
    for part, query, key, value in own:
        key, value = part.cache.update(key, value, layer)
        # No mask: the prompt of a part is causal, and a word sees all that is in its cache.
        outputs.append(attend(query, key, value, None, *args, **{TAP: part.tap})[0])
    return torch.cat(outputs, dim=1)
