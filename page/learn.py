"""The Learn tab: lessons, the idea, the methods, the terms, and what the model at hand knows."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from libra import methods, models
from libra.trace import Trace
from page import diagrams, engine, knowledge, panels, plan, readouts, texts, views
from page.examples import Example


class Lesson(NamedTuple):
    """The stored answer of one method to the question of an example."""

    method: str
    example: Example
    file: Path  # of the trace


def lessons(examples: Sequence[Example]) -> list[Lesson]:
    """A lesson per method, in the order of the page, on the first example that has its answer.

    An answer that was stored to teach the method comes before those that examples open with.
    """
    found = []
    for method in _order():
        ready = [Lesson(method, e, e.lesson(method)) for e in examples]
        ready += [Lesson(method, e, e.file(method)) for e in examples]
        found += [lesson for lesson in ready if lesson.file.exists()][:1]
    return found


def build(model: str, examples: Sequence[Example]) -> gr.HTML:
    """Place the sections; the one that comes back holds the lessons to pick from."""
    prepared = lessons(examples)
    with gr.Row(elem_id="learn"), gr.Column():
        gr.HTML(_section("The idea", texts.IDEA))
        picker = gr.HTML(
            _section("Lessons", _lessons(prepared)),
            js_on_load=panels.PICKS,
            elem_id="lessons",
            visible=bool(prepared),
        )
        gr.HTML(_section("The methods", _methods()))
        gr.HTML(_section("What the model knows", knows(model)))
        gr.HTML(_section("Other models", other_models(model)))
        gr.HTML(_section("Terms", _glossary()))
    return picker


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


def _lessons(prepared: Sequence[Lesson]) -> str:
    """A button per lesson, with what the method has made of the picture."""
    buttons = "".join(
        f'<button type="button" data-pick="{i}">{_outcome(lesson)}</button>'
        for i, lesson in enumerate(prepared)
    )
    return f'<p>{texts.LESSONS}</p><div class="lessons">{buttons}</div>'


def _outcome(lesson: Lesson) -> str:
    """What is left of the picture in small; its name, numbers of tokens and answer in words."""
    trace, method = Trace.load(lesson.file), methods.get(lesson.method)
    staircase = readouts.staircase(trace)
    overlay = "merged" if method.kind == "merge" else "kept"
    picture = views.data_url(views.picture(trace, overlay, len(trace.events), **views.SMALL))
    return (
        f'<img src="{picture}" alt="" width="56" height="56">'
        f"<span><b>{escape(method.title)}</b>"
        f"{texts.GROUPS[plan.group(lesson.method)]}<br>"
        f"{texts.OUTCOME.format(escape(lesson.example.title), staircase, escape(trace.answer))}"
        f"</span>"
    )


def _order() -> list[str]:
    """All methods in the order of the page."""
    return [name for names in plan.grouped().values() for name in names]


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
