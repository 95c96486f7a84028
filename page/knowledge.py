"""What a model can be asked: the embedded one in certain forms about its objects, others freely."""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from libra import models
from page import texts


@dataclass(frozen=True)
class Knowledge:
    """The objects of a model trained on composed scenes; none for a model of the open world."""

    about: str  # one sentence
    words: tuple[str, ...] = ()
    plurals: tuple[str, ...] = ()

    def covers(self, question: str) -> bool:
        """Whether a question has one of the forms that the model was trained on."""
        return not self.words or _things(question, self._names) is not None

    def unknown(self, question: str) -> list[str]:
        """The objects of a question of such a form that the model was not trained on."""
        things = _things(question, r"\S+(?: \S+)?") or ()
        return [thing for thing in things if not re.fullmatch(self._names, thing)]

    @property
    def _names(self) -> str:
        return "|".join(map(re.escape, (*self.words, *self.plurals)))


def _things(question: str, names: str) -> tuple[str, ...] | None:
    """What a question of a known form is about, `names` (a pattern) each; None for other forms."""
    asked, thing = question.lower().strip(" ?.!"), f"(?:(?:an?|the) )?({names})"
    patterns = (pattern.replace("{x}", thing) for _, _, pattern, _ in texts.QUESTION_FORMS)
    found = filter(None, (re.fullmatch(pattern, asked) for pattern in patterns))
    return next((match.groups() for match in found), None)


@cache
def of(model: str) -> Knowledge:
    """What the card of a model says, and its `objects.json` if it has one."""
    entry = models.entry(model)
    file = Path(entry.source if entry else model, "objects.json")
    things = json.loads(file.read_text("utf-8")) if file.exists() else []
    default = texts.SCENES if things else texts.ANY_PHOTO
    return Knowledge(
        entry.knows if entry else default,
        tuple(thing["word"] for thing in things),
        tuple(thing["plural"] for thing in things),
    )
