"""One look for all matplotlib charts: a white card, few lines, text of 12 px and more.

Figures are objects without pyplot, so that any number of threads can draw at once.
"""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from viz.colour import CARD, FAINT, GREY, INK

# Text stays text in PDF files, and the same figure always gives the same SVG file.
matplotlib.rcParams.update({"pdf.fonttype": 42, "svg.hashsalt": "libra", "hatch.linewidth": 0.8})

DPI = 110
SMALL, MEDIUM = 9, 10  # points: 14 and 15 px
LINES = ("-", "--", "-.", ":")


def chart(width: float, height: float, columns: int = 1, **options) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches with `columns` axes side by side."""
    figure = Figure((width, height), dpi=DPI, facecolor=CARD, layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False, **options)[0])
    for ax in axes:
        ax.set_facecolor(CARD)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(GREY)
        ax.tick_params(colors=INK, labelsize=SMALL, color=GREY)
        ax.grid(axis="y", color=FAINT, linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, axes


def label(ax: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Axis labels and a title on the left, in the common sizes."""
    ax.set_xlabel(x, fontsize=MEDIUM, color=INK)
    ax.set_ylabel(y, fontsize=MEDIUM, color=INK)
    ax.set_title(title, fontsize=MEDIUM, color=INK, loc="left", fontweight="bold")


def power_of_ten(value: float) -> str:
    """`10⁻³` for a tick of a log axis, without the maths renderer."""
    exponent = str(round(np.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def scientific(value: float) -> str:
    """`1.3 × 10⁻⁵`"""
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits} × {power_of_ten(float(f'1e{exponent}'))}"


def legend(ax: Axes, **options) -> None:
    """A legend without a frame, in the common size."""
    ax.legend(frameon=False, fontsize=SMALL, labelcolor=INK, **options)
