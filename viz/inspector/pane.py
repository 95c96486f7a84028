"""Panes of glass over pictures elsewhere on a page: they tell of the patch under the pointer."""

from __future__ import annotations

from libra.trace import Trace
from viz.canvas import framed
from viz.inspector.data import looks, tokens_of
from viz.inspector.export import OF_CARD, joined, static

SCRIPTS = (*OF_CARD, "pane.js")


def pane(*traces: Trace) -> dict:
    """What panes over pictures of these traces know, ready for JSON."""
    known = [
        tokens_of(framed(trace)) | {"pictures": list(range(len(trace.images)))} for trace in traces
    ]
    return {"traces": known, "looks": looks()}


def pane_component(pictures: str) -> dict[str, object]:
    """Arguments of `gr.HTML` that lay a pane over each picture of that CSS selector.

    Its value says `of` which traces these are, one for each picture, at which `stages`, and which
    `image` of each trace they show; what `pane` returns comes after the event `look` has asked for
    it: somebody points there. Then, if the pointer is a mouse, every picture outlines the patch
    under it, and the token that it went into there; a card says what became of it in the picture
    under the pointer, and why, and a few words say it in the others. A click is the event `select`:
    `of` which traces the pictures are, the `index` of this one, its `stage`, and the place in it,
    `x` and `y` from 0 to 1.
    """
    page = """
const pane = createPane(element.querySelector(".i-pane"), PICTURES, trigger);
const receive = () => pane.show(props.value ?? {});
watch("value", receive);
receive();
"""
    return {
        "html_template": static("pane.html"),
        "css_template": static("inspector.css") + static("pane.css"),
        "js_on_load": joined(SCRIPTS) + page.replace("PICTURES", repr(pictures)),
        "apply_default_css": False,
    }
