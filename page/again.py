"""A question asked again with some patches forced in or out: the request, and both answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from libra import methods
from libra.errors import InputError
from libra.trace import Trace, Word
from libra.video import Clip
from page import texts
from page.panels import first_difference


@dataclass(frozen=True)
class Again:
    """An answer, how its patches are forced, and what is answered then."""

    before: Trace
    how: str  # key of texts.AGAIN
    patches: Sequence[int]
    after: Trace | None = None

    @classmethod
    def of(cls, before: Trace, how: str, patches: Sequence[int]) -> "Again":
        """A new question; what the browser says is looked at first."""
        known = isinstance(how, str) and how in texts.AGAIN
        if not known or not isinstance(patches, list) or not all(type(p) is int for p in patches):
            raise InputError(texts.AGAIN_UNCLEAR)
        if not patches:
            raise InputError(texts.AGAIN_NOTHING)
        return cls(before, how, patches)

    @property
    def title(self) -> str:
        """`12 patches dropped`"""
        n = len(self.patches)
        return texts.AGAIN[self.how].format("1 patch" if n == 1 else f"{n} patches")

    @property
    def name(self) -> str:
        """The new answer's name beside the old one's."""
        return f"{methods.title(self.before.method)}, {self.title}"

    def request(self, asked: dict) -> dict:
        """The question as it was asked, with the patches forced.

        Raises:
            InputError: patches are to stay, but a fixed number of tokens is what was asked for.
        """
        if self.how == "keep" and "keep" in asked:
            raise InputError(texts.AGAIN_COUNT.format(asked["keep"]))
        return asked | self._forced()

    def _forced(self) -> dict[str, list[int]]:
        """The arguments of `LVLM.stream` that force the patches."""
        if self.how != "only":
            return {self.how: list(self.patches)}
        others = set(range(len(self.before.layout))) - set(self.patches)
        return {"drop": sorted(others)}


def request_of(trace: Trace) -> dict:
    """The question of a stored answer as arguments of `LVLM.stream`, as far as a trace tells.

    Its pictures or frames are those of the trace: large ones have been scaled down.
    """
    pictures = [Image.fromarray(pixels) for pixels in trace.images]
    media = {"images": pictures}
    if trace.times:
        media = {"video": Clip(pictures, trace.times, trace.times[-1], "video")}
    known = {p.name for p in methods.parameters(trace.method)}
    settings = {"ratio": trace.ratio, **trace.params}
    chosen = {k: v for k, v in settings.items() if k in known | {"encoder_layers"}}
    if trace.layers:
        chosen["layers"] = trace.layers
    if trace.history:
        chosen["history"] = trace.history
    return chosen | media | {"question": trace.question, "method": trace.method}


def parting(ours: Sequence[Word], theirs: Sequence[Word]) -> int | None:
    """The place of the first token in which two answers differ; None if they are the same."""
    return first_difference((word.text for word in ours), (word.text for word in theirs))


def panel(again: Again, text: str = "") -> str:
    """The old answer beside the new one, which grows as `text` until it is complete."""
    before, after = again.before, again.after
    if after is None:
        growing = f'{escape(text)}<i class="caret"></i>'
        sides = [
            _side(texts.AS_IT_WAS, _words(before)),
            _side(again.title, growing),
        ]
        return _panel(texts.ASKING_AGAIN, sides)
    place = parting(before.words, after.words)
    verdict = texts.AGAIN_SAME if place is None else texts.AGAIN_DIFFERS.format(place + 1)
    titled = (texts.AS_IT_WAS, before), (again.title, after)
    sides = [_side(name, _words(t, place)) for name, t in titled]
    return _panel(verdict, sides)


def _panel(status: str, sides: Sequence[str]) -> str:
    return (
        f'<section class="again"><div class="sides">{"".join(sides)}</div>'
        f'<p class="status" role="status">{status}</p></section>'
    )


def _side(name: str, words: str) -> str:
    return f'<article><h3>{escape(name)}</h3><p class="words">{words}</p></article>'


def _words(trace: Trace, place: int | None = None) -> str:
    """An answer with the word at one place marked."""
    words = [escape(word.text) for word in trace.words]
    if place is not None:
        words[place:] = [f"<mark>{words[place]}</mark>" if place < len(words) else _ENDS]
        words += [escape(word.text) for word in trace.words[place + 1 :]]
    return "".join(words).strip() or texts.SILENT


_ENDS = f" <mark>{texts.ENDS}</mark>"
