"""Marks on a picture: hatches, outlines, and the legend below it.

Hatches and outlines carry state beside colour, so that no state is told by colour alone.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from viz.colour import CARD, INK, LUMA, rgb

FONT_SIZE = 17  # px at drawing size: still 11 px where a 672 px picture is shown 440 px wide
SWATCH = 24  # px, the side of a legend's sample
GAP = 8  # px, between a sample and its text
_FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")


@lru_cache
def font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    return ImageFont.truetype(_FONTS / "DejaVuSans.ttf", FONT_SIZE)


def percent(share: float) -> str:
    """A share in three digits: `47 %`, `0.86 %`; what is not quite all does not read as all."""
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{100 * share:.3g} %" if share >= 5e-5 or share == 0 else "< 0.01 %"


def hatch(shape: tuple[int, int], kind: str, period: float = 7, width: float = 2) -> np.ndarray:
    """Smooth diagonal lines, as coverage float32 [H, W] in 0..1.

    Args:
        shape: height and width.
        kind: "/" (rising) or "\\" (falling).
        period: pixels from line to line, measured across them.
        width: pixels of a line, measured across it.
    """
    height, length = shape
    y, x = np.ogrid[:height, :length]
    distance = abs(np.arange(height + length) / np.sqrt(2) % period - period / 2)
    line = np.clip(width / 2 + 0.5 - distance, 0, 1).astype(np.float32)
    return line[x + y] if kind == "/" else line[x - y + height]


def outline(label: np.ndarray, width: int) -> np.ndarray:
    """Bool [H, W]: the pixels of each region of equal label within `width` of its border."""
    edge = np.zeros(label.shape, bool)
    across = label[width:] != label[:-width]
    edge[width:] |= across
    edge[:-width] |= across
    along = label[:, width:] != label[:, :-width]
    edge[:, width:] |= along
    edge[:, :-width] |= along
    edge[:width] = edge[-width:] = True
    edge[:, :width] = edge[:, -width:] = True
    return edge


def borders(label: np.ndarray) -> np.ndarray:
    """Bool [H, W]: one-pixel lines between regions of different label."""
    edge = np.zeros(label.shape, bool)
    edge[1:] |= label[1:] != label[:-1]
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    return edge


def draw_borders(pixels: np.ndarray, label: np.ndarray) -> np.ndarray:
    """One-pixel lines, drawn into `pixels`, between regions of different label."""
    return draw_lines(pixels, borders(label))


def draw_frames(pixels: np.ndarray, token: np.ndarray, where: np.ndarray, patch: int) -> np.ndarray:
    """A frame, drawn into `pixels`, inside each patch (`patch` pixels wide) where `where` holds."""
    if patch < 20:  # too small for a dark line beside a bright one
        return draw_lines(pixels, outline(token, 1) & where)
    pixels[outline(token, 2) & where] = rgb(CARD)
    pixels[outline(token, 1) & where] = rgb(INK)
    return pixels


def draw_lines(pixels: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Lines, drawn into `pixels`, that are dark on bright pixels and bright on dark ones.

    Args:
        pixels: [H, W, 3].
        line: [H, W], where they are, or how much of a pixel they cover, in 0..1.
    """
    where = line > 0
    dark = pixels[where] @ LUMA < 100
    tone = np.where(dark, 190, 25)[:, None]
    pixels[where] += (tone - pixels[where]) * line[where][:, None]
    return pixels


def to_image(pixels: np.ndarray) -> Image.Image:
    """Float pixels [H, W, 3] in 0..255 as a picture."""
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))


def with_legend(
    picture: Image.Image, entries: Sequence[tuple[Image.Image | None, str]]
) -> Image.Image:
    """The picture on a white card with (sample, text) entries below it.

    They are wrapped to its width; where it is too narrow for one of them, the card is as wide as
    that needs.
    """
    if not entries:
        return picture
    widths = [_entry_width(*entry) for entry in entries]
    wide = max(picture.width, *widths)
    places, below = _wrapped(widths, wide)
    card = Image.new("RGB", (wide, picture.height + below), CARD)
    card.paste(picture)
    draw = ImageDraw.Draw(card)
    for (sample, text), (x, y) in zip(entries, places, strict=True):
        top = picture.height + GAP + y
        if sample:
            card.paste(sample, (x, top))
            x += sample.width + GAP
        draw.text((x, top + SWATCH / 2), text, INK, font(), anchor="lm")
    return card


def _entry_width(sample: Image.Image | None, text: str) -> int:
    """Pixels that an entry of a legend takes, with a gap behind it."""
    return (sample.width + GAP if sample else 0) + ceil(font().getlength(text)) + GAP


def _wrapped(widths: Sequence[int], wide: int) -> tuple[list[tuple[int, int]], int]:
    """Where (x, y) entries of these widths stand in lines of `wide` pixels, and their height."""
    line, places, x, y = SWATCH + 12, [], 0, 0
    for width in widths:
        if x and x + width > wide:
            x, y = 0, y + line
        places.append((x, y))
        x += width + 12
    return places, y + line
