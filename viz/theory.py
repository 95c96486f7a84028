"""Theory against measurement: the speed-up that FLOPs promise, and the one that was measured."""

from dataclasses import dataclass

from matplotlib.figure import Figure

from viz.colour import BLUE, GREY, INK, ORANGE
from viz.marks import percent
from viz.style import SMALL, chart, label


@dataclass(frozen=True)
class SpeedUp:
    """How many times faster than vanilla's the prefill of one answer is."""

    implied: float  # by the FLOPs of the whole prompt
    measured: float
    turns: int = 1  # how often both were measured; what counts is the median

    @property
    def reached(self) -> float:
        """What was measured of what FLOPs imply."""
        return self.measured / self.implied


def theory_against_measurement(found: dict[str, SpeedUp]) -> Figure:
    """One row per method, keys are the labels: hollow for theory, filled for measurement.

    A line joins the two, and its share of theory stands at the right. Left of 1 is slower than
    vanilla.
    """
    figure, (ax,) = chart(5.6, 1.7 + 0.34 * max(2, len(found)))
    far = max([x for s in found.values() for x in (s.implied, s.measured)], default=1)
    for y, pair in enumerate(found.values()):
        ax.plot([pair.implied, pair.measured], [y, y], color=GREY, linewidth=1.6, zorder=2)
        ax.plot(pair.implied, y, "o", color=BLUE, fillstyle="none", markeredgewidth=1.8, zorder=3)
        ax.plot(pair.measured, y, "o", color=ORANGE, markeredgecolor=INK, zorder=4)
        ax.text(far * 1.06, y, percent(pair.reached), va="center", fontsize=SMALL, color=INK)
    ax.axvline(1, color=INK, linewidth=1.2, linestyle="--")
    ax.plot([], [], "o", color=BLUE, fillstyle="none", markeredgewidth=1.8, label="by FLOPs")
    ax.plot([], [], "o", color=ORANGE, markeredgecolor=INK, label=_measured(found))
    ax.set_xlim(0, far * 1.22)
    ax.set_yticks(range(len(found)), list(found), fontsize=SMALL)
    ax.set_ylim(len(found) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    label(ax, "times as fast as vanilla in the prefill;\nat the right, the share reached")
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=SMALL)
    return figure


def _measured(found: dict[str, SpeedUp]) -> str:
    """What the legend says: how often, where that is the same for all."""
    turns = {pair.turns for pair in found.values()}
    if turns == {1}:
        return "measured, once"
    return f"measured, median of {turns.pop()}" if len(turns) == 1 else "measured"
