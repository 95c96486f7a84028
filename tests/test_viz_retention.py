"""Retention per picture or frame: every bar is counted again by hand."""

from dataclasses import replace

import numpy as np
import pytest
from make_trace import make_trace, photo

import viz
from libra.reduction import Fate

N = 64  # patches of each picture


def pictures(n):
    return [photo(60 + 30 * i, 90) for i in range(n)]


@pytest.fixture(scope="module", params=["fastv", "libra", "prumerge", "illava"])
def trace(request):
    layers = (1, 3) if request.param in ("fastv", "libra") else (3,)
    return make_trace(request.param, layers=layers, pictures=pictures(3), grid=(8, 8))


def heights(figure):
    (ax,) = figure.axes
    return [[bar.get_height() for bar in bars] for bars in ax.containers]


def counted(trace, stage):
    """Kept patches of each picture in percent, patch by patch."""
    fate, image = trace.lineage(stage).fate(), trace.layout.image
    kept = [0] * len(trace.images)
    for patch in range(len(image)):
        kept[image[patch]] += int(fate[patch] == Fate.KEPT)
    return [100 * k / N for k in kept]


def test_bars_are_the_shares_of_each_picture_s_patches(trace):
    stages = range(1, len(trace.stages))
    expected = [counted(trace, stage) for stage in stages]
    np.testing.assert_allclose(heights(viz.retention(trace)), expected)


def test_the_line_is_the_share_of_all_patches(trace):
    (line,) = viz.retention(trace).axes[0].lines
    mean = np.mean(counted(trace, len(trace.events)))
    np.testing.assert_allclose(line.get_ydata(), mean, rtol=1e-5)


def test_pictures_are_numbered_and_frames_have_their_second():
    stills = make_trace("fastv", layers=(1,), pictures=pictures(3), grid=(8, 8))
    video = replace(stills, times=[0.0, 0.5, 1.25])
    names = [
        [tick.get_text().split("\n")[0] for tick in viz.retention(t).axes[0].get_xticklabels()]
        for t in (stills, video)
    ]
    assert names == [["1", "2", "3"], ["0.0", "0.5", "1.2"]]
    assert [viz.retention(t).axes[0].get_xlabel() for t in (stills, video)] == [
        "picture",
        "second of the video",
    ]


def test_the_names_of_many_frames_do_not_crowd():
    trace = make_trace("fastv", layers=(1,), pictures=[photo(40, 40)] * 40, grid=(2, 2))
    assert 10 <= len(viz.retention(trace).axes[0].get_xticks()) <= 16


def test_the_gallery_has_it_for_several_pictures_that_were_compressed(trace):
    spec = viz.FIGURES["retention"]
    assert spec.missing(trace) is None
    one = make_trace("fastv", layers=(1,), grid=(8, 8))
    assert spec.missing(one) == "This figure needs several pictures or a video."
    plain = make_trace("vanilla", pictures=pictures(2), grid=(8, 8))
    assert "a compression method" in spec.missing(plain)


def test_the_numbers_behind_it(trace):
    rows = viz.NUMBERS["retention"](trace)
    assert [row["picture"] for row in rows] == ["1", "2", "3"]
    for stage, name in enumerate(trace.stages[1:], 1):
        shares = [100 * row[f"kept {name}"] for row in rows]
        np.testing.assert_allclose(shares, counted(trace, stage))
