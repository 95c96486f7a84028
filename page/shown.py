"""What one visitor looks at."""

from dataclasses import dataclass

from libra.trace import Trace


@dataclass
class Shown:
    """What one visitor looks at: kept for the visit, changed in place.

    A question that is being answered shares it with the controls that are used meanwhile.
    """

    trace: Trace | None = None
    vanilla: Trace | None = None  # the same inputs without compression, once measured
    overlay: str = "fate"
    stage: int = 0  # index into the stages of the trace
    word: int = 0
    picture: str | None = None  # the last readable picture in the control

    def show(self, trace: Trace, vanilla: Trace | None = None) -> None:
        """Take in a new trace; the stage stays where it is if the trace has it."""
        self.trace, self.vanilla, self.word = trace, vanilla, 0
        self.stage = min(self.stage, len(trace.events))
