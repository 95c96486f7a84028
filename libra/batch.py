"""Several requests in one call of the model.

Their tokens stand side by side in one sequence, as [1, S_1 + S_2 + ..., D]: all that a layer does
to each token by itself, which is nearly everything, is done to those of all requests at once, and
the weights are read once for all. Only attention goes request by request, each behind its own KV
cache. So requests may differ in length and be compressed by different methods at different layers,
nothing is padded, and one that ends leaves the others as they are.

Every request keeps the `DecoderSequence` and the cache that it has when it is answered alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import DynamicCache

from libra.attention import PARTS, TAP, Part
from libra.decoder import CompressedCache
from libra.devices import now
from libra.generation import Generation
from libra.models import Family
from libra.request import Request


class PackedSequence:
    """The tokens of several requests, side by side, on their way through one call.

    Args:
        caches: of the requests.
        lengths: how many tokens of each the model is called with.
    """

    def __init__(self, caches: Sequence[CompressedCache], lengths: Sequence[int]):
        self._caches = caches
        self._lengths = lengths
        self._now = lengths  # tokens of each that the next layer gets
        # Rotary embeddings: those of the whole call, and of each request in it; those of each
        # request as it stands now, and these side by side.
        self._whole: tuple[Tensor, ...] = ()
        self._own: list[tuple[Tensor, ...]] = []
        self._tables, self._joined = self._own, self._whole

    def enter_layer(self, layer: int, hidden: Tensor, kwargs: dict) -> Tensor:
        """Prepare the call of one decoder layer, as `DecoderSequence` does for each request.

        Args:
            layer: its number.
            hidden: [1, S, D] what it would process.
            kwargs: its keyword arguments, changed in place to fit what it will process.

        Returns:
            [1, S', D] what it will process.
        """
        tables, owns = self._tables_in(kwargs["position_embeddings"]), self._split(hidden)
        kwargs |= {"attention_mask": None, "position_ids": None}
        calls = [
            kwargs | {"past_key_values": cache, "position_embeddings": table}
            for cache, table in zip(self._caches, tables, strict=True)
        ]
        entered = [
            cache.sequence.enter_layer(layer, own, call)
            for cache, own, call in zip(self._caches, owns, calls, strict=True)
        ]
        self._now = [own.shape[1] for own in entered]
        kwargs[PARTS] = [
            Part(n, cache, call.get(TAP))
            for n, cache, call in zip(self._now, self._caches, calls, strict=True)
        ]
        new_tables = [call["position_embeddings"] for call in calls]
        if _differ(new_tables, self._tables):
            self._tables = new_tables
            self._joined = tuple(torch.cat(table, -2) for table in zip(*new_tables, strict=True))
        kwargs["position_embeddings"] = self._joined
        return torch.cat(entered, dim=1) if _differ(entered, owns) else hidden

    def _tables_in(self, whole: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
        """The rotary embeddings of each request, in those of all, which all layers share."""
        if whole is not self._whole:
            parts = (table.split(self._lengths, dim=-2) for table in whole)
            self._whole, self._own = whole, [*zip(*parts, strict=True)]
            self._tables, self._joined = self._own, whole
        return self._own

    def leave(self, layer: int, hidden: Tensor) -> Tensor:
        """What the last layer hands on of its output [1, S, D]: the last token of each request."""
        own = zip(self._caches, self._split(hidden), strict=True)
        return torch.cat([c.sequence.leave(layer, x)[:, -1:] for c, x in own], dim=1)

    def _split(self, hidden: Tensor) -> Sequence[Tensor]:
        return hidden.split(self._now, dim=1)


def _differ(ours: Sequence[object], theirs: Sequence[object]) -> bool:
    """Whether any of some parts is another one now; else the whole need not be put together."""
    return any(a is not b for a, b in zip(ours, theirs, strict=True))


class PackedCache(DynamicCache):
    """Carries several requests through one call; what it would hold goes into their own caches."""

    def __init__(self, sequence: PackedSequence):
        super().__init__()  # without layers
        self.sequence = sequence

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """The new tokens' keys and values, as they are: `Part` says where they are kept."""
        return keys, values


def run_all(generations: Sequence[Generation]) -> None:
    """Run requests to one model: all at once that can be, the others one after the other."""
    together = [generation for generation in generations if _packs(generation)]
    if len(together) > 1:
        _run_together(together)
    for generation in generations:
        if len(together) == 1 or not _packs(generation):
            deque(generation, maxlen=0)  # to its end


def _packs(generation: Generation) -> bool:
    """Whether a request can run beside others.

    Eager attention forms one matrix of all; windows come as masks, as do follow-up questions.
    """
    config = generation.family.model.config.get_text_config()
    plain = config._attn_implementation != "eager" and not getattr(config, "sliding_window", None)
    return plain and generation.memory is None


@torch.inference_mode()
def _run_together(generations: Sequence[Generation]) -> None:
    """Answer requests in lockstep; times are those of all of them together."""
    family, going = generations[0].family, list(generations)
    seen = _look(generations)
    begin = now(family.device)
    calls = [generation.begin(*own) for generation, own in zip(going, seen, strict=True)]
    del seen  # the prompts hold copies
    while going:
        logits = _call(family, [generation.cache for generation in going], calls)
        tokens = logits.argmax(-1).tolist()
        for generation in going:
            generation.sequence.settle(generation.cache)
        recording = sum(generation.recording() for generation in going)
        elapsed = now(family.device) - begin - recording
        said = zip(going, tokens, logits, strict=True)
        going = [g for g, *word in said if g.take(*word, elapsed) and not g.is_full]
        begin = now(family.device)
        calls = [generation.next_inputs() for generation in going]


def _look(generations: Sequence[Generation]) -> list[tuple[Tensor, Tensor | None]]:
    """What each request's decoder gets to see; the encoder runs once for all that leave it be."""
    plain = [generation for generation in generations if _is_plain(generation.request)]
    if plain:
        features = plain[0].family.encode_each([g.request.prepared for g in plain])
        for generation, own in zip(plain, features, strict=True):
            generation.request = replace(generation.request, features=own)
    seen = [generation.look() for generation in generations]
    encoder = sum({id(g.features): g.features.seconds for g in generations}.values())
    connector = sum(g.timings.connector for g in generations)
    for generation in generations:
        generation.batch = len(generations)
        generation.timings.encoder, generation.timings.connector = encoder, connector
    return seen


def _is_plain(request: Request) -> bool:
    """Whether the encoder's features are still to be had, and nothing else of it."""
    return request.features is None and not request.encoder_layers and request.tracing != "full"


def _call(family: Family, caches: Sequence[CompressedCache], calls: Sequence[dict]) -> Tensor:
    """[B, V] fp32: what the model says to the next tokens of each request."""
    calls = [_placed(*own, family.device) for own in zip(calls, caches, strict=True)]
    sequence = PackedSequence(caches, [call["position_ids"].shape[-1] for call in calls])
    cache = PackedCache(sequence)
    inputs = family.joined(calls)
    output = family.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=0)
    return output.logits[0].float()  # of all tokens that are left: the last one of each


def _placed(call: dict, cache: CompressedCache, device: torch.device) -> dict:
    """Arguments of a call of the model with position ids [..., S] among them."""
    if "position_ids" in call:
        return call
    n, start = next(iter(call.values())).shape[1], cache.get_seq_length()
    return call | {"position_ids": torch.arange(start, start + n, device=device)[None]}
