"""Held-out questions: scenes, albums and films that training never draws."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tiny import films, questions, scenes, sprites
from tiny.questions import Question

SEED = 7_000_000  # far from those of the training
STYLES = {"training": sprites.TRAINING_STYLES} | {s: (s,) for s in sprites.UNSEEN_STYLES}


@dataclass(frozen=True)
class Subject:
    """A scene, an album or a film, by its number, and the kinds of question to ask about it."""

    style: str
    number: int
    kinds: tuple[str, ...]  # out of `questions.KINDS`, or one of `questions.SEQUENCES`

    def questions(self) -> list[Question]:
        """The questions of these kinds that have an answer, one of each kind at most."""
        return [q for q in self._compose()[0] if q is not None and q.kind in self.kinds]

    def pictures(self) -> list[np.ndarray]:
        """What they are about: uint8 `[H, W, 3]` each."""
        _, shots, rng = self._compose()
        draw = films.draw if self.kinds == ("video",) else _draw_each
        return [pixels for pixels, _ in draw(shots, rng, styles=STYLES[self.style], plain=True)]

    def _compose(self):
        """The same questions, scenes and state of chance at each call."""
        rng = np.random.default_rng((SEED, self.number))
        if self.kinds == ("images",):
            shots = [scenes.compose(rng) for _ in range(int(rng.integers(2, 4)))]
            asked = [questions.ask_images(shots, rng)]
        elif self.kinds == ("video",):
            shots = films.compose(rng)
            asked = [questions.ask_film(shots, rng)]
        else:
            shots = [scenes.compose(rng)]
            asked = [questions.ask(shots[0], kind, rng) for kind in questions.KINDS]
        return asked, shots, rng


def _draw_each(shots, rng, **how):
    return [scenes.draw(scene, rng, **how) for scene in shots]


def subjects(n: int, style: str, kinds: Sequence[str] = questions.KINDS) -> Iterator[Subject]:
    """Subjects, until there are `n` questions of each kind.

    Questions about one picture share it; those about several, or about a film, have their own.
    """
    alone = [(kind,) for kind in kinds if kind in questions.SEQUENCES]
    shared = tuple(kind for kind in kinds if kind not in questions.SEQUENCES)
    for group in (shared, *alone):
        missing, number = dict.fromkeys(group, n), 0
        while any(missing.values()):
            posed = {question.kind for question in Subject(style, number, group).questions()}
            wanted = tuple(kind for kind in group if kind in posed and missing[kind])
            for kind in wanted:
                missing[kind] -= 1
            if wanted:
                yield Subject(style, number, wanted)
            number += 1
