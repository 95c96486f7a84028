"""Several questions about the same media: a follow-up goes behind what is in the cache.

The earlier questions and answers are part of every follow-up's prompt (`history`). Where a `Memory`
holds the compressed cache of the last one, only what is new of the prompt is computed: media,
method and settings have to be the same, and the prompt has to begin with the tokens in the cache.
The visual tokens stay as the first question has left them. In all other cases the whole
conversation is computed anew, and the newest question decides which tokens stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import ref

from torch import LongTensor

from libra.compression import Compression
from libra.decoder import CompressedCache
from libra.models import Family, Features
from libra.request import Request, loaded

if TYPE_CHECKING:
    from libra.lvlm import LVLM, Answer
    from libra.media import Source
    from libra.video import Clip

_SETTINGS = ("method", "layers", "encoder_layers", "keep", "drop", "seed")


@dataclass
class Kept:
    """What an answer leaves for the next question."""

    family: ref[Family]  # memories do not keep a model alive
    request: Request
    compression: Compression
    features: Features
    place: LongTensor  # [n] the original token in whose place each came into the decoder
    cache: CompressedCache
    ids: LongTensor  # [S] the tokens that it holds, visual ones as they came into the decoder

    def shared(self, family: Family, request: Request) -> int:
        """How many tokens of the cache a request can go behind; 0 if it has to begin anew."""
        ours, theirs = self.request, request
        if self.family() is not family or ours.prepared.media != theirs.prepared.media:
            return 0
        if any(getattr(ours, name) != getattr(theirs, name) for name in _SETTINGS):
            return 0
        if not self._precedes(request):
            return 0
        prompt = request.prompt.reduced(self.place)
        n = min(len(self.ids), len(prompt.ids) - 1)  # at least one token has to be read
        differs = (self.ids[:n] != prompt.ids[:n]).nonzero().flatten()
        n = int(differs[0]) if len(differs) else n
        media = int(prompt.visual.max()) + 1 + prompt.n_trailing
        return n if n >= media else 0

    def _precedes(self, request: Request) -> bool:
        """Whether a request goes on from these questions, or puts the last follow-up again."""
        said, n = self.request.history, len(self.request.history)
        questions = [*(question for question, _ in request.history), request.question]
        if not request.history or request.history[:n] != said:
            return False
        return questions[n] == self.request.question


class Memory:
    """What is kept of one conversation between two of its questions, for each of its methods.

    A question takes it out while it is answered, and leaves nothing if it is stopped.
    """

    def __init__(self):
        self._kept: dict[str, Kept] = {}

    def __bool__(self) -> bool:
        return bool(self._kept)

    def keep(self, kept: Kept) -> None:
        """Take in what an answer leaves."""
        self._kept[kept.request.method.name] = kept

    def take(self, family: Family, request: Request) -> Kept | None:
        """What a request can go behind, cut to what they share; nothing stays here."""
        kept = self._kept.pop(request.method.name, None)
        shared = kept.shared(family, request) if kept else 0
        if not shared:
            return None
        kept.cache.crop(shared - len(kept.ids))
        kept.ids = kept.ids[:shared]
        return kept

    def drop(self, method: str) -> None:
        """Free the cache of a method: its next question reads the whole conversation anew."""
        self._kept.pop(method, None)

    def clear(self) -> None:
        """Free the caches."""
        self._kept.clear()


class Chat:
    """A conversation about the same pictures or the same video, which are read once.

    Args:
        lvlm: the model.
        images: the pictures.
        video: a path or a clip, instead of pictures.
        request: further arguments of `LVLM.stream` for all questions.
    """

    def __init__(
        self,
        lvlm: LVLM,
        images: Source | Iterable[Source] = (),
        video: str | Path | Clip | None = None,
        **request: object,
    ):
        self.turns: list[tuple[str, str]] = []
        self._lvlm, self._memory = lvlm, Memory()
        self._request = request | loaded(images, video, lvlm.family.frames)

    def ask(self, question: str) -> Answer:
        """Answer the next question."""
        answer = self._lvlm.answer(
            **self._request, question=question, history=self.turns, memory=self._memory
        )
        self.turns.append((question, answer.text))
        return answer
