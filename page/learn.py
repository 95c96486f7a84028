"""The Learn tab: the idea, the methods, the terms, and what the model at hand knows."""

import json
from html import escape
from pathlib import Path

import gradio as gr

from libra import methods, models
from page import diagrams, texts


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
    entry = models.entry(model)
    about = f"<p>{escape(entry.knows)}</p>" if entry else ""
    objects = Path(entry.source if entry else model, "objects.json")
    if not objects.exists():
        return about or f"<p>{texts.ANY_PHOTO}</p>"
    words = [thing["word"] for thing in json.loads(objects.read_text("utf-8"))]
    forms = "".join(
        f"<tr><th scope='row'>{kind}</th><td>{question}</td><td>{answer}</td></tr>"
        for kind, question, answer in texts.QUESTION_FORMS
    )
    return (
        f"{about}<p>{texts.KNOWS_SCENES}</p><table class='forms'><thead><tr><th scope='col'>About"
        f"</th><th scope='col'>Ask like this</th><th scope='col'>Answers</th></tr></thead>"
        f"<tbody>{forms}</tbody></table><p><b>{len(words)} objects:</b> "
        f"{escape(', '.join(words))}.</p><p>{texts.LARGER}</p>"
    )


def other_models(model: str) -> str:
    """The models that are not on the page, what they need, and how to start with one."""
    rows = "".join(
        f"<li><b>{escape(entry.name)}</b> · {entry.parameters / 1e9:.3g} billion parameters · "
        f"{escape(entry.reason) or 'this machine has room for it'}"
        f"<code>MODEL={escape(entry.source)} make demo</code></li>"
        for entry in models.catalog()
        if model not in (entry.name, entry.source) and not Path(entry.source).is_dir()
    )
    return f"<p>{texts.OTHER_MODELS}</p><ul class='models'>{rows}</ul>"


def _section(title: str, body: str) -> str:
    return f'<section class="lesson"><h2>{title}</h2>{body}</section>'


def _methods() -> str:
    articles = "".join(map(_method, methods.names()))
    return f"<p>{texts.DIAGRAM}</p>{articles}"


def _method(name: str) -> str:
    method = methods.get(name)
    source = f"<cite>{escape(method.paper)}</cite>" if method.kind != "none" else ""
    return (
        f'<article class="method"><div><h3>{escape(method.title)}</h3>'
        f"<p>{escape(method.summary)}</p>{source}</div>{diagrams.diagram(name)}</article>"
    )


def _glossary() -> str:
    terms = "".join(f"<div><dt>{t}</dt><dd>{escape(e)}</dd></div>" for t, e in texts.TERMS.items())
    return f'<dl class="terms">{terms}</dl>'
