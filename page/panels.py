"""The page's HTML fragments: header, example strip, method card, answer."""

from collections.abc import Sequence
from html import escape

from libra import methods
from libra.trace import Trace
from page import knowledge, texts
from page.examples import Example
from page.readouts import percent

# A click on anything with data-pick becomes the component's select event.
PICKS = """element.addEventListener("click", event => {
  const pick = event.target.closest("[data-pick]");
  if (pick) trigger("select", {index: Number(pick.dataset.pick)});
})"""

# While a question runs, Ask gives way to Stop on both tabs; this happens in the browser, at once.
# On a phone the answer is far above the button, so it comes into view.
_SWAP = "[{0}, {1}, {0}, {1}].map(visible => ({{visible, __type__: 'update'}}))"
SHOW_ASK = "() => " + _SWAP.format("true", "false")
SHOW_STOP = (
    """() => {
  if (matchMedia("(max-width: 760px)").matches)
    document.querySelector("#answer").scrollIntoView({behavior: "smooth"});
  return """
    + _SWAP.format("false", "true")
    + "}"
)

LOGO = """<svg class="logo" viewBox="0 0 32 32" aria-hidden="true">
<rect x="1" y="3" width="8" height="8" rx="2"/><rect x="12" y="3" width="8" height="8" rx="2"/>
<rect x="23" y="3" width="8" height="8" rx="2"/>
<path d="M5 13c0 5 11 2 11 7M16 13v7M27 13c0 5-11 2-11 7"/>
<rect class="kept" x="12" y="21" width="8" height="8" rx="2"/></svg>"""
HALF = """<svg viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="8.5"/>
<path class="fill" d="M12 3.5a8.5 8.5 0 0 1 0 17z"/></svg>"""


def header(model: str, facts: str) -> str:
    """Title, what the page is for, the model at work, and the switch between light and dark."""
    return f"""<header class="top">{LOGO}<div class="name"><h1>{texts.TITLE}</h1>
<p>{texts.SUBTITLE}</p><a class="jump" href="#left-column">{texts.JUMP}</a></div>
<span class="chip"><b>{escape(model)}</b> {escape(facts)}</span>
<button class="icon" type="button" title="Light or dark"
 aria-label="Switch between light and dark">{HALF}</button></header>"""


def example_strip(examples: Sequence[Example]) -> str:
    """The examples as buttons with a thumbnail."""
    buttons = "".join(
        f'<button data-pick="{i}" title="{escape(e.title)}: {escape(e.question)}">'
        f'<img src="{e.thumbnail()}" alt="{escape(e.alt)}" width="56" height="56"></button>'
        for i, e in enumerate(examples)
    )
    return f'<div class="strip" role="group" aria-label="Examples">{buttons}</div>'


def knows(model: str) -> str:
    """What a model can be asked, and where to go with anything else."""
    known = knowledge.of(model)
    beyond = texts.BEYOND if known.words else ""
    return f'<p class="note">{escape(known.about)} {beyond}</p>'


def about_method(name: str) -> str:
    """What a method does, in one sentence, and where it was published."""
    method = methods.get(name)
    source = f"<cite>{escape(method.paper)}</cite>" if method.kind != "none" else ""
    return f'<p class="about">{escape(method.summary)} {source}</p>'


def overlay_picker(thumbnails: dict[str, str], chosen: str) -> str:
    """The overlays to choose from, each as a small picture of this very stage."""
    buttons = "".join(
        f'<button data-pick="{i}" aria-pressed="{str(key == chosen).lower()}" '
        f'title="{escape(texts.OVERLAYS[key][1])}"><img src="{url}" alt="">'
        f"<span>{texts.OVERLAYS[key][0]}</span></button>"
        for i, (key, url) in enumerate(thumbnails.items())
    )
    return f'<div class="overlays" role="group" aria-label="What to paint on it">{buttons}</div>'


def card(trace: Trace | None, title: str, other: Trace | None = None) -> str:
    """One answer of a comparison; words that `other` does not have at that place are marked."""
    if trace is None:
        return _card(title, f'<span class="empty">{texts.NO_PAIR}</span>', "")
    theirs = [word.text for word in other.words] if other else [word.text for word in trace.words]
    words = (
        f"<span>{escape(shown(word.text))}</span>"
        if i < len(theirs) and word.text == theirs[i]
        else f"<mark>{escape(shown(word.text))}</mark>"
        for i, word in enumerate(trace.words)
    )
    return _card(title, " ".join(words), trace.question)


def growing_card(title: str, question: str, text: str) -> str:
    """The compressed side of a comparison while its answer grows."""
    return _card(title, f'{escape(text)}<i class="caret"></i>', question)


def _card(title: str, words: str, question: str) -> str:
    return (
        f'<div class="card"><h3>{escape(title)}</h3><p class="words">{words}</p>'
        f'<p class="asked">{escape(question)}</p></div>'
    )


def side_title(trace: Trace | None) -> str:
    """What to call the compressed side of a comparison."""
    return title(trace.method) if trace else "Compressed"


def title(method: str) -> str:
    """The full name of a method; traces may come from programs that know more of them."""
    return methods.get(method).title if method in methods.names() else method


def shown(word: str) -> str:
    """A generated token as text; white space made visible."""
    return word.strip() or "␣"


def streaming(question: str, text: str, status: str) -> str:
    """The answer while it grows; it takes the room that the finished one will need."""
    words = f'<p class="words">{escape(text)}<i class="caret"></i></p>'
    return _answer(question, words + _rivals(()), status)


def answer(trace: Trace | None, chosen: int = 0, status: str = "") -> str:
    """The finished answer: each word a button that shows where the model looked for it."""
    if trace is None:
        return _answer("", f'<p class="empty">{texts.EMPTY_ANSWER}</p>' + _rivals(()), status)
    words = "".join(
        f'<button data-pick="{i}" aria-pressed="{str(i == chosen).lower()}" '
        f'title="{percent(word.probability)} sure">{escape(shown(word.text))}</button>'
        for i, word in enumerate(trace.words)
    )
    rivals = _rivals(trace.words[chosen].top if trace.words else ())
    return _answer(trace.question, f'<p class="words">{words}</p>{rivals}', status)


def _answer(question: str, body: str, status: str) -> str:
    return (
        f'<div class="answer"><p class="asked">{escape(question)}</p>{body}'
        f'<p class="status" role="status" aria-live="polite">{escape(status)}</p></div>'
    )


def _rivals(top: Sequence[tuple[str, float]]) -> str:
    """The most probable words at one place of the answer."""
    rows = "".join(
        f"<li><span>{escape(shown(text))}</span>"
        f'<i style="--share:{p:.3f}"></i><b>{percent(p)}</b></li>'
        for text, p in top
    )
    label = texts.RIVALS if top else ""
    return f'<p class="note">{label}</p><ol class="rivals">{rows}</ol>'
