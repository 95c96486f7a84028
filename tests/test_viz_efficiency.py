"""The charts of the Efficiency tab: what is drawn are the numbers."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from make_trace import make_trace

import viz
from libra import methods
from libra.architecture import ARCHITECTURES
from libra.roofline import DEVICES, Estimate, seconds
from libra.sweep import Row, Setting
from libra.workload import Workload
from viz.estimates import estimate_bars
from viz.roofline import points, roofline
from viz.sweep import sweep_lines
from viz.theory import SpeedUp, theory_against_measurement

A100 = DEVICES["A100"]


@pytest.fixture(scope="module")
def traces():
    return {"Vanilla": make_trace("vanilla"), "FastV": make_trace("fastv"), "Libra": make_trace()}


@pytest.fixture(scope="module")
def works(traces):
    tiny = ARCHITECTURES["tiny-llava"]
    return {name: Workload(tiny, 576, trace.counts, 20) for name, trace in traces.items()}


def marks(ax, filling):
    """(x, y) of the marks of one filling, in the order drawn."""
    return [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in ax.lines
        if line.get_marker() != "None" and len(line.get_xdata())
        if line.get_fillstyle() == filling
    ]


def test_points_of_the_roofline_are_rates_of_the_parts(works, traces):
    found = points(works, A100, {name: trace.timings for name, trace in traces.items()})
    assert [(p.method, p.part) for p in found[:3]] == [
        ("Vanilla", "encoder"),
        ("Vanilla", "prefill"),
        ("Vanilla", "decode"),
    ]
    prefill, work = found[1], works["Vanilla"].prefill()
    flops = sum(o.flops for o in work)
    assert prefill.intensity == flops / sum(o.bytes for o in work)
    assert prefill.attainable == pytest.approx(flops / seconds(work, A100))
    assert prefill.reached == pytest.approx(flops / traces["Vanilla"].timings.prefill)
    assert prefill.share == prefill.reached / prefill.attainable
    assert all(p.attainable < 1.001 * min(A100.flops, p.intensity * A100.bandwidth) for p in found)


def test_the_roofline_has_a_mark_per_part_and_a_hollow_one_where_measured(works, traces):
    timings = {name: trace.timings for name, trace in traces.items()}
    found = points(works, A100, timings)
    (ax,) = roofline(found, A100, "Libra").axes
    assert marks(ax, "full") == [(p.intensity, p.attainable) for p in found]
    assert marks(ax, "none") == [(p.intensity, p.reached) for p in found]
    line = ax.lines[0]
    np.testing.assert_allclose(
        line.get_ydata(), np.minimum(line.get_xdata() * A100.bandwidth, A100.flops)
    )
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words == ["Libra", "Vanilla", "one other method", "encoder", "prefill", "decode"]
    (ax,) = roofline(points(works, A100), A100, "Libra").axes
    assert marks(ax, "none") == []


def test_theory_and_measurement_have_a_row_per_method():
    found = {"FastV": SpeedUp(2.0, 1.5), "Libra": SpeedUp(2.5, 2.0)}
    (ax,) = theory_against_measurement(found).axes
    assert marks(ax, "none") == [(2.0, 0), (2.5, 1)] and marks(ax, "full") == [(1.5, 0), (2.0, 1)]
    assert [text.get_text() for text in ax.texts] == ["75 %", "80 %"]


@pytest.mark.parametrize(
    ("turns", "said"), [((1, 1), ", once"), ((3, 3), ", median of 3"), ((3, 1), "")]
)
def test_theory_and_measurement_say_how_often_it_was_measured(turns, said):
    found = {str(i): SpeedUp(2.0, 1.5, n) for i, n in enumerate(turns)}
    (legend,) = theory_against_measurement(found).legends
    assert [text.get_text() for text in legend.texts] == ["by FLOPs", f"measured{said}"]


def test_estimates_are_stacked_to_the_first_word(works):
    found = {n: (Estimate.of(w, A100), sum(w.kv_bytes())) for n, w in works.items()}
    first, word, cache = estimate_bars(found, "somewhere").axes
    ends = np.array([bar.get_x() + bar.get_width() for bar in first.patches]).reshape(3, 3)
    whole = [1e3 * (e.encoder + e.connector + e.prefill) for e, _ in found.values()]
    np.testing.assert_allclose(ends[-1], whole)
    np.testing.assert_allclose(
        [bar.get_width() for bar in word.patches], [1e3 * e.decode for e, _ in found.values()]
    )
    np.testing.assert_allclose(
        [bar.get_width() * 2**20 for bar in cache.patches], [size for _, size in found.values()]
    )


def test_a_sweep_has_a_line_per_layer_and_hollow_marks_for_other_answers():
    rows = [
        Row(Setting(0.0, None), "no", True, 16, 1.0, 1.0, 0.2, 1.0, 0.3),
        Row(Setting(0.5, 1), "no", True, 8, 0.6, 0.6, 0.15, 0.75, 0.2),
        Row(Setting(0.9, 1), "yes", False, 2, 0.3, 0.4, 0.1, 0.5, 0.2),
        Row(Setting(0.5, 5), "no", True, 8, 0.8, 0.9, 0.18, 0.9, 0.2),
    ]
    for ax, name in zip(sweep_lines(rows).axes, ("flops_share", "prefill_share"), strict=True):
        lines = [line for line in ax.lines if line.get_label().startswith("after")]
        assert [line.get_label() for line in lines] == ["after layer 1", "after layer 5"]
        assert list(lines[0].get_xdata()) == [50, 90]
        assert list(lines[0].get_ydata()) == [100 * getattr(row, name) for row in rows[1:3]]
        hollow = [x for x in ax.lines if x.get_markerfacecolor() == "white" and len(x.get_xdata())]
        assert [x.get_xdata()[0] for x in hollow] == [90]


@pytest.mark.parametrize(
    ("layer", "steps", "words"),
    [
        (1, 1, "tokens removed (%)"),
        (None, 1, "tokens removed (%)"),
        (None, 3, "tokens removed at each step (%)"),  # EViT, ToMe
        (1, 3, "tokens removed after the layer (%)"),  # iLLaVA removes others in the encoder
    ],
)
def test_the_axis_of_a_sweep_says_of_what_the_ratio_is(layer, steps, words):
    plain = Row(Setting(0.0, None), "no", True, 16, 1.0, 1.0, 0.2, 1.0, 0.3, steps=0)
    row = Row(Setting(0.5, layer), "no", True, 8, 0.6, 0.6, 0.15, 0.75, 0.2, steps=steps)
    assert {ax.get_xlabel() for ax in sweep_lines([plain, row]).axes} == {words}


def test_many_staircases_get_a_row_each(traces):
    many = {f"method {i}": trace for i in range(7) for trace in list(traces.values())[:1]}
    (ax,) = viz.staircase(many).axes
    assert len(ax.patches) == 7 and ax.get_legend() is None
    assert [t.get_text() for t in ax.get_yticklabels()] == list(many)
    few = viz.staircase(dict(list(many.items())[:6])).axes[0]
    assert few.get_legend() is not None


def test_measured_times_say_where_they_come_from(traces):
    place = "NVIDIA H100 80GB HBM3, bfloat16, sdpa, batch 1, 576 visual and 31 other tokens"
    moved = {
        name: replace(trace, timings=replace(trace.timings, where=place))
        for name, trace in traces.items()
    }
    for figure in (viz.cost_bars(moved), viz.time_shares(moved)):
        figure.draw_without_rendering()
        assert " ".join(figure.get_supxlabel().split()) == f"Measured on {place}"
    assert viz.cost_bars(traces).get_supxlabel() == ""


@pytest.mark.parametrize("count", [2, 19])
def test_no_text_leaves_its_figure(traces, works, count):
    names = [methods.get(name).title for name in methods.names()[:count]]
    work, trace = works["Libra"], traces["Libra"]
    many = dict.fromkeys(names, work)
    figures = [
        viz.staircase(dict.fromkeys(names, trace)),
        viz.cost_bars(dict.fromkeys(names, trace)),
        roofline(points(many, A100), A100, names[0]),
        theory_against_measurement(dict.fromkeys(names, SpeedUp(2.0, 1.5))),
        estimate_bars(dict.fromkeys(names, (Estimate.of(work, A100), 1e6)), "somewhere"),
    ]
    for figure in figures:
        figure.draw_without_rendering()
        box = figure.get_tightbbox()
        assert box.x0 > -0.05 and box.x1 < figure.get_figwidth() + 0.05
        assert box.y0 > -0.05 and box.y1 < figure.get_figheight() + 0.05


def test_drawing_needs_no_transformers():
    code = (
        "import sys, viz.roofline, viz.theory, viz.estimates, viz.sweep; "
        "sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
