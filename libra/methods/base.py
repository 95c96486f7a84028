"""What a compression method sees (`Tokens`) and what every method shares (`Method`)."""

import math
from abc import ABC, abstractmethod
from dataclasses import Field, dataclass, field, fields, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from libra.errors import InputError
from libra.reduction import Reduction

if TYPE_CHECKING:
    from libra.layout import TokenLayout


@dataclass
class Tokens:
    """The visual tokens at the point of reduction, and what is known about them."""

    hidden: Tensor  # [N, D]
    importance: Tensor | None = None  # [N] attention of the output token (or of CLS) to each
    keys: Tensor | None = None  # [N, Dk] attention keys
    received: Tensor | None = None  # [N] mean attention received from the image tokens
    size: Tensor | None = None  # [N] how many original tokens each stands for; None = one each
    layout: "TokenLayout | None" = None
    n_previous_compensation: int = 0  # how many of the tokens are earlier compensation tokens
    generator: torch.Generator | None = None
    text_similarity: Tensor | None = None  # [N, T] products with T instruction tokens' embeddings
    text_attention: Tensor | None = None  # [N, T] attention of each instruction token to each
    vacant: Tensor | None = None  # bool []: that token may be none, see `libra.vacancy`
    may_wait: bool = True  # False: leave open what a GPU would have to be asked, where that goes

    def __len__(self) -> int:
        return len(self.hidden)

    def scores(self, name: str) -> Tensor:
        """The field `name` in the precision of merging weights: fp32, or float64 as `hidden`."""
        return getattr(self, name).to(torch.promote_types(self.hidden.dtype, torch.float32))

    def sizes(self) -> Tensor:
        """`size` in the precision of merging weights; ones where it is not known."""
        known = self.hidden.new_ones(len(self)) if self.size is None else self.size
        return known.to(torch.promote_types(self.hidden.dtype, torch.float32))


INPUTS = {
    "hidden": "the hidden states of the visual tokens",
    "importance": "the attention of the output token (or of the CLS token) to each visual token",
    "keys": "the attention keys of the visual tokens",
    "received": "the mean attention each visual token receives from all of them",
    "text_similarity": "the products of visual and instruction tokens' embeddings",
    "text_attention": "the attention of every instruction token to each visual token",
    "layout": "the patch grid behind the visual tokens",
}
VECTORS = ("importance", "received")  # [N]; the others are [N, C]


@dataclass(frozen=True)
class Method(ABC):
    """A compression method. The dataclass fields are its parameters.

    Field metadata is read by the page, the command line and the checks here: `help`, `range`
    (inclusive bounds), `choices`, `step`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]  # one sentence
    paper: ClassVar[str]  # citation and section
    kind: ClassVar[str]  # "none", "prune", "merge"
    site: ClassVar[str] = "decoder"  # where it acts: "encoder", "connector" or "decoder"
    needs: ClassVar[tuple[str, ...]] = ()  # fields of Tokens it cannot do without
    weighs: ClassVar[bool] = False  # whether it looks at how many patches a token stands for
    renumbers: ClassVar[bool] = False  # in the decoder: whether positions are counted anew
    presets: ClassVar[dict[str, dict]] = {}  # settings "as in the paper"
    instead_of_ratio: ClassVar[tuple[str, ...]] = ()  # parameters that overrule a ratio if given

    # What it reads of an encoder's attention, where it acts before the decoder.
    encoder_layer: ClassVar[int] = -2  # at the connector: the layer; -2 gives LLaVA its features
    encoder_score: ClassVar[str] = "cls"  # importance: CLS row, "received" from all, or "either"
    joint_attention: ClassVar[bool] = False  # one head of full width instead of the mean of heads
    joint_keys: ClassVar[bool] = False  # the keys of all heads side by side instead of their mean

    def __post_init__(self):
        for parameter in fields(self):
            value = checked(self.name, parameter, getattr(self, parameter.name))
            object.__setattr__(self, parameter.name, value)

    @property
    def by_ratio(self) -> bool:
        """Whether its ratio says how many tokens stay."""
        return False

    def sites(self) -> tuple[str, ...]:
        """Where it acts: at one site or, in one request, at several."""
        return (self.site,)

    @abstractmethod
    def reduce(self, tokens: Tokens) -> Reduction:
        """Decide where the visual tokens go: a map from `len(tokens)` tokens to fewer."""

    def leaving(self, share: float, n_encoder: int, n_decoder: int) -> dict[str, float | None]:
        """The parameters with which it leaves `share` of the tokens in the end, if it removes any.

        Args:
            share: from 0 to 1; fused and compensation tokens are not counted.
            n_encoder: events inside the encoder.
            n_decoder: events inside the decoder; without any of both, one is at the connector.
        """
        return {}

    def encoder_step(self, n: int, n_first: int, n_steps: int) -> "Method":
        """The method as it acts in one of `n_steps` events inside the encoder.

        Args:
            n: tokens of the picture now.
            n_first: tokens of the picture before the first of these events.
            n_steps: number of events.
        """
        return self

    def require(self, tokens: Tokens) -> None:
        """Raise InputError for the first input this method needs and `tokens` lacks.

        Shapes are looked at, numbers are not: a GPU would have to stop for them.
        """
        for name in ("hidden", *self.needs):
            value = getattr(tokens, name)
            if value is None:
                raise InputError(f"{self.title} needs `{name}`: {INPUTS[name]}.")
            if name != "layout":
                self._require_shape(name, value)
            if len(value) != len(tokens):
                raise InputError(
                    f"{self.title}: `{name}` has {len(value)} entries for {len(tokens)} tokens."
                )

    def _require_shape(self, name: str, value: object) -> None:
        """Raise InputError for an input that is no tensor of as many dimensions as it has."""
        n, shape = (1, "[N]") if name in VECTORS else (2, "[N, C]")
        if not isinstance(value, Tensor) or value.ndim != n:
            given = [*value.shape] if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"{self.title}: `{name}` is a tensor {shape}, not {given}.")


RATIO = {"help": "share of the visual tokens to remove", "range": (0.0, 1.0), "step": 0.01}
FOLLOW = {
    "help": "where the published code and the paper differ, which of them to follow",
    "choices": ("code", "paper"),
}


@dataclass(frozen=True)
class RatioMethod(Method):
    """A method that reduces to a count: from `ratio`, or exactly `keep`.

    max(1, round(N * (1 - ratio))) tokens stay. One rule for all methods, so that the same ratio
    means the same number of tokens everywhere, and never none where there are any.
    """

    instead_of_ratio = ("keep",)

    ratio: float = field(default=0.5, metadata=RATIO)
    keep: int | None = field(
        default=None,
        metadata={
            "help": "exact number of tokens to keep, instead of a ratio",
            "range": (1, math.inf),
        },
    )

    @property
    def by_ratio(self) -> bool:
        """Whether its ratio says how many tokens stay, and no count."""
        counts = (getattr(self, name) for name in self.instead_of_ratio)
        return self.ratio is not None and all(count is None for count in counts)

    def count(self, n: int) -> int:
        """How many of `n` tokens stay; fused and compensation tokens are not counted."""
        if self.keep is not None:
            return min(self.keep, n)
        return min(n, max(1, round(n * (1 - self.ratio))))

    def keeping(self, n: int) -> "RatioMethod":
        """The same method set to keep so many tokens."""
        return replace(self, keep=n)

    def leaving(self, share: float, n_encoder: int, n_decoder: int) -> dict[str, float | None]:
        """A ratio that is the same for all events."""
        return {"ratio": 1 - share ** (1 / (n_encoder + n_decoder or 1))}

    def reduce(self, tokens: Tokens) -> Reduction:
        """Check the inputs, change nothing where nothing is to be removed, else decide."""
        self.require(tokens)
        n = self.counted(tokens)
        n_keep = self.count(n)
        return self.decide(tokens, n_keep) if n_keep < n else self.unchanged(tokens)

    @abstractmethod
    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """The method itself: reduce to `n_keep` tokens, fewer than there are."""

    def counted(self, tokens: Tokens) -> int:
        """How many of the tokens the ratio speaks of: all of them."""
        return len(tokens)

    def unchanged(self, tokens: Tokens) -> Reduction:
        """What to return when nothing is to be removed."""
        return Reduction.identity(len(tokens), tokens.hidden.device)


@dataclass(frozen=True)
class Baseline(RatioMethod):
    """A method that looks at hidden states at most, and so can act anywhere, as iLLaVA's do."""

    presets: ClassVar[dict[str, dict]] = {
        "iLLaVA, Table 7": {"ratio": 0.3, "layers": (1,)},
        "iLLaVA, Table 4": {"ratio": 0.16, "site": "encoder", "encoder_layers": (3, 4, 5, 6)},
    }

    site: str = field(
        default="decoder",
        metadata={
            "help": "where it acts",
            "choices": ("decoder", "connector", "encoder"),
        },
    )


def checked(method: str, parameter: Field, value: object) -> object:
    """One parameter, held against its metadata; `None` is fine where it is the default.

    Numbers of NumPy become Python's, which a trace can store.
    """
    if value is None and parameter.default is None:
        return value
    choices = parameter.metadata.get("choices")
    if choices is not None and value not in choices:
        options = ", ".join(map(str, choices))
        raise InputError(f"{method}: {parameter.name} must be one of {options}, not {value!r}.")
    bounds = parameter.metadata.get("range")
    if bounds is None:
        return value
    low, high = bounds
    whole = parameter.type in (int, int | None)
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not fits or not (math.isfinite(value) and low <= value <= high):
        kind = "a whole number" if whole else "a number"
        limit = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
        raise InputError(f"{method}: {parameter.name} must be {kind} {limit}, not {value!r}.")
    return int(value) if whole else float(value)
