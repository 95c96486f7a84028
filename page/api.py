"""The endpoint `/ask`: one question in, answer, numbers and trace out."""

from asyncio import Semaphore
from collections.abc import Sequence

import gradio as gr
from gradio.data_classes import ListFiles
from gradio_client.utils import is_file_obj_with_meta
from pydantic import model_validator

from libra import methods
from libra.errors import InputError
from libra.media import load_video
from page import engine, texts, views
from page.errors import explained
from page.media import filmed, tell
from page.plan import parse_layers, request
from page.readouts import numbers
from page.shown import Added
from page.turns import Turns, in_thread

# What every method can be told besides its parameters.
ALSO = ("encoder_layers", "left", "keep", "drop")
FRAMES = "frames"  # of a video, among the parameters
CALLS = 10  # taken in at once, to decode or to wait for the model
VIDEOS = 2  # decoded at once


class Files(ListFiles):
    """Several files, or one alone."""

    @model_validator(mode="before")
    @classmethod
    def listed(cls, value: object) -> object:
        """One file is a list of one; what nobody has uploaded, such as a path alone, is none."""
        files = [value] if isinstance(value, dict) else value
        uploaded = isinstance(files, list) and all(map(is_file_obj_with_meta, files))
        return files if uploaded else []


def build(model: str, turns: Turns) -> None:
    """Register the endpoint; its components only describe its arguments."""
    decoding = Semaphore(VIDEOS)
    with gr.Row(visible=False):
        files = gr.File(label="image", type="filepath", file_count="multiple")
        files.data_model = Files
        inputs = [
            files,
            gr.Textbox(label="question"),
            gr.Textbox("libra", label="method"),
            gr.Number(None, label="ratio"),
            gr.Textbox("", label="layers"),
            gr.JSON({}, label="parameters"),
        ]
        outputs = [gr.Textbox(label="answer"), gr.JSON(label="readouts"), gr.File(label="trace")]
        call = gr.Button()

    async def ask(image, question, method="libra", ratio=None, layers="", parameters=None):
        """Answer a question about pictures or a video with compressed visual tokens.

        Args: image file, a list of them, or one video file; question; method (any
        of `python -m libra compare --methods all`); ratio of the visual tokens that each event
        removes; layers like "1,3,5" (empty: as in the paper); further parameters of the method as
        a JSON object, with "left" instead of a ratio, and "frames" of a video.
        Returns the answer, a dict of readouts beside vanilla, and the trace file.
        """
        with explained():
            if not image:
                raise InputError(texts.NO_FILE)
            if not isinstance(parameters or {}, dict):
                raise InputError('Parameters are one JSON object, like {"tau": 0.8}.')
            own = (p.name for p in methods.parameters(method))
            known = list(dict.fromkeys((*own, *ALSO, FRAMES)))
            for name in parameters or {}:
                if name not in known:
                    raise InputError(
                        f"{method} has no parameter {name!r}; it has {', '.join(known)}."
                    )
            plan = {"ratio": ratio, "layers": parse_layers(layers)} | (parameters or {})
            about = await _about(model, image, plan.pop(FRAMES, None), decoding)
            first = request(image[0], question or "", method, plan)
            last = await turns.last(engine.ask(model, about.to(first)))
            return await in_thread(_outputs, last)

    call.click(ask, inputs, outputs, api_name="ask", concurrency_limit=CALLS)


def _outputs(last: engine.Progress) -> tuple:
    """What the endpoint returns of a complete answer."""
    return last.text, numbers(last.trace, last.vanilla), views.save_trace(last.trace)


async def _about(
    model: str, files: Sequence[str], frames: int | None, decoding: Semaphore
) -> Added:
    """What a question is about besides the first of these files."""
    if not any(map(filmed, files)):
        if frames is not None:
            raise InputError("frames are about a video: leave them out.")
        return Added(tuple(files[1:]))
    if len(files) > 1:
        raise InputError(texts.ONE_VIDEO)
    usual = engine.shape(model).frames
    async with decoding:
        clip = await in_thread(load_video, files[0], usual if frames is None else frames)
    tell(clip)
    return Added(clip=clip)
