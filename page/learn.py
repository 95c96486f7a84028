"""The Learn tab: the idea, the methods, the terms, and what the model at hand knows."""

from html import escape

import gradio as gr

from libra import methods, models
from page import diagrams, engine, knowledge, panels, plan, texts


def build(model: str) -> None:
    """Place the sections."""
    with gr.Row(elem_id="learn"), gr.Column():
        gr.HTML(_section("The idea", texts.IDEA))
        gr.HTML(_section("The methods", _methods()))
        gr.HTML(_section("What the model knows", knows(model)))
        gr.HTML(_section("Other models", other_models(model)))
        gr.HTML(_section("Terms", _glossary()))


def knows(model: str) -> str:
    """What a model can be asked; the embedded one with its question forms and objects."""
    known = knowledge.of(model)
    if not known.words:
        return f"<p>{escape(known.about)}</p>"
    forms = "".join(
        f"<tr><th scope='row'>{kind}</th><td>{example}</td><td>{answers}</td></tr>"
        for kind, example, _, answers in texts.QUESTION_FORMS
    )
    return (
        f"<p>{escape(known.about)} {texts.KNOWS_SCENES}</p>"
        f"<div class='scroll'><table class='forms'><thead><tr><th scope='col'>About</th>"
        f"<th scope='col'>Ask like this</th><th scope='col'>Answers</th></tr></thead>"
        f"<tbody>{forms}</tbody></table></div><p><b>{len(known.words)} objects:</b> "
        f"{escape(', '.join(known.words))}.</p><p>{texts.LARGER}</p>"
    )


def other_models(model: str) -> str:
    """The models that are not on the page, what they need, and how to start with one."""
    rows = "".join(
        f"<li><b>{escape(entry.name)}</b> · {entry.parameters / 1e9:.3g} billion parameters · "
        f"{escape(entry.reason) or 'this machine has room for it'}"
        f"<code>MODEL={escape(entry.source)} make demo</code></li>"
        for entry in models.catalog()
        if entry.name != engine.EMBEDDED and model not in (entry.name, entry.source)
    )
    return f"<p>{texts.OTHER_MODELS}</p><ul class='models'>{rows}</ul>"


def _section(title: str, body: str) -> str:
    return f'<section class="lesson"><h2>{title}</h2>{body}</section>'


def _methods() -> str:
    groups = "".join(
        f'<h3 class="method-group">{texts.GROUPS[key]}</h3>{"".join(map(_method, names))}'
        for key, names in plan.grouped().items()
    )
    return f"<p>{texts.DIAGRAM}</p>{groups}"


def _method(name: str) -> str:
    method = methods.get(name)
    presets = escape(", ".join(method.presets))
    as_in_paper = f'<p class="note">{texts.PRESETS} {presets}.</p>' if presets else ""
    return (
        f'<article class="method"><div><h4>{escape(method.title)}</h4>'
        f"<p>{escape(method.summary)}</p>{panels.cite(name)}{as_in_paper}</div>"
        f"{diagrams.diagram(name)}</article>"
    )


def _glossary() -> str:
    terms = "".join(f"<div><dt>{t}</dt><dd>{escape(e)}</dd></div>" for t, e in texts.TERMS.items())
    return f'<dl class="terms">{terms}</dl>'
