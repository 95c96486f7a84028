"""The scrubber: the pictures or frames of an answer as small pictures, one of which is chosen.

It stands in every tab that shows one picture at a time, and moves all of the tab's views.
"""

from html import escape

import gradio as gr

from libra.trace import Trace
from page import texts, views
from viz.retention import kept_of, picture_names

# The choice is the component's value, an index: choosing redraws nothing here, so the keyboard's
# focus stays. The inputs are native: arrow keys move through the frames.
JS = """
const show = () => {
  const inputs = [...element.querySelectorAll("input")];
  for (const input of inputs) input.checked = Number(input.value) === props.value;
  const strip = element.querySelector(".frames"), chosen = inputs.find(i => i.checked);
  if (!chosen) return;
  const place = chosen.closest("label");
  const left = place.offsetLeft - (strip.clientWidth - place.clientWidth) / 2;
  strip.scrollTo({left});
};
element.addEventListener("change", event => {
  props.value = Number(event.target.value);
  show();
  trigger("input");
});
watch(["value", "strip"], show);
show();
"""


def build(elem_id: str, trace: Trace | None = None, chosen: int = 0, *paint) -> gr.HTML:
    """Place a scrubber. Its value is the index of a picture in `Trace.images`."""
    return gr.HTML(
        **_look(elem_id, trace, chosen, *paint),
        html_template="${strip}",
        js_on_load=JS,
        apply_default_css=False,
        elem_id=elem_id,
    )


def update(elem_id: str, trace: Trace | None, chosen: int, *paint) -> gr.HTML:
    """The scrubber for a trace; `paint` is the overlay, the stage and the word, if any."""
    return gr.HTML(**_look(elem_id, trace, chosen, *paint))


def _look(elem_id: str, trace: Trace | None, chosen: int, *paint) -> dict:
    """Value, content and visibility: one picture alone needs no scrubber."""
    several = trace is not None and len(trace.images) > 1
    strip = _strip(elem_id, trace, views.filmstrip(trace, *paint)) if several else ""
    return {"value": chosen, "strip": strip, "visible": several}


def place(trace: Trace, image: int, stage: int) -> str:
    """Which picture or frame this is and how much of it is kept; nothing for one alone."""
    if len(trace.images) == 1:
        return ""
    which = texts.FRAME if trace.times else texts.PICTURE_OF
    text = which.format(image + 1, len(trace.images), picture_names(trace)[image])
    if not stage:
        return f"{text}."
    patches = int((trace.layout.image == image).sum())
    return f"{text}: {kept_of(trace, stage, image)} of its {patches} patches kept."


def _strip(name: str, trace: Trace, pictures: list[str]) -> str:
    """A choice per picture, with its number or its second."""
    unit = texts.SECONDS if trace.times else "{}"
    choices = "".join(
        f'<label title="{escape(place(trace, i, 0))}"><input type="radio" name="{name}" value="{i}"'
        f' aria-label="{escape(place(trace, i, 0))}"><img src="{url}" alt="">'
        f"<span>{unit.format(label)}</span></label>"
        for i, (url, label) in enumerate(zip(pictures, picture_names(trace), strict=True))
    )
    what = texts.FRAMES if trace.times else texts.PICTURES
    return f'<div class="frames" role="radiogroup" aria-label="{what}">{choices}</div>'
