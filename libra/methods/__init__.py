"""The registry of compression methods. A new method is one new file and one line in `METHODS`."""

import types
import typing
from collections.abc import Sequence
from dataclasses import Field, dataclass, fields

from libra.errors import InputError
from libra.methods.base import Method, RatioMethod, Tokens
from libra.methods.divprune import DivPrune
from libra.methods.evit import EViT
from libra.methods.fastervlm import FasterVLM
from libra.methods.fastv import FastV
from libra.methods.greedy import Greedy
from libra.methods.illava import ILLaVA
from libra.methods.kmeans import KMeans
from libra.methods.libra import Libra
from libra.methods.prumerge import PruMerge
from libra.methods.prumerge_plus import PruMergePlus
from libra.methods.pyramiddrop import PyramidDrop
from libra.methods.random import Random
from libra.methods.sequential import Sequential
from libra.methods.sparsevlm import SparseVLM
from libra.methods.spatial import Spatial
from libra.methods.tome import ToMe
from libra.methods.turbo import Turbo
from libra.methods.vanilla import Vanilla
from libra.methods.visionzip import VisionZip

__all__ = [
    "METHODS",
    "Method",
    "Parameter",
    "RatioMethod",
    "Tokens",
    "chosen",
    "create",
    "get",
    "names",
    "parameters",
    "takes",
    "title",
]

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Vanilla,
        FastV,
        Libra,
        Turbo,
        PyramidDrop,
        SparseVLM,
        ILLaVA,
        PruMerge,
        PruMergePlus,
        VisionZip,
        FasterVLM,
        DivPrune,
        ToMe,
        EViT,
        Greedy,
        KMeans,
        Random,
        Sequential,
        Spatial,
    )
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method, as the page and the command line need it for a control."""

    name: str
    type: type  # float, int or str
    default: object  # None = optional
    help: str
    range: tuple[float, float] | None = None  # inclusive
    choices: tuple[str, ...] | None = None
    step: float | None = None


def names() -> list[str]:
    """The names of all methods."""
    return list(METHODS)


def get(name: str) -> type[Method]:
    """The class of a method: its title, summary, paper, site, kind and presets."""
    if not isinstance(name, str) or name not in METHODS:
        raise InputError(f"There is no method {name!r}. Choose one of: {', '.join(METHODS)}.")
    return METHODS[name]


def chosen(wanted: Sequence[str]) -> list[str]:
    """The names of these methods, each once; `["all"]` stands for all.

    Raises:
        InputError: one of them is unknown.
    """
    wanted = METHODS if list(wanted) == ["all"] else dict.fromkeys(wanted)
    return [get(name).name for name in wanted]


def title(name: str) -> str:
    """The full name of a method; traces may come from programs that know more of them."""
    return METHODS[name].title if name in METHODS else name


def create(name: str, **params: object) -> Method:
    """The method `name` with the given parameters; the others have the papers' values.

    Raises:
        InputError: an unknown method or parameter, or a value out of range.
    """
    method = get(name)
    known = [f.name for f in fields(method)]
    for key in params:
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InputError(f"{name} has no parameter {key!r}; {has}.")
    return method(**params)


def parameters(name: str) -> list[Parameter]:
    """The parameters of a method, in the order in which controls should show them.

    Raises:
        TypeError: the method has a parameter of which its metadata do not say enough.
    """
    return [_parameter(name, f) for f in fields(get(name))]


def takes(name: str, parameter: str) -> bool:
    """Whether a method has a parameter of that name."""
    return any(p.name == parameter for p in parameters(name))


def _parameter(method: str, declared: Field) -> Parameter:
    """A field of a method as a parameter."""
    says, kind = declared.metadata, _plain(declared.type)
    bounds = "choices" if kind is str else "range"
    if kind not in (float, int, str) or not {"help", bounds} <= says.keys():
        raise TypeError(
            f"{method}: the parameter {declared.name}, a {declared.type!r}, must be a float or an "
            f"int with `help` and `range` in its metadata, or a str with `help` and `choices`."
        )
    return Parameter(name=declared.name, type=kind, default=declared.default, **says)


def _plain(annotation: object) -> type:
    """`float | None` -> `float`."""
    if isinstance(annotation, types.UnionType):
        return next(t for t in typing.get_args(annotation) if t is not types.NoneType)
    return annotation
