"""The left column: what to ask, of which model, compressed how."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from libra import methods
from libra.errors import InputError
from libra.trace import Trace
from page import engine, media, panels, picker, plan, texts
from page.examples import Example


@dataclass(frozen=True)
class Controls:
    """The controls, and how their values become a request to the engine."""

    picture: gr.Image
    media: media.MediaBox
    strip: gr.HTML
    question: gr.Textbox
    follow: gr.Checkbox
    knows: gr.HTML
    ask: gr.Button
    stop: gr.Button
    method: gr.HTML
    about: gr.HTML
    ratio: gr.Slider
    layers: gr.CheckboxGroup
    encoder_layers: gr.CheckboxGroup
    preset: gr.Dropdown
    folds: dict[str, gr.Accordion]  # by method
    parameters: dict[tuple[str, str], gr.components.Component]  # by method and parameter
    model: gr.Dropdown

    @property
    def inputs(self) -> list[gr.components.Component]:
        """The components whose values `request` takes, in its order."""
        asked = [self.picture, self.question, self.model, self.method]
        settings = [self.ratio, self.layers, self.encoder_layers]
        return asked + settings + list(self.parameters.values())

    @property
    def of_method(self) -> list[gr.components.Component]:
        """What depends on the method."""
        settings = [self.about, self.ratio, self.layers, self.encoder_layers, self.preset]
        return settings + list(self.folds.values()) + list(self.parameters.values())

    @property
    def outputs(self) -> list[gr.components.Component]:
        """Everything that an example or a trace file fills in."""
        return [*self.media.outputs, self.question, self.method, *self.of_method]

    @property
    def noted(self) -> list[gr.components.Component]:
        """The components that decide what would be asked, in the order that `noting` takes."""
        return [*self.inputs, self.follow]

    def noting(self, step: str) -> dict:
        """An event of the browser's that notes down what would be asked.

        The steps: "change" of a control, "ask", "fill" (an example, which may bring an answer),
        "open" (a stored answer), "arrive" (on the page, perhaps by a link).
        """
        owners = json.dumps([method for method, _ in self.parameters])
        return {"fn": None, "inputs": self.noted, "js": NOTE % (owners, step)}

    def request(
        self, picture, question, model, method, ratio, layers, encoder_layers, *values
    ) -> tuple[str, dict]:
        """The model's name and the arguments of `LVLM.stream`.

        The values come as the browser sends them: what the page does not offer is refused.
        """
        settings = self.settings(model, method, ratio, layers, encoder_layers, *values)
        return model, plan.request(media.uploaded(picture), str(question or ""), method, settings)

    def settings(self, model, method, ratio, layers, encoder_layers, *values) -> dict:
        """What is chosen for a method: its arguments of `LVLM.stream`."""
        if model not in [name for _, name in self.model.choices]:
            raise InputError(f"There is no model {model!r} on this page.")
        if method not in methods.names():
            raise InputError(f"There is no method {method!r} on this page.")
        given = dict(zip(self.parameters, values, strict=True))
        settings = {
            p.name: plan.read(p, given[method, p.name]) for p in plan.own_parameters(method)
        }
        if plan.slides(method):
            settings["ratio"] = ratio
        if plan.acts_in_decoder(method):
            settings["layers"] = _in_order(layers)
        if plan.acts_in_encoder(method):
            settings["encoder_layers"] = _in_order(encoder_layers)
        return settings

    def show_method(self, method: str, model: str) -> dict:
        """A method was chosen: what it does, its defaults, its own parameters."""
        return self._show(method, model, {}, texts.OWN_SETTINGS)

    def show_model(self, method: str, model: str) -> dict:
        """A model was chosen: what it knows, and the method's defaults at its depth."""
        return {self.knows: panels.knows(model)} | self.show_method(method, model)

    def show_preset(self, preset: str, method: str, model: str) -> dict:
        """A preset was chosen."""
        if preset == texts.OWN_SETTINGS:
            return gr.skip()
        return self._show(method, model, plan.preset_plan(preset, method, model), preset)

    def show_trace(self, trace: Trace, model: str) -> dict:
        """The settings of a trace, if its method is known here."""
        if trace.method not in methods.names():
            return {}
        return self.show_settings(trace.method, model, plan.of_trace(trace, model))

    def show_settings(self, method: str, model: str, settings: dict) -> dict:
        """A method with settings of its own."""
        shown = self._show(method, model, settings, texts.OWN_SETTINGS)
        return {self.method: method} | shown

    def _show(self, method: str, model: str, given: dict, preset: str) -> dict:
        """Show the settings `given` of a method; what is not given takes its default."""
        settings, shape = plan.defaults(method, model) | given, engine.shape(model)
        return {
            self.about: panels.about_method(method),
            self.ratio: gr.Slider(
                value=settings["ratio"] or 0,
                interactive=plan.slides(method),
                info=_ratio_help(method),
            ),
            self.layers: gr.CheckboxGroup(
                layer_choices(shape.n_layers - 1),
                value=list(settings["layers"]),
                interactive=plan.acts_in_decoder(method),
                info=texts.LAYERS_HELP if plan.acts_in_decoder(method) else texts.NO_LAYERS,
            ),
            self.encoder_layers: gr.CheckboxGroup(
                layer_choices(shape.last_encoder_layer),
                value=list(settings["encoder_layers"]),
                visible=plan.acts_in_encoder(method),
            ),
            self.preset: gr.Dropdown(
                plan.preset_choices(method),
                value=preset,
                interactive=plan.compresses(method),
                info=texts.PRESET_HELP if plan.compresses(method) else texts.NO_PRESET,
            ),
            **{fold: gr.Accordion(visible=name == method) for name, fold in self.folds.items()},
            **{c: settings[name] for (of, name), c in self.parameters.items() if of == method},
        }


# While the server fills in controls, `top.js` holds back what starts with them.
FILL = "(...values) => (window.fill?.(), values)"
FILLED = "() => window.filled?.()"
OWN = f"() => {json.dumps(texts.OWN_SETTINGS)}"
# Tells `top.js` what would be asked, of the methods' own parameters only those of the chosen one.
# It may not have been loaded when the page is.
NOTE = """(...values) => {
  const [picture, question, model, method, ratio, layers, encoderLayers, ...rest] = values;
  const follow = rest.pop();
  const own = rest.filter((_, i) => %s[i] === method).map(value => value ?? "");
  const inOrder = list => [...list ?? []].sort();
  const asked = [picture?.path, question, model, method, ratio, inOrder(layers)];
  const settings = [...asked, inOrder(encoderLayers), own, follow];
  const note = () => window.noteSettings ? noteSettings("%s", settings) : setTimeout(note, 50);
  note();
  return [];
}"""


def build(model: str, examples: Sequence[Example], method: str = "libra") -> Controls:
    """Place the controls, with the first example filled in."""
    first = examples[0] if examples else None
    parts = {
        "picture": gr.Image(
            first and str(first.image),
            label="Picture",
            sources=["upload", "clipboard"],
            type="filepath",
            image_mode=None,
            height=170,
            buttons=[],
            elem_id="picture",
            placeholder="Drop or paste a picture\nor click to choose one",
            alt_text=first.alt if first else texts.PICTURE_ALT,
        ),
    }
    parts["media"] = media.build(parts["picture"])
    parts |= {
        "strip": gr.HTML(
            panels.example_strip(examples), js_on_load=panels.PICKS, visible=bool(examples)
        ),
        "question": gr.Textbox(
            first.question if first else "",
            label="Question",
            info=texts.QUESTION_HELP,
            placeholder="Is there a cat in the image?",
            elem_id="question",
        ),
        "ask": gr.Button("Ask", variant="primary", elem_id="ask-button"),
        "stop": gr.Button("Stop", visible=False, elem_id="stop-button"),
        "follow": gr.Checkbox(False, label=texts.FOLLOW, info=texts.FOLLOW_HELP, elem_id="follow"),
        "knows": gr.HTML(panels.knows(model)),
        "method": picker.build("Method", texts.METHOD_HELP, method, "method"),
        "about": gr.HTML(panels.about_method(method)),
    }
    parts |= build_settings(model, method)
    parts["model"] = gr.Dropdown(
        engine.choices(model), value=model, label="Model", info=texts.MODEL_HELP, elem_id="model"
    )
    return Controls(**parts)


def build_settings(model: str, method: str) -> dict:
    """Place the settings of the methods; only those of `method` show."""
    settings, folds, parameters = plan.defaults(method, model), {}, {}
    parts = {
        "ratio": gr.Slider(
            0,
            plan.MAX_RATIO,
            settings["ratio"],
            step=0.01,
            label="Ratio",
            info=texts.RATIO_HELP,
            elem_id="ratio",
        ),
        "layers": gr.CheckboxGroup(
            layer_choices(plan.last_layer(model)),
            value=list(settings["layers"]),
            label="Layers",
            info=texts.LAYERS_HELP,
            elem_classes="chips",
            elem_id="layers",
        ),
        "encoder_layers": gr.CheckboxGroup(
            layer_choices(engine.shape(model).last_encoder_layer),
            value=list(settings["encoder_layers"]),
            label="Encoder layers",
            info=texts.ENCODER_LAYERS_HELP,
            visible=plan.acts_in_encoder(method),
            elem_classes="chips",
            elem_id="encoder-layers",
        ),
        "preset": gr.Dropdown(
            plan.preset_choices(method),
            value=texts.OWN_SETTINGS,
            label="Preset",
            info=texts.PRESET_HELP,
            elem_id="preset",
        ),
    }
    for name in filter(plan.own_parameters, methods.names()):
        title = f"Parameters of {methods.get(name).title}"
        with gr.Accordion(title, open=False, visible=name == method) as folds[name]:
            for p in plan.own_parameters(name):
                parameters[name, p.name] = control(p)
    return parts | {"folds": folds, "parameters": parameters}


def _ratio_help(method: str) -> str:
    """What the ratio means to a method."""
    if plan.slides(method):
        both = plan.acts_in_encoder(method) and plan.acts_in_decoder(method)
        return texts.RATIO_OF_DECODER if both else texts.RATIO_HELP
    return texts.NO_RATIO if methods.get(method).kind == "none" else texts.RATIO_ELSEWHERE


def _in_order(layers: list[int]) -> list[int]:
    """Layers as they were chosen, ascending."""
    try:
        return sorted(layers)
    except TypeError:
        raise InputError(f"Layers are a list of whole numbers, not {layers!r}.") from None


def layer_choices(last: int) -> list[tuple[str, int]]:
    """The layers 0..last."""
    return [(str(layer), layer) for layer in range(last + 1)]


def control(p: methods.Parameter) -> gr.components.Component:
    """The control that fits the type and the range of a parameter."""
    common = {"label": p.name, "info": f"{p.help[:1].upper()}{p.help[1:]}.", "value": p.default}
    if p.choices:
        return gr.Dropdown(list(p.choices), **common)
    if p.default is None:  # a field for numbers would send zero when it is empty
        return gr.Textbox(placeholder="automatic", **common)
    low, high = p.range
    if math.isfinite(high - low):
        return gr.Slider(low, high, step=p.step or (1 if p.type is int else 0.01), **common)
    return gr.Number(precision=0 if p.type is int else None, **common)
