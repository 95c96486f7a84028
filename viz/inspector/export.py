"""The inspector's markup, style and script, for the page and for files that stand alone."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from pathlib import Path

from libra import methods
from libra.trace import Trace
from viz.inspector.data import view

STATIC = Path(__file__).parent / "static"
# In this order they make up one script: each uses what stands before it. The first are enough for
# the card of a patch.
OF_CARD = (
    "codec.js",
    "trace.js",
    "whatif.js",
    "explain.js",
    "colours.js",
    "patches.js",
    "picture.js",
    "panels.js",
)
SCRIPTS = (
    *OF_CARD,
    "overlays.js",
    "flow.js",
    "strip.js",
    "histogram.js",
    "whatifpanel.js",
    "selection.js",
    "quiz.js",
    "tour.js",
    "views.js",
    "pointing.js",
    "inspector.js",
)


def component() -> dict[str, object]:
    """Arguments of `gr.HTML` that make it an inspector; its value is what `view` returns.

    All events carry `trace`, the name of the answer that is shown. `again` asks for another answer
    with the selected `patches` forced: `how` is "keep", "drop" or "only", which drops all others.
    `save` asks for a file in a `format`, "html", "gif" or "webp". `select` tells `stage`,
    `overlay`, `word`, `image` and `patch` after each change of them. A value that holds an `image`
    alone changes which picture is shown, and nothing else.
    """
    page = """
const inspector = createInspector(element.querySelector(".inspector"), trigger);
const receive = () => {
  const { value } = props;
  if (value?.traces) inspector.show(value);
  else if (value) inspector.update({ image: value.image, hover: -1, lock: -1 });
};
watch("value", receive);
receive();
"""
    return {
        "html_template": static("inspector.html"),
        "css_template": static("inspector.css"),
        "js_on_load": f"{script()}{page}",
        "apply_default_css": False,
    }


def export_html(trace: Trace, *others: Trace, path: str | Path) -> None:
    """Write one HTML file with the inspector of an answer; it needs no network and no program.

    Args:
        trace: the answer that is shown first.
        others: answers to compare it with, for example the one of the plain model.
        path: of the file.
    """
    Path(path).write_text(document(_named([trace, *others])), "utf-8")


def document(traces: dict[str, Trace]) -> str:
    """The stand-alone page of some traces. Its policy forbids it to load anything."""
    data = json.dumps(view(traces), ensure_ascii=False).replace("<", "\\u003c")
    question = escape(next(iter(traces.values())).question)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{question}</title>
<style>
{static("page.css")}
{static("inspector.css")}
</style>
</head>
<body>
<main>
<h1>{question}</h1>
{static("inspector.html")}
</main>
<script type="application/json" id="data">{data}</script>
<script>
(() => {{
{script()}
const inspector = createInspector(document.querySelector(".inspector"));
inspector.show(JSON.parse(document.getElementById("data").textContent));
}})();
</script>
</body>
</html>
"""


def script() -> str:
    """All modules as one script."""
    return joined(SCRIPTS)


@cache
def joined(names: tuple[str, ...]) -> str:
    """Some modules as one script."""
    return "".join(map(static, names))


@cache
def static(name: str) -> str:
    """The text of a file beside the scripts."""
    return (STATIC / name).read_text("utf-8")


def _named(traces: list[Trace]) -> dict[str, Trace]:
    """The traces under their methods' titles, numbered where a title comes twice."""
    named: dict[str, Trace] = {}
    for trace in traces:
        name = methods.title(trace.method)
        same = sum(other.split(" · ")[0] == name for other in named)
        named[f"{name} · {same + 1}" if same else name] = trace
    return named
