"""A sweep: one question under one method, at every ratio after every layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from statistics import median
from typing import TYPE_CHECKING

from libra import methods
from libra.errors import InputError
from libra.prefills import QUICK, TURNS, prefill
from libra.request import loaded, scale_layers
from libra.trace import Trace

if TYPE_CHECKING:
    from libra.lvlm import LVLM

_SHARED = ("question", "max_new_tokens", "seed")  # what vanilla is asked, too
RATIOS = (0.25, 0.5, 0.75, 0.9)
LAYERS = (3, 7, 15, 23)  # of 32
MAX_SETTINGS = 100


@dataclass(frozen=True)
class Setting:
    """What one answer of a sweep was given; vanilla has ratio 0 and no layer."""

    ratio: float
    layer: int | None  # the only decoder layer that reduces; None where the method has none


@dataclass(frozen=True)
class Row:
    """One setting and what came of it, beside vanilla."""

    setting: Setting
    answer: str
    same: bool  # as vanilla's answer
    tokens: int  # that the last layer processes
    flops_share: float
    kv_share: float
    prefill_s: float  # the median, where it was measured more than once
    prefill_share: float  # of vanilla's, run in turns with it; the median, too
    total_s: float
    measured_on: str = ""
    model: str = ""
    method: str = ""
    question: str = ""
    steps: int = 1  # in which tokens were removed
    prefill_low: float | None = None  # the least and the greatest share that was measured
    prefill_high: float | None = None

    @classmethod
    def of(cls, setting: Setting, trace: Trace, vanilla: Trace, shares: Sequence[float]) -> Row:
        """The row of an answer beside that of vanilla, with the prefill's measured shares of it."""
        return cls(
            setting=setting,
            answer=trace.answer,
            same=trace.answer == vanilla.answer,
            tokens=trace.counts[-1],
            flops_share=trace.cost.flops / trace.cost.vanilla_flops,
            kv_share=trace.cost.kv_bytes / trace.cost.vanilla_kv_bytes,
            prefill_s=trace.timings.prefill,
            prefill_share=median(shares),
            total_s=trace.timings.total,
            measured_on=trace.timings.where,
            model=trace.model,
            method=trace.method,
            question=trace.question,
            steps=len(trace.events),
            prefill_low=min(shares),
            prefill_high=max(shares),
        )

    def facts(self) -> dict:
        """As plain values, for a table."""
        values = {name: value for name, value in vars(self).items() if name != "setting"}
        return {"ratio": self.setting.ratio, "layer": self.setting.layer, **values}


def settings(
    method: str,
    n_layers: int,
    ratios: Sequence[float] = RATIOS,
    layers: int | Sequence[int] = (),
    first_layer: int = 0,
) -> list[Setting]:
    """Vanilla, then every ratio after every layer, each layer alone.

    Args:
        method: a name; one that does not act in the decoder has no layers to choose.
        n_layers: depth of the decoder.
        ratios: shares of the visual tokens to remove.
        layers: decoder layers, or one; by default four over the depth.
        first_layer: the first decoder layer after which tokens can be reduced.

    Raises:
        InputError: a method without a ratio, no ratio, or too many settings.
    """
    if not methods.takes(method, "ratio"):
        title = methods.title(method)
        raise InputError(f"{title} has no ratio to sweep over: choose another method.")
    ratios = tuple(ratios)
    layers = (layers,) if isinstance(layers, Integral) else tuple(layers)
    if not ratios:
        raise InputError("There is no ratio to sweep over: give at least one, for example 0.5.")
    if len(set(layers)) < len(layers):
        raise InputError(f"A layer is enough once, but these are {', '.join(map(str, layers))}.")
    inside = "decoder" in methods.create(method).sites()
    chosen = (layers or scale_layers(LAYERS, n_layers, first_layer)) if inside else (None,)
    if len(ratios) * len(chosen) > MAX_SETTINGS:
        raise InputError(
            f"{len(ratios)} ratios after {len(chosen)} layers are more than {MAX_SETTINGS} "
            f"settings: choose fewer."
        )
    return [Setting(0.0, None), *(Setting(r, layer) for layer in chosen for r in ratios)]


def sweep(
    lvlm: LVLM, method: str, chosen: Sequence[Setting], **request: object
) -> Iterator[tuple[Row, Trace]]:
    """Answer under one setting after the other, vanilla first.

    Each pair is what came of a setting, and its trace. A short prefill is measured three times, in
    turns with vanilla's, because a machine is not always equally fast: its time is the median. The
    encoder runs once, unless the method acts there; an answer that is not measured comes first,
    because first runs are slow.

    Args:
        lvlm: the model.
        method: a name.
        chosen: see `settings`.
        request: images or video, question and further arguments of `LVLM.stream`; parameters of
            the method are its own.

    Raises:
        InputError: what cannot be answered, or a parameter that would overrule every ratio.
    """
    for name in methods.get(method).instead_of_ratio:
        if isinstance(request.get(name), Integral):  # patches to keep are a list
            raise InputError(f"A sweep is over ratios, which {name} overrules: leave it out.")
    media = loaded(request.get("images", ()), request.get("video"), lvlm.family.frames)
    shared = media | {name: request[name] for name in _SHARED if name in request}
    plain = shared | {"method": "vanilla", "tracing": False}
    requests = [plain, *(request | plain | _own(method, setting) for setting in chosen[1:])]
    for each in requests:
        lvlm.stream(**each)  # checks it, and runs nothing
    lvlm.answer(**plain | {"max_new_tokens": 1})
    features = {"features": lvlm.encode(**media)}
    plain, vanilla = plain | features, None
    for setting, each in zip(chosen, requests, strict=True):
        each = each | features
        trace = lvlm.answer(**each).trace
        vanilla = vanilla or trace
        turns = TURNS if trace.timings.prefill < QUICK else 1  # one alone would be mostly noise
        times = [(trace.timings.prefill, prefill(lvlm, plain))]
        times += [(prefill(lvlm, each), prefill(lvlm, plain)) for _ in range(turns - 1)]
        trace.timings.prefill, trace.timings.turns = median(ours for ours, _ in times), turns
        shares = [1.0] if trace is vanilla else [ours / theirs for ours, theirs in times]
        yield Row.of(setting, trace, vanilla, shares), trace


def _own(method: str, setting: Setting) -> dict:
    """The arguments of one setting."""
    own = {"method": method, "ratio": setting.ratio}
    return own if setting.layer is None else own | {"layers": (setting.layer,)}
