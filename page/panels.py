"""The page's HTML fragments: header, example strip, method card, answer."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import zip_longest

from libra import methods
from libra.statistics import percent
from libra.trace import Trace
from page import knowledge, texts
from page.examples import Example
from page.shown import Result

# A click on anything with data-pick becomes the component's select event.
PICKS = """element.addEventListener("click", event => {
  const pick = event.target.closest("[data-pick]");
  if (pick) trigger("select", {index: Number(pick.dataset.pick)});
})"""

# While a question runs, Ask gives way to Stop on both tabs, and hands its focus over. This happens
# in the browser, at once. On a phone the answer is far above the button, so it comes into view.
_SWAP = "[{0}, {1}, {0}, {1}].map(visible => ({{visible, __type__: 'update'}}))"
_HAND_OVER = """() => {
  const names = {"ask-button": "stop-button", "stop-button": "ask-button",
    "compare-run": "compare-stop", "compare-stop": "compare-run"};
  const held = document.activeElement, nowhere = held === document.body;
  const other = names[nowhere ? window.handedOver : held.id];  // it may be gone already
  if (other) {
    window.handedOver = other;
    setTimeout(() => {  // unless the visitor has gone on meanwhile
      if ([held, document.body].includes(document.activeElement))
        document.getElementById(other)?.focus({preventScroll: true});
      if (window.handedOver === other) window.handedOver = undefined;
    }, 200);
  }
"""
SHOW_ASK = _HAND_OVER + "  return " + _SWAP.format("true", "false") + "}"
_TO_ANSWER = """
  if (matchMedia("(max-width: 760px)").matches)
    glideTo(document.querySelector("#answer"));
"""
SHOW_STOP = (
    _HAND_OVER
    + """
  document.querySelectorAll(".toast-close").forEach(close => close.click());
"""
    + _TO_ANSWER
    + "  return "
    + _SWAP.format("false", "true")
    + "}"
)
SHOW_ANSWER = f"() => {{{_TO_ANSWER}}}"

LOGO = """<svg class="logo" viewBox="0 0 32 32" aria-hidden="true">
<rect x="1" y="3" width="8" height="8" rx="2"/><rect x="12" y="3" width="8" height="8" rx="2"/>
<rect x="23" y="3" width="8" height="8" rx="2"/>
<path d="M5 13c0 5 11 2 11 7M16 13v7M27 13c0 5-11 2-11 7"/>
<rect class="kept" x="12" y="21" width="8" height="8" rx="2"/></svg>"""
SHARE = """<svg viewBox="0 0 24 24" aria-hidden="true"><circle cx="18" cy="5" r="2.6"/>
<circle cx="6" cy="12" r="2.6"/><circle cx="18" cy="19" r="2.6"/>
<path d="M8.3 10.7l7.4-4.4M8.3 13.3l7.4 4.4"/></svg>"""
HALF = """<svg viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="8.5"/>
<path class="fill" d="M12 3.5a8.5 8.5 0 0 1 0 17z"/></svg>"""


def header(model: str, facts: str) -> str:
    """Title, what the page is for, the model at work; share, light or dark, help."""
    return f"""<header class="top">{LOGO}<div class="name"><h1>{texts.TITLE}</h1>
<p>{texts.SUBTITLE}</p><a class="jump" href="#left-column">{texts.JUMP}</a></div>
<span class="chip"><b>{escape(model)}</b> {escape(facts)}</span>
<button class="icon" data-act="share" type="button" title="Share"
 aria-label="Share">{SHARE}</button>
<button class="icon" data-act="theme" type="button" title="Light or dark"
 aria-label="Switch between light and dark">{HALF}</button>
<button class="icon" data-act="help" type="button" title="Help"
 aria-label="Help">?</button></header>{_share()}{_help()}"""


def _share() -> str:
    """The window with a link, which is put into it when it opens."""
    return _window(
        "share",
        texts.SHARE,
        f"""<p><input readonly aria-label="Link">
<button type="button" data-act="copy" aria-live="polite">Copy</button></p>
<p class="note">{texts.SHARED}</p>""",
    )


def _help() -> str:
    """The window that says what there is to do."""
    rows = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in texts.HELP.items())
    return _window("help", "What to do here", f"<dl>{rows}</dl>")


def _window(name: str, title: str, content: str) -> str:
    """A window of the page that Escape, its button and a click beside it close."""
    return f"""<dialog id="{name}" aria-labelledby="{name}-title"><form method="dialog">
<h2 id="{name}-title">{title}</h2>{content}<button class="close">Close</button></form></dialog>"""


def example_strip(examples: Sequence[Example]) -> str:
    """The examples as buttons with a thumbnail, and whose pictures they are."""
    buttons = "".join(
        f'<button data-pick="{i}"{" data-stored" * e.file().exists()} '
        f'title="{escape(e.title)}: {escape(e.question)} '
        f'({escape(e.credit)})">'
        f'<img src="{e.thumbnail()}" alt="{escape(e.alt)}" width="56" height="56">'
        f"{f'<i aria-hidden=true>{e.badge}</i>' if e.badge else ''}</button>"
        for i, e in enumerate(examples)
    )
    credits = escape("; ".join(dict.fromkeys(e.credit for e in examples)))
    return (
        f'<div class="strip" role="group" aria-label="Examples">{buttons}</div>'
        f'<details class="note"><summary>{texts.CREDITS}</summary>{credits}</details>'
    )


def knows(model: str) -> str:
    """What a model can be asked, and where to go with anything else."""
    known = knowledge.of(model)
    beyond = texts.BEYOND if known.words else ""
    return f'<p class="note">{escape(known.about)} {beyond}</p>'


def about_method(name: str) -> str:
    """What a method does, in one sentence, and where it was published."""
    return f'<p class="about">{escape(methods.get(name).summary)} {cite(name)}</p>'


def cite(name: str) -> str:
    """The paper of a method and the section in it, as a link where the paper is online."""
    method = methods.get(name)
    if method.kind == "none":
        return ""
    link = texts.PAPERS.get(name)
    if link is None:
        return f"<cite>{escape(method.paper)}</cite>"
    anchor = f'<a href="{link}" target="_blank" rel="noopener">{escape(method.paper)}</a>'
    return f"<cite>{anchor}</cite>"


def overlay_picker(thumbnails: dict[str, str], chosen: str) -> str:
    """The overlays to choose from, each as a small picture of this very stage."""
    buttons = "".join(
        f'<button data-pick="{i}" aria-pressed="{str(key == chosen).lower()}" '
        f'title="{escape(texts.OVERLAYS[key][1])}"><img src="{url}" alt="">'
        f"<span>{texts.OVERLAYS[key][0]}</span></button>"
        for i, (key, url) in enumerate(thumbnails.items())
    )
    return f'<div class="overlays" role="group" aria-label="What to paint on it">{buttons}</div>'


def card(
    result: Result, reference: Trace | None = None, picture: str = "", caption: str = ""
) -> str:
    """One method of a comparison: its answer beside the reference's, and its picture.

    An answer that is not complete ends in a caret; a method that failed says why.
    """
    name = escape(methods.title(result.method))
    if result.error:
        words, verdict = f'<span class="error">{escape(result.error)}</span>', ""
    elif result.trace is None:
        words, verdict = f'{escape(result.text)}<i class="caret"></i>', texts.ANSWERING
        if not result.text:
            words, verdict = "", texts.WAITING
    else:
        words, verdict = _held_against(result.trace, reference)
    image = f'<img src="{picture}" alt="{name}, {escape(caption)}">' if picture else ""
    if not result.complete:
        image = '<div class="room"></div>'  # for the picture that will come
    return (
        f'<div class="card"><h3>{name}</h3><p class="words">{words}</p>'
        f'<p class="note">{verdict}</p>{image}<p class="stage">{escape(caption)}</p></div>'
    )


def _held_against(trace: Trace, reference: Trace | None) -> tuple[str, str]:
    """The answer with its first word that differs from the reference marked, and the verdict."""
    ours, whole = trace.answer.split(), escape(trace.answer) or texts.SILENT
    if reference is None or reference is trace:
        return whole, texts.REFERENCE if reference is trace else ""
    other = escape(methods.title(reference.method).split(" (")[0])
    place = first_difference(ours, reference.answer.split())
    if place is None:
        return whole, texts.SAME.format(other)
    word = escape(ours[place]) if place < len(ours) else texts.ENDS
    before, after = (escape(" ".join(part)) for part in (ours[:place], ours[place + 1 :]))
    return f"{before} <mark>{word}</mark> {after}", texts.DIFFERS.format(other, place + 1)


def first_difference(ours: Iterable[str], theirs: Iterable[str]) -> int | None:
    """The place of the first word in which two answers differ; None if they are the same."""
    pairs = enumerate(zip_longest(ours, theirs))
    return next((i for i, (a, b) in pairs if a != b), None)


def below(legend: str, overlay: str, pair: Sequence[Trace] = ()) -> str:
    """What the pictures of a comparison show; and of two under a slider, which is which."""
    if not legend:
        return note(texts.NOTHING_COMPARED)
    titles = [escape(methods.title(trace.method)) for trace in pair]
    sides = texts.SLIDER.format(*titles) if pair else ""
    point = pointing(texts.POINT if pair else texts.POINT_AT_ANY)
    return f'{legend}<p class="caption">{sides} {texts.OVERLAYS[overlay][1]} {point}</p>'


def pointing(point: str, tap: str = texts.TAP) -> str:
    """What to do with a picture: with a pointer, and where nothing hovers."""
    return f'<span class="hovers">{point}</span><span class="taps">{tap}</span>'


def progress(done: int, of: int, method: str) -> str:
    """How many methods of a comparison are done, and which one is at work."""
    return bar(done, of, f"{methods.title(method)} · {done + 1} of {of}" if done < of else "")


def bar(done: int, of: int, words: str) -> str:
    """How far something has come."""
    return (
        f'<p class="note progress" role="status"><progress max="{of}" value="{done}" '
        f'aria-label="{texts.PROGRESS}"></progress>'
        f"{escape(words)}</p>"
    )


def waiting(status: str) -> str:
    """A question that waits, in the place of its answer."""
    return streaming("", "", status)


def lead(title: str, text: str) -> str:
    """What a tab is for, under a heading for those who go from one to the next."""
    return f'<h2 class="unseen">{title}</h2><p class="lead">{text}</p>'


def counting(text: str, heard: str) -> str:
    """A line that changes often, and what is heard of it instead."""
    return f'<p class="note">{escape(text)}</p><p class="unseen" role="status">{escape(heard)}</p>'


def note(text: str) -> str:
    """A quiet line of text."""
    return f'<p class="note" role="status">{escape(text)}</p>'


def shown(word: str) -> str:
    """A generated token as text; white space made visible."""
    return word.strip() or "␣"


def _joined(i: int, word: str) -> str:
    """The mark of a token that goes on right where the one before it ends, as a comma does."""
    return "" if i == 0 or word[:1].isspace() else ' class="joined"'


def streaming(
    question: str, text: str, status: str, history: Sequence[tuple[str, str]] = ()
) -> str:
    """The answer while it grows; it takes the room that the finished one will need."""
    words = f'<p class="words">{escape(text)}<i class="caret"></i></p>'
    return _answer(question, words + rivals(()), status, history)


def answer(trace: Trace | None, chosen: int = 0, status: str = "") -> str:
    """The finished answer: each word a button that shows where the model looked for it."""
    if trace is None:
        return _answer("", f'<p class="empty">{texts.EMPTY_ANSWER}</p>' + rivals(()), status)
    words = "".join(
        f'<button data-pick="{i}" aria-pressed="{str(i == chosen).lower()}"{_joined(i, word.text)} '
        f'title="{percent(word.probability)} sure">{escape(shown(word.text))}</button>'
        for i, word in enumerate(trace.words)
    )
    weighed = rivals(trace.words[chosen].top if trace.words else ())
    body, said = f'<p class="words">{words}</p>{weighed}', trace.answer or texts.SILENT
    return _answer(trace.question, body, status, trace.history, identity(trace), said)


def identity(*traces: Trace) -> str:
    """What tells these answers of a visit from the others: their times will do."""
    return " ".join(str(trace.timings.total) for trace in traces)


def _answer(
    question: str,
    body: str,
    status: str,
    history: Sequence[tuple[str, str]] = (),
    of: str = "",
    complete: str = "",
) -> str:
    """The card of an answer; `of` tells complete ones apart.

    Those who listen hear a `complete` answer, once and as a whole: not each word as it comes.
    """
    heard = texts.HEARD.format(escape(complete)) if complete else ""
    earlier = "".join(f"<li>{escape(q)} <b>{escape(a)}</b></li>" for q, a in history)
    turns = f'<ol class="turns" aria-label="{texts.EARLIER}">{earlier}</ol>' if earlier else ""
    return (
        f'<div class="answer" data-of="{of}"><h2 class="unseen">{texts.ANSWER}</h2>{turns}'
        f'<p class="asked">{escape(question)}</p><p class="unseen" role="status">{heard}</p>{body}'
        f'<p class="status" role="status" aria-live="polite" data-outdated="{texts.OUTDATED}">'
        f"{escape(status)}</p></div>"
    )


def rivals(top: Sequence[tuple[str, float]]) -> str:
    """The most probable words at one place of the answer; room for them where there are none."""
    rows = "".join(
        f"<li><span>{escape(shown(text))}</span>"
        f'<i style="--share:{p:.3f}"></i><b>{percent(p)}</b></li>'
        for text, p in top
    )
    blank = "" if top else " blank"
    return f'<p class="note{blank}">{texts.RIVALS}</p><ol class="rivals">{rows}</ol>'
