"""Panels: several pictures of one trace in a captioned grid."""

from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw

from libra.trace import Trace
from viz.colour import CARD, INK
from viz.marks import font

PATCH = 14  # pixels per patch in a panel
GAP, LINE = 12, 26


def grid(rows: Sequence[Sequence[Image.Image]], captions: Sequence[Sequence[str]]) -> Image.Image:
    """Rows of pictures on a white card, a caption above each."""
    heights = [max(picture.height for picture in row) + LINE + GAP for row in rows]
    widths = [
        max(row[i].width for row in rows if i < len(row)) + GAP for i in range(max(map(len, rows)))
    ]
    card = Image.new("RGB", (sum(widths) - GAP, sum(heights) - GAP), CARD)
    draw = ImageDraw.Draw(card)
    y = 0
    for row, words, height in zip(rows, captions, heights, strict=True):
        x = 0
        for picture, caption, width in zip(row, words, widths, strict=False):
            draw.text((x, y + LINE / 2), caption, INK, font(), anchor="lm")
            card.paste(picture, (x, y + LINE))
            x += width
        y += height
    return card


def wrapped(pictures: Sequence[Image.Image], captions: Sequence[str], columns: int) -> Image.Image:
    """A grid of at most `columns` pictures a row."""
    starts = range(0, len(pictures), columns)
    return grid(
        [pictures[i : i + columns] for i in starts], [captions[i : i + columns] for i in starts]
    )


def through_stages(
    trace: Trace, draw: Callable[[Trace, int, int], Image.Image], image: int | None = None
) -> Image.Image:
    """`draw(trace, stage, image)` at every stage: one picture of the trace, or a row for each."""
    stages = range(len(trace.stages))
    images = range(len(trace.images)) if image is None else [image]
    rows = [[draw(trace, stage, image) for stage in stages] for image in images]
    return grid(rows, [captions(trace)] * len(rows))


def captions(trace: Trace) -> list[str]:
    """The name and the token count of each stage."""
    tokens = [len(trace.layout), *(event.reduction.n_out for event in trace.events)]
    return [f"{name}: {n} tokens" for name, n in zip(trace.stages, tokens, strict=True)]
