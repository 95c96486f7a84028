"""A pane of glass over a picture elsewhere on a page: it tells of the patch under the pointer."""

from __future__ import annotations

from libra.trace import Trace
from viz.canvas import framed
from viz.inspector.data import looks, tokens_of
from viz.inspector.export import OF_CARD, joined, static

SCRIPTS = (*OF_CARD, "pane.js")


def pane(trace: Trace) -> dict:
    """What a pane over pictures of a trace knows, ready for JSON."""
    tokens = tokens_of(framed(trace))
    return {"trace": tokens | {"pictures": list(range(len(trace.images)))}, "looks": looks()}


def pane_component(picture: str) -> dict[str, object]:
    """Arguments of `gr.HTML` that lay a pane over the picture of that CSS selector.

    Its value says `of` which trace the picture is, and at which `stage` and `image`; what `pane`
    returns comes with them once the event `look` has asked for it: somebody points there. Then, if
    the pointer is a mouse, the patch under it and the token that it went into are outlined, and a
    card beside the picture says what became of it, and why.
    """
    page = """
const pane = createPane(element.querySelector(".i-pane"), PICTURE, () => trigger("look"));
const receive = () => pane.show(props.value ?? {});
watch("value", receive);
receive();
"""
    return {
        "html_template": static("pane.html"),
        "css_template": static("inspector.css") + static("pane.css"),
        "js_on_load": joined(SCRIPTS) + page.replace("PICTURE", repr(picture)),
        "apply_default_css": False,
    }
