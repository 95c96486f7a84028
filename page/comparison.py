"""Several answers to one question, held against each other. Pure functions, no components."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import median

from PIL import Image

import viz
from libra import methods
from libra.reduction import Fate
from libra.trace import Trace
from page import legends, texts, views
from page.shown import Result
from viz.heat import stage_at
from viz.panel import folded, headed, named, wrapped

LAST = -1  # the position at which every method has done all of its steps
PATCH = 20  # pixels per patch in a picture of a comparison
COLUMNS = 4  # of the pictures in one file


def reference(results: Sequence[Result]) -> Trace | None:
    """The answer that the others are held against: vanilla's, or else the first one."""
    traces = [result.trace for result in results if result.trace is not None]
    return next((t for t in traces if t.method == "vanilla"), traces[0] if traces else None)


def positions(traces: Sequence[Trace]) -> list[tuple[str, int]]:
    """(label, position) on the way from no compression to all of it, in the most steps taken."""
    steps = max((len(trace.events) for trace in traces), default=0)
    between = [(f"Step {i}", i) for i in range(1, steps)]
    return [("Before", 0), *between, ("Last", LAST)]


def stage_of(trace: Trace, position: int, traces: Sequence[Trace]) -> int:
    """The stage of one trace at a position of all: as far along its own steps, the last at last."""
    steps, own = max(len(t.events) for t in traces), len(trace.events)
    if position == LAST or position >= steps:
        return own
    return int(position * own / steps + 0.5)


def _fates(traces: Sequence[Trace], stages: Sequence[int], image: int) -> set[Fate]:
    """What has become of the patches of one picture in any of the answers."""
    fates = set()
    for trace, stage in zip(traces, stages, strict=True):
        here = trace.layout.of_picture(image)
        fates.update(map(Fate, trace.lineage(stage).fate()[here].unique().tolist()))
    return fates


@dataclass(frozen=True)
class View:
    """Every trace of a comparison under one overlay: pictures, what they show, their legend."""

    draw: list[Callable[..., Image.Image]]
    captions: list[str]
    stages: list[int]
    legend: str
    image: int = 0

    @cached_property
    def pictures(self) -> list[Image.Image]:
        """The pictures as the page shows them: one legend stands below all."""
        return [draw(legend=False) for draw in self.draw]

    @classmethod
    def of(cls, traces: Sequence[Trace], overlay: str, position: int, image: int = 0) -> "View":
        """All traces at one position, each with the same one of its pictures.

        Heat maps show one decoder layer on one scale: the layer that belongs to this position in
        the method that compresses in the most steps, and the median of the methods' own scales,
        because the few tokens of a strong compression would leave all other pictures black.
        """
        if not traces:
            return cls([], [], [], "")
        stages = [stage_of(trace, position, traces) for trace in traces]
        options = {"patch": PATCH, "image": image}
        legend = legends.marks(overlay, _fates(traces, stages, image))
        if overlay in texts.HEAT:
            leader = max(traces, key=lambda trace: len(trace.events))
            layer = views.deciding_layer(leader, stage_of(leader, position, traces))
            vmax = median(viz.heat_scale([viz.attention_row(trace, layer)]) for trace in traces)
            stages = [stage_at(trace, layer) for trace in traces]
            options |= {"layer": layer, "vmax": vmax}
            marks = legends.heat(_fates(traces, stages, image))
            legend = legends.scale(vmax, f"{marks}<li>layer {layer}</li>", clipped=True)
        seen = list(zip(traces, stages, strict=True))
        return cls(
            [partial(views.picture, trace, overlay, stage, **options) for trace, stage in seen],
            [views.stage_caption(trace, stage, image) for trace, stage in seen],
            stages,
            legend,
            image,
        )

    def sheet(self, traces: Sequence[Trace]) -> str:
        """All pictures with their legends in one PNG file, below the question.

        The method, its stage and its answer stand above each.
        """
        cards = [draw() for draw in self.draw]
        titles = [
            f"{methods.title(trace.method)} · {caption}\n{folded(trace.answer, card.width, 3)}"
            for trace, caption, card in zip(traces, self.captions, cards, strict=True)
        ]
        sheet = named(wrapped(cards, titles, COLUMNS), traces[0], self.image)
        sheet = headed(sheet, traces[0].question)
        return views.save_png(sheet, "comparison")
