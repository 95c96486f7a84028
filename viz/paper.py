"""Panels as printed in the papers: pictures, questions and answers, with text as vectors.

Each function returns a matplotlib Figure for `viz.save` to PNG, SVG or PDF.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from libra import methods
from libra.errors import InputError
from libra.reduction import Fate
from libra.trace import Trace, at_layers
from viz.canvas import Canvas
from viz.colour import CARD, INK, RIGHT, WRONG
from viz.fates import fate_map
from viz.groups import group_map
from viz.marks import percent, to_image
from viz.panel import own_extras, with_extra
from viz.retention import place
from viz.selection import selected
from viz.style import DPI, SMALL

WIDTH, GAP, LINE = 2.5, 0.12, 0.19  # inches: a picture, the space between, a line of text
LETTERS = 34  # of text in the width of a picture
MOST = 6  # pictures of a trace side by side, evenly spread over all


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
    return _panel(rows, headings, [trace for traces in samples for trace in traces.values()])


def selected_tokens(traces: dict[str, Trace], mode: str = "dim") -> Figure:
    """PruMerge Fig. 1b and 3b: a row per picture, with the tokens that each trace selects of it."""
    rows, shown = [], None
    for name, trace in traces.items():
        if not np.array_equal(shown, trace.images[0]):
            shown = trace.images[0]
            rows.append([_Cell(to_image(Canvas.of(trace).pixels), "")])
        last = len(trace.events)
        rows[-1].append(_Cell(selected(trace, last, mode=mode), f"{name}: {_kept(trace, last)}"))
    return _panel(rows, [""] * len(rows), traces.values())


def selected_through_model(*traces: Trace) -> Figure:
    """iLLaVA Fig. 6: raw, kept after the encoder, kept after the decoder.

    A row per trace; of several pictures or the frames of a video, three rows with a column each.
    """
    rows = [row for trace in traces for row in _through_model(trace)]
    return _panel(rows, [""] * len(rows), traces, map(_left_out, traces))


def _shown(trace: Trace) -> list[int]:
    """The pictures that have room side by side."""
    n = len(trace.images)
    return sorted({round(i * (n - 1) / (MOST - 1)) for i in range(MOST)})


def _left_out(trace: Trace) -> str:
    """That not all pictures are shown, if so."""
    n, what = len(trace.images), "pictures" if trace.times is None else "frames"
    return f"{MOST} of {n} {what}, evenly spread" if n > MOST else ""


def _through_model(trace: Trace) -> list[list[_Cell]]:
    """The rows of one trace."""
    n, images = len(trace.images), _shown(trace)
    encoder = sum(event.site != "decoder" for event in trace.events)
    names = ["picture" if n == 1 else place(trace, i) for i in images]
    whole = [to_image(Canvas.of(trace, i).pixels) for i in images]
    rows = [[_Cell(*cell) for cell in zip(whole, names, strict=True)]]
    for stage, where in ((encoder, "encoder"), (len(trace.events), "decoder")):
        words = [f"after the {where}: {_kept(trace, stage, i)}" for i in images]
        pictures = [selected(trace, stage, i) for i in images]
        rows.append([_Cell(*cell) for cell in zip(pictures, words, strict=True)])
    return rows if n > 1 else [[cell for row in rows for cell in row]]


def settings(trace: Trace) -> str:
    """What a caption says of a trace: the method, where it removes tokens, and how many."""
    parts = [methods.title(trace.method)]
    for site, where in (("encoder", "inside encoder layer"), ("decoder", "after layer")):
        events = [event for event in trace.events if event.site == site]
        if not events:
            continue
        first, last = events[0].reduction, events[-1].reduction
        rate = f"R = {percent(trace.ratio)}"
        if site == "encoder":  # where a method may have a ratio of its own
            rate = f"{percent(1 - last.n_kept / first.n_in)} in all"
        parts.append(f"{rate} {at_layers(where, [event.layer for event in events])}")
    if any(event.site == "connector" for event in trace.events):
        parts.append(f"R = {percent(trace.ratio)} before the decoder")
    return ", ".join(parts)


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
    """How many of a picture's patches are kept at a stage, and the extra token of its own."""
    lineage = trace.lineage(stage)
    tokens = Canvas.of(trace, image, patch=4).tokens
    count = int((lineage.fate()[tokens] == Fate.KEPT).sum())
    return f"{with_extra(count, own_extras(trace, lineage, image))}\u00a0tokens"


def _panel(
    rows: Sequence[Sequence[_Cell]],
    headings: Sequence[str],
    traces: Collection[Trace],
    notes: Iterable[str] = (),
) -> Figure:
    """Rows of pictures of equal width, a heading above each row, words below each picture.

    The caption below all of them names the settings of the traces, their model, and the notes. The
    more columns, the larger is the text, which is read where the whole panel is as wide as a page.
    """
    columns = max(map(len, rows))
    size = max(SMALL, 2 * columns)
    letters, line = LETTERS * SMALL // size, LINE * size / SMALL
    words = [[wrap(cell.words, letters) for cell in row] for row in rows]
    tall = [max(WIDTH * cell.picture.height / cell.picture.width for cell in row) for row in rows]
    top = [line * 1.6 * bool(heading) for heading in headings]
    below = [line * max(map(len, lines)) for lines in words]
    about = dict.fromkeys(
        [*map(settings, traces), *(trace.model for trace in traces), *filter(None, notes)]
    )
    caption = wrap(". ".join(about) + ".", columns * letters)
    height = sum(tall) + sum(top) + sum(below) + GAP * (2 * len(rows) + 1) + line * len(caption)
    width = columns * (WIDTH + GAP) + GAP
    figure = Figure((width, height), dpi=DPI, facecolor=CARD)
    y = height - GAP
    for row, lines, heading, t, h, b in zip(rows, words, headings, top, tall, below, strict=True):
        figure.text(GAP / width, (y - line) / height, heading, fontsize=size + 2, color=INK)
        y -= t + h
        for i, (cell, text) in enumerate(zip(row, lines, strict=True)):
            x = GAP + i * (WIDTH + GAP)
            own = WIDTH * cell.picture.height / cell.picture.width
            ax = figure.add_axes((x / width, (y + h - own) / height, WIDTH / width, own / height))
            ax.set_axis_off()
            ax.imshow(cell.picture, aspect="auto")
            _write(figure, x, y - GAP / 2, text, cell.colour, size)
        y -= b + 2 * GAP
    _write(figure, GAP, y + GAP, caption, INK, size)
    return figure


def _write(
    figure: Figure, x: float, y: float, lines: Sequence[str], colour: str, size: float
) -> None:
    """Lines of text from `x`, `y` downwards, in inches from the lower left corner."""
    width, height = figure.get_size_inches()
    text = "\n".join(lines)
    figure.text(x / width, y / height, text, fontsize=size, color=colour, va="top")
