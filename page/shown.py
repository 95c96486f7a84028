"""What one visitor looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from libra.conversation import Memory
from libra.errors import InputError
from libra.trace import Trace
from libra.video import Clip
from page import texts

if TYPE_CHECKING:
    from page.again import Again


@dataclass(frozen=True)
class Result:
    """What one method of a comparison has come to: words, then a trace, or why there is none."""

    method: str
    text: str = ""
    trace: Trace | None = None
    error: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing more will come."""
        return bool(self.trace or self.error)


@dataclass(frozen=True)
class Added:
    """What stands beside the picture of the control: more pictures, or a video in its place."""

    pictures: Sequence[str] = ()  # files
    clip: Clip | None = None
    video: str = ""  # the file of the clip, if it can be sampled anew
    frames: int | None = None  # of the video, if they were chosen

    def to(self, request: dict) -> dict:
        """A request about the picture of the control, now about all of the media."""
        if self.clip is not None:
            rest = {name: value for name, value in request.items() if name != "images"}
            return rest | {"video": self.clip}
        if self.pictures:
            return request | {"images": [*request["images"], *self.pictures]}
        return request


@dataclass
class Shown:
    """What one visitor looks at: kept for the visit, changed in place.

    A question that is being answered shares it with the controls that are used meanwhile.
    """

    trace: Trace | None = None
    vanilla: Trace | None = None  # the same inputs without compression, once measured
    overlay: str = "merged"
    stage: int = 0  # index into the stages of the trace
    word: int = 0
    status: str = ""  # how the answer stands
    image: int = 0  # index into the pictures of the trace
    picture: str | None = None  # the last readable picture in the control
    removed: str | None = None  # the one that was taken out of it
    added: Added = Added()  # what the question is about besides it
    compared: dict[str, Result] = field(default_factory=dict)  # by method, in the order of the page
    asked: dict[str, dict] = field(default_factory=dict)  # by method, what was asked of the model
    ran: bool = False  # whether they are of a comparison that was asked for
    before: tuple[dict, dict, bool] | None = None  # these before a comparison, while one is running
    inspected: dict[str, Trace] = field(default_factory=dict)  # by name, what the Inspect tab shows
    followed: int = 0  # the picture that the Inspect tab was last told of
    drawn: tuple[Trace, int] | None = None  # of which of its pictures the Figures tab shows figures
    asking: bool = False  # whether an answer is being computed: not while its question waits
    model: str = ""  # the last one that could be loaded
    about: tuple[str | None, Added] | None = None  # the media of the trace
    forcing: bool = False  # whether a question is being asked again with patches forced
    follow: bool = False  # whether the next question goes behind the answer of the trace
    memory: Memory = field(default_factory=Memory)  # of this conversation
    again: Again | None = None  # one of the answers, and the one with some patches forced

    @property
    def media(self) -> tuple[str | None, Added]:
        """What the next question is about."""
        return self.picture, self.added

    def history(self, question: str) -> list[tuple[str, str]]:
        """What was said before this question; the same one asked again does not follow itself.

        Raises:
            InputError: it is to follow an answer about other media, or none.
        """
        if not self.follow:
            return []
        if self.trace is None or self.about != self.media:
            raise InputError(texts.NOTHING_TO_FOLLOW)
        last = (self.trace.question, self.trace.answer)
        return [*self.trace.history, *([last] if last[0] != question else [])]

    def show(
        self, trace: Trace, vanilla: Trace | None = None, requests: Sequence[dict] = ()
    ) -> None:
        """Take in a new trace; the stage stays where it is, at the end if it was at the end.

        Args:
            trace: the new one.
            vanilla: the same without compression, if it is there already.
            requests: what the model was asked for them; none where they are stored ones.
        """
        at_end = self.trace is None or self.stage == len(self.trace.events)
        self.image = self.image if self.about == self.media else 0
        self.trace, self.word, self.about = trace, 0, self.media
        self.asked = {request["method"]: request for request in requests}
        self.stage = len(trace.events) if at_end else min(self.stage, len(trace.events))
        self.image = self.image_of(trace)
        self.overlay = self.overlay if self.overlay in overlays(trace) else "fate"
        self.measure(vanilla)

    def look_at(self, image: int) -> None:
        """Choose one of the pictures: every tab shows it."""
        self.image = min(max(0, int(image)), len(self.trace.images) - 1)

    def measure(self, vanilla: Trace | None) -> None:
        """Take in vanilla's trace of the same inputs, and compare the two."""
        self.vanilla, self.again, self.ran, self.before = vanilla, None, False, None
        pair = [trace for trace in (vanilla, self.trace) if trace is not None]
        self.compared = {t.method: Result(t.method, t.answer, t) for t in pair}

    def begin(self, results: dict[str, Result], requests: Sequence[dict] = ()) -> None:
        """A comparison starts; `results` fill up while it runs."""
        self.before = self.compared, self.asked, self.ran
        self.compared, self.ran = results, True
        self.asked = {request["method"]: request for request in requests}

    def settle(self) -> None:
        """A comparison has ended: keep what is complete, or else what was there before."""
        done = {name: result for name, result in self.compared.items() if result.complete}
        if done:
            self.compared, self.again = done, None
        elif self.before is not None:
            self.compared, self.asked, self.ran = self.before
        self.before = None

    @property
    def stored(self) -> bool:
        """Whether the answers are stored ones, for which no model was asked here."""
        return not self.asked

    @property
    def own_image(self) -> int:
        """The chosen picture, or the last of the trace's: a comparison may be about more."""
        return self.image_of(self.trace) if self.trace else 0

    def image_of(self, trace: Trace) -> int:
        """The chosen picture of any trace, the last one where it is about fewer."""
        return min(self.image, len(trace.images) - 1)

    @property
    def traces(self) -> list[Trace]:
        """The traces of the comparison."""
        return [result.trace for result in self.compared.values() if result.trace is not None]


def overlays(trace: Trace) -> list[str]:
    """The overlays that a trace can be painted with: heat maps need its attention rows."""
    rows = {"importance": trace.importance, "word": trace.attention}
    return [key for key in texts.OVERLAYS if rows.get(key, True)]
