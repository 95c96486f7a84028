"""Figures of full tracing: what is drawn are the numbers of the trace."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from make_trace import HEADS, make_trace, photo

import viz
from libra.detail import bins, from_log_codes
from libra.errors import InputError
from viz.canvas import Canvas
from viz.heat import heat_colours, heat_scale
from viz.marks import percent


@pytest.fixture(scope="module")
def trace():
    return make_trace("libra", grid=(12, 12), full=True)


def collect(monkeypatch, module):
    """The arguments with which a module paints its heat maps."""
    painted = []
    paint = module.paint_heat

    def spy(canvas, value, top):
        painted.append((value, top))
        return paint(canvas, value, top)

    monkeypatch.setattr(module, "paint_heat", spy)
    return painted


# -- encoder ------------------------------------------------------------------------------------


def test_encoder_maps_share_one_scale(monkeypatch, trace):
    painted = collect(monkeypatch, viz.encoder)
    viz.encoder_attention(trace)
    rows = [row.numpy() for row in trace.detail.encoder.values()]
    assert len(painted) == len(rows) == 4
    for (value, _), row in zip(painted, rows, strict=True):
        np.testing.assert_array_equal(value, row)
    assert {top for _, top in painted} == {max(heat_scale([row]) for row in rows)}


def test_merged_patches_are_faded_in_later_encoder_layers():
    grey = np.full((112, 112, 3), 90, np.uint8)
    trace = make_trace("illava", grid=(8, 8), full=True, pictures=[grey])
    row = trace.detail.encoder[5]
    assert 0 < row.isnan().sum() < 64
    card = np.asarray(viz.encoder_attention(trace).convert("RGB"), int)
    width = Canvas.of(trace, 0, 14).pixels.shape[1]
    left = 4 * (width + 12)  # the fifth picture of the row
    side = width // 8
    for token in range(64):
        y, x = 26 + side * (token // 8) + side // 2, left + side * (token % 8) + side // 2
        colour = card[y, x]
        faded = np.ptp(colour) == 0 and colour[0] > 180
        assert faded == bool(row[token].isnan()), token


# -- heads --------------------------------------------------------------------------------------


def test_a_head_is_drawn_with_its_own_row(monkeypatch, trace):
    for layer in (0, 4):
        for head in range(HEADS):
            row = viz.attention_row(trace, layer, head=head)
            np.testing.assert_array_equal(row, trace.detail.heads[layer][head].numpy())
    drawn = []
    heat_map = viz.heads.heat_map

    def spy(*args, **options):
        drawn.append((options["head"], options["vmax"]))
        return heat_map(*args, **options)

    monkeypatch.setattr(viz.heads, "heat_map", spy)
    viz.attention_heads(trace, 3)
    assert [head for head, _ in drawn] == list(range(HEADS))
    assert {top for _, top in drawn} == {heat_scale(list(trace.detail.heads[3].numpy()))}


def test_heads_of_the_layer_that_the_first_event_ranks_by(monkeypatch, trace):
    asked = []
    row = viz.heads.attention_row
    monkeypatch.setattr(
        viz.heads, "attention_row", lambda t, layer, **k: asked.append(layer) or row(t, layer, **k)
    )
    viz.attention_heads(trace)
    viz.attention_heads(make_trace("vanilla", grid=(4, 4), full=True))
    assert set(asked[:HEADS]) == {1} and set(asked[HEADS:]) == {4}


@pytest.mark.parametrize(
    ("detail", "layer", "word", "head", "message"),
    [
        (False, 0, 0, 0, "full tracing"),
        (True, 0, 1, 0, "first word"),
        (True, 0, 0, HEADS, "Head 4"),
        (True, 0, 0, -1, "Head -1"),
        (True, 99, 0, 0, "Layer 99"),
    ],
)
def test_heads_that_are_not_there(trace, detail, layer, word, head, message):
    trace = trace if detail else replace(trace, detail=None)
    with pytest.raises(InputError, match=message):
        viz.attention_row(trace, layer, word, head)


# -- matrices -----------------------------------------------------------------------------------


def images(figure):
    """The cells of every panel, and where they are blank."""
    return [ax.images[0].get_array() for ax in figure.axes if ax.images]


@pytest.mark.parametrize("raw", [False, True])
def test_panels_are_the_matrices_without_what_cannot_be_seen(trace, raw):
    figure = viz.attention_matrix(trace, raw)
    panels = images(figure)
    assert len(panels) == 4
    for cells, matrix in zip(panels, trace.detail.matrices.values(), strict=True):
        shares = (from_log_codes(matrix.raw) if raw else matrix.pooled).numpy()
        assert np.array_equal(cells.mask, np.triu(np.ones_like(shares, bool), 1))
        low = figure.axes[0].images[0].norm.vmin
        np.testing.assert_array_equal(cells.filled(0), np.tril(np.maximum(shares, low)))
    assert len({id(ax.images[0].norm) for ax in figure.axes if ax.images}) == 1


def test_titles_and_brackets_name_the_sequence(trace):
    figure = viz.attention_matrix(trace)
    first = figure.axes[0]
    matrix = trace.detail.matrices[0]
    assert first.get_title(loc="left") == f"layer 0: {sum(matrix.segments)} tokens"
    lines = [line.get_xdata() for line in first.lines[::2]]  # below the matrix
    edges = np.searchsorted(
        bins(matrix.segments).numpy(), np.cumsum((0, *matrix.segments))
    ).tolist()
    spans = list(itertools.pairwise(edges))
    assert [(round(x.min() + 0.5), round(x.max() + 0.5)) for x in lines] == spans
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["system", "image", "instruction", "output"]


def test_words_that_were_not_said_have_no_heat_maps(trace):
    n = len(trace.words)
    for word in (n, -1):
        with pytest.raises(InputError, match=f"Word {word} does not exist: the answer has {n}."):
            viz.attention_through_layers(trace, word)


def test_segments_without_tokens_have_no_bracket():
    trace = make_trace("vanilla", grid=(3, 3), full=True, answer="yes")
    assert trace.detail.matrices[0].segments[3] == 0
    assert len(viz.attention_matrix(trace).axes[0].lines) == 2 * 3


def test_figures_of_detail_say_what_they_need(trace):
    plain = replace(trace, detail=None)
    for draw in (viz.attention_matrix, viz.encoder_attention, viz.attention_heads):
        with pytest.raises(InputError, match="full tracing"):
            draw(plain)
    long = make_trace("fastv", pictures=[photo(80, 80)] * 2, layers=(6,), full=True)
    with pytest.raises(InputError, match="too long"):
        viz.attention_matrix(long, raw=True)
    assert viz.FIGURES["attention_matrix_raw"].missing(long)
    unwatched = replace(trace, detail=replace(trace.detail, encoder={}))
    with pytest.raises(InputError, match="no encoder attention"):
        viz.encoder_attention(unwatched)
    assert viz.FIGURES["encoder_attention"].missing(unwatched)


# -- compensation token -------------------------------------------------------------------------


def test_the_lens_shows_the_composed_weights(monkeypatch, trace):
    painted = collect(monkeypatch, viz.compensation)
    viz.compensation_lens(trace)
    lineage = trace.lineage(len(trace.events))
    row = lineage.dense()[lineage.compensation].numpy()
    ((value, top),) = painted
    np.testing.assert_allclose(np.nan_to_num(value), row, atol=1e-6)
    assert np.array_equal(np.isnan(value), row == 0) and top == pytest.approx(row.max())


def test_the_lens_follows_the_attention_of_all_words(trace):
    _, ax = viz.compensation_lens(trace).axes
    own, best, median = ax.lines
    layers = own.get_xdata().tolist()
    assert layers == [2, 3, 4, 5, 6, 7]
    for i, layer in enumerate(layers):
        row = torch.stack([word[layer] for word in trace.attention]).mean(0)
        place = trace.lineage(sum(layer > event.layer for event in trace.events)).compensation
        others = torch.cat([row[:place], row[place + 1 :]])
        assert own.get_ydata()[i] == pytest.approx(float(row[place]))
        assert best.get_ydata()[i] == pytest.approx(float(others.max()))
        assert median.get_ydata()[i] == pytest.approx(float(np.median(others.numpy())))


def test_the_lens_shows_the_picture_that_most_comes_from(monkeypatch):
    trace = make_trace("libra", grid=(6, 6), pictures=[photo(90, 90), photo(300, 300)])
    asked = []
    of = Canvas.of.__func__
    monkeypatch.setattr(
        viz.compensation.Canvas,
        "of",
        classmethod(lambda cls, t, i, p: asked.append(i) or of(cls, t, i, p)),
    )
    viz.compensation_lens(trace)
    lineage = trace.lineage(len(trace.events))
    row = lineage.dense()[lineage.compensation]
    shares = [float(row[trace.layout.image == i].sum()) for i in (0, 1)]
    assert asked == [int(shares[1] > shares[0])]


def test_the_lens_needs_a_compensation_token_and_rows(trace):
    for lacking in (make_trace("fastv", grid=(4, 4)), replace(trace, importance=[], attention=[])):
        with pytest.raises(InputError, match="an extra token"):
            viz.compensation_lens(lacking)
        assert viz.FIGURES["compensation_lens"].missing(lacking)


def test_a_layer_that_hardly_looks_at_the_picture_is_dark_for_every_word(monkeypatch):
    """On a scale of its own, next to nothing would look like a full heat map."""
    trace = make_trace("fastv", grid=(4, 4), answer="yes", layers=(1,))
    faint = [row * (1e-5 if layer == 4 else 1) for layer, row in enumerate(trace.importance)]
    trace = replace(trace, importance=faint, attention=[faint])
    scales, with_scale = [], viz.heat_panels.with_scale

    def spy(card, top, clipped, text, marks):
        scales.append((top, text))
        return with_scale(card, top, clipped, text, marks)

    monkeypatch.setattr(viz.heat_panels, "with_scale", spy)
    viz.attention_per_word(trace, layer=4)
    viz.attention_through_layers(trace)
    viz.attention_per_word(trace, layer=3)
    (dark, said), (top, _), (bright, other) = scales
    assert dark == top == bright == heat_scale([row.numpy() for row in faint])
    assert "layer 4" in said and "hardly looks at the picture" in said
    assert "layer 3" in other and "hardly" not in other


def test_words_are_shown_at_the_layer_that_looks_at_the_picture_most(monkeypatch):
    """The middle one may not look at it at all."""
    trace = make_trace("fastv", grid=(4, 4), answer="yes no", layers=(1,))
    loud = [row * (5 if layer == 6 else 1) for layer, row in enumerate(trace.importance)]
    trace = replace(trace, importance=loud, attention=[trace.importance, loud])
    said = []
    monkeypatch.setattr(viz.heat_panels, "with_scale", lambda card, *s: said.append(s[2]) or card)
    viz.attention_per_word(trace)
    assert said == ["layer 6, on the scale of all layers"]
    column = [row["2 no"] for row in viz.NUMBERS["attention_per_word"](trace)]
    assert [value for value in column if value != ""] == loud[6].tolist()


def test_the_scale_is_never_cut_off():
    trace = make_trace("fastv", grid=(4, 4), answer="yes", layers=(1,))
    card = viz.attention_per_word(trace)
    assert card.width > Canvas.of(trace, 0, 14).pixels.shape[1]
    right = np.asarray(card.convert("L"))[:, -2:]
    assert right.min() > 200, "no letter touches the edge"
    assert heat_colours().shape == (256, 3)


def test_the_lens_tells_shares_also_where_weights_do_not_add_up_to_one():
    pruned = make_trace("prumerge")
    event = pruned.events[-1].reduction
    own = event.weight[event.target == event.compensation]
    assert own.sum() != pytest.approx(1, rel=0.01)
    said = viz.compensation_lens(pruned).axes[0].get_xlabel()
    assert f"has {percent(float(own.max() / own.sum()))} of their weight" in said
