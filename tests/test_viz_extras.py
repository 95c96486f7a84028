"""Figures of two equal pictures with an extra token each: each is drawn as if it were alone."""

import numpy as np
import pytest
import torch
from make_trace import make_trace, photo, twice

import viz
from libra.reduction import Fate
from page.legends import legend
from page.readouts import hardly, staircase
from page.views import caption
from viz import inspector
from viz.inspector.tours import tour
from viz.masks import collectors
from viz.numbers import NUMBERS
from viz.panel import captions, own_extras
from viz.sampling import samples

N = 144
CASES = {"prumerge": {"keep": 9, "neighbours": 4}, "prumerge+": {}, "evit": {}}
MAPS = {
    "fate": lambda trace, i: viz.fate_map(trace, 1, i),
    "groups": lambda trace, i: viz.group_map(trace, 1, i),
    "heat": lambda trace, i: viz.heat_map(
        trace, 3, image=i, vmax=0.02 / len(trace.images), legend=False
    ),
    "selected": lambda trace, i: viz.selected(trace, 1, i),
}


@pytest.fixture(scope="module", params=CASES)
def traces(request):
    """A picture alone, and twice."""
    alone = make_trace(request.param, grid=(12, 12), **CASES[request.param])
    assert alone.sums_up
    return alone, twice(alone)


@pytest.mark.parametrize("draw", MAPS.values(), ids=MAPS)
def test_maps_are_those_of_the_picture_alone(traces, draw):
    alone, both = traces
    expected = np.asarray(draw(alone, 0))
    assert all(np.array_equal(draw(both, image), expected) for image in (0, 1))


def test_counts_name_the_extra_tokens_apart(traces):
    alone, both = traces
    kept = alone.events[0].reduction.n_kept
    assert staircase(alone) == f"144 › {kept} + 1"
    assert staircase(both) == f"288 › {2 * kept} + 2"
    assert captions(both)[1].endswith(f": {2 * kept} + 2 tokens")
    assert f"{2 * kept} tokens and 2 that sum up others stand" in caption(both, "fate", 1)
    for image in (0, 1):
        assert next(iter(samples(both, 1, image))) == next(iter(samples(alone, 1, 0)))


def test_a_token_of_all_pictures_is_that_of_none():
    trace = make_trace("libra", layers=(1,), grid=(8, 8), pictures=[photo(90, 90), photo(99, 50)])
    lineage = trace.lineage(1)
    sources = lineage.source[lineage.target == lineage.compensation]
    assert len(trace.layout.image[sources].unique()) == 2
    assert [own_extras(trace, lineage, image) for image in (0, 1)] == [0, 0]


def test_every_picture_collects_where_it_does_alone(traces):
    alone, both = (collectors(trace.lineage(1)).tolist() for trace in traces)
    assert both == 2 * alone


def test_the_lens_looks_into_all_extra_tokens(traces):
    _, both = traces
    lineage, n = both.lineage(1), both.events[0].reduction.n_out
    extras = [n // 2 - 1, n - 1]
    weight = lineage.dense()[extras].sum(0).tolist()
    rows = NUMBERS["compensation_lens"](both)
    assert [row["weight"] or 0 for row in rows[: 2 * N]] == pytest.approx(weight)
    for row in rows[2 * N :]:
        mean = torch.stack([word[row["layer"]][extras] for word in both.attention]).mean()
        assert row["extra token"] == pytest.approx(float(mean))
    titles = [viz.compensation_lens(trace).axes[0].get_title("left") for trace in traces]
    assert titles == ["What the extra token sums up", "What the extra tokens sum up"]
    lines = [line.get_label() for line in viz.compensation_lens(both).axes[1].lines]
    assert lines[0] == "mean of the extra tokens"


def test_tables_name_every_extra_token(traces):
    _, both = traces
    first, second = both.events[0].reduction.extras
    rows = {row["patch"]: row for row in NUMBERS["attention_through_layers"](both)}
    assert len(rows) == 2 * N + 2
    for name, token in (("extra token 1", first), ("extra token 2", second)):
        assert rows[name]["layer 3"] == pytest.approx(float(both.importance[3][token]))
    summed = both.lineage(1).fate() == Fate.COMPENSATED
    group = both.lineage(1).group()
    stage = both.stages[1]
    for row, there, token in zip(NUMBERS["fate_map"](both), summed, group, strict=True):
        if there:
            assert row[f"token {stage}"] == f"extra token {1 + int(token == second)}"


def test_legends_tell_what_all_extra_tokens_get(traces):
    _, both = traces
    if not (both.lineage(1).fate() == Fate.COMPENSATED).any():
        pytest.skip("every patch is heavier in another token")
    share = sum(float(both.importance[0][token]) for token in both.events[0].reduction.extras)
    assert f"2 extra tokens {viz.marks.percent(share)}" in legend(both, "importance", 1, 0, 1)


def test_the_inspector_and_its_tour_know_both(traces):
    _, both = traces
    (shown,) = inspector.view({"it": both})["traces"]
    assert shown["stages"][1]["extras"] == both.events[0].reduction.extras
    assert shown["decisions"][0]["rule"] == "" and shown["decisions"][0]["whatIf"] == {}
    texts = " ".join(step["text"] for step in tour(both))
    assert "2 extra tokens, one for each picture" in texts or "2 tokens more sum up all" in texts
    assert "one extra token," not in texts
    frames = [inspector.animation.animate(trace)[0][-1] for trace in traces]
    assert np.array_equal(*frames)


def test_the_page_says_where_as_many_are_left_as_before():
    alone = make_trace("evit", grid=(12, 12), keep=N - 1)
    said = "{} of {} tokens stay, and {} up the rest"
    assert said.format(143, 144, "one more sums") in hardly(alone)
    assert said.format(286, 288, "2 more sum") in hardly(twice(alone))
