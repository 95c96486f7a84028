"""A link to the page with an example, a question and settings: what Share makes, a visit opens."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from libra import methods
from libra.errors import InputError
from page import plan, texts
from page.examples import Example
from page.shown import Shown

PARTS = ("example", "question", "method", "settings")
# Shows the link in its window; the address is that of the page itself.
SHOW = """query => {
  const place = document.getElementById("share");
  place.querySelector("input").value = location.origin + location.pathname + "?" + query;
  place.querySelector("[data-act=copy]").textContent = "Copy";
  place.showModal();
  place.querySelector("input").select();
  place.querySelector("input").scrollLeft = 0;
}"""
MOST = 4000  # characters of a part of a link


def query(example: Example | None, question: str, method: str, settings: dict[str, Any]) -> str:
    """`example=orchard&question=...&method=libra&settings={"ratio":0.5,"layers":[3]}`"""
    if len(question) > MOST:
        raise InputError(texts.LONG_LINK.format(MOST))
    usual = {p.name: p.default for p in methods.parameters(method) if p.name != "ratio"}
    own = {name: value for name, value in settings.items() if value != usual.get(name)}
    parts = {"example": example.image.stem} if example else {}
    parts |= {"question": question, "method": method}
    return urlencode(parts | {"settings": json.dumps(own, separators=(",", ":"))})


def example_of(shown: Shown, examples: Sequence[Example]) -> Example | None:
    """The example whose media the controls hold; those of a visitor are in no link."""
    for example in examples:
        video = str(example.video) if example.video else ""
        same = shown.added.video == video if video else shown.added == example.added()
        if same and shown.picture == str(example.image):
            return example
    return None


def read(
    parts: Mapping[str, str], examples: Sequence[Example], model: str
) -> tuple[Example | None, str | None, str | None, dict[str, Any]]:
    """The example, the question, the method and its settings that a link names.

    Raises:
        InputError: parts that this page does not have. Anybody can write a link.
    """
    example, question, method, settings = map(parts.get, PARTS)
    if any(len(part or "") > MOST for part in (example, question, method, settings)):
        raise InputError(texts.BAD_LINK)
    known = {e.image.stem: e for e in examples}
    if (example is not None and example not in known) or method not in (None, *methods.names()):
        raise InputError(texts.BAD_LINK)
    return known.get(example), question, method, _settings(settings, method, model)


def _settings(text: str | None, method: str | None, model: str) -> dict[str, Any]:
    """The settings of a method, held against what the method and the model take."""
    if text is None or method is None:
        return {}
    try:
        given = json.loads(text)
        layers = {name: given.pop(name) for name in ("layers", "encoder_layers") if name in given}
        methods.create(method, **given)
        depths = {"layers": plan.last_layer(model), "encoder_layers": plan.last_inside(model)}
        if not all(type(n) is int and n >= 0 for chosen in layers.values() for n in chosen):
            raise InputError(texts.BAD_LINK)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(texts.BAD_LINK) from None
    if not 0 <= (given.get("ratio") or 0) <= plan.MAX_RATIO:
        raise InputError(texts.BAD_LINK)
    # Of layers that only a deeper model has, the method's own take the place.
    return given | {
        name: own for name, own in layers.items() if max(own, default=0) <= depths[name]
    }
