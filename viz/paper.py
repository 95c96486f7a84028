"""Panels as printed in the papers: pictures, questions and answers, with text as vectors.

Each function returns a matplotlib Figure for `viz.save` to PNG, SVG or PDF.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from matplotlib.figure import Figure
from PIL import Image

from libra.errors import InputError
from libra.reduction import Fate
from libra.trace import Trace
from viz.canvas import Canvas
from viz.colour import CARD, INK, RIGHT, WRONG
from viz.fates import fate_map
from viz.groups import group_map
from viz.marks import to_image
from viz.selection import selected
from viz.style import DPI, SMALL

WIDTH, GAP, LINE = 2.5, 0.12, 0.19  # inches: a picture, the space between, a line of text
LETTERS = 34  # of text in the width of a picture


@dataclass(frozen=True)
class _Cell:
    """A picture and the words below it."""

    picture: Image.Image
    words: str
    colour: str = INK


def compare_merging(
    samples: Sequence[dict[str, Trace]], truths: Sequence[str] = (), mode: str = "label"
) -> Figure:
    """Libra-Merging Fig. A: a row per question, the picture, and the merge groups of each method.

    Args:
        samples: per row the traces of one question, by the name of their method.
        truths: the right answer of each row, to tick answers off; () = none is known.
        mode: of `group_map`, or "fate" for fate maps.
    """
    if not samples or not all(samples):
        raise InputError("A comparison needs at least one trace in each row.")
    if truths and len(truths) != len(samples):
        raise InputError(f"There are {len(samples)} rows but {len(truths)} right answers.")
    rows, headings = [], []
    for traces, truth in zip(samples, truths or [None] * len(samples), strict=True):
        first = next(iter(traces.values()))
        row = [_Cell(to_image(Canvas.of(first).pixels), f"answer: {truth}" if truth else "")]
        for name, trace in traces.items():
            words, colour = _marked(f"{name}: {trace.answer}", trace.answer, truth)
            row.append(_Cell(_last_map(trace, mode), words, colour))
        rows.append(row)
        headings.append(first.question)
    return _panel(rows, headings)


def selected_tokens(traces: dict[str, Trace], mode: str = "dim") -> Figure:
    """PruMerge Fig. 1b and 3b: a picture per trace and the tokens selected from it."""
    rows = [
        [
            _Cell(to_image(Canvas.of(trace).pixels), ""),
            _Cell(
                selected(trace, len(trace.events), mode=mode),
                f"{name}: {_kept(trace, len(trace.events))}",
            ),
        ]
        for name, trace in traces.items()
    ]
    return _panel(rows, [""] * len(rows))


def selected_through_model(*traces: Trace) -> Figure:
    """iLLaVA Fig. 6: raw, kept after the encoder, kept after the decoder; a row per picture."""
    rows = []
    for trace in traces:
        encoder = sum(event.site != "decoder" for event in trace.events)
        for image in range(len(trace.images)):
            row = [_Cell(to_image(Canvas.of(trace, image).pixels), "picture")]
            for stage, where in ((encoder, "encoder"), (len(trace.events), "decoder")):
                words = f"after the {where}: {_kept(trace, stage, image)}"
                row.append(_Cell(selected(trace, stage, image), words))
            rows.append(row)
    return _panel(rows, [""] * len(rows))


def _last_map(trace: Trace, mode: str) -> Image.Image:
    """The map of the last stage."""
    if mode == "fate":
        return fate_map(trace, len(trace.events), legend=False)
    return group_map(trace, len(trace.events), mode=mode, legend=False)


def _marked(words: str, answer: str, truth: str | None) -> tuple[str, str]:
    """An answer with a tick or a cross, and its colour."""
    if truth is None:
        return words, INK
    right = answer.strip().lower() == truth.strip().lower()
    return f"{words} {'✓' if right else '✗'}", RIGHT if right else WRONG


def _kept(trace: Trace, stage: int, image: int = 0) -> str:
    """How many of a picture's patches are kept at a stage."""
    fate = trace.lineage(stage).fate()
    tokens = Canvas.of(trace, image, patch=4).tokens
    return f"{int((fate[tokens] == Fate.KEPT).sum())} tokens"


def _panel(rows: Sequence[Sequence[_Cell]], headings: Sequence[str]) -> Figure:
    """Rows of pictures of equal width, a heading above each row, words below each picture."""
    columns = max(map(len, rows))
    words = [[wrap(cell.words, LETTERS) for cell in row] for row in rows]
    tall = [max(WIDTH * cell.picture.height / cell.picture.width for cell in row) for row in rows]
    top = [LINE * 1.6 * bool(heading) for heading in headings]
    below = [LINE * max(map(len, lines)) for lines in words]
    height = sum(tall) + sum(top) + sum(below) + GAP * (2 * len(rows) + 1)
    width = columns * (WIDTH + GAP) + GAP
    figure = Figure((width, height), dpi=DPI, facecolor=CARD)
    y = height - GAP
    for row, lines, heading, t, h, b in zip(rows, words, headings, top, tall, below, strict=True):
        figure.text(GAP / width, (y - LINE) / height, heading, fontsize=SMALL + 2, color=INK)
        y -= t + h
        for i, (cell, text) in enumerate(zip(row, lines, strict=True)):
            x = GAP + i * (WIDTH + GAP)
            own = WIDTH * cell.picture.height / cell.picture.width
            ax = figure.add_axes((x / width, (y + h - own) / height, WIDTH / width, own / height))
            ax.set_axis_off()
            ax.imshow(cell.picture, aspect="auto")
            figure.text(
                x / width,
                (y - GAP / 2) / height,
                "\n".join(text),
                fontsize=SMALL,
                color=cell.colour,
                va="top",
            )
        y -= b + 2 * GAP
    return figure
