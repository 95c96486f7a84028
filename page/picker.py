"""Choosing methods: a list that unfolds, group by group, with a sentence on each."""

from collections.abc import Sequence
from html import escape

import gradio as gr

from libra import methods
from page import plan, texts

# The list itself never changes: its state is the component's value, one name or a list of names.
# Leaving the list closes it, and so does a click on the only choice; arrow keys leave it open.
JS = """
const details = element.querySelector("details"), summary = element.querySelector("summary");
const inputs = [...element.querySelectorAll("input")], many = inputs[0].type === "checkbox";
const show = () => {
  const chosen = [].concat(props.value ?? []);
  for (const input of inputs) input.checked = chosen.includes(input.value);
  const titles = inputs.filter(i => i.checked).map(i => i.dataset.title);
  summary.textContent = titles.join(", ") || "None";
  summary.setAttribute("aria-label", `${details.dataset.label}: ${summary.textContent}`);
};
const pick = () => {
  const names = inputs.filter(i => i.checked).map(i => i.value);
  props.value = many ? names : names[0];
  show();
  trigger("input");
};
element.addEventListener("change", pick);
element.addEventListener("click", event => {
  const all = event.target.closest("[data-all]");
  if (all) {
    for (const input of inputs) input.checked = all.dataset.all === "true";
    pick();
  }
  if (!many && event.detail && event.target.closest("label")) details.open = false;
});
element.addEventListener("focusout", event => {
  if (!element.contains(event.relatedTarget)) details.open = false;
});
element.addEventListener("keydown", event => {
  if (event.key !== "Escape") return;
  details.open = false;
  summary.focus();
});
details.addEventListener("toggle", () => {
  if (details.open) element.querySelector(".choices").scrollIntoView({block: "nearest"});
});
watch("value", show);
show();
"""


def build(label: str, info: str, value: str | Sequence[str], elem_id: str) -> gr.HTML:
    """Place a picker. Its value is one name, or a list of names if `value` is one."""
    many = value if isinstance(value, list) else None
    return gr.HTML(
        value,
        html_template=_list(label, info, "radio" if many is None else "checkbox", elem_id),
        js_on_load=JS,
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="picker",
    )


def _list(label: str, info: str, kind: str, name: str) -> str:
    """The unfolding list; the inputs are native, so keyboards and screen readers know them."""
    groups = "".join(
        f"<fieldset><legend>{texts.GROUPS[key]}</legend>"
        + "".join(_choice(method, kind, name) for method in names)
        + "</fieldset>"
        for key, names in plan.grouped().items()
    )
    return (
        f'<span data-testid="block-info">{label}</span><p class="info-text">{info}</p>'
        f'<details data-label="{label}"><summary></summary><div class="choices" tabindex="-1">'
        f"{_ALL if kind == 'checkbox' else ''}{groups}</div></details>"
    )


_ALL = (
    '<p class="all"><button type="button" data-all="true">All</button>'
    '<button type="button" data-all="false">None</button></p>'
)


def _choice(method: str, kind: str, name: str) -> str:
    about = methods.get(method)
    return (
        f'<label><input type="{kind}" name="{name}" value="{method}" '
        f'data-title="{escape(about.title)}"><b>{escape(about.title)}</b>'
        f"<span>{escape(about.summary)}</span></label>"
    )
