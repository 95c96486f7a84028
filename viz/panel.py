"""Panels: several pictures in a captioned grid."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from math import ceil
from textwrap import wrap

from PIL import Image, ImageDraw

from libra.reduction import Reduction
from libra.trace import Trace
from viz.colour import CARD, INK
from viz.marks import font
from viz.retention import kept_of, place

PATCH = 14  # pixels per patch in a panel
GAP, LINE = 12, 26
OF_ALL = ": its tokens out of all"  # what the captions of one of several pictures count


def grid(rows: Sequence[Sequence[Image.Image]], captions: Sequence[Sequence[str]]) -> Image.Image:
    """Rows of pictures on a white card, a caption of one line or more above each.

    A column is as wide as the widest of its pictures and captions.
    """
    heads = [LINE * max(1 + caption.count("\n") for caption in words) for words in captions]
    heights = [
        head + max(picture.height for picture in row) + GAP
        for head, row in zip(heads, rows, strict=True)
    ]
    cells = [
        [max(picture.width, _width(caption)) for picture, caption in zip(row, words, strict=False)]
        for row, words in zip(rows, captions, strict=True)
    ]
    widths = [max(column) + GAP for column in zip_longest(*cells, fillvalue=0)]
    card = Image.new("RGB", (sum(widths) - GAP, sum(heights) - GAP), CARD)
    y = 0
    for row, words, head, height in zip(rows, captions, heads, heights, strict=True):
        x = 0
        for picture, caption, width in zip(row, words, widths, strict=False):
            _write(card, (x, y), caption)
            card.paste(picture, (x, y + head))
            x += width
        y += height
    return card


def headed(picture: Image.Image, text: str) -> Image.Image:
    """The picture on a white card below a text that is folded to its width."""
    text = folded(text, picture.width)
    top = LINE * (1 + text.count("\n")) + GAP
    card = Image.new("RGB", (picture.width, picture.height + top), CARD)
    card.paste(picture, (0, top))
    _write(card, (0, 0), text)
    return card


def folded(text: str, width: int, lines: int | None = None) -> str:
    """Text in lines of about `width` pixels; what is beyond `lines` of them becomes an ellipsis."""
    letters = max(1, int(width / font().getlength("n")))
    return "\n".join(wrap(text, letters, max_lines=lines, placeholder=" …"))


def _width(text: str) -> int:
    """Pixels that lines of text take."""
    return ceil(max(font().getlength(line) for line in text.split("\n")))


def named(picture: Image.Image, trace: Trace, image: int, about: str = "") -> Image.Image:
    """The picture below which of several it shows, and what it is `about`; one alone as it is."""
    return picture if len(trace.images) == 1 else headed(picture, place(trace, image) + about)


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures one below the other on a white card."""
    height = sum(picture.height + GAP for picture in pictures) - GAP
    card = Image.new("RGB", (max(picture.width for picture in pictures), height), CARD)
    y = 0
    for picture in pictures:
        card.paste(picture, (0, y))
        y += picture.height + GAP
    return card


def _write(card: Image.Image, place: tuple[int, int], text: str) -> None:
    """Lines of text, drawn into the card from `place` (x, y) down."""
    x, y = place
    draw = ImageDraw.Draw(card)
    for i, line in enumerate(text.split("\n")):
        draw.text((x, y + (i + 0.5) * LINE), line, INK, font(), anchor="lm")


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
    if image is None:
        return stacked([through_stages(trace, draw, i) for i in range(len(trace.images))])
    row = [draw(trace, stage, image) for stage in range(len(trace.stages))]
    return named(grid([row], [captions(trace, image)]), trace, image, OF_ALL)


def captions(trace: Trace, image: int | None = None) -> list[str]:
    """The name of each stage and its tokens: all, and first those of one of several `images`."""
    tokens = [str(len(trace.layout)), *(left(event.reduction) for event in trace.events)]
    if image is not None and len(trace.images) > 1:
        tokens = [f"{_own(trace, i, image)} of {n}" for i, n in enumerate(tokens)]
    return [f"{name}: {n} tokens" for name, n in zip(trace.stages, tokens, strict=True)]


def _own(trace: Trace, stage: int, image: int) -> str:
    """The tokens of one picture at a stage, like `72 + 1`."""
    extras = own_extras(trace, trace.lineage(stage), image)
    return with_extra(kept_of(trace, stage, image), extras)


def left(reduction: Reduction) -> str:
    """The tokens that an event leaves, like `288` or `288 + 1`."""
    return with_extra(reduction.n_kept, len(reduction.extras))


def with_extra(count: int, extra: int) -> str:
    """A number of tokens that are kept, and `+ 1` where one more sums up others."""
    return f"{count} + {extra}" if extra else f"{count}"


def own_extras(trace: Trace, lineage: Reduction, image: int) -> int:
    """How many extra tokens sum up patches of this picture alone."""
    here = trace.layout.image[lineage.source] == image
    return sum(bool(here[lineage.target == extra].all()) for extra in lineage.extras)
