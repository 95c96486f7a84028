"""The page's side of the engine: which models are loaded, and one question after the other."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import libra
from libra.trace import Trace

try:
    from spaces import GPU  # lends a GPU per call on ZeroGPU, does nothing elsewhere
except ImportError:

    def GPU(function):
        """Stands in where `spaces` is not installed."""
        return function


EMBEDDED = "tiny-llava"
MODEL = os.environ.get("MODEL") or EMBEDDED
SLOTS = int(os.environ.get("LIBRA_SLOTS", "1"))  # questions computed at the same time
QUEUE = int(os.environ.get("LIBRA_QUEUE", "20"))  # questions that may wait


@dataclass(frozen=True)
class Progress:
    """How far a question has come: its text, then its trace, then vanilla's."""

    text: str
    trace: Trace | None = None
    vanilla: Trace | None = None


@cache
def load(name: str) -> libra.LVLM:
    """The model of that name, loaded once."""
    return libra.load(name)


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
    for step in lvlm.stream(**request):
        yield Progress(step.text, step.trace)
    trace = step.trace
    if trace.method == "vanilla":
        yield Progress(step.text, trace, trace)
        return
    plain = {name: request[name] for name in ("images", "question")}
    yield Progress(step.text, trace, lvlm.answer(**plain, method="vanilla").trace)
