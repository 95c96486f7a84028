"""Golden pictures: figures of a stored trace look as they did when somebody last looked at them.

After a change that is meant, write them anew with `PYTHONPATH=. python tests/test_viz_golden.py`,
and look at them.
"""

import io
from pathlib import Path

import numpy as np
import pytest
from make_trace import make_trace, photo
from matplotlib.figure import Figure
from PIL import Image

import viz
from libra.trace import Trace

FOLDER = Path(__file__).parent / "golden"
DPI = 55
DRAW = {
    "fate": lambda trace: viz.fate_map(trace, 2, patch=14),
    "groups": lambda trace: viz.group_map(trace, 1, mode="label", patch=14),
    "flat": lambda trace: viz.selected(trace, 1, mode="flat", patch=14),
    "masks": lambda trace: viz.merging_masks(trace),
    "heat": lambda trace: viz.heat_map(trace, 2, 1, patch=14),
    "encoder": lambda trace: viz.encoder_attention(trace),
    "tokens": lambda trace: viz.token_strip(trace, 1),
    "matrix": lambda trace: viz.attention_matrix(trace),
    "intervals": lambda trace: viz.interval_strip(trace),
    "similarity": lambda trace: viz.similarity_histogram(trace),
    "compensation": lambda trace: viz.compensation_lens(trace),
}


def drawn(name: str) -> Image.Image:
    """A figure of the stored trace, small."""
    figure = DRAW[name](Trace.load(FOLDER / "trace.zip"))
    if isinstance(figure, Figure):
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=DPI)
        return Image.open(file).convert("RGB")
    return figure.convert("RGB").reduce(max(2, round(figure.width / 500)))


@pytest.mark.parametrize("name", DRAW)
def test_figures_look_as_they_did(name):
    """Another version of a font or a library may move an edge by a pixel, not more."""
    with Image.open(FOLDER / f"{name}.png") as file:
        golden = np.asarray(file.convert("RGB"), int)
    picture = np.asarray(drawn(name), int)
    assert picture.shape == golden.shape
    difference = abs(picture - golden).max(2)
    assert difference.mean() < 3 and (difference > 48).mean() < 0.02


def test_a_golden_picture_notices_one_patch():
    """The tolerance is finer than a patch."""
    with Image.open(FOLDER / "flat.png") as file:
        golden = np.asarray(file.convert("RGB"), int)
    changed = golden.copy()
    side = golden.shape[0] // 6
    changed[:side, :side] = 255 - changed[:side, :side]
    assert (abs(changed - golden).max(2) > 48).mean() > 0.02


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    trace = make_trace(
        "libra", pictures=[photo(96, 84)], grid=(6, 6), layers=(1, 4), full=True, tau=0.4
    )
    trace.save(FOLDER / "trace.zip")
    for name in DRAW:
        drawn(name).quantize(255, kmeans=3, dither=Image.Dither.NONE).save(
            FOLDER / f"{name}.png", optimize=True
        )
