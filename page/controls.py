"""The left column: what to ask, of which model, compressed how."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from libra import methods
from libra.errors import InputError
from libra.trace import Trace
from page import engine, panels, texts
from page.examples import Example

COMMON = ("ratio", "keep")  # parameters of (nearly) all methods, not repeated under each


@dataclass(frozen=True)
class Controls:
    """The controls, and how their values become a request to the engine."""

    picture: gr.Image
    strip: gr.HTML
    question: gr.Textbox
    model: gr.Dropdown
    method: gr.Dropdown
    about: gr.HTML
    preset: gr.Dropdown
    ratio: gr.Slider
    layers: gr.CheckboxGroup
    folds: dict[str, gr.Accordion]
    parameters: dict[tuple[str, str], gr.components.Component]  # by method and parameter
    ask: gr.Button
    stop: gr.Button

    @property
    def inputs(self) -> list[gr.components.Component]:
        """The components whose values `request` takes, in its order."""
        plain = [self.picture, self.question, self.model, self.method, self.ratio, self.layers]
        return plain + list(self.parameters.values())

    @property
    def of_method(self) -> list[gr.components.Component]:
        """What depends on the method."""
        settings = [self.about, self.preset, self.ratio, self.layers]
        return settings + list(self.folds.values()) + list(self.parameters.values())

    @property
    def outputs(self) -> list[gr.components.Component]:
        """Everything that an example or a trace file fills in."""
        return [self.picture, self.question, self.method, *self.of_method]

    def request(self, picture, question, model, method, ratio, layers, *values) -> tuple[str, dict]:
        """The model's name and the arguments of `LVLM.stream`."""
        own = zip(self.parameters, values, strict=True)
        params = {name: value for (owner, name), value in own if owner == method}
        path = picture["path"] if picture else None
        return model, request(path, question, method, ratio, sorted(layers), params)

    def show_method(self, method: str, model: str) -> dict:
        """A method was chosen: what it does, its defaults, its own parameters."""
        layers = engine.load(model).default_layers(method)
        return self._settings(method, model, {"layers": layers})

    def show_preset(self, preset: str, method: str, model: str) -> dict:
        """A preset was chosen: its ratio, its layers at this model's depth, its parameters."""
        if preset == texts.OWN_SETTINGS:
            return {}
        settings = dict(methods.get(method).presets[preset])
        settings["layers"] = scale_layers(settings["layers"], engine.load(model).n_layers)
        return self._settings(method, model, settings, preset)

    def show_trace(self, trace: Trace, model: str) -> dict:
        """The settings of a trace, as far as there are controls for them."""
        if trace.method not in methods.names():
            return {}
        settings = {"ratio": trace.ratio, "layers": trace.layers} | trace.params
        return {self.method: trace.method, **self._settings(trace.method, model, settings)}

    def _settings(
        self, method: str, model: str, given: dict, preset: str = texts.OWN_SETTINGS
    ) -> dict:
        """Show `given` settings of a method; what is not given takes its default."""
        settings = {"ratio": 0.5} | {p.name: p.default for p in methods.parameters(method)} | given
        compresses = kind(method) != "none"
        layers = layer_choices(engine.load(model).n_layers)
        own = {c: settings[name] for (of, name), c in self.parameters.items() if of == method}
        return {
            self.about: panels.about_method(method),
            self.preset: gr.Dropdown(preset_choices(method), value=preset, interactive=compresses),
            self.ratio: gr.Slider(value=settings["ratio"], interactive=compresses),
            self.layers: gr.CheckboxGroup(
                layers, value=list(settings["layers"]), interactive=compresses
            ),
            **{fold: gr.Accordion(visible=name == method) for name, fold in self.folds.items()},
            **own,
        }


def request(
    picture: str | None,
    question: str,
    method: str,
    ratio: float | None,
    layers: Sequence[int] | None,
    params: dict[str, Any] | None,
) -> dict[str, Any]:
    """The arguments of `LVLM.stream`; what was left empty keeps the method's default."""
    if picture is None:
        raise InputError(texts.NO_PICTURE)
    given = {"ratio": ratio, "layers": layers} | (params or {})
    given = {name: value for name, value in given.items() if value not in (None, "")}
    return {"images": [picture], "question": question, "method": method} | given


def build(model: str, examples: Sequence[Example], method: str = "libra") -> Controls:
    """Place the controls, with the first example filled in."""
    lvlm = engine.load(model)
    first = examples[0] if examples else None
    picture = gr.Image(
        first and str(first.image),
        label="Picture",
        sources=["upload", "clipboard"],
        type="filepath",
        image_mode=None,
        height=200,
        buttons=[],
        elem_id="picture",
        placeholder="Drop or paste a picture\nor click to choose one",
        alt_text=first.alt if first else "The picture to ask about",
    )
    strip = gr.HTML(panels.example_strip(examples), js_on_load=panels.PICKS, visible=bool(examples))
    question = gr.Textbox(
        first.question if first else "",
        label="Question",
        info=texts.QUESTION_HELP,
        placeholder="Is there a cat in the image?",
        elem_id="question",
    )
    ask = gr.Button("Ask", variant="primary", elem_id="ask-button")
    stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop-button")
    chosen = gr.Dropdown(
        method_choices(), value=method, label="Method", info=texts.METHOD_HELP, elem_id="method"
    )
    about = gr.HTML(panels.about_method(method))
    ratio = gr.Slider(0, 0.95, 0.5, step=0.01, label="Ratio", info=texts.RATIO_HELP)
    layers = gr.CheckboxGroup(
        layer_choices(lvlm.n_layers),
        value=list(lvlm.default_layers(method)),
        label="Layers",
        info=texts.LAYERS_HELP,
        elem_classes="chips",
        elem_id="layers",
    )
    preset = gr.Dropdown(
        preset_choices(method), value=texts.OWN_SETTINGS, label="Preset", info=texts.PRESET_HELP
    )
    folds, parameters = {}, {}
    for name in filter(own_parameters, methods.names()):
        title = f"Parameters of {methods.get(name).title}"
        with gr.Accordion(title, open=False, visible=name == method) as folds[name]:
            for p in own_parameters(name):
                parameters[name, p.name] = control(p)
    model_box = gr.Dropdown(
        engine.choices(model), value=model, label="Model", info=texts.MODEL_HELP, elem_id="model"
    )
    return Controls(
        picture, strip, question, model_box, chosen, about, preset, ratio, layers, folds,
        parameters, ask, stop,
    )  # fmt: skip


def method_choices() -> list[tuple[str, str]]:
    """(label, name) of every method, kind by kind."""
    known = sorted(methods.names(), key=lambda name: list(texts.KINDS).index(kind(name)))
    return [(f"{methods.get(name).title} · {texts.KINDS[kind(name)]}", name) for name in known]


def kind(method: str) -> str:
    """What a method does to tokens, a key of `texts.KINDS`."""
    return methods.get(method).kind


def preset_choices(method: str) -> list[str]:
    """The presets of a method, after the visitor's own settings."""
    return [texts.OWN_SETTINGS, *methods.get(method).presets]


def layer_choices(n_layers: int) -> list[tuple[str, int]]:
    """Layers after which tokens can be removed: all but the last, which nothing follows."""
    return [(str(layer), layer) for layer in range(n_layers - 1)]


def own_parameters(method: str) -> list[methods.Parameter]:
    """The parameters of a method that need a control of their own."""
    return [p for p in methods.parameters(method) if p.name not in COMMON]


def control(p: methods.Parameter) -> gr.components.Component:
    """The control that fits the type and the range of a parameter."""
    common = {"label": p.name, "info": f"{p.help[:1].upper()}{p.help[1:]}.", "value": p.default}
    if p.choices:
        return gr.Dropdown(list(p.choices), **common)
    if p.type is bool:
        return gr.Checkbox(**common)
    low, high = p.range or (-math.inf, math.inf)
    if p.default is not None and math.isfinite(high - low):
        return gr.Slider(low, high, step=p.step or (1 if p.type is int else 0.01), **common)
    return gr.Number(precision=0 if p.type is int else None, placeholder="automatic", **common)


def scale_layers(layers: Sequence[int], n_layers: int, of: int = 32) -> list[int]:
    """Layers of a decoder `of` layers deep, at the same relative depth of one `n_layers` deep."""
    depths = (round((layer + 1) * n_layers / of) - 1 for layer in layers)
    return sorted({min(max(depth, 0), n_layers - 2) for depth in depths})


def parse_layers(text: str) -> tuple[int, ...] | None:
    """`"1, 3, 5"` -> (1, 3, 5); an empty text means the method's own layers."""
    if not text.strip():
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"Layers are whole numbers, like 1,3,5, not {text!r}.") from None
