"""The Inspect tab: which answers it shows."""

import gradio as gr

from page import inspect
from page.shown import Shown
from tests.make_trace import make_trace


def test_the_current_answer_comes_first_with_vanilla_beside_it():
    shown = Shown()
    shown.show(make_trace("libra"), make_trace("vanilla"))
    data = inspect.draw(shown)
    assert [trace["name"] for trace in data["traces"]] == [
        "Libra-Merging",
        "Vanilla (no compression)",
    ]


def test_without_an_answer_nothing_changes():
    assert inspect.draw(Shown()) == gr.skip()
