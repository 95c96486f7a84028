"""Compression inside the decoder.

`Hooks` are installed once per model and act only on calls whose KV cache carries a request, so
requests with different methods share a model, and a call without one is the plain model.

A reduction at `after_layer = L` happens on the input of layer L + 1 (after the last layer on its
output, where nothing is left to save), once, in the prefill, ranked with layer L's own attention.
From there on the sequence is shorter: the tokens keep their original
positions, so their rotary embeddings are gathered and the causal mask is cut to size. Decoding
appends to the caches as they are; new tokens continue from the original length, which is still
the length of layer 0's cache. A method that renumbers counts anew in every layer instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import LongTensor, Tensor, nn
from transformers import Cache, DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

from libra.attention import LAST, LAST_TWO, TAP, HybridAttention, Queries, Rows
from libra.cache import RoomyLayer
from libra.compression import Compression
from libra.methods import Tokens
from libra.methods.operations import complement, inverse, products
from libra.recorder import Recorder
from libra.vacancy import settle, stays_open

# How the rows [R, n] of the queries that a fact is about become the fact.
_FACTS = {
    "importance": lambda rows: rows[-1],
    "received": lambda rows: rows.mean(0),
    "text_attention": lambda rows: rows.T,
}
_ALIKE = {"similarity", "redundancy"}  # evidence of a decision on how alike the tokens are


class DecoderSequence:
    """The token sequence of one request (batch 1) on its way through the decoder layers.

    The visual tokens are always held in the order in which the last reduction put them out;
    `visual` says where in the sequence each of them stands.

    Args:
        compression: the request.
        visual: [N] places of its visual tokens in the prompt.
        n_trailing: how many of the media's other tokens, as newlines, follow the last of them.
        recorder: what else is to be known of a request that is traced.
        in_line: whether positions are 0, 1, 2, ...; those in rows and columns are never renumbered.
    """

    def __init__(
        self,
        compression: Compression,
        visual: LongTensor,
        n_trailing: int = 0,
        recorder: Recorder | None = None,
        in_line: bool = True,
    ):
        self.compression = compression
        self._recorder = recorder
        self._renumbers = compression.method.renumbers and in_line
        self._numbered: tuple[Tensor, ...] | None = None  # rotary embeddings of 0, 1, 2, ...
        self.visual = visual
        self._n_before_text = int(visual.max()) + 1 + n_trailing
        self.positions: LongTensor | None = None  # [S] prompt position of each token
        self._text: LongTensor | None = None  # [S - N] places of all other tokens
        self._positions_of: tuple[LongTensor, LongTensor] | None = None  # text and visual tokens
        self.rows: list[list[Tensor]] = []  # [step][layer]: [n_l], if tracing
        self._prefill = True
        self._tables: tuple[Tensor, ...] | None = None  # rotary embeddings of `positions`
        self._rearranged = False
        self._open = False  # whether a compensation token may turn out to be vacant
        self._vacant: Tensor | None = None  # whether it is one that stands behind the prompt now
        self._visual_of: list[LongTensor] = []  # per layer, as its cache holds it
        self._facts: dict[str, Tensor] = {}  # of the layer that was tapped last
        self._text_similarity: Tensor | None = None  # [n, T]

    @property
    def counts(self) -> list[int]:
        """Visual tokens that each decoder layer processed in the prefill."""
        return [len(visual) for visual in self._visual_of]

    def settle(self, cache: Cache) -> None:
        """After the prefill: forget compensation tokens that turned out to be vacant."""
        self._vacant = None
        events = [event for event in self.compression.events if event.site == "decoder"]
        for token, layers in settle(events, len(self._visual_of)):
            for layer in layers:
                cache.layers[layer].crop(-1)  # it stands last
                self._visual_of[layer] = _without(self._visual_of[layer], token)
                if self.rows:
                    self.rows[0][layer] = _without(self.rows[0][layer], token)

    def follow_up(self) -> None:
        """Another question will go behind what the caches hold; its rows are counted anew."""
        self.rows, self._recorder = [], None

    def enter_layer(self, layer: int, hidden: Tensor, kwargs: dict) -> Tensor:
        """Prepare the call of one decoder layer.

        Args:
            layer: its number.
            hidden: [1, S, D] what it would process.
            kwargs: its keyword arguments, changed in place to fit what it will process.

        Returns:
            [1, S', D] what it will process.
        """
        if self._vacant is not None and layer == 0:  # nobody has asked: this is no prefill any more
            self.settle(kwargs["past_key_values"])
        cached = kwargs["past_key_values"].get_seq_length(layer)
        self._prefill = prefill = cached == 0
        if prefill:
            if layer == 0:
                self._begin(hidden, kwargs["past_key_values"])
            if layer - 1 in self.compression.layers:
                hidden = self._reduce(layer - 1, hidden)
            self._visual_of.append(self.visual)
            if self._rearranged and not self._renumbers:
                self._gather_positions(kwargs)
        if self._renumbers:
            self._count_positions(layer, cached, hidden.shape[1], kwargs)
        # One sequence. Flash attention would look, in every layer, whether it is several that are
        # packed: a GPU would be waited for, and gaps would be taken for borders.
        kwargs["position_ids"] = None
        if self.compression.tracing and layer == 0:
            self.rows.append([])
        if queries := self._queries(layer, hidden, prefill):
            kwargs[TAP] = partial(self._take_rows, layer, hidden.shape[1], queries)
        mask = kwargs.get("attention_mask")
        if mask is not None:
            # One unpadded sequence: the causal mask of fewer tokens is a corner of the full one,
            # and what stands before the queries is all visible, however many that are.
            n_query = hidden.shape[1]
            kwargs["attention_mask"] = mask[..., -n_query:, -(cached + n_query) :]
        return hidden

    def leave(self, layer: int, hidden: Tensor) -> Tensor:
        """What the last layer hands on of its output [1, S, D].

        It is reduced if that is planned here. Behind a token that may be vacant, which would stand
        in the place of the output token, the output token [1, 1, D] is handed on alone.
        """
        if self._prefill and layer in self.compression.layers:
            hidden = self._reduce(layer, hidden)
        if self._prefill and self._vacant is not None:
            hidden = self._of_output_token(hidden[0])[None]
        return hidden

    def _begin(self, hidden: Tensor, cache: Cache) -> None:
        """Look at the prompt [1, S, D] before the first layer."""
        n, device, request = hidden.shape[1], hidden.device, self.compression
        self.positions = torch.arange(n, device=device)
        self._n_instruction = n - self._n_before_text
        # What comes from the CPU comes now: later it would hold up the layers under way.
        self.visual = self.visual.to(device, non_blocking=True)
        self._text = complement(self.visual, n)
        self._positions_of = self._text, self.visual
        request.move(device)
        self._open = self._recorder is None and stays_open(device, cache)
        if "text_similarity" in request.method.needs:
            text = hidden[0, self._instruction(n, device)]
            self._text_similarity = products(hidden[0, self.visual], text)

    def _instruction(self, n: int, device: torch.device | None = None) -> LongTensor:
        """[T] places of the text after the media, in a prompt that now has `n` tokens."""
        return torch.arange(n - self._n_instruction, n, device=device)

    def _queries(self, layer: int, hidden: Tensor, prefill: bool) -> dict[str, Queries]:
        """The queries whose attention rows are needed of a call [1, S, D], by the fact they give.

        They are made where the call runs: numbers from elsewhere would have to wait for it.
        """
        n, device = hidden.shape[1], hidden.device
        reducing = prefill and layer in self.compression.layers
        needs = self.compression.method.needs if reducing else ()
        queries = {}
        if "received" in needs:
            queries["received"] = self.visual.to(device)
        if "text_attention" in needs:
            queries["text_attention"] = self._instruction(n, device)
        if self.compression.tracing or "importance" in needs:
            last = LAST if self._vacant is None else LAST_TWO
            queries["importance"] = torch.arange(n, device=device)[last] if queries else last
        return queries

    def _of_output_token(self, rows: Tensor) -> Tensor:
        """[1, D] the output token: the last of [S, D], or the one before a vacant token."""
        last = rows[-1:]
        if self._vacant is None:
            return last
        return torch.where(self._vacant.to(rows.device), rows[-2:-1], last)

    def _take_rows(self, layer: int, n: int, queries: dict[str, Queries], rows: Rows) -> None:
        """Keep the visual part of attention rows, mean over heads, not renormalised."""
        places, *more = queries.values()
        whole = rows(torch.cat([places, *more]) if more else places).mean(0).float()
        visual = self._visual_of[layer].to(whole.device)
        seen = whole[:, visual]
        parts = seen.split([len(each) for each in queries.values()]) if more else [seen]
        found = dict(zip(queries, parts, strict=True))
        if "importance" in found:
            found["importance"] = self._of_output_token(found["importance"])
        self._facts = {name: _FACTS[name](part) for name, part in found.items()}
        if self.compression.tracing:
            self.rows[-1].append(self._facts["importance"])
        if self._recorder and self._prefill:
            self._recorder.prefill(layer, self._instruction(n), visual, rows)
        elif self._recorder:
            self._recorder.decode(layer, whole[0])

    def _reduce(self, layer: int, hidden: Tensor) -> Tensor:
        """Let the method decide, and rearrange the sequence [1, S, D] accordingly."""
        visual = self.visual.to(hidden.device)
        seen = hidden[:, visual]
        request = self.compression
        if self._text_similarity is not None:  # layers may be on several devices
            self._text_similarity = self._text_similarity.to(hidden.device)
        earlier = request.events[-1].reduction.extras if request.events else ()
        facts = {name: fact for name, fact in self._facts.items() if name in request.method.needs}
        tokens = Tokens(
            hidden=seen[0],
            **facts,
            text_similarity=self._text_similarity,
            size=request.standing.size.to(hidden.device) if request.method.weighs else None,
            layout=request.standing.layout if "layout" in request.method.needs else None,
            n_previous_compensation=len(earlier),
            vacant=None if self._vacant is None else self._vacant.to(hidden.device),
            may_wait=not self._open,
            generator=request.generator,
        )
        reduction = request.decide(tokens)
        if self._recorder and _ALIKE & reduction.evidence.keys():
            self._recorder.compare(len(request.events), seen[0])
        request.record("decoder", layer, reduction)
        if self._text_similarity is not None:
            self._text_similarity = self._text_similarity[reduction.slot]

        # Outputs take the positions of their slots. Sorting is stable, so an output that shares a
        # position with another (a compensation token) stays on the side where the method put it.
        text = self._text.to(hidden.device)
        of_text, of_visual = (positions.to(hidden.device) for positions in self._positions_of)
        self._positions_of = of_text, of_visual[reduction.slot]
        line = torch.cat(self._positions_of)
        self._vacant = reduction.vacant
        if self._vacant is not None:  # then it comes behind the output token, by the same rule
            last = self._n_before_text + self._n_instruction - 1
            line[len(text) + reduction.compensation].masked_fill_(self._vacant, last)
        self.positions, order = line.sort(stable=True)
        self._text, self.visual = inverse(order).tensor_split([len(text)])
        self._tables, self._rearranged = None, True
        out = hidden.new_empty(1, len(order), hidden.shape[-1])
        out[:, self._text], out[:, self.visual] = hidden[:, text], reduction.apply(seen)
        return out

    def _gather_positions(self, kwargs: dict) -> None:
        """Give the layer the rotary embeddings [..., S, d] of the tokens that are left."""
        if self._tables is None:
            self._tables = tuple(
                table.index_select(-2, self.positions.to(table.device))
                for table in kwargs["position_embeddings"]
            )
        kwargs["position_embeddings"] = self._tables

    def _count_positions(self, layer: int, start: int, n: int, kwargs: dict) -> None:
        """Give the layer the rotary embeddings of `n` tokens behind `start` in its own cache.

        No layer gets further than the first one, whose embeddings are those of the whole prompt
        and of each word after it.
        """
        if layer == 0:
            known, new = self._numbered, kwargs["position_embeddings"]
            self._numbered = new
            if start:
                pairs = zip(known, new, strict=True)
                self._numbered = tuple(torch.cat([x[..., :start, :], y], -2) for x, y in pairs)
        here = slice(start, start + n)
        kwargs["position_embeddings"] = tuple(x[..., here, :] for x in self._numbered)


def _without(x: Tensor, place: int) -> Tensor:
    """[n] -> [n - 1], all but one."""
    return torch.cat([x[:place], x[place + 1 :]])


class CompressedCache(DynamicCache):
    """A KV cache that carries its request through the decoder."""

    def __init__(self, config: PretrainedConfig, sequence: DecoderSequence):
        super().__init__(config=config)
        self.layers = [RoomyLayer() if type(x) is DynamicLayer else x for x in self.layers]
        self.sequence = sequence


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
        leave = partial(_leave_decoder, len(layers) - 1)
        self._handles.append(layers[-1].register_forward_hook(leave, with_kwargs=True))

    def remove(self) -> None:
        """Leave the model as it was."""
        self._attention.remove()
        for handle in self._handles:
            handle.remove()


def _enter_layer(
    layer: int, module: nn.Module, args: tuple, kwargs: dict
) -> tuple[tuple, dict] | None:
    """Forward pre-hook of a decoder layer: nothing, unless the cache carries a request."""
    sequence = getattr(kwargs.get("past_key_values"), "sequence", None)
    if sequence is None:
        return None
    kwargs = dict(kwargs)
    hidden = sequence.enter_layer(layer, args[0], kwargs)
    return (hidden, *args[1:]), kwargs


def _leave_decoder(
    layer: int, module: nn.Module, args: tuple, kwargs: dict, output: Tensor
) -> Tensor | None:
    """Forward hook of the last decoder layer: nothing, unless the cache carries a request."""
    sequence = getattr(kwargs.get("past_key_values"), "sequence", None)
    return None if sequence is None else sequence.leave(layer, output)
