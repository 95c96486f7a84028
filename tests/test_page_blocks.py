"""What goes to the browser for components that a step of an event fills, or leaves out."""

import asyncio

import gradio as gr
import pytest

from page import scrubber
from page.blocks import Page


@pytest.fixture(scope="module")
def sent():
    """Send what an event returns for a scrubber and some words."""
    with Page() as page:
        frames, words = scrubber.build("frames"), gr.HTML()
        button = gr.Button()
        button.click(lambda: None, None, [frames, words])

    def send(step):
        parts = {"frames": frames, "words": words}
        drawn = {parts[name]: look for name, look in step.items()} if step else gr.skip()
        return asyncio.run(page.postprocess_data(page.fns[0], drawn, None))

    return send


def test_a_step_that_leaves_a_scrubber_out_says_nothing_of_it(sent):
    assert sent({"words": "more"}) == [{"__type__": "update"}, "more"]
    assert sent({}) == [{"__type__": "update"}] * 2


def test_a_step_that_moves_a_scrubber_leaves_its_strip(sent):
    frames, _ = sent({"frames": gr.HTML(value=2), "words": "more"})
    assert frames == {"__type__": "update", "value": 2}


def test_a_step_that_fills_a_scrubber_sends_its_strip_alone(sent):
    frames, _ = sent({"frames": gr.HTML(value=1, strip="strip", visible=True), "words": "more"})
    assert frames["props"] == {"strip": "strip"}
    assert frames["value"] == 1 and frames["visible"]
