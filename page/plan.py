"""What a method can be told, and how settings become a request to the engine. No components."""

from typing import Any

from libra import methods
from libra.errors import InputError
from libra.request import default_encoder_layers, scale_encoder_layers, scale_layers
from page import engine, texts


def request(picture: str | None, question: str, method: str, plan: dict[str, Any]) -> dict:
    """The arguments of `LVLM.stream`; what was left empty in `plan` keeps the method's default."""
    if picture is None:
        raise InputError(texts.NO_PICTURE)
    given = {name: value for name, value in plan.items() if value not in (None, "")}
    return {"images": [picture], "question": question, "method": method} | given


def defaults(method: str, model: str) -> dict[str, Any]:
    """What a method does in a model unless told otherwise."""
    layers = engine.load(model).default_layers(method)
    encoder_layers = default_encoder_layers(methods.get(method), *engine.encoder_depth(model))
    plan = {"ratio": 0.0, "layers": layers, "encoder_layers": encoder_layers}
    return plan | {p.name: p.default for p in methods.parameters(method)}


def preset_plan(preset: str, method: str, model: str) -> dict[str, Any]:
    """A preset with its layers at this model's depth."""
    plan = dict(methods.get(method).presets[preset])
    if "layers" in plan:
        plan["layers"] = scale_layers(plan["layers"], engine.load(model).n_layers)
    if "encoder_layers" in plan:
        depth = engine.encoder_depth(model)
        plan["encoder_layers"] = scale_encoder_layers(plan["encoder_layers"], *depth)
    return plan


def parse_layers(text: str) -> tuple[int, ...] | None:
    """`"1, 3, 5"` -> (1, 3, 5); an empty text means the method's own layers."""
    if not text.strip():
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"Layers are whole numbers, like 1,3,5, not {text!r}.") from None


def method_choices() -> list[tuple[str, str]]:
    """(label, name) of every method, group by group."""
    return [(method_label(name), name) for names in grouped().values() for name in names]


def grouped() -> dict[str, list[str]]:
    """The names of the methods by their key of `texts.GROUPS`, in its order."""
    groups = {key: [name for name in methods.names() if group(name) == key] for key in texts.GROUPS}
    return {key: names for key, names in groups.items() if names}


def method_label(method: str) -> str:
    """A method's title with its group."""
    title = methods.get(method).title
    return f"{title} · {group(method)}" if compresses(method) else title


def group(method: str) -> str:
    """One of `texts.GROUPS`."""
    kind = methods.get(method)
    return kind.kind if kind.site == "decoder" else kind.site


def preset_choices(method: str) -> list[str]:
    """The presets of a method, after the visitor's own settings."""
    return [texts.OWN_SETTINGS, *methods.get(method).presets]


def compresses(method: str) -> bool:
    """Whether a method does anything."""
    return methods.get(method).kind != "none"


def acts_in_encoder(method: str) -> bool:
    """Whether a method has encoder layers to choose."""
    return "encoder" in methods.get(method).sites()


def slides(method: str) -> bool:
    """Whether the ratio slider speaks of this method: it has a ratio that is never empty."""
    return any(p.name == "ratio" and p.default is not None for p in methods.parameters(method))


def own_parameters(method: str) -> list[methods.Parameter]:
    """The parameters of a method that need a control of their own."""
    elsewhere = ("ratio",) if slides(method) else ()
    return [p for p in methods.parameters(method) if p.name not in elsewhere]
