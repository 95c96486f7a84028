"""The gallery: every figure that one trace gives, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from matplotlib.figure import Figure
from PIL import Image

from libra import methods
from libra.detail import MAX_PAIRED
from libra.reduction import Fate
from libra.trace import Trace
from viz.accuracy import EVALUATED, accuracy
from viz.attention_matrix import attention_matrix
from viz.cls import cls_distribution
from viz.compensation import compensation_lens
from viz.costs import cost_bars
from viz.encoder import encoder_attention
from viz.fates import LOOKS, fate_map, sample
from viz.groups import LOST, group_colours, group_map
from viz.heads import attention_heads
from viz.heat_panels import attention_per_word, attention_through_layers
from viz.intervals import interval_strip
from viz.marks import with_legend
from viz.masks import merging_masks
from viz.panel import PATCH, through_stages
from viz.paper import selected_through_model
from viz.retention import retention
from viz.sampling import sampling_panel
from viz.selection import selected
from viz.similarity import similarity_histogram
from viz.staircase import staircase
from viz.strip import strips
from viz.times import time_shares

NEEDS: dict[str, tuple[Callable[[Trace], bool], str]] = {
    "events": (lambda trace: bool(trace.events), "a compression method"),
    "attention": (lambda trace: bool(trace.importance), "attention rows"),
    "similarity": (
        lambda trace: any("similarity" in e.reduction.evidence for e in trace.events),
        "a method that merges by similarity",
    ),
    "intervals": (
        lambda trace: any("interval" in e.reduction.evidence for e in trace.events[:1]),
        "a method that cuts the sequence into intervals",
    ),
    "pictures": (
        lambda trace: len(trace.images) > 1,
        "several pictures or a video",
    ),
    "cls_attention": (
        lambda trace: trace.cls_attention is not None,
        "the CLS token's attention to all patches (an encoder that has one, tracing, and no "
        "method inside the encoder)",
    ),
    "compensation": (
        lambda trace: trace.sums_up,
        "an extra token that sums up others",
    ),
    "evaluation": (lambda trace: trace.model in EVALUATED, "a model that has been evaluated"),
    "detail": (lambda trace: trace.detail is not None, "full tracing"),
    "encoder": (
        lambda trace: bool(trace.detail and trace.detail.encoder),
        "full tracing of an encoder that can be watched layer by layer",
    ),
    "raw": (
        lambda trace: (
            trace.detail and all(m.raw is not None for m in trace.detail.matrices.values())
        ),
        f"full tracing of at most {MAX_PAIRED:,} tokens",
    ),
}


@dataclass(frozen=True)
class FigureSpec:
    """One figure of the gallery."""

    name: str
    title: str
    explanation: str  # one line, for someone who sees it for the first time
    function: Callable[..., Image.Image | Figure]
    needs: tuple[str, ...] = ()  # keys of NEEDS
    of_picture: bool = False  # whether the function can be asked for one `image` of several
    wide: bool = False  # whether it needs the whole width of a page to be read
    lines: bool = False  # whether it is all lines and bars, which a dark page may turn over
    chart: bool = False  # whether it is a chart that is not, with the smaller text of charts

    def draw(self, trace: Trace, image: int) -> Image.Image | Figure:
        """The figure of one of the trace's pictures, or of all where it knows no single one."""
        return self.function(trace, image=image) if self.of_picture else self.function(trace)

    def missing(self, trace: Trace) -> str | None:
        """Why this trace cannot give the figure, as a sentence; None if it can."""
        lacking = [what for test, what in map(NEEDS.__getitem__, self.needs) if not test(trace)]
        return f"This figure needs {' and '.join(lacking)}." if lacking else None


def _stages(
    draw: Callable[..., Image.Image], looks: Sequence[Fate] = (), **options
) -> Callable[..., Image.Image]:
    """A panel of one picture overlay through all stages, with the names of its looks below.

    It shows one `image`, or a row for each.
    """

    def panel(trace: Trace, image: int | None = None) -> Image.Image:
        pictures = through_stages(trace, partial(draw, patch=PATCH, **options), image)
        stages = range(len(trace.events) + 1)
        here = slice(None) if image is None else trace.layout.image == image
        there = torch.cat([trace.lineage(stage).fate()[here] for stage in stages]).unique().tolist()
        keys = [(sample(fate), LOOKS[fate].name) for fate in looks if fate in there]
        return with_legend(pictures, keys)

    return panel


def _titled(trace: Trace) -> dict[str, Trace]:
    """The trace under the name that its method has in figures."""
    return {methods.title(trace.method): trace}


def _labelled_groups(mode: str, trace: Trace, image: int | None = None) -> Image.Image:
    """Group maps of all stages, whose common colours are found once."""
    colours = group_colours(trace, mode)
    return _stages(group_map, LOST, mode=mode, colours=colours, legend=False)(trace, image)


FIGURES = {
    spec.name: spec
    for spec in (
        FigureSpec(
            "fate_map",
            "Where the patches went",
            "Outlined patches are kept; blue ones were merged into them; grey hatched ones are "
            "summed up in an extra token; dark hatched ones were dropped.",
            _stages(fate_map, tuple(LOOKS), legend=False),
            of_picture=True,
            wide=True,
        ),
        FigureSpec(
            "group_map",
            "Merge groups, in their mean colour",
            "All patches that became one token share its mean colour: what the decoder still sees.",
            _stages(group_map, LOST, mode="mean", legend=False),
            of_picture=True,
            wide=True,
        ),
        FigureSpec(
            "group_map_label",
            "Merge groups, told apart",
            "Same colour = merged. Touching groups differ, and a group keeps its colour.",
            partial(_labelled_groups, "label"),
            of_picture=True,
            wide=True,
        ),
        FigureSpec(
            "group_map_hue",
            "Merge groups, a hue each",
            "Every group has a hue of its own, which it keeps.",
            partial(_labelled_groups, "hue"),
            of_picture=True,
            wide=True,
        ),
        FigureSpec(
            "selected",
            "Selected tokens",
            "The patches whose place in the sequence lives on, at full brightness.",
            _stages(selected),
            of_picture=True,
            wide=True,
        ),
        FigureSpec(
            "selected_flat",
            "Selected tokens on a flat ground",
            "As PruMerge prints them: all that is not kept becomes one flat colour, its mean.",
            _stages(selected, mode="flat"),
            of_picture=True,
            wide=True,
        ),
        FigureSpec(
            "selected_through_model",
            "Selected through the model",
            "The picture, what the encoder leaves of it, and what is left after the last layer.",
            selected_through_model,
            wide=True,
            chart=True,
        ),
        FigureSpec(
            "merging_masks",
            "Step by step, as masks",
            "Red patches are kept after each step, hatched ones not; framed ones, where there "
            "are any, collect others.",
            merging_masks,
            ("events",),
            of_picture=True,
            wide=True,
        ),
        FigureSpec(
            "retention",
            "Retention, picture by picture",
            "How much of each picture or frame is kept: the bars shrink with every step.",
            retention,
            ("events", "pictures"),
            lines=True,
        ),
        FigureSpec(
            "sampling_panel",
            "Beside blind sampling",
            "The method's own choice, as many patches in sequence, and the evenly spread grids of "
            "PruMerge's Figure 4, with the number of patches in each.",
            sampling_panel,
            ("events",),
            of_picture=True,
        ),
        FigureSpec(
            "attention_through_layers",
            "Attention, layer by layer",
            "What the token that produces the first word looks at, on one scale for all layers.",
            attention_through_layers,
            ("attention",),
            of_picture=True,
            wide=True,
        ),
        FigureSpec(
            "attention_per_word",
            "Attention, word by word",
            "What the model looks at for each word of the answer, at the layer that looks most, on "
            "the scale of all layers.",
            attention_per_word,
            ("attention",),
            of_picture=True,
        ),
        FigureSpec(
            "attention_heads",
            "Attention, head by head",
            "The prompt's last token through the eyes of each head, in a layer that decides.",
            attention_heads,
            ("detail",),
            of_picture=True,
            wide=True,
        ),
        FigureSpec(
            "attention_matrix",
            "Who looks at whom",
            "Rows look at columns: system prompt, picture, instruction and output, on a log scale.",
            attention_matrix,
            ("detail",),
            wide=True,
            chart=True,
        ),
        FigureSpec(
            "attention_matrix_raw",
            "Who looks at whom, token by token",
            "The same with one cell per token, not averaged.",
            partial(attention_matrix, raw=True),
            ("raw",),
            wide=True,
            chart=True,
        ),
        FigureSpec(
            "encoder_attention",
            "Attention inside the encoder",
            "How much attention each patch receives before the decoder, from shallow to deep.",
            encoder_attention,
            ("encoder",),
            of_picture=True,
            wide=True,
        ),
        FigureSpec(
            "compensation_lens",
            "The extra token",
            "Which patches it sums up, and how much it is attended to later.",
            compensation_lens,
            ("compensation", "attention"),
            of_picture=True,
            chart=True,
        ),
        FigureSpec(
            "token_strip",
            "Token strip",
            "The sequence of visual tokens stage by stage: full bars are kept, half bars merged, "
            "low ones summed up in an extra token, stubs dropped.",
            strips,
            wide=True,
        ),
        FigureSpec(
            "interval_strip",
            "Targets and merging, token by token",
            "In each interval the most important token wins; similar tokens merge into a winner, "
            "dissimilar ones into the compensation token.",
            interval_strip,
            ("intervals",),
            wide=True,
            chart=True,
        ),
        FigureSpec(
            "staircase",
            "Visual tokens per layer",
            "How many visual tokens each decoder layer has to process.",
            lambda trace: staircase(_titled(trace)),
            lines=True,
        ),
        FigureSpec(
            "cost_bars",
            "What the answer cost",
            "FLOPs and KV cache of the visual tokens beside the plain model, and measured time.",
            lambda trace: cost_bars(_titled(trace)),
            lines=True,
            wide=True,
        ),
        FigureSpec(
            "time_shares",
            "Where the time goes",
            "Encoder, connector, prefill and decoding as shares of the answer's measured time.",
            lambda trace: time_shares(_titled(trace)),
            lines=True,
        ),
        FigureSpec(
            "similarity_histogram",
            "Similarity to the best target",
            "Tokens to the right of tau resemble a target enough to be merged into it.",
            similarity_histogram,
            ("similarity",),
            lines=True,
        ),
        FigureSpec(
            "cls_distribution",
            "CLS attention",
            "How much the encoder's summary token looks at each patch; PruMerge selects above the "
            "dashed fence.",
            cls_distribution,
            ("cls_attention",),
            lines=True,
            wide=True,
        ),
        FigureSpec(
            "accuracy",
            "Accuracy against FLOPs",
            "How often this model is right under every method, at two or more ratios, on held-out "
            "questions of all kinds together; the bars are 95 % intervals.",
            accuracy,
            ("evaluation",),
            lines=True,
        ),
    )
}
