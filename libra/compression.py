"""Where a compression method meets a model: one request, and the sites before the decoder.

`Compression` is one request: its plan, and what became of its visual tokens so far. Encoder and
connector are handled here, unit by unit; inside the decoder it rides on the request's KV cache
(`libra.decoder`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import LongTensor, Tensor

from libra.counterfactual import reduce_forced
from libra.layout import TokenLayout
from libra.methods import Method, Tokens
from libra.models.base import Family
from libra.models.features import EncoderAttention, Features
from libra.models.prepared import Prepared
from libra.reduction import Reduction
from libra.trace import Event


def _importance(method: Method, attention: EncoderAttention) -> Tensor | None:
    """What a method ranks patches by."""
    if method.encoder_score == "received":
        return attention.received()
    row = attention.cls_row(method.joint_attention)
    return attention.received() if row is None and method.encoder_score == "either" else row


# What a method may want to know of the patches before the decoder.
_FACTS: dict[str, Callable[[Method, EncoderAttention], Tensor | None]] = {
    "importance": _importance,
    "received": lambda method, attention: attention.received(),
    "keys": lambda method, attention: attention.keys(method.joint_keys),
}


@dataclass(frozen=True)
class Standing:
    """The visual tokens as they are now; the last reduction says on which device."""

    prepared: Prepared
    place: LongTensor  # [n] the original token whose place each of them takes
    size: Tensor  # [n] how many patches each stands for

    @classmethod
    def start(cls, prepared: Prepared) -> Standing:
        """Every token is its own patch."""
        n = len(prepared.layout)
        return cls(prepared, torch.arange(n), torch.ones(n))

    @property
    def layout(self) -> TokenLayout:
        """The patch whose place each of the tokens takes."""
        return self.prepared.layout.select(self.place.cpu())

    def select(self, tokens: LongTensor) -> Standing:
        """Some of the tokens."""
        return Standing(self.prepared, self.place[tokens], self.size[tokens])

    @classmethod
    def cat(cls, parts: Sequence[Standing]) -> Standing:
        """Tokens of one request, part after part."""
        place, size = (torch.cat([getattr(x, name) for x in parts]) for name in ("place", "size"))
        return cls(parts[0].prepared, place, size)

    def split(self, counts: int | Sequence[int]) -> list[Standing]:
        """So many of the tokens each."""
        places, sizes = self.place.split(counts), self.size.split(counts)
        return [Standing(self.prepared, *x) for x in zip(places, sizes, strict=True)]

    def to(self, device: torch.device) -> Standing:
        """The same on a device, which is not waited for."""
        place, size = (x.to(device, non_blocking=True) for x in (self.place, self.size))
        return Standing(self.prepared, place, size)

    def after(self, reduction: Reduction) -> Standing:
        """The tokens that a reduction leaves."""
        r, now = reduction, self.to(reduction.slot.device)
        size = now.size.new_zeros(r.n_out).index_add_(0, r.target, now.size[r.source])
        return Standing(self.prepared, now.place[r.slot], size)


@dataclass
class Compression:
    """One request (batch 1): what to do with its N visual tokens, and what has been done."""

    method: Method
    prepared: Prepared
    layers: tuple[int, ...] = ()  # decoder layers after which to reduce
    encoder_layers: tuple[int, ...] = ()  # encoder layers inside which to reduce
    keep: Sequence[int] = ()  # counterfactual: patches forced in ...
    drop: Sequence[int] = ()  # ... and out, at the first event
    tracing: bool | str = False  # collect an attention row per decoder layer and step; or "full"
    generator: torch.Generator | None = None
    events: list[Event] = field(default_factory=list)
    encoder_units: dict[int, UnitCompression] = field(default_factory=dict)  # reduced in there

    def __post_init__(self):
        self._standing, self._n_stood = Standing.start(self.prepared), 0

    @property
    def standing(self) -> Standing:
        """The visual tokens after all events so far; found out when somebody asks."""
        for event in self.events[self._n_stood :]:
            self._standing = self._standing.after(event.reduction)
        self._n_stood = len(self.events)
        return self._standing

    def move(self, device: torch.device) -> None:
        """Bring along to a device what the method will want to know there of the tokens."""
        if self.method.weighs:
            self._standing = self.standing.to(device)

    def encode(self, family: Family) -> Features:
        """Encode the media, reduced inside the encoder if that is planned."""
        encode = family.watch if self.tracing == "full" else family.encode
        if not self.encoder_layers:
            return encode(self.prepared)
        self.encoder_units = self._units()
        features = encode(self.prepared, self.encoder_units)
        self._record_units("encoder", self.encoder_layers, self.encoder_units)
        if (chunk := self.prepared.chunk) > 1:
            self.record("connector", -1, Reduction.chunks(len(self._order), chunk))
            self._order = self._order[::chunk] // chunk
        return features

    def connect(self, family: Family, features: Features) -> Tensor:
        """[n, D] the visual tokens of encoder features, reduced if that is planned here.

        Patches that vanilla is to do without are taken away here: it has no other event.
        """
        if self.encoder_layers:
            units = self.prepared.unit.unique().tolist()
            hidden = family.project([features.hidden[unit] for unit in units])
            return torch.cat(hidden)[self._order.to(hidden[0].device)]
        tokens = family.tokens(features, self.prepared)
        if "connector" not in self.method.sites() and (self.layers or not self.drop):
            return tokens
        facts = self._facts(family, features)
        units, hidden = self._units(), []
        for unit in units.values():
            own = unit.tokens.to(tokens.device)
            mine = {name: fact[own] for name, fact in facts.items()}
            hidden.append(unit.reduce(self.method, tokens[own], mine))
        self._record_units("connector", (-1,), units)
        return torch.cat(hidden)[self._order.to(tokens.device)]

    def decide(self, tokens: Tokens) -> Reduction:
        """What the method makes of all visual tokens at once, inside the decoder."""
        if (self.keep or self.drop) and not self.events:
            return reduce_forced(self.method, tokens, self.keep, self.drop)
        return self.method.reduce(tokens)

    def record(self, site: str, layer: int, reduction: Reduction) -> None:
        """Note an event of all tokens."""
        self.events.append(Event(site, layer, reduction))

    def _facts(self, family: Family, features: Features) -> dict[str, Tensor]:
        """What the method wants to know of the visual tokens at the connector, [N] or [N, C]."""
        names = [name for name in _FACTS if name in self.method.needs]
        if not names:
            return {}
        layer = self.method.encoder_layer
        known = [
            read(self.method, family.encoder_attention(layer, x)) for x in features.inputs[layer]
        ]
        packed = {name: [_columns(facts[name]) for facts in known] for name in names}
        return {
            name: family.pack(facts, self.prepared).view(-1, *known[0][name].shape[1:])
            for name, facts in packed.items()
        }

    def _units(self) -> Units:
        """The parts of this request that concern one unit each."""
        unit = self.prepared.unit[self.standing.place.cpu()]
        parts = {u: self._unit((unit == u).nonzero().flatten()) for u in unit.unique().tolist()}
        return Units(self, parts)

    def _unit(self, tokens: LongTensor) -> UnitCompression:
        """The part of this request that concerns these of the tokens as they stand now."""
        number = {token: i for i, token in enumerate(tokens.tolist())}
        keep, drop = (
            () if self.events else [number[p] for p in patches if p in number]
            for patches in (self.keep, self.drop)
        )
        return UnitCompression(
            plan=self,
            tokens=tokens,
            standing=self.standing.select(tokens),
            n_first=len(tokens),
            keep=keep,
            drop=drop,
        )

    def _record_units(
        self, site: str, layers: Sequence[int], units: dict[int, UnitCompression]
    ) -> None:
        """Note the events of all units as events of all tokens, which end in the prompt's order.

        Outputs stand in the line of their slot, there unit after unit, in the method's own order.
        """
        parts = list(units.values())
        for i, layer in enumerate(layers):
            whole = Reduction.side_by_side([part.reductions[i] for part in parts])
            if i == 0:
                whole = whole.renumbered(torch.cat([part.tokens for part in parts]))
            if i == len(layers) - 1:
                places = self.standing.place.cpu()[whole.slot.cpu()]
                self._order = self.prepared.line[places].argsort(stable=True)
                whole = whole.reordered(self._order)
            self.record(site, layer, whole)


@dataclass
class UnitCompression:
    """The events of one unit before the decoder."""

    plan: Compression
    tokens: LongTensor  # [n] its tokens among all, before its first event
    standing: Standing
    n_first: int
    keep: Sequence[int]  # of its tokens, at its first event
    drop: Sequence[int]
    reductions: list[Reduction] = field(default_factory=list)

    @property
    def patches(self) -> LongTensor:
        """[n] the patches of the unit behind its tokens, before any event."""
        return self.plan.prepared.patch[self.tokens]

    def places(self, n_events: int) -> LongTensor:
        """[n] the tokens whose places are taken after some of its events."""
        places = self.tokens
        for reduction in self.reductions[:n_events]:
            places = places[reduction.slot.cpu()]
        return places

    @property
    def left(self) -> LongTensor:
        """[n] the patches of the unit whose places its tokens take now."""
        place = self.standing.place
        return self.plan.prepared.patch.to(place.device, non_blocking=True)[place]

    def step(self) -> Method:
        """The method as it acts in the next event inside the encoder."""
        n, plan = len(self.standing.place), self.plan
        step = plan.method.encoder_step(n, self.n_first, len(plan.encoder_layers))
        if (chunk := plan.prepared.chunk) == 1:
            return step
        return replace(step, keep=-(-step.count(n) // chunk) * chunk)

    def decide(self, method: Method, hidden: Tensor, facts: dict[str, Tensor | None]) -> Reduction:
        """What becomes of the tokens [n, D] in one event."""
        tokens = Tokens(
            hidden=hidden,
            **facts,
            size=self.standing.size.to(hidden.device),
            layout=self.standing.layout if "layout" in method.needs else None,
            generator=self.plan.generator,
        )
        if (self.keep or self.drop) and not self.reductions:
            reduction = reduce_forced(method, tokens, self.keep, self.drop)
        else:
            reduction = method.reduce(tokens)
        self.reductions.append(reduction)
        return reduction

    def reduce(self, method: Method, hidden: Tensor, facts: dict[str, Tensor | None]) -> Tensor:
        """One event: [n, D] -> [n', D]."""
        reduction = self.decide(method, hidden, facts)
        self.standing = self.standing.after(reduction)
        return reduction.apply(hidden)


class Units(dict[int, UnitCompression]):
    """The parts of a request that concern one unit each."""

    def __init__(self, plan: Compression, parts: dict[int, UnitCompression]):
        super().__init__(parts)
        self.encoder_layers = plan.encoder_layers
        self._method = plan.method

    def reduce_in_encoder(
        self, units: Sequence[int], hidden: Tensor, attention: Callable[[], EncoderAttention]
    ) -> Sequence[Tensor]:
        """One event of units of one length: [U, F + n, D] -> [F + n', D] of each.

        Each unit's tokens are decided about alone; all else is done to all of them at once.
        """
        parts, asks = [self[unit] for unit in units], set(_FACTS) & set(self._method.needs)
        facts = read(self._method, attention()) if asks else {}
        facts = {name: fact for name, fact in facts.items() if fact is not None}
        standing = Standing.cat([part.standing for part in parts]).to(hidden.device)
        n = len(standing.place) // len(parts)  # may be none: dropped by request
        front, tokens = hidden.tensor_split([hidden.shape[1] - n], dim=1)
        _stand(parts, standing.split(n))
        reductions = [
            part.decide(part.step(), tokens[i], {name: x[i] for name, x in facts.items()})
            for i, part in enumerate(parts)
        ]
        whole, counts = Reduction.side_by_side(reductions), [r.n_out for r in reductions]
        _stand(parts, standing.after(whole).split(counts))
        left = whole.apply(tokens.flatten(0, 1)).split(counts)
        pieces = [x for unit in zip(front, left, strict=True) for x in unit]
        return torch.cat(pieces).split([front.shape[1] + count for count in counts])


def _stand(parts: Sequence[UnitCompression], standings: Sequence[Standing]) -> None:
    """Note how the tokens of some units stand now."""
    for part, standing in zip(parts, standings, strict=True):
        part.standing = standing


def read(method: Method, attention: EncoderAttention) -> dict[str, Tensor | None]:
    """What a method needs to know of a unit's patches, [T] or [T, C] each."""
    return {name: fact(method, attention) for name, fact in _FACTS.items() if name in method.needs}


def _columns(fact: Tensor) -> Tensor:
    """[T] or [T, C] -> [T, C]."""
    return fact if fact.ndim == 2 else fact[:, None]
