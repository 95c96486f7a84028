"""Training with compression (Libra-Merging, supplement B.3).

Visual tokens leave after four of the decoder's layers while it learns; towards the end fewer and
fewer do, so that the model ends as one that sees all. It saves time where most of a sequence is
visual tokens, and costs some where only a part of the patches is shown.

Differs from the paper: several questions share a picture here, so importance is the mean over the
tokens that start their answers; and there is no compensation token, so that the pictures of a batch
keep equally many tokens. Albums and films are left whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from libra import methods
from libra.methods import Tokens
from libra.request import scale_layers

LAYERS = (4, 10, 16, 22)  # of 32
STEPS, FALL = 5500, 1000  # of the paper, and in how many of the last the share falls


def share(ratio: float, step: int, steps: int) -> float:
    """The share that each event removes at a step: `ratio`, then less, R (5500 - i) / 1000."""
    return ratio * min(1.0, (steps - step) / steps * STEPS / FALL)


@contextmanager
def compressed(decoder: nn.Module, visual: slice, asks: Tensor, ratio: float) -> Iterator[None]:
    """Let a decoder merge visual tokens while the context is open, for one call.

    Args:
        decoder: with Llama's layers.
        visual: places of the visual tokens, the same for the whole batch.
        asks: bool [B, S], the tokens that answers start from.
        ratio: the share that each event removes.
    """
    run = _Run(visual, asks, ratio, scale_layers(LAYERS, len(decoder.layers)))
    handles = [
        layer.register_forward_pre_hook(partial(run.enter, i), with_kwargs=True)
        for i, layer in enumerate(decoder.layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Run:
    """One call of the decoder: which places of the sequence [B, S] are left, layer by layer."""

    def __init__(self, visual: slice, asks: Tensor, ratio: float, after: tuple[int, ...]):
        self.visual, self.asks, self.after = visual, asks, after
        self.method = methods.create("libra", ratio=ratio, compensation="none")
        b, s = asks.shape
        self.left = torch.arange(s, device=asks.device).expand(b, -1)
        self.batch = torch.arange(b, device=asks.device)[:, None]
        self.importance: Tensor | None = None  # [B, N] at the last layer that asked for it

    def enter(self, i: int, layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Hand layer `i` the tokens that are left, and what belongs to them."""
        hidden, *others = args
        if i - 1 in self.after:
            hidden = self._reduced(hidden)
        mask, tables = kwargs["attention_mask"], kwargs["position_embeddings"]
        seen = mask[:, 0][self.batch[..., None], self.left[:, :, None], self.left[:, None]]
        kwargs = kwargs | {
            "attention_mask": seen[:, None],
            "position_embeddings": tuple(table[self.batch, self.left] for table in tables),
            "position_ids": kwargs["position_ids"].gather(1, self.left),
        }
        if i in self.after:
            self.importance = self._attention(layer, hidden, kwargs)[:, self.visual]
        return (hidden, *others), kwargs

    def _reduced(self, hidden: Tensor) -> Tensor:
        """The sequence [B, S, D] with its visual tokens merged."""
        front, body, rest = hidden.split(self._parts(hidden.shape[1]), 1)
        with torch.no_grad():
            pairs = zip(body, self.importance, strict=True)
            maps = [self.method.reduce(Tokens(hidden=x, importance=alpha)) for x, alpha in pairs]
        body = torch.stack([own.apply(x) for own, x in zip(maps, body, strict=True)])
        slot = torch.stack([own.slot for own in maps])
        before, places, behind = self.left.split(self._parts(self.left.shape[1]), 1)
        self.left = torch.cat([before, places.gather(1, slot), behind], 1)
        self.visual = slice(self.visual.start, self.visual.start + slot.shape[1])
        return torch.cat([front, body, rest], 1)

    def _parts(self, length: int) -> list[int]:
        """How many tokens stand before, among and behind the visual ones."""
        start, stop = self.visual.start, self.visual.stop
        return [start, stop - start, length - stop]

    @torch.no_grad()
    def _attention(self, layer: nn.Module, hidden: Tensor, kwargs: dict) -> Tensor:
        """[B, S] attention of the tokens that start answers, mean over them and the heads."""
        asks, own = self.asks.gather(1, self.left), layer.self_attn
        there, asking = asks.float().topk(int(asks.sum(1).max()))  # [B, Q]
        x = layer.input_layernorm(hidden)
        query, key = (
            to(x).unflatten(-1, (-1, own.head_dim)).transpose(1, 2)
            for to in (own.q_proj, own.k_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *kwargs["position_embeddings"])
        query = query[self.batch, :, asking].transpose(1, 2)  # [B, H, Q, d]
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        score = (query.float() @ key.float().mT) * own.scaling
        seen = kwargs["attention_mask"][:, 0][self.batch, asking][:, None]
        rows = score.masked_fill(~seen, -torch.inf).softmax(-1).mean(1)
        return (rows * there[..., None]).sum(1) / there.sum(1, keepdim=True)
