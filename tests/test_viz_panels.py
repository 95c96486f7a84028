"""Interval strip, agreement map, sampling panel, accuracy chart and the papers' panels."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from make_trace import make_trace, photo
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.patches import FancyArrowPatch

import viz
from libra import methods
from libra.errors import InputError
from libra.layout import TokenLayout
from libra.methods import Tokens
from libra.reduction import Fate, Reduction
from libra.statistics import wilson
from libra.trace import Event
from viz.accuracy import spread
from viz.masks import collectors
from viz.sampling import SHAPES, samples, spread_tokens


@pytest.fixture(scope="module")
def libra():
    return make_trace("libra")


def merged_in_cut(trace, event, first, last):
    """Tokens of a cut that merged, split by whether their target is in the cut."""
    reduction = trace.events[event].reduction
    fate, best = reduction.fate().tolist(), reduction.evidence["best_target"].tolist()
    merged = [t for t in range(first, last) if fate[t] == Fate.MERGED]
    inside = [t for t in merged if first <= best[t] < last]
    return inside, [t for t in merged if t not in inside]


@pytest.mark.parametrize(("event", "line"), [(0, 0), (0, 21), (1, 3), (2, 1)])
def test_the_interval_strip_draws_every_merge_of_its_cut(libra, event, line):
    (ax,) = viz.interval_strip(libra, event, line).axes
    body = int((libra.events[event].reduction.evidence["interval"] >= 0).sum())
    first, last = 24 * line, min(body, 24 * (line + 3))
    inside, outside = merged_in_cut(libra, event, first, last)
    assert sum(isinstance(p, FancyArrowPatch) for p in ax.patches) == len(inside)
    assert sum(len(line.get_xdata()) for line in ax.lines) == len(outside)
    fate = libra.events[event].reduction.fate()[first:last]
    squares = [len(c.get_paths()) for c in ax.collections if isinstance(c, PatchCollection)]
    assert squares == [int((fate == f).sum()) for f in (Fate.COMPENSATED, Fate.DROPPED, Fate.KEPT)]
    importance = libra.events[event].reduction.evidence["importance"][first:last].numpy()
    bars = np.array([b.get_height() for b in ax.patches if not isinstance(b, FancyArrowPatch)])
    np.testing.assert_allclose(bars, 0.9 * importance / importance.max(), atol=1e-5)


def test_intervals_that_wrap_a_line_have_open_brackets():
    trace = make_trace("libra", ratio=0.8)  # intervals of five in lines of 24
    (ax,) = viz.interval_strip(trace, 0, 0).axes
    (brackets,) = (c for c in ax.collections if isinstance(c, LineCollection))
    lines = [s for s in brackets.get_segments() if s[0][1] == s[1][1]]
    hooks = [s for s in brackets.get_segments() if s[0][0] == s[1][0]]
    # The intervals of tokens 20 to 24, 45 to 49 and 70 to 74 go on in the next line.
    assert sum(s[0][0] == 0.1 for s in lines) == 1 and sum(s[0][0] == 0 for s in lines) == 2
    assert sum(s[1][0] == 24 for s in lines) == 3
    interval = trace.events[0].reduction.evidence["interval"]
    assert interval[24] == interval[20] != interval[19]
    # Each interval that begins in the cut has a hook at its start, each that ends in it another.
    begins = int((np.diff(interval[:72], prepend=-1) != 0).sum())
    ends = int((np.diff(interval[:73]) != 0).sum())
    assert len(hooks) == begins + ends


def test_the_default_cut_holds_the_most_important_token(libra):
    title = viz.interval_strip(libra, 0).axes[0].get_title(loc="left")
    first, last = map(int, re.search(r"tokens (\d+) to (\d+)", title).groups())
    best = int(libra.events[0].reduction.evidence["importance"].argmax())
    assert first <= best <= last


def test_interval_strips_after_a_compensation_token_in_front():
    trace = make_trace("libra", compensation="begin")
    (ax,) = viz.interval_strip(trace, 1, 0).axes
    assert ax.get_title(loc="left").startswith("after layer 3: tokens 1 to 72 of 289")


def selecting(indices, n=16):
    trace = make_trace("vanilla", grid=(4, 4), pictures=[np.full((112, 112, 3), 120, np.uint8)])
    return replace(trace, events=[Event("decoder", 0, Reduction.select(torch.tensor(indices), n))])


def test_the_agreement_map_shows_who_keeps_what(monkeypatch):
    a, b = selecting([0, 1, 2]), selecting([1, 2, 3, 4])
    words = []
    monkeypatch.setattr(
        viz.agreement, "with_legend", lambda picture, entries: words.extend(entries) or picture
    )
    picture = viz.agreement_map({"A": a, "B": b})
    assert [text for _, text in words] == [
        "only A 1",
        "only B 2",
        "both 2",
        "IoU 0.40 (by chance 0.12, at most 0.75)",
    ]
    side = picture.width // 4
    pixels = np.asarray(picture, float)
    centre = {
        t: pixels[side * (t // 4) + 5 : side * (t // 4 + 1) - 5, side * (t % 4) + 5 :][
            :, : side - 10
        ]
        for t in (0, 1, 3, 8)
    }
    only_a, both, only_b, neither = (centre[t].mean((0, 1)) for t in (0, 1, 3, 8))
    assert only_a[2] > only_a[0] + 30, "blue"
    assert only_b[0] > only_b[2] + 30, "orange"
    np.testing.assert_array_equal(both, 120)
    assert np.ptp(neither) < 1 and neither[0] > 200
    assert centre[0].std(axis=(0, 1)).max() > 10 and centre[3].std(axis=(0, 1)).max() > 10


def test_agreement_with_itself_is_one(monkeypatch, libra):
    words = []
    monkeypatch.setattr(
        viz.agreement, "with_legend", lambda picture, entries: words.extend(entries) or picture
    )
    viz.agreement_map({"one": libra, "two": libra}, stages=(1, 1))
    assert [text for _, text in words][2:] == [
        "both 288",
        "IoU 1.00 (by chance 0.33, at most 1.00)",
    ]


def test_agreement_needs_two_traces_of_one_picture(libra):
    with pytest.raises(InputError, match="two traces"):
        viz.agreement_map({"A": libra})
    other = make_trace("libra", pictures=[photo(300, 300)])
    with pytest.raises(InputError, match="different pictures"):
        viz.agreement_map({"A": libra, "B": other})
    with pytest.raises(InputError, match="not in both"):
        viz.agreement_map({"A": libra, "B": libra}, image=1)


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_spatial_samples_are_those_of_the_baseline(libra, rows, columns):
    layout = TokenLayout.square_crop(336, 336, (24, 24))
    tokens = Tokens(torch.zeros(576, 1), layout=layout)
    method = methods.create("spatial", rows=rows, columns=columns)
    expected = method.reduce(tokens).slot.tolist()
    assert spread_tokens(libra, 0, rows, columns).tolist() == expected


def row(method, ratio, layers, kind, right, asked, flops, style="training"):
    keys = ("method", "ratio", "layers", "kind", "right", "asked", "flops", "style")
    values = (method, ratio, layers, kind, right, asked, flops, style)
    return dict(zip(keys, values, strict=True)) | {"settings": "", "tables": ["own"]}


ROWS = [
    row("vanilla", 0.0, [], "count", 45, 50, 50.0),
    row("vanilla", 0.0, [], "corner", 50, 50, 50.0),
    row("fastv", 0.5, [1], "count", 40, 50, 30.0),
    row("fastv", 0.5, [1], "corner", 30, 50, 30.0),
    row("fastv", 0.8, [1], "count", 20, 50, 20.0),
    row("fastv", 0.8, [1], "corner", 10, 50, 20.0),
    row("fastv", 0.8, [1], "corner", 0, 50, 20.0, style="twemoji"),
]


def test_accuracy_is_drawn_against_flops_in_percent():
    (ax,) = viz.accuracy_against_flops(ROWS, style="training").axes
    plain = ax.lines[0].get_ydata()[0]
    assert plain == pytest.approx(95)
    line = ax.containers[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), [60, 40])
    np.testing.assert_allclose(line.get_ydata(), [70, 30])
    bar = ax.containers[0].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(bar[:, 1], 100 * np.array(wilson(70, 100)))


def test_lines_are_compared_on_the_same_questions():
    """Vanilla alone was asked in other styles: that may not move its line."""
    alone = row("vanilla", 0.0, [], "count", 0, 100, 100.0, style="twemoji")
    figure = viz.accuracy_against_flops([r for r in ROWS if r["style"] == "training"] + [alone])
    assert figure.axes[0].lines[0].get_ydata()[0] == pytest.approx(95)
    rest = [r | {"style": "oil"} for r in ROWS if r["method"] == "fastv"]
    with pytest.raises(InputError, match="choose another style"):
        viz.accuracy_against_flops([alone, *rest])


def test_names_at_the_ends_of_lines_keep_apart_and_in_order():
    assert spread([3.0, 1.0], 1) == [3, 1]
    assert spread([5.0, 5.0, 4.9, 0.0], 1) == pytest.approx([4.967, 5.967, 3.967, 0], abs=0.001)


def test_accuracy_of_some_kinds_of_question():
    (ax,) = viz.accuracy_against_flops(ROWS, "training", kinds=["corner"]).axes
    np.testing.assert_allclose(ax.containers[0].lines[0].get_ydata(), [60, 20])
    assert ax.get_ylabel() == "right answers, corner (%)"
    with pytest.raises(InputError, match="no results"):
        viz.accuracy_against_flops(ROWS, style="oil")


def test_the_method_in_focus_stands_out():
    others = [row | {"method": "tome"} for row in ROWS if row["method"] == "fastv"]
    (ax,) = viz.accuracy_against_flops([*ROWS, *others], "training", focus="tome").axes
    wide = {c.get_label(): c.lines[0].get_linewidth() for c in ax.containers}
    assert wide["ToMe"] >= 2 * wide["FastV"]
    assert all(c.lines[0].get_alpha() is None for c in ax.containers), "none vanish in the dark"
    bold = {text.get_text() for text in ax.texts if text.get_fontweight() == "bold"}
    assert bold == {"ToMe"}


def test_accuracy_keeps_settings_and_tables_apart():
    other = ROWS[3] | {"settings": "merge none", "tables": ["ablation"]}
    (ax,) = viz.accuracy_against_flops([*ROWS, other], "training").axes
    labels = [text.get_text() for text in ax.texts]
    assert labels == ["no compression", "FastV", "FastV, merge none"]
    deeper = [row | {"layers": [3]} for row in ROWS if row["method"] == "fastv"]
    (ax,) = viz.accuracy_against_flops([*ROWS, *deeper], "training").axes
    assert {c.get_label() for c in ax.containers} == {
        "FastV, after layer 1",
        "FastV, after layer 3",
    }
    (ax,) = viz.accuracy_against_flops([*ROWS, other], "training", table="ablation").axes
    assert len(ax.containers) == 1


def texts(figure):
    return [re.sub("[\n\xa0]", " ", text.get_text()) for text in figure.texts]


def test_a_comparison_shows_question_answers_and_ticks(libra):
    fastv = make_trace("fastv", answer="A man")
    samples = [{"FastV": fastv, "Libra-Merging": libra}]
    figure = viz.compare_merging(samples, ["a woman in uniform"])
    assert texts(figure) == [
        "Who is in the picture?",
        "answer: a woman in uniform",
        "FastV: A man ✗",
        "Libra-Merging: a woman in uniform ✓",
        "FastV, R = 50 % after layers 1, 3, 5. Libra-Merging, R = 50 % after layers 1, 3, 5. "
        "synthetic.",
    ]
    assert len(figure.axes) == 3
    assert texts(viz.compare_merging(samples, mode="fate"))[2] == "FastV: A man"
    with pytest.raises(InputError, match="1 rows but 2"):
        viz.compare_merging(samples, ["a", "b"])
    with pytest.raises(InputError, match="at least one"):
        viz.compare_merging([])


@pytest.mark.parametrize("method", ["libra", "illava", "fastv"])
def test_collectors_are_the_kept_tokens_that_hold_others(method):
    trace = make_trace(method, grid=(8, 8))
    for stage in range(len(trace.stages)):
        lineage = trace.lineage(stage)
        members = (lineage.dense() != 0).sum(1)
        expected = {
            int(lineage.slot[i])
            for i in range(lineage.n_out)
            if members[i] > 1 and i != lineage.compensation
        }
        assert set(np.flatnonzero(collectors(lineage))) == expected


def test_selected_tokens_are_counted_where_they_are(libra):
    assert "libra: 72 + 1 tokens" in texts(viz.selected_tokens({"libra": libra}))
    illava = make_trace("illava", ratio=0.25)
    assert texts(viz.selected_through_model(illava, libra)) == [
        "",
        "picture",
        "after the encoder: 432 tokens",
        "after the decoder: 432 tokens",
        "",
        "picture",
        "after the encoder: 576 tokens",
        "after the decoder: 72 + 1 tokens",
        "iLLaVA, 25 % in all inside encoder layer 4. "
        "Libra-Merging, R = 50 % after layers 1, 3, 5. synthetic.",
    ]


def test_methods_on_one_picture_share_its_row(libra):
    other = make_trace("fastv", layers=(1,), pictures=[photo(300, 200)], grid=(8, 8))
    figure = viz.selected_tokens({"A": libra, "B": make_trace("fastv", layers=(1,)), "C": other})
    tops = [round(ax.get_position().y1, 3) for ax in figure.axes]
    assert len(tops) == 5 and len(set(tops[:3])) == 1 and len(set(tops[3:])) == 1 != tops[0]
    assert tops[3] < tops[0]


def test_several_pictures_stand_side_by_side():
    frames = [photo(90 + i, 60) for i in range(9)]
    trace = make_trace("libra", ratio=0.5, layers=(1,), pictures=frames, grid=(3, 3))
    figure = viz.selected_through_model(replace(trace, times=[i / 2 for i in range(9)]))
    assert len(figure.axes) == 3 * 6
    words = texts(figure)
    assert [w for w in words if w.startswith("frame")] == [
        f"frame {i + 1} of 9, {i / 2} s" for i in (0, 2, 3, 5, 6, 8)
    ]
    assert words[-1].endswith("synthetic. 6 of 9 frames, evenly spread.")
    sizes = {text.get_fontsize() for text in figure.texts if text.get_text()}
    assert min(sizes) >= 12, "six columns are read at half their size"
    kept = [int(w.split(": ")[1].split()[0]) for w in words if w.startswith("after the decoder")]
    fate = trace.lineage(1).fate()
    shown = [0, 2, 3, 5, 6, 8]
    assert kept == [int((fate[trace.layout.image == i] == Fate.KEPT).sum()) for i in shown]


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("vanilla", {}, "Vanilla (no compression)"),
        ("fastv", {"ratio": 0.67, "layers": (1,)}, "FastV, R = 67 % after layer 1"),
        ("prumerge", {"ratio": 0.25}, "PruMerge, R = 25 % before the decoder"),
        ("tome", {"ratio": 0.25}, "ToMe, 25 % in all inside encoder layer 4"),
        ("evit", {"ratio": 0.25}, "EViT, 25 % in all inside encoder layer 4"),
    ],
)
def test_captions_say_method_ratio_and_layers(method, params, words):
    trace = make_trace(method, grid=(4, 4), **params)
    figure = viz.selected_tokens({"it": trace})
    assert texts(figure)[-1] == f"{words}. synthetic."


def test_every_figure_counts_an_extra_token_apart():
    trace = make_trace("evit", 0.5, grid=(6, 6))
    n = trace.events[0].reduction.n_kept
    assert int((trace.lineage(1).fate() == Fate.KEPT).sum()) == n
    assert viz.panel.captions(trace)[1] == f"encoder layer 4: {n} + 1 tokens"
    assert next(iter(samples(trace, 1, 0))) == f"EViT: {n} + 1"
    through = texts(viz.selected_through_model(trace))
    assert f"after the encoder: {n} + 1 tokens" in through
    assert f"it: {n} + 1 tokens" in texts(viz.selected_tokens({"it": trace}))
    plain = make_trace("fastv", grid=(6, 6), layers=(1,))
    assert "it: 18 tokens" in texts(viz.selected_tokens({"it": plain}))


def test_captions_of_one_of_several_pictures_count_its_own_tokens():
    trace = make_trace("libra", pictures=[photo(90, 60), photo(60, 90)], grid=(4, 4), layers=(1,))
    fate = trace.lineage(1).fate()
    for image, whole in ((0, slice(16)), (1, slice(16, 32))):
        own = int((fate[whole] == Fate.KEPT).sum())
        before, after = viz.panel.captions(trace, image)
        assert before == "before: 16 of 32 tokens"
        assert (
            after == f"after layer 1: {own} of {viz.panel.left(trace.events[0].reduction)} tokens"
        )
    assert viz.panel.captions(trace)[0] == "before: 32 tokens"


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("evit", ["kept", "not kept"]),
        ("tome", ["kept", "kept, collects others", "not kept"]),
        ("fastv", ["kept", "not kept"]),
    ],
)
def test_the_legend_of_the_masks_names_what_there_is(monkeypatch, method, names):
    written = []
    monkeypatch.setattr(
        viz.masks, "with_legend", lambda card, marks: written.extend(name for _, name in marks)
    )
    viz.merging_masks(make_trace(method, 0.25, grid=(6, 6)))
    assert written == names


def test_panels_have_vector_text_in_pdf(tmp_path, libra):
    viz.save(viz.compare_merging([{"Libra": libra}]), tmp_path / "a.pdf")
    assert b"/FontFile2" in (tmp_path / "a.pdf").read_bytes()
