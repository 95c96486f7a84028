"""The page's side of the engine: which models are loaded, and one question after the other."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

from PIL import Image

import libra
from libra.errors import InputError
from libra.media import load_video
from libra.request import load_pictures
from libra.trace import Trace
from page import texts
from page.shown import Result

try:
    from spaces import GPU  # lends a GPU per call on ZeroGPU, does nothing elsewhere
except ImportError:

    def GPU(function):
        """Stands in where `spaces` is not installed."""
        return function


EMBEDDED = "tiny-llava"
MODEL = os.environ.get("MODEL") or EMBEDDED

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a question has come: its text, then its trace, then vanilla's."""

    text: str
    trace: Trace | None = None
    vanilla: Trace | None = None


_loading = Lock()


def load(name: str) -> libra.LVLM:
    """The model of that name, loaded once and warmed up: first runs are slow, and are measured."""
    with _loading:  # two visitors who choose it at once wait for the same one
        return _loaded(name)


@lru_cache(maxsize=2)  # as many as `choices` offers
def _loaded(name: str) -> libra.LVLM:
    lvlm = libra.load(name)
    if "SPACES_ZERO_GPU" not in os.environ:  # there, the GPU is lent to questions alone
        blank = Image.new("RGB", (64, 64))
        lvlm.answer(images=[blank], question="?", method="vanilla", max_new_tokens=2)
    return lvlm


def title(model: str) -> str:
    """A model's name without the folders or the owner before it."""
    return model.rstrip("/").rsplit("/", 1)[-1]


def choices(model: str) -> list[tuple[str, str]]:
    """The models to choose from: the one the page was started with, and the embedded one."""
    return [(title(name), name) for name in dict.fromkeys((model, EMBEDDED))]


def encoder_depth(model: str) -> tuple[int, int]:
    """How many layers a model's encoder has, and the last one that can be compressed."""
    family = load(model).family
    return len(family.encoder_layers), family.last_encoder_layer


def facts(model: str) -> str:
    """Size and device of a model in a few words."""
    card = load(model).card
    return f"{card['parameters'] / 1e6:,.0f} M parameters · {card['device'].upper()}"


@GPU
def ask(model: str, request: dict) -> Iterator[Progress]:
    """Answer a question word by word, then measure vanilla on the same inputs.

    Args:
        model: a name that `load` knows.
        request: arguments of `LVLM.stream`.
    """
    lvlm = load(model)
    shared = _encoded(lvlm, request, tracing(model))
    for step in lvlm.stream(**request | shared):
        yield Progress(step.text, step.trace)
    trace = vanilla = step.trace
    if trace.method != "vanilla":
        for plain in lvlm.stream(**shared | {"tracing": True}, method="vanilla"):
            yield Progress(step.text, trace)  # between two tokens, a question can be stopped
            vanilla = plain.trace
    yield Progress(step.text, trace, vanilla)


@GPU
def compare(model: str, requests: Sequence[dict]) -> Iterator[Result]:
    """Answer one question under one method after the other, word by word.

    What one of them cannot do is its result and leaves the others alone; what none of them could
    answer raises InputError before anything runs.

    Args:
        model: a name that `load` knows.
        requests: arguments of `LVLM.stream`, with the same images and question in all.
    """
    lvlm = load(model)
    shared = _encoded(lvlm, requests[0], tracing(model))
    for request in requests:
        method = request["method"]
        try:
            for step in lvlm.stream(**request | shared):
                yield Result(method, step.text, step.trace)
        except InputError as error:
            yield Result(method, error=str(error))
        except Exception:  # say, no memory left for this one
            log.exception("%s failed", method)
            yield Result(method, error=texts.FAILED)


def tracing(model: str) -> bool | str:
    """How much to trace: of the embedded model, whose traces are small, everything."""
    return "full" if model == EMBEDDED else True


def _encoded(lvlm: libra.LVLM, request: dict, tracing: bool | str) -> dict:
    """Question and media of a request with encoder features, for all methods to share."""
    if "video" in request:
        media = {"video": load_video(request["video"])}
    else:
        media = {"images": load_pictures(request["images"])}
    shared = media | {"question": request["question"]}
    lvlm.stream(**shared, method="vanilla")  # checks them, and runs nothing
    return shared | {"features": lvlm.encode(**media, tracing=tracing), "tracing": tracing}
