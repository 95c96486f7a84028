"""What a method can be told, and how settings become a request to the engine. No components."""

from collections.abc import Sequence
from typing import Any

from libra import methods
from libra.errors import InputError
from libra.request import scale_encoder_layers, scale_layers
from libra.trace import Trace
from page import engine, texts

MAX_RATIO = 0.95  # that the slider offers


def request(picture: str | None, question: str, method: str, plan: dict[str, Any]) -> dict:
    """The arguments of `LVLM.stream`; what was left empty in `plan` keeps the method's default.

    A plan has no say in what is asked about, or by which method.
    """
    if picture is None:
        raise InputError(texts.NO_PICTURE)
    given = {name: value for name, value in plan.items() if value not in (None, "")}
    return given | {"images": [picture], "question": question, "method": method}


def comparison(own: dict, chosen: Sequence[str], shared: dict[str, Any]) -> list[dict]:
    """The requests of a comparison, in the order in which the methods are listed.

    Args:
        own: the request of the Ask tab, whose method keeps its settings; the other methods run
            as in their papers.
        chosen: names of methods.
        shared: settings that replace those of all of them; a ratio, and the share that is left,
            take the place of a ratio and of counts.
    """
    if {"ratio", "left"} & shared.keys():
        replaced = ("ratio", *methods.get(own["method"]).instead_of_ratio)
        own = {name: value for name, value in own.items() if name not in replaced}
    inputs = {name: own[name] for name in ("images", "video", "question", "history") if name in own}
    requests = [
        (own if name == own["method"] else inputs | {"method": name}) | shared
        for names in grouped().values()
        for name in names
        if name in chosen
    ]
    if not requests:
        raise InputError(texts.NO_METHODS)
    return requests


def defaults(method: str, model: str) -> dict[str, Any]:
    """What a method does in a model unless told otherwise."""
    shape = engine.shape(model)
    plan = {
        "ratio": 0.0,
        "layers": shape.default_layers(method),
        "encoder_layers": shape.default_encoder_layers(method),
    }
    plan |= {p.name: p.default for p in methods.parameters(method)}
    return plan | shape.default_settings(method)


def preset_plan(preset: str, method: str, model: str) -> dict[str, Any]:
    """A preset with its layers at this model's depth."""
    plan, shape = dict(methods.get(method).presets[preset]), engine.shape(model)
    if "layers" in plan:
        plan["layers"] = scale_layers(plan["layers"], shape.n_layers, shape.first_layer)
    if "encoder_layers" in plan:
        depth = shape.n_encoder_layers, shape.last_encoder_layer
        plan["encoder_layers"] = scale_encoder_layers(plan["encoder_layers"], *depth)
    return plan


def of_trace(trace: Trace, model: str) -> dict[str, Any]:
    """The settings of a trace as far as the page has them; for layers beyond, the method's own.

    A trace may come from a model of another depth.
    """
    usual, inner = defaults(trace.method, model), last_inside(model)
    layers = [layer for layer in trace.layers if layer <= last_layer(model)]
    inside = [layer for layer in trace.params.get("encoder_layers", ()) if layer <= inner]
    return trace.params | {
        "ratio": min(trace.ratio, MAX_RATIO),
        "layers": layers or usual["layers"],
        "encoder_layers": inside or usual["encoder_layers"],
    }


def last_layer(model: str) -> int:
    """The last decoder layer."""
    return engine.shape(model).n_layers - 1


def last_inside(model: str) -> int:
    """The last encoder layer in which tokens can be reduced."""
    return engine.shape(model).last_encoder_layer


def parse_layers(text: str | None) -> tuple[int, ...] | None:
    """`"1, 3, 5"` -> (1, 3, 5); an empty text means the method's own layers."""
    if not (text or "").strip():
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"Layers are whole numbers, like 1,3,5, not {text!r}.") from None


def read(p: methods.Parameter, value: Any) -> Any:
    """What the control of a parameter says: those without a default are fields for text."""
    return parse_number(value, p.name, p.type) if p.default is None else value


def parse_number(text: str | None, name: str, kind: type) -> float | None:
    """`"0.5"` -> 0.5; an empty text means that it is found automatically."""
    text = "" if text is None else str(text).strip()  # a browser may send anything
    try:
        return kind(text) if text else None
    except ValueError:
        number = "a whole number" if kind is int else "a number"
        raise InputError(f"{name}: give {number} or nothing, not {text!r}.") from None


def grouped() -> dict[str, list[str]]:
    """The names of the methods by their key of `texts.GROUPS`, in its order."""
    groups = {key: [name for name in methods.names() if group(name) == key] for key in texts.GROUPS}
    return {key: names for key, names in groups.items() if names}


def group(method: str) -> str:
    """One of `texts.GROUPS`: baselines apart, the others by where they act or what they do."""
    about = methods.get(method)
    if about.paper.startswith("baseline"):
        return "baseline"
    return about.kind if about.site == "decoder" else about.site


def preset_choices(method: str) -> list[str]:
    """The presets of a method, after the visitor's own settings."""
    return [texts.OWN_SETTINGS, *methods.get(method).presets]


def compresses(method: str) -> bool:
    """Whether a method does anything."""
    return methods.get(method).kind != "none"


def acts_in_encoder(method: str) -> bool:
    """Whether a method has encoder layers to choose."""
    return "encoder" in methods.create(method).sites()


def acts_in_decoder(method: str) -> bool:
    """Whether a method removes tokens after decoder layers."""
    return compresses(method) and "decoder" in methods.create(method).sites()


def slides(method: str) -> bool:
    """Whether the ratio slider speaks of this method: it has a ratio that is never empty."""
    return any(p.name == "ratio" and p.default is not None for p in methods.parameters(method))


def own_parameters(method: str) -> list[methods.Parameter]:
    """The parameters of a method that need a control of their own."""
    elsewhere = ("ratio",) if slides(method) else ()
    return [p for p in methods.parameters(method) if p.name not in elsewhere]
