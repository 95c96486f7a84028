"""Saving a picture or a chart as PNG, SVG or PDF."""

from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from libra.errors import InputError

FORMATS = ("png", "svg", "pdf")
PRINT_DPI = 300
SVG_DPI = 96  # what a browser takes for an inch
# How matplotlib has pictures scaled: by leaving out whole rows, and thin outlines with them.
BY_ROWS = ' style="image-rendering:crisp-edges;image-rendering:pixelated"'


def save(picture: Image.Image | Figure, path: str | Path) -> None:
    """Write a figure to `path`; its ending chooses the format.

    PNG has 300 dpi. In SVG and PDF charts are vectors with embedded fonts, and pictures keep every
    pixel. The same figure, drawn anew, always gives the same file.

    Raises:
        InputError: an ending other than png, svg or pdf.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise InputError(f"{path.name}: figures are saved as {', '.join(FORMATS)}.")
    if kind == "png" and isinstance(picture, Image.Image):
        picture.save(path, dpi=(PRINT_DPI, PRINT_DPI))
        return
    figure = _framed(picture) if isinstance(picture, Image.Image) else picture
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    figure.savefig(path, format=kind, dpi=PRINT_DPI, metadata=undated)
    if kind == "svg" and figure is not picture:
        path.write_text(path.read_text("utf-8").replace(BY_ROWS, ""), "utf-8")


def _framed(picture: Image.Image) -> Figure:
    """A chart that is just the picture, pixel for pixel."""
    figure = Figure((picture.width / SVG_DPI, picture.height / SVG_DPI), dpi=SVG_DPI)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.imshow(picture, interpolation="none", aspect="auto")
    return figure
