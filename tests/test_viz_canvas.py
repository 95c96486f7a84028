"""Geometry and colours of the picture overlays."""

from dataclasses import replace

import networkx
import numpy as np
import pytest
import torch
from make_trace import make_trace, photo

import viz
from libra.errors import InputError
from viz.canvas import LONGEST, PATCH, Canvas, framed
from viz.colour import OKABE_ITO, PALETTE, dsatur, rgb, unique_hues
from viz.marks import hatch, outline


def clip_patch(width, height, row, column, scale):
    """Where CLIP's processor puts a patch, in picture pixels times `scale`: the shorter edge
    becomes 336 pixels, the middle 336 of the longer are cut into 14-pixel patches."""
    zoom = 336 / min(width, height)
    left, top = (width * zoom - 336) / 2, (height * zoom - 336) / 2
    x, y = (left + 14 * column) / zoom * scale, (top + 14 * row) / zoom * scale
    side = 14 / zoom * scale
    return x, y, x + side, y + side


@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (480, 640), (500, 500), (672, 336), (90, 150), (37, 24)]
)
def test_every_token_lies_where_the_processor_cuts_its_patch(width, height):
    trace = make_trace("vanilla", pictures=[photo(width, height)])
    canvas = Canvas.of(trace)
    drawn_height, drawn_width = canvas.token.shape
    assert max(drawn_height, drawn_width) <= LONGEST * PATCH
    for token in (0, 23, 24, 300, 575):
        rows, columns = np.nonzero(canvas.token == token)
        found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        expected = clip_patch(width, height, token // 24, token % 24, drawn_width / width)
        # Within a pixel: the height of the drawing is rounded to whole pixels, too.
        np.testing.assert_allclose(found, expected, atol=1)
        assert len(rows) == canvas.patch**2, "patches are squares of whole pixels"


def test_a_bright_patch_lands_under_its_token():
    pixels = np.zeros((480, 640, 3), np.uint8)
    x0, y0, x1, y1 = (round(v) for v in clip_patch(640, 480, 5, 17, 1))
    pixels[y0:y1, x0:x1] = 255
    canvas = Canvas.of(make_trace("vanilla", pictures=[pixels]))
    colours, area = canvas.token_colours()
    assert colours[:, 0].argmax() == 5 * 24 + 17
    assert colours[5 * 24 + 17].min() > 235
    assert np.delete(colours, 5 * 24 + 17, axis=0).max() < 12  # what the resampling spills
    assert (area == 28 * 28).all()


def test_what_the_crop_cuts_off_belongs_to_no_token_and_is_faded():
    black = np.zeros((480, 640, 3), np.uint8)
    canvas = Canvas.of(make_trace("vanilla", pictures=[black]))
    assert canvas.token.shape == (672, 896)
    seen = canvas.token < 576
    assert not seen[:, :112].any() and not seen[:, -112:].any() and seen[:, 112:-112].all()
    assert canvas.pixels[seen].max() == 0
    assert canvas.pixels[~seen].min() > 150


def test_values_spread_to_the_pixels_of_their_token():
    canvas = Canvas.of(make_trace("vanilla", grid=(3, 4), pictures=[photo(300, 300)]))
    values = np.arange(12) * 10
    spread = canvas.spread(values, outside=-5)
    for token in range(12):
        assert (spread[canvas.token == token] == 10 * token).all()
    assert (spread[canvas.token == 12] == -5).all()


def test_touching_tokens_are_the_neighbours_in_the_grid():
    canvas = Canvas.of(make_trace("vanilla", grid=(4, 5), pictures=[photo(200, 200)]))
    expected = {
        (r * 5 + c, s * 5 + d)
        for r in range(4)
        for c in range(5)
        for s, d in ((r, c + 1), (r + 1, c))
        if s < 4 and d < 5
    }
    assert set(map(tuple, canvas.touching().tolist())) == expected


def test_tokens_of_the_other_picture_are_not_drawn():
    trace = make_trace("vanilla", pictures=[photo(300, 200), photo(200, 300)], grid=(6, 6))
    for image in (0, 1):
        canvas = Canvas.of(trace, image)
        expected = set(range(36 * image, 36 * image + 36))
        assert set(canvas.tokens) == expected
        assert set(np.unique(canvas.token)) == expected | {72}
    with pytest.raises(InputError, match="has 2"):
        Canvas.of(trace, 2)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (672, 1), (1, 672), (672, 3)])
def test_degenerate_pictures_are_drawn_within_bounds(width, height):
    trace = make_trace("vanilla", pictures=[np.full((height, width, 3), 128, np.uint8)])
    assert max(Canvas.of(trace).token.shape) <= 2 * LONGEST * PATCH


@pytest.mark.parametrize(("width", "height"), [(800, 200), (200, 800), (1000, 100)])
def test_long_pictures_are_cut_to_what_the_model_saw_and_half_as_much_around_it(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    trace = make_trace("vanilla", pictures=[pixels], grid=(6, 6))
    found, side = framed(trace), min(width, height)
    assert sorted(found.images[0].shape[:2]) == [side, 2 * side]
    for before, after in zip(trace.layout.box, found.layout.box, strict=True):
        old, new = (cut(image, box) for image, box in ((pixels, before), (found.images[0], after)))
        np.testing.assert_array_equal(old, new)
    canvas = Canvas.of(trace)
    assert (canvas.token < 36).mean() == pytest.approx(0.5, abs=0.01)
    again = framed(found)
    assert again.images[0].shape == found.images[0].shape
    torch.testing.assert_close(again.layout.box, found.layout.box)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (1920, 1080), (500, 500)])
def test_other_pictures_are_drawn_whole(width, height):
    trace = make_trace("vanilla", pictures=[photo(width, height)], grid=(6, 6))
    found = framed(trace)
    assert found.images[0].shape == (height, width, 3)
    assert torch.equal(found.layout.box, trace.layout.box.double())


def cut(image, box):
    """The pixels of an array in a box of fractions."""
    x0, y0, x1, y1 = (box.double() * torch.tensor(image.shape[1::-1]).repeat(2)).round().int()
    return image[y0:y1, x0:x1]


@pytest.mark.parametrize(
    "box", [[5, 5, 6, 6], [-9, -9, -8, -8], [0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0]]
)
def test_boxes_beside_the_picture_do_no_harm(box):
    trace = make_trace("vanilla", grid=(2, 2), pictures=[photo(40, 30)])
    boxes = torch.tensor(box, dtype=torch.float32).expand(4, 4)
    trace = replace(trace, layout=replace(trace.layout, box=boxes))
    assert min(framed(trace).images[0].shape[:2]) > 0
    assert viz.fate_map(trace, 0).width > 0


def random_graph(n, p, seed):
    graph = networkx.gnp_random_graph(n, p, seed=seed)
    return np.array(graph.edges, int).reshape(-1, 2), graph


@pytest.mark.parametrize("seed", range(5))
def test_dsatur_gives_touching_nodes_different_colours(seed):
    edges, graph = random_graph(60, 0.15, seed)
    colour = dsatur(60, edges)
    assert colour.min() == 0
    assert (colour[edges[:, 0]] != colour[edges[:, 1]]).all()
    reference = networkx.greedy_color(graph, strategy="DSATUR")
    assert colour.max() <= max(reference.values()) + 1


def test_dsatur_colours_two_sided_graphs_with_two_colours():
    # The theorem that sets DSATUR apart from plain greedy colouring.
    edges = np.array([(i, 8 + j) for i in range(8) for j in range(8) if i != j])
    assert dsatur(16, edges).max() == 1


def test_dsatur_of_special_graphs():
    complete = np.array(networkx.complete_graph(9).edges)
    assert sorted(dsatur(9, complete)) == list(range(9))
    assert dsatur(3, np.zeros((0, 2), int)).tolist() == [0, 0, 0]
    assert dsatur(2, np.array([[0, 0], [1, 0], [0, 1]])).tolist() == [0, 1]
    assert dsatur(0, np.zeros((0, 2), int)).tolist() == []


def test_palette_colours_are_all_different_and_start_with_okabe_ito():
    assert len(np.unique(PALETTE.round(), axis=0)) == len(PALETTE)
    np.testing.assert_array_equal(PALETTE[:7], [rgb(colour) for colour in OKABE_ITO])
    assert len(np.unique(unique_hues(300).round(), axis=0)) == 300


def test_hatches_run_in_the_directions_their_names_draw():
    rising, falling = hatch((40, 60), "/"), hatch((40, 60), "\\")
    np.testing.assert_allclose(rising[1:, :-1], rising[:-1, 1:], atol=1e-5)
    np.testing.assert_allclose(falling[1:, 1:], falling[:-1, :-1], atol=1e-5)
    assert rising.shape == (40, 60) and 0.15 < rising.mean() < 0.5
    assert rising.min() == 0 and rising.max() == 1


def test_outlines_stay_inside_each_region():
    label = np.repeat(np.repeat(np.arange(6).reshape(2, 3), 8, 0), 8, 1)
    inner = np.zeros((8, 8), bool)
    inner[2:6, 2:6] = True
    np.testing.assert_array_equal(outline(label, 2), np.tile(~inner, (2, 3)))
