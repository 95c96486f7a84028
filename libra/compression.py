"""Where a compression method meets a model.

`Compression` is one request: its plan, and what became of its visual tokens so far. It rides on
the request's KV cache. `Hooks` are installed once per model and act only on calls whose cache
carries a `Compression`, so requests with different methods share a model, and a call without one
is the plain model.

A reduction at `after_layer = L` happens on the input of layer L + 1, once, in the prefill, ranked
with layer L's own attention. From there on the sequence is shorter: the tokens keep their original
positions, so their rotary embeddings are gathered and the causal mask is cut to size. Decoding
appends to the caches as they are; new tokens continue from the original length, which is still
the length of layer 0's cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import LongTensor, Tensor, nn
from transformers import DynamicCache, PretrainedConfig

from libra.attention import TAP, HybridAttention
from libra.counterfactual import reduce_forced
from libra.layout import TokenLayout
from libra.methods import Method, Tokens
from libra.methods.operations import complement
from libra.trace import Event


@dataclass
class Compression:
    """One request (batch 1): what to do with its N visual tokens, and what has been done.

    The current visual tokens are always held in the order in which the last reduction put them
    out; `visual` says where in the sequence each of them stands.
    """

    method: Method
    layers: tuple[int, ...]  # decoder layers after which to reduce
    visual: LongTensor  # [N] places of the visual tokens in the prompt
    layout: TokenLayout  # of these N tokens
    keep: Sequence[int] = ()  # counterfactual: patches forced in ...
    drop: Sequence[int] = ()  # ... and out, at the first event
    tracing: bool = False  # collect an attention row per layer and step
    generator: torch.Generator | None = None

    events: list[Event] = field(default_factory=list)
    rows: list[list[Tensor]] = field(default_factory=list)  # [step][layer]: [n_l], if tracing
    positions: LongTensor | None = None  # [S] prompt position of each token of the sequence
    _visual_of: list[LongTensor] = field(default_factory=list)  # per layer, as its cache holds it
    _importance: Tensor | None = None  # [n] row of the layer that was tapped last

    @property
    def counts(self) -> list[int]:
        """Visual tokens that each decoder layer processed in the prefill."""
        return [len(visual) for visual in self._visual_of]

    def enter_layer(self, layer: int, hidden: Tensor, kwargs: dict) -> Tensor:
        """Prepare the call of one decoder layer.

        Args:
            layer: its number.
            hidden: [1, S, D] what it would process.
            kwargs: its keyword arguments, changed in place to fit what it will process.

        Returns:
            [1, S', D] what it will process.
        """
        cached = kwargs["past_key_values"].get_seq_length(layer)
        prefill = cached == 0
        if prefill:
            if self.positions is None:
                self.positions = torch.arange(hidden.shape[1], device=hidden.device)
                self.visual = self.visual.to(hidden.device)
            if layer - 1 in self.layers:
                hidden = self._reduce(layer - 1, hidden)
            self._visual_of.append(self.visual)
            if self.events:
                _gather_positions(kwargs, self.positions.to(hidden.device))
        if self.tracing and layer == 0:
            self.rows.append([])
        if self.tracing or (prefill and layer in self.layers and self._needs_row):
            kwargs[TAP] = partial(self._take_row, layer)
        mask = kwargs.get("attention_mask")
        if mask is not None:
            # One unpadded sequence: the causal mask of fewer tokens is a corner of the full one.
            n_query = hidden.shape[1]
            kwargs["attention_mask"] = mask[..., :n_query, : cached + n_query]
        return hidden

    @property
    def _needs_row(self) -> bool:
        return "importance" in self.method.needs

    def _take_row(self, layer: int, row: Tensor) -> None:
        """Keep the visual part of an attention row [T], not renormalised."""
        self._importance = row[self._visual_of[layer].to(row.device)]
        if self.tracing:
            self.rows[-1].append(self._importance)

    def _reduce(self, layer: int, hidden: Tensor) -> Tensor:
        """Let the method decide, and rearrange the sequence [1, S, D] accordingly."""
        visual = self.visual.to(hidden.device)
        seen = hidden[:, visual]
        earlier = self.events[-1].reduction.compensation if self.events else None
        tokens = Tokens(
            hidden=seen[0],
            importance=self._importance if self._needs_row else None,
            layout=self.layout,
            n_previous_compensation=int(earlier is not None),
            generator=self.generator,
        )
        if (self.keep or self.drop) and not self.events:
            reduction = reduce_forced(self.method, tokens, self.keep, self.drop)
        else:
            reduction = self.method.reduce(tokens)

        # Outputs take the positions of their slots. Sorting is stable, so an output that shares a
        # position with another (a compensation token) stays on the side where the method put it.
        text = complement(visual, hidden.shape[1])
        now = self.positions.to(hidden.device)
        positions = torch.cat([now[text], now[visual[reduction.slot]]])
        order = positions.argsort(stable=True)
        self.positions = positions[order]
        self.visual = order.argsort()[len(text) :]
        self.layout = self.layout.select(reduction.slot.cpu())
        self.events.append(Event("decoder", layer, reduction))
        return torch.cat([hidden[:, text], reduction.apply(seen)], dim=1)[:, order]


def _gather_positions(kwargs: dict, positions: LongTensor) -> None:
    """Give the layer the rotary embeddings [..., S, d] of these prompt positions."""
    kwargs["position_embeddings"] = tuple(
        table.index_select(-2, positions) for table in kwargs["position_embeddings"]
    )
    # Flash attention would take the gaps for borders between packed sequences.
    kwargs["position_ids"] = None


class CompressedCache(DynamicCache):
    """A KV cache that carries the compression of its request through the model."""

    def __init__(self, config: PretrainedConfig, compression: Compression):
        super().__init__(config=config)
        self.compression = compression


class Hooks:
    """What makes a model's decoder compressible, until `remove`.

    Args:
        layers: the decoder layers; called as `layer(hidden_states, position_embeddings=,
            position_ids=, attention_mask=, past_key_values=)`.
        implementation: the model's attention implementation ("sdpa", "eager", ...).
    """

    def __init__(self, layers: Iterable[nn.Module], implementation: str):
        layers = list(layers)
        self._attention = HybridAttention([x.self_attn for x in layers], implementation)
        self._handles = [
            module.register_forward_pre_hook(partial(_enter_layer, i), with_kwargs=True)
            for i, module in enumerate(layers)
        ]

    def remove(self) -> None:
        """Leave the model as it was."""
        self._attention.remove()
        for handle in self._handles:
            handle.remove()


def _enter_layer(
    layer: int, module: nn.Module, args: tuple, kwargs: dict
) -> tuple[tuple, dict] | None:
    """Forward pre-hook of a decoder layer: nothing, unless the cache carries a compression."""
    compression = getattr(kwargs.get("past_key_values"), "compression", None)
    if compression is None:
        return None
    kwargs = dict(kwargs)
    hidden = compression.enter_layer(layer, args[0], kwargs)
    return (hidden, *args[1:]), kwargs
