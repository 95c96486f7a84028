"""A pane of glass over a picture elsewhere on a page: it tells of the patch under the pointer."""

from __future__ import annotations

from libra.trace import Trace
from viz.canvas import framed
from viz.inspector.data import looks, tokens_of
from viz.inspector.export import joined, static

SCRIPTS = (
    "codec.js",
    "trace.js",
    "whatif.js",
    "explain.js",
    "colours.js",
    "patches.js",
    "picture.js",
    "panels.js",
    "pane.js",
)


def pane(trace: Trace, stage: int = -1, image: int = 0) -> dict:
    """What a pane over one picture of a trace knows, ready for JSON.

    Args:
        trace: whose picture it is.
        stage: index of the stage that the picture shows.
        image: which of several pictures it is.
    """
    tokens = tokens_of(framed(trace))
    trace_of = tokens | {"pictures": list(range(len(trace.images)))}
    return {"trace": trace_of, "looks": looks(), "stage": stage % len(trace.stages), "image": image}


def pane_component(picture: str) -> dict[str, object]:
    """Arguments of `gr.HTML` that lay a pane over the picture of that CSS selector.

    The component's value is what `pane` returns; one that holds a `stage` or an `image` alone
    changes that, and nothing else. Where the pointer is a mouse, the patch under it and the token
    that it went into are outlined, and a card beside the picture says what became of it, and why.
    """
    page = """
const pane = createPane(element.querySelector(".i-pane"), PICTURE);
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
