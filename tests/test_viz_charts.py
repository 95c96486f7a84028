"""Charts: what is drawn are the numbers of the trace."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from make_trace import make_trace

import viz
from libra.errors import InputError
from libra.trace import Trace
from viz.marks import percent
from viz.similarity import in_digits
from viz.style import power_of_ten

EXAMPLES = Path(__file__).parents[1] / "assets" / "examples"


@pytest.fixture(scope="module")
def traces():
    return {
        "plain": make_trace("vanilla"),
        "FastV": make_trace("fastv", layers=(1,)),
        "Libra": make_trace("libra"),
    }


def bars(ax):
    return [patch for patch in ax.patches if patch.get_width() or patch.get_height()]


def test_the_staircase_has_a_step_per_layer(traces):
    (ax,) = viz.staircase(traces).axes
    steps = [patch.get_data() for patch in ax.patches]
    assert [s.values.tolist() for s in steps] == [t.counts for t in traces.values()]
    np.testing.assert_allclose(steps[0].edges, np.arange(9) - 0.5)
    assert [t.get_text() for t in ax.get_legend().get_texts()][2] == "Libra: 271 per layer"


def test_cost_bars_are_as_long_as_the_costs(traces):
    flops, cache, time = viz.cost_bars(traces).axes
    for ax, value, plain in (
        (flops, "flops", "vanilla_flops"),
        (cache, "kv_bytes", "vanilla_kv_bytes"),
    ):
        length = np.array([bar.get_width() for bar in bars(ax)])
        expected = np.array([getattr(t.cost, value) for t in traces.values()])
        np.testing.assert_allclose(length / length[0], expected / expected[0])
        line = np.array([line.get_xdata()[0] for line in ax.lines])
        reference = np.array([getattr(t.cost, plain) for t in traces.values()])
        np.testing.assert_allclose(line / length[0], reference / expected[0])
    ends = np.array([bar.get_x() + bar.get_width() for bar in bars(time)]).reshape(4, 3)
    np.testing.assert_allclose(ends[-1], [1000 * t.timings.total for t in traces.values()])


def test_time_shares_add_up_to_one_hundred(traces):
    (ax,) = viz.time_shares(traces).axes
    widths = np.array([bar.get_width() for bar in bars(ax)]).reshape(4, 3)
    np.testing.assert_allclose(widths.sum(0), 100)
    prefill = [t.timings.prefill / t.timings.total for t in traces.values()]
    np.testing.assert_allclose(widths[2] / 100, prefill)


def test_the_histogram_counts_every_non_target_once(traces):
    trace = traces["Libra"]
    for event in range(3):
        reduction = trace.events[event].reduction
        (ax,) = viz.similarity_histogram(trace, event).axes
        below, all_of_them = (patch.get_data().values for patch in ax.patches)
        similarity = reduction.evidence["similarity"]
        others = torch.ones(reduction.n_in, dtype=torch.bool)
        others[reduction.slot[: reduction.compensation]] = False
        others &= ~similarity.isnan()
        assert all_of_them.sum() == others.sum()
        assert below.sum() == (similarity[others] <= 0.7).sum()
        tau, mean = (line.get_xdata()[0] for line in ax.lines)
        assert tau == 0.7
        assert mean == pytest.approx(similarity[others].mean().item())


def test_similarities_that_are_nearly_all_one_have_bars_of_their_own():
    (ax,) = viz.similarity_histogram(Trace.load(EXAMPLES / "orchard.trace.zip")).axes
    counts = ax.patches[1].get_data().values
    assert counts.sum() == 288 and (counts > 0).sum() > 10 and counts.max() < 0.3 * 288
    assert [tick.get_text() for tick in ax.get_xticklabels()][:4] == ["0", "0.9", "0.99", "0.999"]
    assert ax.get_legend().get_texts()[-1].get_text() == "mean 0.998"
    assert [in_digits(x) for x in (0.84, 0.99995, 0.9999999, 1, 0)] == (
        ["0.84", "0.99995", "1.00", "1.00", "0.00"]
    )


def test_the_tau_line_is_missing_where_tau_decides_nothing():
    trace = make_trace("libra", merge="average")
    (ax,) = viz.similarity_histogram(trace).axes
    assert len(ax.lines) == 1


def test_the_fence_is_q3_and_one_and_a_half_iqr(traces):
    trace = traces["FastV"]
    (ax,) = viz.cls_distribution(trace).axes
    attention = trace.cls_attention.sort().values.double()
    low, high = attention[[143, 144]], attention[[431, 432]]  # linear quartiles of 576
    q1, q3 = low[0] + 0.75 * (low[1] - low[0]), high[0] + 0.25 * (high[1] - high[0])
    fence = float(q3 + 1.5 * (q3 - q1))
    assert ax.lines[0].get_ydata()[0] == pytest.approx(fence, rel=1e-5)
    below, above = (len(lines.get_segments()) for lines in ax.collections)
    assert above == int((trace.cls_attention > fence).sum()) and below + above == 576
    assert 0 < above < 150
    rug = ax.lines[1].get_xdata()
    assert rug.tolist() == trace.events[0].reduction.slot.tolist()


@pytest.mark.parametrize(
    ("name", "where", "kept"),
    [
        ("orchard", "last layer, mean of heads", "after layer 1: 288"),
        ("orchard.prumerge+", "last layer, heads as one", "after the encoder: 288"),
        ("orchard.fastervlm", "features' layer, mean of heads", "after the encoder: 288"),
    ],
)
def test_a_distribution_says_which_attention_it_is_and_when_tokens_were_kept(name, where, kept):
    (ax,) = viz.cls_distribution(Trace.load(EXAMPLES / f"{name}.trace.zip")).axes
    assert ax.get_ylabel() == f"CLS attention,\n{where}"
    fence, rug = [text.get_text() for text in ax.get_legend().get_texts()][2:]
    assert rug == f"kept {kept}"
    assert re.fullmatch(r"Q3 \+ 1\.5 IQR = \d\.\d × 10⁻.", fence)


@pytest.mark.parametrize("method", ["prumerge", "fastervlm"])
def test_the_fence_is_that_of_the_attention_that_the_method_ranked_by(method):
    """PruMerge takes the heads together: other patches are outliers then."""
    trace = Trace.load(EXAMPLES / f"orchard.{method}.trace.zip")
    (ax,) = viz.cls_distribution(trace).axes
    ranked = trace.events[0].reduction.evidence["importance"]
    drawn = torch.tensor([top for lines in ax.collections for _, (_, top) in lines.get_segments()])
    torch.testing.assert_close(drawn.sort().values.float(), ranked.sort().values.float())
    if method == "prumerge":
        above = len(ax.collections[1].get_segments())
        assert above == (trace.events[0].reduction.n_out - 1) == 118


def test_charts_that_a_trace_cannot_give_say_why(traces):
    with pytest.raises(InputError, match="merging"):
        viz.similarity_histogram(traces["FastV"])
    with pytest.raises(InputError, match="Event 3"):
        viz.similarity_histogram(traces["Libra"], 3)
    with pytest.raises(InputError, match="CLS"):
        viz.cls_distribution(replace(traces["plain"], cls_attention=None))


def test_numbers_are_written_in_three_digits():
    assert [percent(x) for x in (1, 0.4655, 0.00861, 1e-6, 0)] == [
        "100 %",
        "46.6 %",
        "0.861 %",
        "< 0.01 %",
        "0 %",
    ]
    assert [power_of_ten(x) for x in (1, 100, 1e-12)] == ["10⁰", "10²", "10⁻¹²"]
