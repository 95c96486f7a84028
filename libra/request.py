"""Requests: everything that is asked for, checked before anything is computed."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from PIL import Image

from libra import methods
from libra.counterfactual import check_forced
from libra.errors import InputError
from libra.layout import TokenLayout
from libra.media import Source, load_image
from libra.methods import Method
from libra.models import Family, Features
from libra.trace import MAX_PICTURES

MAX_QUESTION = 2000  # characters
MAX_NEW_TOKENS = 512


@dataclass
class Request:
    """A checked request: all that the run needs."""

    images: list[Image.Image]
    question: str
    layout: TokenLayout  # of the N visual tokens before any event
    method: Method
    layers: tuple[int, ...]
    encoder_layers: tuple[int, ...]
    keep: Sequence[int]
    drop: Sequence[int]
    max_new_tokens: int
    seed: int
    tracing: bool
    features: Features | None


def check_request(
    name: str,
    family: Family,
    *,
    images: Sequence[Source],
    question: str,
    video: object,
    method: str,
    ratio: float | None,
    layers: Sequence[int] | None,
    encoder_layers: Sequence[int] | None,
    max_new_tokens: int,
    seed: int,
    keep: int | Sequence[int] | None,
    drop: Sequence[int] | None,
    tracing: bool,
    features: Features | None,
    params: dict,
) -> Request:
    """The request that `LVLM.stream` describes, to the model `name` of a family.

    Raises:
        InputError: the first thing that cannot be answered, and what to do about it.
    """
    if video is not None:
        raise InputError(f"{name} takes pictures, not videos.")
    pictures = load_pictures(images)
    layout = family.layout([picture.size for picture in pictures])
    _check_length(name, family, _checked_question(question), layout, max_new_tokens)
    if isinstance(keep, int):  # the method's own parameter of that name, for example of a preset
        params, keep = params | {"keep": keep}, None
    _check_common(ratio, seed)
    if ratio is not None and "ratio" in {f.name for f in fields(methods.get(method))}:
        params = {"ratio": ratio} | params
    plan = methods.create(method, **params)
    keep, drop = _patches("keep", keep), _patches("drop", drop)
    check_forced(plan, keep, drop, len(layout))
    layers = _plan_layers(plan, family, layers)
    encoder_layers = _plan_encoder_layers(plan, family, encoder_layers)
    return Request(
        images=pictures,
        question=question,
        layout=layout,
        method=plan,
        layers=layers,
        encoder_layers=encoder_layers,
        keep=keep,
        drop=drop,
        max_new_tokens=max_new_tokens,
        seed=seed,
        tracing=tracing,
        features=None if encoder_layers else features,  # those are of the untouched encoder
    )


def load_pictures(images: Source | Sequence[Source] | None) -> list[Image.Image]:
    """Upright RGB pictures, at least one and as many as a trace can hold; a path alone is one."""
    if isinstance(images, str | Path | bytes | Image.Image):
        images = [images]
    if images is None or len(images) == 0:
        raise InputError("There is no picture: give at least one.")
    if len(images) > MAX_PICTURES:
        raise InputError(f"These are {len(images)} pictures; at most {MAX_PICTURES} are possible.")
    return [load_image(image) for image in images]


def default_layers(method: Method, n_layers: int) -> tuple[int, ...]:
    """The decoder layers of a method's first preset, in a decoder `n_layers` deep."""
    if method.kind == "none" or "decoder" not in method.sites():
        return ()
    return scale_layers(_preset(method, "layers") or (3,), n_layers)


def default_encoder_layers(method: Method, n_layers: int, last: int) -> tuple[int, ...]:
    """The encoder layers of a method's first preset, in an encoder `n_layers` deep."""
    if "encoder" not in method.sites():
        return ()
    return scale_encoder_layers(_preset(method, "encoder_layers") or (4, 5, 6, 7), n_layers, last)


def scale_layers(layers: Sequence[int], n_layers: int) -> tuple[int, ...]:
    """Layers of a preset, which speaks of 32 layers, in a decoder `n_layers` deep.

    Several events sit at equal parts of the depth ({7, 15, 23} of 32: a quarter, a half, three
    quarters). A single early event stays at the paper's layer in deeper models, as their tables
    have it, and moves forward in shallower ones.
    """
    if len(layers) == 1:
        return (min(layers[0], max(1, round(layers[0] * n_layers / 32))),)
    return tuple(sorted({max(0, round((x + 1) * n_layers / 32) - 1) for x in layers}))


def scale_encoder_layers(layers: Sequence[int], n_layers: int, last: int) -> tuple[int, ...]:
    """Layers of a preset, which speaks of 24 layers, in an encoder `n_layers` deep."""
    return tuple(sorted({min(last, round(x * n_layers / 24)) for x in layers}))


def _preset(method: Method, name: str) -> tuple[int, ...]:
    return next((preset[name] for preset in method.presets.values() if name in preset), ())


def _plan_layers(method: Method, family: Family, layers: Sequence[int] | None) -> tuple[int, ...]:
    default = default_layers(method, family.geometry.n_layers)
    return _chosen_layers(layers, default, family.geometry.n_layers - 1, "Layers")


def _plan_encoder_layers(
    method: Method, family: Family, layers: Sequence[int] | None
) -> tuple[int, ...]:
    last = family.last_encoder_layer
    default = default_encoder_layers(method, len(family.encoder_layers), last)
    return _chosen_layers(layers, default, last, "Encoder layers")


def _chosen_layers(
    layers: Sequence[int] | None, default: tuple[int, ...], last: int, what: str
) -> tuple[int, ...]:
    """Ascending layer numbers out of 0..last; none where the method does not act (no default)."""
    if layers is None:
        return default
    try:
        layers = tuple(operator.index(layer) for layer in layers)
    except TypeError:
        raise InputError(f"{what} must be whole numbers, for example 1, 3, 5.") from None
    if default and not layers:
        raise InputError(f"{what}: choose at least one.")
    if any(not 0 <= layer <= last for layer in layers):
        raise InputError(f"{what} must lie in 0..{last}, but these are {list(layers)}.")
    if list(layers) != sorted(set(layers)):
        raise InputError(f"{what} must ascend without repeats, but these are {list(layers)}.")
    return layers if default else ()


def _check_common(ratio: object, seed: object) -> None:
    """Raise InputError for what is wrong under any method, whether it uses it or not."""
    number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
    if ratio is not None and not (number and 0 <= ratio <= 1):  # NaN fails the comparison
        raise InputError(f"The ratio must be a number from 0.0 to 1.0, not {ratio!r}.")
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise InputError(f"The seed must be a whole number from 0 on, not {seed!r}.")


def _patches(name: str, patches: object) -> list[int]:
    """Patches to be forced, as a list; `check_forced` looks at each."""
    try:
        return list(patches or ())
    except TypeError:
        raise InputError(f"{name}: give a list of patches, not {patches!r}.") from None


def _checked_question(question: object) -> str:
    if not isinstance(question, str) or not question.strip():
        raise InputError("There is no question: type one.")
    if len(question) > MAX_QUESTION:
        raise InputError(
            f"The question has {len(question):,} characters; at most {MAX_QUESTION:,} are allowed."
        )
    return question


def _check_length(
    name: str, family: Family, question: str, layout: TokenLayout, max_new_tokens: int
) -> None:
    """Raise InputError where prompt and answer together exceed what the model takes."""
    if type(max_new_tokens) is not int or not 1 <= max_new_tokens <= MAX_NEW_TOKENS:
        raise InputError(f"max_new_tokens must be a whole number in 1..{MAX_NEW_TOKENS}.")
    ids, _ = family.prompt(question, layout.image.bincount().tolist())
    if len(ids) + max_new_tokens > family.max_positions:
        raise InputError(
            f"The pictures and this question make {len(ids)} tokens, more than the "
            f"{family.max_positions} that {name} takes: use fewer pictures."
        )
