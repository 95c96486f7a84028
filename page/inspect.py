"""The Inspect tab: one interactive view of where every visual token went, and why."""

import gradio as gr

from libra import methods
from page import texts
from page.shown import Shown
from viz import inspector


def build() -> gr.HTML:
    """Place the inspector; it fills when its tab is opened."""
    gr.HTML(f'<p class="lead">{texts.INSPECT}</p>')
    return gr.HTML(None, elem_id="inspector", **inspector.component())


def draw(shown: Shown) -> dict:
    """The current answer and what it has been compared with, as the inspector's data."""
    results = sorted(shown.compared.values(), key=lambda r: r.trace is not shown.trace)
    traces = {methods.get(r.method).title: r.trace for r in results if r.trace is not None}
    return inspector.view(traces) if traces else gr.skip()
