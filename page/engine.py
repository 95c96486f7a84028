"""The page's side of the engine: which models are loaded, and one question after the other."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from PIL import Image

import libra
from libra import methods, models
from libra.architecture import ARCHITECTURES, Architecture
from libra.conversation import Memory
from libra.errors import InputError
from libra.models import room
from libra.prefills import measure_in_turns
from libra.request import default_encoder_layers, default_layers, default_settings, loaded
from libra.trace import Trace
from page import texts
from page.shelf import Shelf
from page.shown import Result

try:
    from spaces import GPU  # lends a GPU per call on ZeroGPU, does nothing elsewhere
except ImportError:

    def GPU(function):
        """Stands in where `spaces` is not installed."""
        return function


EMBEDDED = "tiny-llava"
REMEMBERED = 2  # conversations whose caches stay in memory
MODEL = os.environ.get("MODEL") or EMBEDDED

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a question has come: its text, then its trace, then vanilla's."""

    text: str
    trace: Trace | None = None
    vanilla: Trace | None = None


def _open(name: str) -> libra.LVLM:
    """Load a model and warm it up: first runs are slow, and are measured."""
    _forget()  # a new model may need all the room there is
    lvlm = libra.load(name)
    if "SPACES_ZERO_GPU" not in os.environ:  # there, the GPU is lent to questions alone
        blank = Image.new("RGB", (64, 64))
        lvlm.answer(images=[blank], question="?", method="vanilla", max_new_tokens=2)
    return lvlm


shelf = Shelf(_open, models.memory_needed, lambda: room.capacity()[0])


@dataclass(frozen=True)
class Shape:
    """What the controls have to know of a model; it is kept when the model has been freed."""

    n_layers: int
    first_layer: int  # the first decoder layer after which tokens can be reduced
    n_encoder_layers: int
    last_encoder_layer: int  # the last one that can be compressed
    presets: Mapping[str, str]  # by method: that of its settings made for this family
    frames: int  # of a video, unless told otherwise
    most_frames: int | None  # that fit, if that is known
    facts: str  # size and device in a few words
    architecture: Architecture | None  # what its cost depends on, if that is known

    @classmethod
    def of(cls, lvlm: libra.LVLM) -> "Shape":
        """The shape of a loaded model."""
        family, card = lvlm.family, lvlm.card
        return cls(
            n_layers=lvlm.n_layers,
            first_layer=family.first_layer,
            n_encoder_layers=len(family.encoder_layers),
            last_encoder_layer=family.last_encoder_layer,
            presets=family.presets,
            frames=family.frames,
            most_frames=family.most_frames,
            facts=f"{card['parameters'] / 1e6:,.0f} M parameters · {card['device'].upper()}",
            architecture=lvlm.architecture,
        )

    def default_layers(self, method: str) -> tuple[int, ...]:
        """The decoder layers after which a method reduces unless told otherwise."""
        about = methods.create(method)
        return default_layers(about, self.n_layers, self.first_layer, self.presets.get(method))

    def default_encoder_layers(self, method: str) -> tuple[int, ...]:
        """The encoder layers inside which a method reduces unless told otherwise."""
        return default_encoder_layers(
            methods.create(method),
            self.n_encoder_layers,
            self.last_encoder_layer,
            self.presets.get(method),
        )

    def default_settings(self, method: str) -> dict:
        """What a method is set to unless told otherwise, where that is not its default."""
        return default_settings(method, self.presets.get(method))


_shapes: dict[str, Shape] = {}  # of all models that have been loaded


def shape(name: str) -> Shape:
    """The shape of a model, which is loaded for it only the first time."""
    if name not in _shapes:
        _shapes[name] = Shape.of(load(name))
    return _shapes[name]


def architecture(called: str) -> Architecture | None:
    """The sizes of the model that a trace names, if they are listed or it has been loaded here."""
    shapes = _shapes.copy()  # another visitor may load a model meanwhile
    loaded = (shape.architecture for name, shape in shapes.items() if _called(name) == called)
    return ARCHITECTURES.get(called) or next(loaded, None)


def load(name: str) -> libra.LVLM:
    """The model of that name, loaded unless it is there; it may give way to another one."""
    with shelf.use(name) as lvlm:
        return lvlm


def title(model: str) -> str:
    """A model's name without the folders or the owner before it."""
    return model.rstrip("/").rsplit("/", 1)[-1]


def offered(model: str) -> dict[str, str]:
    """The models to choose from, by the title that a trace knows them under.

    The one the page was started with, the embedded one, and what this machine has room for. Not so
    on a Space, which is open to everybody: nobody there may make it fetch what its owner did not
    choose.
    """
    public = "SPACE_ID" in os.environ
    others = [] if public else [e for e in models.catalog() if e.runnable]
    names = [model, EMBEDDED, *(e.name for e in others if model not in (e.name, e.source))]
    return {_called(name): name for name in dict.fromkeys(names)}


def _called(name: str) -> str:
    """The name that a model gives to its traces."""
    known = models.entry(name)
    if known is not None:
        return known.name
    return title(name) if Path(name).is_dir() else name


def choices(model: str) -> list[tuple[str, str]]:
    """The models to choose from, with their size and the memory they need."""
    return [(label(name), name) for name in offered(model).values()]


def label(name: str) -> str:
    """`llava-1.5-7b · 7.1 B parameters · 17 GB`, as far as it is known before loading."""
    known = models.entry(name)
    if known is None:
        return title(name)
    return f"{title(name)} · {_amount(known.parameters)} parameters · {_bytes(known.memory)}"


def _amount(parameters: float) -> str:
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:,.0f} M"


def _bytes(memory: float) -> str:
    return f"{memory / 1e9:,.1f} GB" if memory >= 1e9 else f"{memory / 1e6:,.0f} MB"


@GPU
def ask(model: str, request: dict) -> Iterator[Progress]:
    """Answer a question word by word, then measure vanilla on the same inputs.

    Args:
        model: one of the models that are offered; loaded unless it is there.
        request: arguments of `LVLM.stream`.
    """
    memory = request.get("memory")
    if memory is not None:
        _remember(memory)
    with shelf.use(model) as lvlm:
        shared = _encoded(lvlm, request, tracing(model))
        for step in lvlm.stream(**request | shared):
            yield Progress(step.text, step.trace)
        trace = vanilla = step.trace
        if trace.method != "vanilla":
            if memory is not None and not trace.follows:  # then vanilla does not either
                memory.drop("vanilla")
            plainly = shared | {"tracing": True, "method": "vanilla", "memory": memory}
            for plain in lvlm.stream(**plainly):
                yield Progress(step.text, trace)  # between two tokens, a question can be stopped
                vanilla = plain.trace
        yield Progress(step.text, trace, vanilla)


@GPU
def compare(model: str, requests: Sequence[dict]) -> Iterator[Result]:
    """Answer one question under one method after the other, word by word.

    What one of them cannot do is its result and leaves the others alone; what none of them could
    answer raises InputError before anything runs. In the end, prefills are measured in turns:
    meanwhile those results come again as they were, and then with their medians.

    Args:
        model: one of the models that are offered; loaded unless it is there.
        requests: arguments of `LVLM.stream`, with the same images and question in all.
    """
    with shelf.use(model) as lvlm:
        shared, runs = _encoded(lvlm, requests[0], tracing(model)), []
        for request in requests:
            method = request["method"]
            try:
                for step in lvlm.stream(**request | shared):
                    yield Result(method, step.text, step.trace)
                runs.append((request | shared, step.trace))
            except InputError as error:
                yield Result(method, error=str(error))
            except Exception:
                log.exception("%s failed", method)
                yield Result(method, error=texts.FAILED)
        for trace in measure_in_turns(lvlm, runs):
            yield Result(trace.method, trace.answer, trace)


def tracing(model: str) -> bool | str:
    """How much to trace: of the embedded model, whose traces are small, everything."""
    return "full" if model == EMBEDDED else True


def _encoded(lvlm: libra.LVLM, request: dict, tracing: bool | str) -> dict:
    """Question and media of a request with encoder features, for all methods to share."""
    media = loaded(request.get("images", ()), request.get("video"), lvlm.family.frames)
    shared = media | {"question": request["question"], "history": request.get("history", ())}
    lvlm.stream(**shared, method="vanilla")  # checks them, and runs nothing
    shared["tracing"] = tracing
    if shared["history"] and request.get("memory"):
        return shared  # the media have been looked at
    return shared | {"features": lvlm.encode(**media, tracing=tracing)}


_remembered: list[Memory] = []  # the latest last
_remembering = Lock()


def _remember(memory: Memory) -> None:
    """Keep the caches of the latest conversations alone: those of large models are large."""
    with _remembering:
        if memory in _remembered:
            _remembered.remove(memory)
        _remembered.append(memory)
        while len(_remembered) > REMEMBERED:
            _remembered.pop(0).clear()


def _forget() -> None:
    """Free the caches of all conversations."""
    with _remembering:
        while _remembered:
            _remembered.pop().clear()
