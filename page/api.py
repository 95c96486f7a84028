"""The endpoint `/ask`: one question in, answer, numbers and trace out."""

import gradio as gr

from libra import methods
from libra.errors import InputError
from page import engine, views
from page.errors import explained
from page.plan import parse_layers, request
from page.readouts import numbers

ALSO = ("encoder_layers", "keep", "drop")  # what every method can be told besides its parameters


def build(model: str, **slot) -> None:
    """Register the endpoint; its components only describe its arguments."""
    with gr.Row(visible=False):
        inputs = [
            gr.File(label="image", type="filepath"),
            gr.Textbox(label="question"),
            gr.Textbox("libra", label="method"),
            gr.Number(None, label="ratio"),
            gr.Textbox("", label="layers"),
            gr.JSON({}, label="parameters"),
        ]
        outputs = [gr.Textbox(label="answer"), gr.JSON(label="readouts"), gr.File(label="trace")]
        call = gr.Button()

    def ask(image, question, method="libra", ratio=None, layers="", parameters=None):
        """Answer a question about an image with compressed visual tokens.

        Args: image file; question; method (vanilla, fastv, libra); ratio of the visual tokens
        that each event removes; layers like "1,3,5" (empty: as in the paper); further parameters
        of the method as a JSON object. Returns the answer, a dict of readouts beside vanilla, and
        the trace file.
        """
        with explained():
            if not isinstance(parameters or {}, dict):
                raise InputError('Parameters are one JSON object, like {"tau": 0.8}.')
            own = [p.name for p in methods.parameters(method)]
            for name in parameters or {}:
                if name not in (*own, *ALSO):
                    known = ", ".join((*own, *ALSO))
                    raise InputError(f"{method} has no parameter {name!r}; it has {known}.")
            plan = {"ratio": ratio, "layers": parse_layers(layers)} | (parameters or {})
            *_, last = engine.ask(model, request(image, question or "", method, plan))
            return last.text, numbers(last.trace, last.vanilla), views.save_trace(last.trace)

    call.click(ask, inputs, outputs, api_name="ask", **slot)
