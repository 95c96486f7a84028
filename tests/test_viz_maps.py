"""Fate map, group map, selected tokens, heat map and token strip."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from make_trace import make_trace, photo

import viz
from libra.errors import InputError
from libra.reduction import Fate, Reduction
from libra.trace import Event
from viz.colour import LUMA
from viz.groups import group_colours, group_roots
from viz.heat import heat_scale, stage_at

FLAT = np.full((336, 336, 3), 120, np.uint8)


@pytest.fixture(scope="module")
def libra():
    return make_trace("libra")


@pytest.fixture(scope="module")
def fastv():
    return make_trace("fastv", layers=(1,))


def patch_of(picture, row, column, grid=24):
    """The pixels of one patch of a square picture."""
    size = picture.width // grid
    return np.asarray(picture, np.float32)[row * size :, column * size :][:size, :size]


def four_fates():
    """A 2x2 picture: token 0 kept, 1 merged into it, 2 compensated, 3 dropped."""
    reduction = Reduction(
        n_in=4,
        source=torch.tensor([0, 1, 2]),
        target=torch.tensor([0, 0, 1]),
        weight=torch.tensor([0.6, 0.4, 1.0]),
        slot=torch.tensor([0, 3]),
        compensation=1,
    )
    trace = make_trace("vanilla", grid=(2, 2), pictures=[FLAT])
    return replace(trace, events=[Event("decoder", 0, reduction)])


def test_each_fate_has_its_own_look_even_without_colour():
    picture = viz.fate_map(four_fates(), 1, legend=False)
    kept, merged, compensated, dropped = (
        patch_of(picture, *divmod(i, 2), grid=2) @ LUMA for i in range(4)
    )
    inside = (slice(4, -4), slice(4, -4))
    assert (abs(kept[inside] - 120) < 0.1).all() and kept[0, 0] < 60 and kept[1, 1] > 250, (
        "pixels, framed"
    )
    assert np.ptp(merged) < 1 and abs(merged.mean() - 120) > 20, "tinted, no marks"
    for hatched in (compensated, dropped):
        assert hatched.std() > 8
    assert compensated.mean() - dropped.mean() > 60
    # The hatches run in different directions.
    assert abs(compensated[1:, :-1] - compensated[:-1, 1:]).mean() < 1
    assert abs(dropped[1:, 1:] - dropped[:-1, :-1]).mean() < 1


def test_the_fate_map_speaks_of_the_original_patches_at_each_stage(libra):
    crisp = replace(libra, images=[np.full((600, 512, 3), 120, np.uint8)])
    for stage in range(len(libra.stages)):
        fate = libra.lineage(stage).fate().numpy()
        pixels = np.asarray(viz.fate_map(crisp, stage, legend=False), np.float32)
        top = (pixels.shape[0] - 672) // 2
        for token in range(0, 576, 7):
            row, column = divmod(token, 24)
            centre = pixels[top + row * 28 :, column * 28 :][4:24, 4:24]
            untouched = (centre == 120).all()
            assert untouched == (fate[token] == Fate.KEPT)


def test_the_legend_does_not_move_the_picture(libra):
    with_legend = np.asarray(viz.fate_map(libra, 2))
    without = np.asarray(viz.fate_map(libra, 2, legend=False))
    np.testing.assert_array_equal(with_legend[: len(without)], without)
    sizes = {viz.fate_map(libra, stage).size for stage in range(4)}
    assert len(sizes) == 1, "nothing jumps from stage to stage"


def test_touching_groups_differ_in_colour_at_every_stage(libra):
    colours = group_colours(libra)
    checked = 0
    for stage in (1, 2, 3):
        root = group_roots(libra.lineage(stage)).reshape(24, 24)
        for a, b in ((root[:, 1:], root[:, :-1]), (root[1:], root[:-1])):
            both = (a >= 0) & (b >= 0) & (a != b)
            assert (colours[a[both]] != colours[b[both]]).any(-1).all()
            checked += both.sum()
    assert checked > 100


def test_group_roots_against_a_plain_loop(libra):
    for stage in range(4):
        lineage = libra.lineage(stage)
        group = lineage.group().tolist()
        expected = []
        for g in group:
            alone = group.count(g) == 1
            lost = g in (-1, lineage.compensation)
            expected.append(-1 if alone or lost else int(lineage.slot[g]))
        assert group_roots(lineage).tolist() == expected


def test_a_group_keeps_its_colour_through_the_stages(libra):
    flat = replace(libra, images=[np.full((512, 512, 3), 120, np.uint8)])
    flat.layout = make_trace("vanilla", pictures=[flat.images[0]]).layout
    maps = {s: viz.group_map(flat, s, mode="label", legend=False) for s in (1, 2, 3)}
    roots = {s: group_roots(libra.lineage(s)) for s in maps}
    followed = 0
    for early, late in ((1, 2), (2, 3)):
        for token in np.intersect1d(roots[early], roots[late]):
            if token >= 0:
                before, after = (
                    patch_of(maps[s], *divmod(int(token), 24))[2:, 2:] for s in (early, late)
                )
                np.testing.assert_array_equal(before, after)
                followed += 1
    assert followed > 20


def test_mean_mode_fills_a_group_with_the_mean_of_its_pixels():
    pixels = np.zeros((336, 336, 3), np.uint8)
    pixels[:168, :168] = 200  # token 0, merged with the black token 1
    trace = replace(four_fates(), images=[pixels])
    picture = viz.group_map(trace, 1, mode="mean", legend=False)
    for column in (0, 1):
        inside = patch_of(picture, 0, column, grid=2)[5:-5, 5:-5]
        np.testing.assert_allclose(inside, 100, atol=3)


def test_dropping_alone_leaves_no_groups_and_the_kept_pixels_as_they_are(fastv):
    flat = replace(fastv, images=[np.full((600, 512, 3), 120, np.uint8)])
    for mode in ("mean", "label", "hue"):
        picture = viz.group_map(flat, 1, mode=mode, legend=False)
        kept = fastv.lineage(1).fate().numpy() == Fate.KEPT
        pixels = np.asarray(picture)[57:]  # the crop begins there
        for token in range(0, 576, 11):
            row, column = divmod(token, 24)
            inside = pixels[row * 28 :, column * 28 :][3:25, 3:25]
            assert (inside == 120).all() == kept[token]


def test_selected_tokens_keep_their_pixels_and_the_others_are_one_colour(fastv):
    kept = (fastv.lineage(1).fate() == Fate.KEPT).numpy()
    full = np.asarray(viz.selected(fastv, 0, mode="dim"))
    flat = np.asarray(viz.selected(fastv, 1, mode="flat"))
    dim = np.asarray(viz.selected(fastv, 1, mode="dim"))
    top = (full.shape[0] - 672) // 2 + 1
    background = set()
    for token in range(576):
        row, column = divmod(token, 24)
        cut = (
            slice(top + row * 28 + 3, top + row * 28 + 24),
            slice(column * 28 + 3, column * 28 + 24),
        )
        if kept[token]:
            np.testing.assert_array_equal(flat[cut], full[cut])
            np.testing.assert_array_equal(dim[cut], full[cut])
        else:
            background.update(map(tuple, flat[cut].reshape(-1, 3)))
            faded = full[cut] + (255.0 - full[cut]) * 0.7
            np.testing.assert_allclose(dim[cut], faded, atol=1)
    assert len(background) == 1


def one_hot(trace, layer, index, value=0.5):
    rows = [torch.zeros_like(row) for row in trace.importance]
    rows[layer][index] = value
    return replace(trace, importance=rows, attention=[rows])


@pytest.mark.parametrize(("layer", "stage"), [(0, 0), (1, 0), (2, 1), (4, 2), (7, 3)])
def test_attention_is_drawn_at_the_place_of_its_token(libra, layer, stage):
    assert stage_at(libra, layer) == stage
    black = replace(libra, images=[np.zeros((600, 512, 3), np.uint8)])
    index = 20
    picture = viz.heat_map(one_hot(black, layer, index), layer, vmax=0.5, legend=False)
    pixels = np.asarray(picture, np.float32)
    # The top of magma is yellowish: nothing else in a black picture has less blue than red.
    hot = pixels[..., 0] - pixels[..., 2] > 30
    rows, columns = np.nonzero(hot)
    token = int(libra.lineage(stage).slot[index])
    top = (pixels.shape[0] - 672) // 2
    row, column = divmod(token, 24)
    assert abs(rows.min() - (top + row * 28)) <= 2 and abs(columns.min() - column * 28) <= 2
    assert hot.sum() > 0.8 * 28 * 28 and np.ptp(rows) < 28 and np.ptp(columns) < 28


def test_the_compensation_token_is_not_drawn_at_the_patch_whose_slot_it_takes(libra):
    last = libra.counts[2] - 1
    assert libra.lineage(1).compensation == last
    black = replace(libra, images=[np.zeros((600, 512, 3), np.uint8)])
    pixels = np.asarray(viz.heat_map(one_hot(black, 2, last), 2, vmax=0.5, legend=False), float)
    assert (pixels[..., 0] - pixels[..., 2]).max() < 30


def test_maps_that_share_a_scale_share_their_colours(libra):
    half, full = (one_hot(libra, 0, 30, value) for value in (0.25, 0.5))
    own = [viz.heat_map(t, 0, vmax=v, legend=False) for t, v in ((half, 0.25), (full, 0.5))]
    shared = [viz.heat_map(t, 0, vmax=0.5, legend=False) for t in (half, full)]
    np.testing.assert_array_equal(*map(np.asarray, own))
    assert (np.asarray(shared[0]) != np.asarray(shared[1])).any()
    rows = [np.linspace(0, 1, 101), np.linspace(0, 2, 101)]
    assert heat_scale(rows) == pytest.approx(1.98)
    assert heat_scale([np.zeros(3)]) == 1.0


def test_heat_of_another_word_differs(libra):
    first, second = (np.asarray(viz.heat_map(libra, 0, word)) for word in (0, 1))
    assert (first != second).any()


def test_the_strip_has_a_bar_per_token_whose_height_tells_its_fate(libra):
    sizes = set()
    for stage in range(4):
        fate = libra.lineage(stage).fate().numpy()
        strip = np.asarray(viz.token_strip(libra, stage))
        sizes.add(strip.shape)
        filled = (strip[:, :1152] != 255).any(-1).sum(0)[::2]
        heights = {int(f): set(filled[fate == f].tolist()) for f in np.unique(fate)}
        expected = {Fate.KEPT: 44, Fate.MERGED: 24, Fate.COMPENSATED: 13}
        for f, height in heights.items():
            assert height == {expected[f]}
    assert len(sizes) == 1


def test_the_strip_separates_pictures():
    trace = make_trace("vanilla", grid=(4, 4), pictures=[photo(100, 80), photo(80, 100)])
    strip = np.asarray(viz.token_strip(trace, 0))
    white = (strip == 255).all((0, 2))
    gap = np.flatnonzero(white)[:8]
    np.testing.assert_array_equal(gap, 16 * 36 + np.arange(8))


@pytest.mark.parametrize(
    "call",
    [
        lambda t: viz.fate_map(t, 4),
        lambda t: viz.fate_map(t, -1),
        lambda t: viz.group_map(t, 1, image=1),
        lambda t: viz.group_map(t, 1, mode="rainbow"),
        lambda t: viz.selected(t, 1, mode="rainbow"),
        lambda t: viz.heat_map(t, 8),
        lambda t: viz.heat_map(t, 0, word=4),
        lambda t: viz.heat_map(replace(t, importance=[], attention=[]), 0),
        lambda t: viz.token_strip(t, 9),
    ],
)
def test_bad_requests_get_one_clear_message(libra, call):
    with pytest.raises(InputError) as error:
        call(libra)
    assert len(str(error.value)) > 20
