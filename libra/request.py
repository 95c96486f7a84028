"""Requests: everything that is asked for, checked before anything is computed."""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import IOBase
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from reprlib import repr as brief

import numpy as np
from PIL import Image
from torch import Tensor

from libra import methods
from libra.cost import checked_layers
from libra.counterfactual import check_budget, check_forced
from libra.errors import InputError
from libra.media import Media, Source, load_image
from libra.methods import Method
from libra.models import Family, Features
from libra.models.prepared import Prepared, Prompt
from libra.trace import MAX_PICTURES
from libra.trace_check import is_text
from libra.video import FRAMES, Clip, load_video

MAX_QUESTION = 2000  # characters
MAX_NEW_TOKENS = 512
MAX_TURNS = 32  # earlier questions of a conversation


@dataclass
class Request:
    """A checked request: all that the run needs."""

    prepared: Prepared  # the media, and the layout of the N visual tokens before any event
    question: str
    history: list[tuple[str, str]]  # earlier questions about the media, and their answers
    prompt: Prompt  # with places for all N
    n_plain: int  # visual tokens of the model as it is: N, unless a method replaces its pooling
    method: Method
    layers: tuple[int, ...]
    encoder_layers: tuple[int, ...]
    keep: Sequence[int]
    drop: Sequence[int]
    max_new_tokens: int
    seed: int
    tracing: bool | str
    features: Features | None


def check_request(
    name: str,
    family: Family,
    *,
    images: Sequence[Source],
    question: str,
    history: Sequence[tuple[str, str]],
    video: str | Path | Clip | None,
    method: str,
    ratio: float | None,
    left: float | None,
    layers: int | Sequence[int] | None,
    encoder_layers: int | Sequence[int] | None,
    max_new_tokens: int,
    seed: int,
    keep: int | Sequence[int] | None,
    drop: Sequence[int] | None,
    tracing: bool | str,
    features: Features | None,
    params: dict,
) -> Request:
    """The request that `LVLM.stream` describes, to the model `name` of a family.

    Raises:
        InputError: the first thing that cannot be answered, and what to do about it.
    """
    media = load_media(images, video, family.frames)
    if isinstance(keep, Integral) and type(keep) is not bool:  # the method's own of that name
        params, keep = params | {"keep": operator.index(keep)}, None
    _check_common(ratio, left, seed)
    if tracing not in (False, True, "full"):
        raise InputError(f"tracing must be False, True or 'full', not {tracing!r}.")
    has_ratio = methods.takes(method, "ratio")  # or InputError: there is no such method
    if not params:  # or else it is no longer the preset
        params = default_settings(method, family.presets.get(method))
    if ratio is not None and has_ratio:
        params = params | {"ratio": ratio}
    plan = methods.create(method, **params)
    _check_support(name, family, plan)
    layers = _plan_layers(plan, family, layers)
    encoder_layers = _plan_encoder_layers(plan, family, encoder_layers)
    plain = family.prepare(media)
    prepared = family.prepare(media, pooled=False) if encoder_layers else plain
    if left is not None:  # of what the model would see, which may be less than the method does
        share = min(1.0, left * (len(plain.layout) * prepared.chunk / len(prepared.layout)))
        plan = replace(plan, **plan.leaving(share, len(encoder_layers), len(layers)))
    if len(prepared.views) > MAX_PICTURES:
        raise InputError(
            f"{name} looks at these in {len(prepared.views)} views, and at most {MAX_PICTURES} are "
            f"possible: use fewer pictures or frames."
        )
    question, history = _checked_question(question), _checked_history(history)
    prompt = family.prompt(question, prepared, history)
    room = family.max_positions - _checked_answer(max_new_tokens)
    if (n_tokens := _length(prompt, prepared)) > room:
        about = "video" if media.is_video else "pictures"
        fitting = _fitting(family, media, room, question, history, pooled=not encoder_layers)
        raise InputError(
            f"The {about} and the question make {n_tokens:,} tokens, and {name} takes {room:,} "
            f"beside its answer: {_ways_to_fit(media, fitting, bool(history))}."
        )
    if features is not None and features.media not in (None, media):
        raise InputError("The features are of other pictures than the question: encode these.")
    keep, drop = _patches("keep", keep), _patches("drop", drop)
    check_forced(keep, drop, len(prepared.layout))
    if prepared.chunk > 1 and (keep or drop):
        raise InputError(
            f"{plan.title} acts inside the encoder, and in that of {name} no patches can be kept "
            f"or dropped: choose a method that acts in the decoder."
        )
    for step, patches in _first_events(plan, prepared, encoder_layers):
        check_budget(step, len(patches & {*keep}), len(patches))
    return Request(
        prepared=prepared,
        question=question,
        history=history,
        prompt=prompt,
        n_plain=len(plain.layout),
        method=plan,
        layers=layers,
        encoder_layers=encoder_layers,
        keep=keep,
        drop=drop,
        max_new_tokens=max_new_tokens,
        seed=int(seed),
        tracing=tracing,
        features=None if encoder_layers else features,  # those are of the untouched encoder
    )


def _first_events(
    method: Method, prepared: Prepared, encoder_layers: Sequence[int]
) -> Iterator[tuple[Method, set[int]]]:
    """The method as it first acts, and on which patches: on all of them, or unit by unit."""
    if not encoder_layers and "connector" not in method.sites():
        yield method, set(range(len(prepared.layout)))
        return
    for unit in prepared.unit.unique():
        patches = (prepared.unit == unit).nonzero().flatten().tolist()
        n, steps = len(patches), len(encoder_layers)
        yield method.encoder_step(n, n, steps) if steps else method, set(patches)


def loaded(
    images: Source | Iterable[Source] | None,
    video: str | Path | Clip | None,
    frames: int,
) -> dict[str, object]:
    """Arguments of `LVLM.stream` for the same media, read once for several questions.

    Takes what `load_media` takes.
    """
    if video is None:
        return {"images": load_pictures(images)}
    return {"images": images, "video": load_video(video, frames)}


def load_media(
    images: Source | Iterable[Source] | None,
    video: str | Path | Clip | None = None,
    frames: int = FRAMES,
) -> Media:
    """What a question is about: at least one picture, or one video.

    Args:
        images: as of `load_pictures`.
        video: a path, or a clip that has been loaded.
        frames: how many of the frames of a video that is not loaded yet.
    """
    if video is None:
        return Media(load_pictures(images))
    if images is not None and (not isinstance(images, Sequence) or len(images)):
        raise InputError("A question is about pictures or about one video: leave one of them out.")
    clip = load_video(video, frames)
    return Media(clip.frames, clip.times)


def load_pictures(images: Source | Iterable[Source] | None) -> list[Image.Image]:
    """Upright RGB pictures, at least one and as many as a trace can hold; one alone is fine."""
    stacked = isinstance(images, np.ndarray | Tensor) and images.ndim > 3
    alone = isinstance(images, Source | bytearray | IOBase) or not isinstance(images, Iterable)
    if images is None:
        images = ()
    elif alone and not stacked:
        images = (images,)
    images = list(images)
    if not images:
        raise InputError("There is no picture: give at least one.")
    if len(images) > MAX_PICTURES:
        raise InputError(f"These are {len(images)} pictures; at most {MAX_PICTURES} are possible.")
    return [load_image(image) for image in images]


def default_settings(method: str, preset: str | None = None) -> dict:
    """The settings of a preset but for its layers; none without a preset."""
    settings = methods.get(method).presets.get(preset, {})
    return {name: value for name, value in settings.items() if methods.takes(method, name)}


def default_layers(
    method: Method, n_layers: int, first: int = 0, preset: str | None = None
) -> tuple[int, ...]:
    """The decoder layers of a preset (by default the first), in a decoder `n_layers` deep."""
    if method.kind == "none" or "decoder" not in method.sites():
        return ()
    return scale_layers(_preset(method, "layers", preset) or (3,), n_layers, first)


def default_encoder_layers(
    method: Method, n_layers: int, last: int, preset: str | None = None
) -> tuple[int, ...]:
    """The encoder layers of the same preset, in an encoder `n_layers` deep."""
    if "encoder" not in method.sites():
        return ()
    layers = _preset(method, "encoder_layers", preset) or (4, 5, 6, 7)
    return scale_encoder_layers(layers, n_layers, last)


def scale_layers(layers: Sequence[int], n_layers: int, first: int = 0) -> tuple[int, ...]:
    """Layers of a preset, which speaks of 32 layers, in a decoder `n_layers` deep.

    Several events sit at equal parts of the depth ({7, 15, 23} of 32: a quarter, a half, three
    quarters). A single early event stays at the paper's layer in deeper models, as their tables
    have it, and moves forward in shallower ones. None comes before `first`.
    """
    if len(layers) == 1:
        return (max(first, min(layers[0], max(1, round(layers[0] * n_layers / 32)))),)
    return tuple(sorted({max(first, round((x + 1) * n_layers / 32) - 1) for x in layers}))


def scale_encoder_layers(layers: Sequence[int], n_layers: int, last: int) -> tuple[int, ...]:
    """Layers of a preset, which speaks of 24 layers, in an encoder `n_layers` deep.

    Layers in a row stay in a row.
    """
    scaled = sorted({min(last, round(x * n_layers / 24)) for x in layers})
    if all(b - a == 1 for a, b in pairwise(layers)):
        scaled = range(scaled[0], scaled[0] + len(scaled))
    return tuple(scaled)


def _preset(method: Method, name: str, preset: str | None) -> tuple[int, ...]:
    own = method.presets.get(preset, {})
    return next((each[name] for each in (own, *method.presets.values()) if name in each), ())


def _plan_layers(
    method: Method, family: Family, layers: int | Sequence[int] | None
) -> tuple[int, ...]:
    first, n_layers = family.first_layer, family.geometry.n_layers
    default = default_layers(method, n_layers, first, family.presets.get(method.name))
    return _chosen_layers(layers, default, range(first, n_layers), "Layers")


def _plan_encoder_layers(
    method: Method, family: Family, layers: int | Sequence[int] | None
) -> tuple[int, ...]:
    last = family.last_encoder_layer
    default = default_encoder_layers(
        method, len(family.encoder_layers), last, family.presets.get(method.name)
    )
    return _chosen_layers(layers, default, range(last + 1), "Encoder layers")


def _chosen_layers(
    layers: int | Sequence[int] | None, default: tuple[int, ...], allowed: range, what: str
) -> tuple[int, ...]:
    """Ascending layer numbers out of `allowed`; none where the method does not act (no default)."""
    if layers is None:
        return default
    layers = checked_layers(layers, allowed, what)
    if default and not layers:
        raise InputError(f"{what}: choose at least one.")
    return layers if default else ()


def _check_common(ratio: object, left: object, seed: object) -> None:
    """Raise InputError for what is wrong under any method, whether it uses it or not."""
    for what, share in {"ratio": ratio, "share that is left": left}.items():
        number = isinstance(share, Real) and not isinstance(share, bool)
        if share is not None and not (number and 0 <= share <= 1):  # NaN fails the comparison
            raise InputError(f"The {what} must be a number from 0.0 to 1.0, not {share!r}.")
    if ratio is not None and left is not None:
        raise InputError("Give a ratio for each event or the share that is left, not both.")
    if not _whole(seed, range(2**63)):
        raise InputError(f"The seed must be a whole number from 0 on, not {seed!r}.")


def _patches(name: str, patches: object) -> list[int]:
    """Patches to be forced, as a list; `check_forced` looks at each."""
    try:
        numbers = np.asarray([] if patches is None else list(patches))
    except (TypeError, ValueError):
        numbers = None
    if numbers is None or numbers.ndim != 1 or (len(numbers) and numbers.dtype.kind not in "iu"):
        raise InputError(
            f"{name}: give a list of patches, which are whole numbers, not {brief(patches)}."
        )
    return numbers.tolist()


def _checked_question(question: object) -> str:
    if not isinstance(question, str) or not question.strip():
        raise InputError("There is no question: type one.")
    if not is_text(question):
        raise InputError("The question has characters that no text has: type it anew.")
    if len(question) > MAX_QUESTION:
        raise InputError(
            f"The question has {len(question):,} characters; at most {MAX_QUESTION:,} are allowed."
        )
    return question


def _checked_history(history: object) -> list[tuple[str, str]]:
    try:
        turns = [(question, answer) for question, answer in history]
    except (TypeError, ValueError):
        raise InputError("The history is a list of pairs: a question, and its answer.") from None
    if len(turns) > MAX_TURNS:
        raise InputError(f"These are {len(turns)} earlier questions; at most {MAX_TURNS} may be.")
    if not all(isinstance(answer, str) and is_text(answer) for _, answer in turns):
        raise InputError("The history holds an answer that is no text.")
    return [(_checked_question(question), answer) for question, answer in turns]


def _checked_answer(max_new_tokens: object) -> int:
    if not _whole(max_new_tokens, range(1, MAX_NEW_TOKENS + 1)):
        raise InputError(f"max_new_tokens must be a whole number in 1..{MAX_NEW_TOKENS}.")
    return int(max_new_tokens)


def _whole(number: object, allowed: range) -> bool:
    """Whether something is a whole number out of `allowed`, of Python or of NumPy."""
    return isinstance(number, Integral) and type(number) is not bool and number in allowed


def _length(prompt: Prompt, prepared: Prepared) -> int:
    """How many tokens of a prompt reach the decoder, before it compresses any."""
    return len(prompt.ids) - len(prompt.visual) + len(prompt.visual) // prepared.chunk


def _fitting(
    family: Family,
    media: Media,
    room: int,
    question: str,
    history: Sequence[tuple[str, str]],
    pooled: bool,
) -> int:
    """How many of the pictures or frames, which are too many, fit with the text into `room`."""

    def length(n: int) -> int:
        prepared = family.prepare(media.first(n), pooled)
        return _length(family.prompt(question, prepared, history), prepared)

    return bisect_right(range(1, len(media.pictures)), room, key=length)


def _ways_to_fit(media: Media, fitting: int, follows: bool) -> str:
    """What to do about a prompt that is too long, where so many pictures or frames would fit."""
    what = "frames" if media.is_video else "pictures"
    ways = [f"use at most {fitting} {what}"] if fitting else []
    ways += ["begin a new conversation"] if follows else []
    return ", or ".join(ways) or "make the picture smaller, or ask less at once"


def _check_support(name: str, family: Family, method: Method) -> None:
    """Raise InputError where a method wants of the encoder what this model's does not have."""
    lack = _lack(family, method)
    if lack:
        able = [n for n in methods.names() if not _lack(family, methods.create(n))]
        raise InputError(f"{method.title} {lack} of {name}. Choose one of: {', '.join(able)}.")


def _lack(family: Family, method: Method) -> str:
    """What a method cannot have of a family's encoder; empty if all is there."""
    sites = set(method.sites())
    if "encoder" in sites and family.keeps_in_encoder:
        return f"acts inside the encoder, which is not possible ({family.keeps_in_encoder}) in that"
    if "connector" in sites and family.first_layer:
        n = family.first_layer + 1
        return f"acts before the decoder, but all tokens are needed in the first {n} layers"
    ranks = sites & {"encoder", "connector"} and "importance" in method.needs
    if ranks and method.encoder_score == "cls" and not family.has_cls:
        return "ranks patches by the attention of a CLS token, which is missing in the encoder"
    return ""
