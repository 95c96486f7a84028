"""The page on the micro model with two prepared examples, served for the tests."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import gradio as gr
import httpx

import app
from page import ask, compare, controls, engine, examples
from page.shown import Shown
from page.visit import Visit
from tests.conftest import QUESTION, make_image


def prepare_examples(folder: Path, model: str) -> Path:
    """Two examples; the first has stored traces of three methods."""
    lvlm = engine.load(model)
    entries = []
    for i, name in enumerate(("first", "second")):
        make_image(seed=i).save(folder / f"{name}.png")
        entries.append(
            {
                "image": f"{name}.png",
                "question": QUESTION,
                "title": name,
                "alt": f"The {name} picture",
                "credit": "noise",
            }
        )
    request = {"images": [folder / "first.png"], "question": QUESTION, "max_new_tokens": 4}
    lvlm.answer(**request).trace.save(folder / "first.trace.zip")
    for method in ("vanilla", "fastv"):
        lvlm.answer(**request, method=method).trace.save(folder / f"first.{method}.trace.zip")
    (folder / "examples.json").write_text(json.dumps(entries))
    return folder


def unserved(model: str, folder: Path) -> Visit:
    """The actions of a page that is not served."""
    prepared = examples.load(prepare_examples(folder, model))
    with gr.Blocks():
        c = controls.build(model, prepared)
        a = ask.AskTab(**ask.build_pictures(Shown()), **ask.build_answer(Shown()))
        return Visit(c, a, compare.build(), prepared)


@contextmanager
def serve_page(model: str, folder: Path) -> Iterator[str]:
    """The address of the running page, with a slash at its end."""
    page = app.build(model, folder)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH)
    try:
        yield url
    finally:
        page.close()


def said_to(url: str, event: dict, values: list) -> str:
    """What an event of the served page answers to values as a browser would send them."""
    join = {"data": values, "fn_index": event["id"], "session_hash": uuid4().hex}
    api = f"{url}gradio_api/queue"
    httpx.post(f"{api}/join", json=join).raise_for_status()
    with httpx.stream("GET", f"{api}/data", params=join, timeout=60) as lines:
        for line in lines.iter_lines():
            if "process_completed" in line:
                return line
    return ""
