"""Plans: one method with its settings, and tables of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from libra import LVLM, methods
from libra.request import default_layers
from tiny import questions


@dataclass(frozen=True)
class Plan:
    """One method with its settings."""

    method: str
    ratio: float | None = 0.0  # R, as its table counts it; None: what comes of a count
    settings: str = ""  # in words, where they are not the method's own
    request: Mapping[str, object] = field(default_factory=dict)  # further arguments of a stream

    @property
    def title(self) -> str:
        """What a table calls the method."""
        return methods.get(self.method).title

    @property
    def where(self) -> str:
        """The layers at which it reduces."""
        inside, after = self.request.get("encoder_layers", ()), self.request.get("layers", ())
        parts = [f"encoder {listed(inside)}"] if inside else []
        if after and self.request.get("ratio") != 0:
            parts.append(listed(after))
        return "; ".join(parts) or ("-" if self.method == "vanilla" else "connector")

    @property
    def arguments(self) -> dict:
        """What `LVLM.stream` is told."""
        return {"method": self.method, **self.request}

    @property
    def key(self) -> str:
        """The same for plans that are the same run, whatever their tables say about them."""
        return json.dumps(self.arguments, sort_keys=True)


@dataclass(frozen=True)
class Line:
    """One line of a table."""

    label: str
    plan: Plan
    style: str = "training"


@dataclass(frozen=True)
class Table:
    """Plans that belong side by side."""

    name: str
    title: str
    about: str  # what is varied
    lines: Sequence[Line]
    kinds: Sequence[str] = questions.KINDS  # of question that it asks
    similarity: bool = False  # how alike were the tokens that did not stay


def listed(layers: Iterable[int]) -> str:
    """`1, 3, 5`."""
    return ", ".join(map(str, layers))


VANILLA = Line("no compression", Plan("vanilla"))


def plan(lvlm: LVLM, name: str, removed: float | None, /, **request: object) -> Plan:
    """A plan that names its layers and leaves out what is the default: equal plans, equal keys.

    Args:
        lvlm: the model, whose depth decides about the layers.
        name: of the method.
        removed: R, as the table counts it.
        request: arguments of `LVLM.stream`.
    """
    usual = {p.name: p.default for p in methods.parameters(name)}
    own = {k: v for k, v in request.items() if k == "ratio" or usual.get(k, request) != v}
    method = methods.create(name, **{key: own[key] for key in usual if key in own})
    layers = own.pop("layers", default_layers(method, lvlm.n_layers))
    settings = ", ".join(f"{key} {own[key]}" for key in usual if key in own and key != "ratio")
    return Plan(name, removed, settings, own | ({"layers": tuple(layers)} if layers else {}))


def own_plan(lvlm: LVLM, name: str, ratio: float) -> Plan:
    """A method at its own layers: it removes the share `ratio` at each of its decoder layers.

    One that acts inside the encoder removes as much in all.
    """
    inside = lvlm.default_encoder_layers(name)
    if name == "tome":  # in every layer, as published: half at most is merged in each
        inside = tuple(range(lvlm.family.last_encoder_layer + 1))
    request: dict[str, object] = {"ratio": ratio}
    if inside:
        request = {"left": 1 - ratio, "encoder_layers": inside}
    return replace(plan(lvlm, name, ratio, **request), settings="")


def once(lvlm: LVLM, name: str, layer: int, ratio: float, **request: object) -> Plan:
    """A method that reduces once, inside the decoder."""
    if name == "illava":
        request["encoder_ratio"] = 0.0
    return plan(lvlm, name, ratio, ratio=ratio, layers=(layer,), **request)


def lines(plans: Iterable[Plan]) -> list[Line]:
    """Lines that are called like their methods."""
    return [Line(plan.title, plan) for plan in plans]
