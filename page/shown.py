"""What one visitor looks at."""

from dataclasses import dataclass, field

from libra.trace import Trace
from page import texts


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
    picture: str | None = None  # the last readable picture in the control
    compared: dict[str, Result] = field(default_factory=dict)  # by method, in the order of the page
    before: dict[str, Result] = field(default_factory=dict)  # the comparison before a running one

    def show(self, trace: Trace, vanilla: Trace | None = None) -> None:
        """Take in a new trace; the stage stays where it is if the trace has it."""
        self.trace, self.word = trace, 0
        self.stage = min(self.stage, len(trace.events))
        self.overlay = self.overlay if self.overlay in overlays(trace) else "fate"
        self.measure(vanilla)

    def measure(self, vanilla: Trace | None) -> None:
        """Take in vanilla's trace of the same inputs, and compare the two."""
        self.vanilla = vanilla
        pair = [trace for trace in (vanilla, self.trace) if trace is not None]
        self.compared = {t.method: Result(t.method, t.answer, t) for t in pair}

    def begin(self, results: dict[str, Result]) -> None:
        """A comparison starts; `results` fill up while it runs."""
        self.before, self.compared = self.compared, results

    def settle(self) -> None:
        """A comparison ended early: keep what is complete, or else what was there before."""
        done = {name: result for name, result in self.compared.items() if result.complete}
        self.compared = done or self.before

    @property
    def traces(self) -> list[Trace]:
        """The traces of the comparison."""
        return [result.trace for result in self.compared.values() if result.trace is not None]


def overlays(trace: Trace) -> list[str]:
    """The overlays that a trace can be painted with: heat maps need its attention rows."""
    rows = {"importance": trace.importance, "word": trace.attention}
    return [key for key in texts.OVERLAYS if rows.get(key, True)]
