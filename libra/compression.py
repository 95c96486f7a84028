"""Where a compression method meets a model: one request, and the sites before the decoder.

`Compression` is one request: its plan, and what became of its visual tokens so far. Encoder and
connector are handled here, picture by picture; inside the decoder it rides on the request's KV
cache (`libra.decoder`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from libra.counterfactual import reduce_forced
from libra.layout import TokenLayout
from libra.methods import Method, Tokens
from libra.models.base import Family
from libra.models.features import EncoderAttention, Features
from libra.reduction import Reduction
from libra.trace import Event

Attention = Callable[[], EncoderAttention]  # computed only if a method ranks by it


@dataclass(frozen=True)
class Standing:
    """The visual tokens as they are now."""

    layout: TokenLayout  # the patch whose place each of them takes
    size: Tensor  # [n] how many patches each stands for

    @classmethod
    def start(cls, layout: TokenLayout) -> Standing:
        """Every token is its own patch."""
        return cls(layout, torch.ones(len(layout)))

    def after(self, reduction: Reduction) -> Standing:
        """The tokens that a reduction leaves."""
        r = reduction.to("cpu")
        size = self.size.new_zeros(r.n_out).index_add_(0, r.target, self.size[r.source])
        return Standing(self.layout.select(r.slot), size)


@dataclass
class Compression:
    """One request (batch 1): what to do with its N visual tokens, and what has been done."""

    method: Method
    layout: TokenLayout  # of the N tokens before any event
    layers: tuple[int, ...] = ()  # decoder layers after which to reduce
    encoder_layers: tuple[int, ...] = ()  # encoder layers inside which to reduce
    keep: Sequence[int] = ()  # counterfactual: patches forced in ...
    drop: Sequence[int] = ()  # ... and out, at the first event
    tracing: bool = False  # collect an attention row per decoder layer and step
    generator: torch.Generator | None = None
    events: list[Event] = field(default_factory=list)
    standing: Standing = field(init=False)

    def __post_init__(self):
        self.standing = Standing.start(self.layout)

    def encode(self, family: Family, images: Sequence) -> Features:
        """Encode the pictures, reduced inside the encoder if that is planned."""
        if not self.encoder_layers:
            return family.encode(images)
        pictures = [self._picture(i) for i in range(len(images))]
        features = family.encode(images, pictures)
        for i, layer in enumerate(self.encoder_layers):
            self.record("encoder", layer, [picture.reductions[i] for picture in pictures])
        return features

    def connect(self, family: Family, features: Features) -> list[Tensor]:
        """Encoder features of each picture [N, D], reduced if that is planned here.

        Patches that vanilla is to do without are taken away here: it has no other event.
        """
        eventless = not self.layers and not self.encoder_layers
        if "connector" not in self.method.sites() and not (eventless and self.drop):
            return features.hidden
        layer = self.method.encoder_layer
        pictures = [self._picture(i) for i in range(len(features.hidden))]
        hidden = [
            picture.reduce(
                self.method,
                hidden,
                lambda states=states: family.encoder_attention(layer, states),
            )
            for picture, hidden, states in zip(
                pictures, features.hidden, features.inputs[layer], strict=True
            )
        ]
        self.record("connector", -1, [picture.reductions[0] for picture in pictures])
        return hidden

    def decide(self, tokens: Tokens) -> Reduction:
        """What the method makes of all visual tokens at once, inside the decoder."""
        if (self.keep or self.drop) and not self.events:
            return reduce_forced(self.method, tokens, self.keep, self.drop)
        return self.method.reduce(tokens)

    def record(self, site: str, layer: int, reductions: Sequence[Reduction]) -> None:
        """Note an event: the reductions of all pictures, or the one of all tokens."""
        whole = Reduction.side_by_side(reductions)
        self.standing = self.standing.after(whole)
        self.events.append(Event(site, layer, whole))

    def _picture(self, image: int) -> PictureCompression:
        """The part of this request that concerns one picture."""
        own = (self.standing.layout.image == image).nonzero().flatten()
        first, n = int(own[0]), len(own)
        keep, drop = (
            () if self.events else [p - first for p in patches if first <= p < first + n]
            for patches in (self.keep, self.drop)
        )
        return PictureCompression(
            plan=self,
            standing=Standing(self.standing.layout.select(own), self.standing.size[own]),
            n_first=n,
            keep=keep,
            drop=drop,
        )


@dataclass
class PictureCompression:
    """The events of one picture before the decoder."""

    plan: Compression
    standing: Standing
    n_first: int
    keep: Sequence[int]  # of this picture's patches, at its first event
    drop: Sequence[int]
    reductions: list[Reduction] = field(default_factory=list)

    @property
    def encoder_layers(self) -> tuple[int, ...]:
        """The encoder layers inside which to reduce."""
        return self.plan.encoder_layers

    def reduce_in_encoder(self, layer: int, hidden: Tensor, attention: Attention) -> Tensor:
        """One event inside the encoder: [T, D] -> [T', D]; special tokens stay in front."""
        n = len(self.standing.layout)
        n_special = len(hidden) - n
        step = self.plan.method.encoder_step(n, self.n_first, len(self.encoder_layers))
        patches = self.reduce(step, hidden[n_special:], attention)
        return torch.cat([hidden[:n_special], patches])

    def reduce(self, method: Method, hidden: Tensor, attention: Attention) -> Tensor:
        """One event: [n, D] -> [n', D]."""
        needs = set(method.needs)
        seen = attention() if needs & {"importance", "received", "keys"} else None
        tokens = Tokens(
            hidden=hidden,
            importance=_importance(method, seen) if "importance" in needs else None,
            received=seen.received() if "received" in needs else None,
            keys=seen.keys(method.joint_keys) if "keys" in needs else None,
            size=self.standing.size.to(hidden.device),
            layout=self.standing.layout,
            generator=self.plan.generator,
        )
        if (self.keep or self.drop) and not self.reductions:
            reduction = reduce_forced(method, tokens, self.keep, self.drop)
        else:
            reduction = method.reduce(tokens)
        self.reductions.append(reduction)
        self.standing = self.standing.after(reduction)
        return reduction.apply(hidden)


def _importance(method: Method, attention: EncoderAttention) -> Tensor | None:
    """What a method ranks patches by before the decoder."""
    if method.encoder_score == "received":
        return attention.received()
    return attention.cls_row(method.joint_attention)
