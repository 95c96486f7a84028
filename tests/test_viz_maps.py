"""Fate map, group map, selected tokens, heat map and token strip."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from make_trace import make_trace, photo
from PIL import Image

import viz
from libra.errors import InputError
from libra.layout import TokenLayout
from libra.reduction import Fate, Reduction
from libra.trace import Event
from viz.colour import GREY, LUMA, rgb
from viz.fates import sample
from viz.groups import group_colours, group_roots, group_words
from viz.heat import heat_colours, heat_scale, scale_words, stage_at
from viz.marks import with_legend
from viz.panel import grid

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


BLACK = np.zeros((336, 336, 3), np.uint8)
SEEN = photo(336, 336)  # what the black pictures were, so that methods have something to go by
COMPRESSED = {
    "libra": {"tau": 0.4},
    "fastv": {},
    "turbo": {},
    "kmeans": {},
    "prumerge": {},
    "illava": {},
    "evit": {},
    "tome": {},
}


def blackened(method, **options):
    """A trace over an 8x8 grid, its picture painted over."""
    trace = make_trace(method, grid=(8, 8), pictures=[SEEN], **options)
    return replace(trace, images=[BLACK])


def who_stands(trace, stage):
    """For each patch the token that stands for it at a stage, or None; the compensation token.

    Matrices multiplied one by one, and plain loops.
    """
    matrix, slot = np.eye(len(trace.layout)), list(range(len(trace.layout)))
    for event in trace.events[:stage]:
        matrix = event.reduction.dense().double().numpy() @ matrix
        slot = [slot[s] for s in event.reduction.slot.tolist()]
    compensation = trace.lineage(stage).compensation
    stands = []
    for patch, weights in enumerate(matrix.T):
        own = [o for o, s in enumerate(slot) if s == patch and o != compensation]
        fed = np.flatnonzero(weights)
        stands.append(own[0] if own else int(weights.argmax()) if len(fed) else None)
    return stands, compensation


def usual(pixels):
    """The colour that most of the pixels have."""
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return colours[counts.argmax()]


@pytest.mark.parametrize("method", COMPRESSED)
def test_every_patch_has_the_heat_of_the_token_that_stands_for_it(method):
    trace = blackened(method, **COMPRESSED[method])
    told = set()
    for layer in (0, 2, 7):
        row = np.linspace(0, 1, trace.counts[layer], dtype=np.float32)
        rows = [torch.from_numpy(row) if i == layer else r for i, r in enumerate(trace.importance)]
        shown = replace(trace, importance=rows, attention=[])
        picture = viz.heat_map(shown, layer, vmax=1.0, legend=False)
        stands, compensation = who_stands(trace, stage_at(trace, layer))
        for patch, token in enumerate(stands):
            inside = patch_of(picture, *divmod(patch, 8), grid=8)[3:-3, 3:-3]
            expected = np.full(3, 255 * 0.72)
            if token is not None:
                expected = heat_colours()[int(row[token] * 255)] * 0.78
            np.testing.assert_allclose(usual(inside), expected, atol=1)
            hatched = bool((inside != inside[0, 0]).any())
            assert hatched == (token is not None and token == compensation), (layer, patch)
            told.add("gone" if token is None else "extra" if hatched else "there")
    special = {"fastv": "gone", "libra": "extra", "evit": "extra"}
    assert told == {"there", special.get(method, "there")}


def test_the_patches_of_a_group_share_a_border():
    trace = blackened("turbo", ratio=0.3, layers=(1,))
    rows = [torch.full_like(row, 0.5) for row in trace.importance]
    flat = replace(trace, importance=rows, attention=[])
    pixels = np.asarray(viz.heat_map(flat, 7, vmax=1.0, legend=False), int)
    stands, _ = who_stands(trace, 1)
    side, several = len(pixels) // 8, {t for t in stands if stands.count(t) > 1}
    seen = set()
    for patch in range(64):
        row, column = divmod(patch, 8)
        y, x = row * side, column * side
        inside = pixels[y + side // 2, x + side // 2]
        for other, at in ((patch - 1, (y + side // 2, x)), (patch - 8, (y, x + side // 2))):
            if at[0] == 0 or at[1] == 0:
                continue
            apart = stands[patch] != stands[other]
            line = apart and bool({stands[patch], stands[other]} & several)
            assert (pixels[at] != inside).any() == line
            seen.add((apart, line))
    assert seen == {(False, False), (True, True), (True, False)}


def test_before_compression_a_heat_map_has_no_borders(libra):
    flat = replace(libra, images=[np.zeros((600, 512, 3), np.uint8)])
    rows = [torch.full_like(row, 0.5) for row in libra.importance]
    picture = viz.heat_map(replace(flat, importance=rows, attention=[]), 1, vmax=1, legend=False)
    pixels = np.asarray(picture)
    top = (len(pixels) - 672) // 2
    assert len(np.unique(pixels[top + 2 : top + 670].reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("patch", [5, 14, 28])
def test_compensated_patches_are_hatched_at_every_size(patch):
    rows = [torch.tensor([0.5, 0.5])] * 8
    trace = replace(four_fates(), importance=rows, attention=[])
    picture = viz.heat_map(trace, 7, vmax=1, legend=False, patch=patch)
    luma = [patch_of(picture, *divmod(i, 2), grid=2)[2:-2, 2:-2] @ LUMA for i in range(4)]
    assert luma[2].std() > 10 and max(luma[i].std() for i in (0, 1, 3)) < 0.1
    np.testing.assert_allclose(np.median(luma[2]), luma[0].mean(), atol=1.5)
    np.testing.assert_allclose(luma[0].mean(), luma[1].mean(), atol=0.1)


@pytest.mark.parametrize(
    ("top", "clipped", "words"),
    [
        (0.000676, True, "≥ 0.0676 % of the attention per token"),
        (0.000676, False, "0.0676 % of the attention per token"),
        (0.0000312, True, "≥ 0.00312 % of the attention per token"),
        (1.234e-9, False, "0.000000123 % of the attention per token"),
        (1.0, False, "100 % of the attention per token"),
        (0.1972, True, "≥ 19.7 % of the attention per token"),
    ],
)
def test_a_scale_says_where_it_ends(top, clipped, words):
    assert scale_words(top, clipped) == words


def legends_of(monkeypatch, module, draw):
    """The words of the legends that a figure is given, in their order."""
    words = []
    given = module.with_legend

    def spy(card, entries):
        words.extend(text for _, text in entries)
        return given(card, entries)

    monkeypatch.setattr(module, "with_legend", spy)
    draw()
    return words


def test_the_legend_of_a_heat_map_explains_its_marks(monkeypatch):
    rows = [torch.full((4,), 0.25), *[torch.tensor([0.25, 0.125])] * 7]
    trace = replace(four_fates(), importance=rows, attention=[rows])

    def words(draw):
        with monkeypatch.context() as patch:
            return legends_of(patch, viz.heat, draw)[2:]  # behind a text and the scale

    marks = ["extra token 12.5 %", "no token here any more"]
    assert words(lambda: viz.heat_map(trace, 7)) == marks
    assert words(lambda: viz.heat_map(make_trace("vanilla", grid=(4, 4)), 7)) == []
    assert words(lambda: viz.heat_map(blackened("turbo"), 7)) == [], "all tokens stand somewhere"
    assert words(lambda: viz.attention_through_layers(trace)) == [
        "extra token",
        "no token here any more",
    ]
    assert words(lambda: viz.attention_per_word(blackened("turbo"))) == []


def test_a_legend_is_as_wide_as_its_widest_entry():
    """Below a narrow picture nothing is cut off; a wide one keeps its width."""
    entries = [(sample(Fate.KEPT), "kept 10"), (None, "IoU 0.54 (by chance 0.14, at most 1.00)")]
    card = with_legend(Image.new("RGB", (60, 600)), entries)
    assert with_legend(Image.new("RGB", (672, 600)), entries).width == 672
    for entry in entries:
        alone = np.asarray(with_legend(Image.new("RGB", (2000, 1)), [entry]))[1:]
        assert card.width > np.flatnonzero((alone < 255).any((0, 2))).max()


def test_captions_above_narrow_pictures_keep_clear_of_each_other():
    narrow, caption = Image.new("RGB", (28, 60)), "after layer 3: 288 + 1 tokens"
    alone = grid([[narrow]], [[caption]])
    pair = np.asarray(grid([[narrow, narrow]], [[caption, caption]]))
    np.testing.assert_array_equal(pair[:, : alone.width], alone)
    np.testing.assert_array_equal(pair[:, -alone.width :], alone)


@pytest.mark.parametrize("draw", [viz.fate_map, viz.heat_map, viz.group_map])
def test_no_letter_below_a_narrow_picture_touches_the_edge(draw):
    trace = make_trace("libra", pictures=[photo(60, 600)], grid=(20, 2))
    trace = replace(trace, layout=TokenLayout.square_crop(1, 1, (20, 2)))
    bare, card = draw(trace, 1, legend=False), draw(trace, 1)
    assert bare.width < 100 < card.width
    assert np.asarray(card.convert("L"))[bare.height :, -2:].min() == 255


@pytest.mark.parametrize(
    ("root", "fate", "words"),
    [
        ([0, 0, -1, -1], "MMKK", "1 group, 2 single patches"),
        ([0, 0, 2, 2], "KMKM", "2 groups"),
        ([-1, -1, -1, -1], "KKKD", "3 single patches"),
        ([-1, -1, -1, -1], "KCCD", "1 single patch"),
        ([-1, -1, -1, -1], "CCCD", "no groups"),
        ([], "", "no groups"),
    ],
)
def test_groups_and_single_patches_in_words(root, fate, words):
    fates = {"K": Fate.KEPT, "M": Fate.MERGED, "C": Fate.COMPENSATED, "D": Fate.DROPPED}
    assert group_words(np.array(root, int), np.array([fates[f] for f in fate], int)) == words


@pytest.mark.parametrize(
    ("root", "fate", "words"),
    [
        ([4, 4, 7, 1], "KMMK", "3 groups (2 with their token here)"),
        ([1, 1, 7, -1], "MMMK", "2 groups (none with their token here), 1 single patch"),
        ([7, 7, 7, 7], "MMMM", "1 group (none with its token here)"),
        ([4, 4, 5, 5], "KMKM", "2 groups"),
    ],
)
def test_groups_that_reach_in_from_another_picture_are_told_apart(root, fate, words):
    fates = {"K": Fate.KEPT, "M": Fate.MERGED}
    root, fate = np.array(root), np.array([fates[f] for f in fate])
    here = np.array([4, 5, 6, 1]) if words.startswith("3") else np.array([4, 5, 6, 3])
    assert group_words(root, fate, here) == words


def test_legends_leave_out_what_there_is_none_of(monkeypatch, fastv):
    kept = int((fastv.lineage(1).fate() == Fate.KEPT).sum())
    fate = legends_of(monkeypatch, viz.fates, lambda: viz.fate_map(fastv, 1))
    assert fate == [f"kept {kept}", f"dropped {576 - kept}"]
    groups = legends_of(monkeypatch, viz.groups, lambda: viz.group_map(fastv, 1))
    assert groups == [f"{kept} single patches", f"dropped {576 - kept}"]


@pytest.mark.parametrize("mode", ["dim", "flat"])
def test_selected_tokens_have_a_legend_where_asked(monkeypatch, fastv, mode):
    kept = int((fastv.lineage(1).fate() == Fate.KEPT).sum())
    plain = np.asarray(viz.selected(fastv, 1, mode=mode))
    words = legends_of(
        monkeypatch, viz.selection, lambda: viz.selected(fastv, 1, mode=mode, legend=True)
    )
    assert words == [f"kept {kept}", f"not kept {576 - kept}"]
    card = np.asarray(viz.selected(fastv, 1, mode=mode, legend=True))
    np.testing.assert_array_equal(card[: len(plain)], plain)
    assert len(card) > len(plain)
    again = legends_of(monkeypatch, viz.selection, lambda: viz.selected(fastv, 0, legend=True))
    assert again == ["kept 576"]


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
        filled = (strip[:, :1152, :3] != rgb(GREY)).any(-1).sum(0)[::2]
        heights = {int(f): set(filled[fate == f].tolist()) for f in np.unique(fate)}
        expected = {Fate.KEPT: 44, Fate.MERGED: 24, Fate.COMPENSATED: 13}
        for f, height in heights.items():
            assert height == {expected[f]}
    assert len(sizes) == 1


def test_the_strip_separates_pictures():
    trace = make_trace("vanilla", grid=(4, 4), pictures=[photo(100, 80), photo(80, 100)])
    strip = np.asarray(viz.token_strip(trace, 0))
    gap = np.flatnonzero((strip[..., 3] == 0).all(0))
    np.testing.assert_array_equal(gap, 16 * 36 + np.arange(8))


def test_the_strip_has_room_for_an_extra_token_only_where_there_is_one(libra, fastv):
    """What is neither a bar nor this token lets the page show through, be it bright or dark."""
    plain = np.asarray(viz.token_strip(fastv, 1))
    assert plain.shape[1] == 1152 and (plain[..., 3] == 255).all()
    assert libra.lineage(1).compensation is not None
    before, after = (np.asarray(viz.token_strip(libra, stage)) for stage in (0, 1))
    assert before.shape == after.shape and after.shape[1] > 1152
    assert (before[:, 1152:, 3] == 0).all()
    there = after[:, 1152:, 3] > 0
    assert there.any() and (after[:, 1152:, :3][there].max(-1) < 230).all(), "nothing is white"
    card = viz.strips(libra)
    assert card.mode == "RGB" and card.getpixel((card.width - 1, 40)) == (255,) * 3


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
