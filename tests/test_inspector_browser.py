"""The inspector in headless Chromium: the stand-alone file opened from disk, and inside Gradio."""

import itertools
import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from make_trace import make_trace, nothing_left, photo, twice

from libra import methods
from libra.detail import Detail, Similarity
from libra.methods import Tokens
from libra.reduction import Fate
from libra.statistics import percent
from libra.trace import Event, Trace, Word
from tests.conftest import PATIENCE, expect
from viz import inspector
from viz.agreement import blind_agreement
from viz.inspector.export import joined, script, static
from viz.inspector.pane import SCRIPTS

pytestmark = pytest.mark.browser
GRID = 12
N = GRID * GRID
PICTURE = photo(336, 336)


@pytest.fixture(scope="module")
def libra():
    return make_trace("libra", grid=(GRID, GRID), pictures=[PICTURE])


@pytest.fixture(scope="module")
def fastv():
    return make_trace(
        "fastv", layers=(1,), grid=(GRID, GRID), pictures=[PICTURE], answer="a man in uniform"
    )


@pytest.fixture
def open_file(chromium, tmp_path):
    """Open the stand-alone file of some traces, without a network; any error fails the test."""
    contexts, troubles = [], []

    def open_(*traces, width=1280, height=1000, **options):
        path = tmp_path / f"{len(contexts)}.html"
        inspector.export_html(*traces, path=path)
        context = chromium.new_context(
            viewport={"width": width, "height": height}, offline=True, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
        page.on(
            "request",
            lambda r: troubles.append(r.url) if not r.url.startswith(("file:", "data:")) else None,
        )
        page.goto(path.as_uri())
        page.locator(".inspector[data-tool]").wait_for()  # drawn
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not troubles


def run(page, body, argument=None):
    """Evaluate a function body with `I`, the inspector, after drawing what is pending."""
    return page.evaluate(
        "argument => { const I = document.querySelector('.inspector').inspector;"
        f" I.render(); {body} }}",
        argument,
    )


def next_frame(page):
    """Wait until what was asked for is drawn, laid out and scrolled to."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def picture(page):
    return page.locator("canvas.i-picture")


def spot(page, patch):
    """The middle of a patch of the 12 x 12 grid, on the canvas of a square picture."""
    box = picture(page).bounding_box()
    side = min(box["width"], box["height"])
    left = (box["width"] - side) / 2
    row, column = divmod(patch, GRID)
    return {"x": left + (column + 0.5) * side / GRID, "y": (row + 0.5) * side / GRID}


def box_of(part):
    return part.bounding_box()


def situation(page):
    """Fate and root of every patch as shown; roots: -1 gone, -2 the compensation token."""
    return run(
        page,
        "const s = I.current().situation; return {fate: [...s.fate], root: [...s.root],"
        " counts: s.counts}",
    )


def members(page, patch):
    return run(
        page,
        "const s = I.current().situation; return [...s.members(s.root[argument]).patches].sort("
        "(a, b) => a - b)",
        patch,
    )


def roots(reduction) -> list[int]:
    """The patch whose place each patch's token takes, as the inspector names it."""
    group = reduction.group().tolist()
    return [
        -1 if g < 0 else -2 if g == reduction.compensation else int(reduction.slot[g])
        for g in group
    ]


# ----- what is shown -----


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_stage_shows_the_composed_map(open_file, libra, stage):
    page = open_file(libra)
    page.locator(".i-stages label").nth(stage).click()
    lineage = libra.lineage(stage)
    shown = situation(page)
    assert shown["fate"] == lineage.fate().tolist() and shown["root"] == roots(lineage)
    group = lineage.group()
    for patch in (0, 31, 77, 143):
        same = (group == group[patch]).nonzero().flatten().tolist()
        assert members(page, patch) == same


def test_kept_tokens_that_share_neighbours_show_all_of_them(open_file):
    trace = make_trace("prumerge", grid=(GRID, GRID), pictures=[PICTURE], keep=9)
    page = open_file(trace)
    reduction = trace.events[0].reduction
    centre = int(reduction.slot[0])
    assert members(page, centre) == sorted(reduction.source[reduction.target == 0].tolist())
    parts = int((reduction.source == centre).sum())
    assert run(page, f"return I.current().situation.tokens[{centre}]") == parts
    picture(page).click(position=spot(page, centre))
    others = int((reduction.target == 0).sum()) - 1
    expect(page.locator(".i-card")).to_contain_text(f"kept, and took in {others} others")


def test_the_extra_tokens_of_two_pictures_are_two(open_file):
    alone = make_trace("evit", grid=(GRID, GRID), pictures=[PICTURE])
    trace = twice(alone)
    page = open_file(trace)
    kept, held = alone.events[0].reduction.n_kept, alone.lineage(1).fate() == Fate.COMPENSATED
    summed = held.nonzero().flatten().tolist()
    shown = situation(page)
    assert shown["fate"] == trace.lineage(1).fate().tolist()
    assert [shown["root"][p + first] for first in (0, N) for p in summed] == [
        *[-2] * len(summed),
        *[-3] * len(summed),
    ]
    for first in (0, N):
        assert members(page, summed[0] + first) == [p + first for p in summed]
    expect(page.locator(".inspector")).to_contain_text(f"{2 * kept} + 2")
    expect(page.locator(".inspector")).to_contain_text(f"{2 * kept} tokens and 2 extra tokens")
    everyone = "return [...I.current().situation.summedUp()].sort((a, b) => a - b)"
    assert run(page, everyone) == [p + first for first in (0, N) for p in summed]
    page.locator(".i-words button").first.click()
    layer = run(page, "return I.current().attention.layer")
    share = sum(float(trace.attention[0][layer][e]) for e in trace.events[0].reduction.extras)
    expect(page.locator(".i-caption")).to_contain_text("2 extra tokens")
    told = re.search(r"2 extra tokens ([\d.]+) %", page.locator(".i-caption").inner_text())
    assert float(told[1]) == pytest.approx(100 * share, rel=0.01)


def test_pixels_under_the_fate_overlay(open_file):
    bright = np.random.default_rng(0).integers(250, 256, (336, 336, 3), np.uint8)
    trace = make_trace("fastv", layers=(1,), grid=(GRID, GRID), pictures=[bright])
    page = open_file(trace)
    fate = trace.lineage(1).fate().tolist()
    kept, dropped = fate.index(Fate.KEPT), fate.index(Fate.DROPPED)
    light, dark = (
        run(
            page,
            "const c = document.querySelector('canvas.i-picture');"
            " const d = c.getContext('2d').getImageData(argument.x - 5, argument.y - 5, 10, 10);"
            " return d.data.reduce((a, b) => a + b, 0) / d.data.length",
            spot(page, patch),
        )
        for patch in (kept, dropped)
    )
    assert light > 250 and dark < 150


def test_pointing_lights_the_group_everywhere(open_file, libra):
    page = open_file(libra)
    page.locator(".i-stages label").nth(1).click()
    fate = libra.lineage(1).fate()
    patch = int((fate == Fate.MERGED).nonzero()[0])
    picture(page).hover(position=spot(page, patch))
    assert run(page, "return I.state.hover") == patch
    expect(page.locator(".i-card h3")).to_have_text(f"Patch {patch}")
    row, column = divmod(patch, GRID)
    expect(page.locator(".i-card .i-place")).to_have_text(f"row {row + 1}, column {column + 1}")
    # The strip answers to the same hover: so does the patch at its place there.
    strip = page.locator("canvas.i-strip")
    width = strip.bounding_box()["width"] - 26  # the compensation token stands at the end
    strip.hover(position={"x": (40 + 0.5) * width / N, "y": 60})
    assert run(page, "return I.state.hover") == 40
    page.mouse.move(1, 1)
    assert run(page, "return I.state.hover") == -1
    expect(page.locator(".i-card h3")).to_have_text("")


def test_a_bar_of_the_histogram_lights_its_tokens(open_file, libra):
    page = open_file(libra)
    page.locator(".i-stages label").nth(1).click()
    chart = page.locator(".i-importance canvas")
    box = chart.bounding_box()
    x = box["width"] / 2 + 2  # inside a bar, not between two
    chart.hover(position={"x": x, "y": box["height"] / 2})
    lit = run(page, "return I.state.bar")
    value = libra.events[0].reduction.evidence["importance"].double()
    low, high = value.min(), value.max()
    share = (value / low).log() / (high / low).log()
    at = int((x - 6) / (int(box["width"]) - 12) * 40)
    assert lit == ((share * 40).floor().clamp(0, 39) == at).nonzero().flatten().tolist() != []


def test_a_click_holds_a_patch_until_it_is_freed(open_file, libra):
    page = open_file(libra)
    picture(page).click(position=spot(page, 30))
    picture(page).hover(position=spot(page, 100))
    assert run(page, "return I.state.lock") == 30
    expect(page.locator(".i-card h3")).to_have_text("Patch 30")
    expect(page.locator(".i-spoken")).to_contain_text("Held.")
    picture(page).click(position=spot(page, 30))
    expect(page.locator(".i-card h3")).to_have_text("Patch 30")  # still under the pointer
    assert run(page, "return I.state.lock") == -1


def test_the_keyboard_moves_holds_frees_and_selects(open_file, libra):
    page = open_file(libra)
    picture(page).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    assert run(page, "return I.state.hover") == GRID + 2  # the first press enters at patch 0
    expect(page.locator(".i-spoken")).to_contain_text(f"Patch {GRID + 2}, row 2, column 3")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    assert run(page, "return [I.state.lock, I.state.hover]") == [GRID + 1, GRID + 1]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # there is nothing above the first row
    assert run(page, "return I.state.lock") == 1
    page.keyboard.press("Space")
    assert run(page, "return [...I.state.selected]") == [1]
    expect(page.locator(".i-spoken")).to_have_text("Selected. 1 patch in all.")
    page.keyboard.press("Comma")
    assert run(page, "return I.state.stage") == 2
    page.keyboard.press("Escape")
    assert run(page, "return [I.state.lock, I.state.hover]") == [-1, -1]
    page.get_by_role("button", name="Previous stage").click()
    caption = page.locator(".i-caption").inner_text()
    expect(page.locator(".i-spoken")).to_have_text(f"No patch. {caption}")


def test_nothing_in_the_file_is_without_a_heading_or_a_value(open_file, libra):
    page = open_file(libra)
    expect(page.get_by_role("heading", level=1)).to_have_text(libra.question)
    levels = "all => all.filter(h => h.checkVisibility()).map(h => [h.tagName, h.textContent])"
    headings = page.locator("h1, h2, h3, h4, h5, h6").evaluate_all(levels)
    assert all(text for _, text in headings)
    assert all(int(b[1]) <= int(a[1]) + 1 for (a, _), (b, _) in itertools.pairwise(headings))
    eta = page.get_by_label("η, the temperature")  # on a logarithmic scale
    shown = eta.locator("..").locator("output").inner_text()
    expect(eta).to_have_attribute("aria-valuetext", shown)


def test_a_tap_holds_a_patch_and_scrolling_does_not(open_file, libra):
    page = open_file(libra, width=390, height=844, has_touch=True, is_mobile=True)
    picture(page).tap(position=spot(page, 17))
    assert run(page, "return I.state.lock") == 17
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    picture(page).tap(position=spot(page, 17))
    expect(page.locator(".i-card .i-why")).to_contain_text("Tap a patch")
    expect(page.locator(".i-selection .i-note")).not_to_contain_text("click")


def test_all_answers_to_choose_from_are_inside_a_phone(open_file, libra, fastv):
    names = ("vanilla", "prumerge", "visionzip", "evit")
    more = [make_trace(name, grid=(GRID, GRID), pictures=[PICTURE]) for name in names]
    page = open_file(libra, fastv, *more, width=390, height=844, has_touch=True, is_mobile=True)
    for choice in (".i-answers", ".i-beside"):
        labels = page.locator(f"{choice} label")
        assert labels.count() >= 5
        assert all(box["x"] + box["width"] <= 390 for box in map(box_of, labels.all()))


def test_a_tour_brings_what_it_speaks_of_into_the_window(open_file, libra, monkeypatch):
    patches = (N - 1, 0, N - 1)  # at the end, at the top, and back
    seen = {"text": "Look.", "overlay": "fate", "stage": 1, "look": None}
    steps = [seen | {"patch": patch} for patch in patches]
    monkeypatch.setattr("viz.inspector.data.tour", lambda *traces: steps)
    page = open_file(libra, height=420, reduced_motion="reduce")
    page.locator(".i-tour-button").click()
    for patch in patches:
        next_frame(page)
        middle = picture(page).bounding_box()["y"] + spot(page, patch)["y"]
        guide = page.locator(".i-guide").bounding_box()
        assert guide["y"] + guide["height"] < middle < 420
        page.locator(".i-next").click()


@pytest.mark.parametrize("size", [(1440, 900), (1280, 720)])
def test_a_tour_marks_what_it_speaks_of_and_shows_it_with_the_patch(
    open_file, libra, monkeypatch, size
):
    seen = {"text": "Look.", "overlay": "fate", "stage": 1}
    looks = ["strip", "card", "play", "similarity", None, "importance"]
    steps = [seen | {"look": look, "patch": N - 1} for look in looks]
    monkeypatch.setattr("viz.inspector.data.tour", lambda *traces: steps)
    width, height = size
    page = open_file(libra, width=width, height=height, reduced_motion="reduce")
    page.locator(".i-tour-button").click()
    places = {"strip": ".i-timeline", "play": ".i-playback"}
    for look in looks:
        next_frame(page)
        guide = page.locator(".i-guide").bounding_box()
        middle = picture(page).bounding_box()["y"] + spot(page, N - 1)["y"]
        assert guide["y"] + guide["height"] < middle < height
        expect(page.locator(".i-shown")).to_have_count(int(look is not None))
        if look is not None:
            place = page.locator(places.get(look, f".i-{look}"))
            expect(place).to_contain_class("i-shown")
            box = place.bounding_box()
            assert guide["y"] + guide["height"] < box["y"] < box["y"] + box["height"] <= height
        page.locator(".i-next").click()
    expect(page.locator(".i-shown")).to_have_count(0)


@pytest.mark.parametrize("size", [(1440, 900), (1280, 720)])
def test_the_picture_stays_beside_all_that_acts_on_it(open_file, libra, fastv, size):
    width, height = size
    page = open_file(libra, fastv, width=width, height=height)
    top = page.locator(".i-playback").bounding_box()
    canvas = picture(page).bounding_box()
    assert top["y"] + top["height"] <= canvas["y"]
    assert canvas["height"] <= 0.56 * height
    run(page, "I.update({selected: new Set([1, 2, 3])})")
    panels = (".i-card", ".i-selection", ".i-whatif", ".i-importance", ".i-similarity", ".i-strip")
    for panel in panels:
        page.locator(panel).evaluate("e => e.scrollIntoView({block: 'center'})")
        box = picture(page).bounding_box()
        seen = min(height, box["y"] + box["height"]) - max(0, box["y"])
        assert seen > 0.7 * box["height"], panel
    page.evaluate("scrollTo(0, 0)")
    page.get_by_role("button", name="3 patches selected").click()
    expect(page.locator(".i-selection")).to_be_in_viewport(ratio=0.99)


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768)])
def test_picture_and_strip_are_seen_together(open_file, libra, size):
    width, height = size
    page = open_file(libra, width=width, height=height)
    page.locator(".i-left").evaluate("e => e.scrollIntoView({behavior: 'instant'})")
    for part in ("canvas.i-picture", ".i-timeline"):
        expect(page.locator(part)).to_be_in_viewport(ratio=0.99)


def test_a_window_lower_than_the_column_of_the_picture_shows_all_of_it_in_turn(open_file, libra):
    page = open_file(libra, width=1280, height=560)
    expect(page.locator(".i-hands")).to_be_in_viewport(ratio=0.99)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.locator(".i-timeline")).to_be_in_viewport(ratio=0.99)
    page.locator(".i-card").evaluate("e => e.scrollIntoView({block: 'center'})")
    expect(picture(page)).to_be_in_viewport(ratio=0.6)


@pytest.mark.parametrize("width", [390, 768])
def test_the_strip_comes_last_where_there_is_one_column(open_file, libra, width):
    page = open_file(libra, width=width)
    parts = ("canvas.i-picture", ".i-legend", ".i-card", ".i-panels", ".i-timeline")
    tops = [page.locator(part).bounding_box()["y"] for part in parts]
    if width > 620:  # a phone has the card right below the picture
        assert tops == sorted(tops)
    assert max(tops) == tops[-1]


# ----- why -----


def facts(page):
    labels, values = page.locator(".i-card dt"), page.locator(".i-card dd")
    return dict(zip(labels.all_inner_texts(), values.all_inner_texts(), strict=True))


def short(value: float) -> str:
    return f"{float(f'{value:.2g}'):.6f}".rstrip("0").replace("0.", ".", 1)


def test_the_card_tells_why_libra_merged_or_compensated(open_file, libra):
    page = open_file(libra)
    page.locator(".i-stages label").nth(1).click()
    reduction = libra.events[0].reduction
    fact, fate = reduction.evidence, reduction.fate()
    for which, words in ((Fate.MERGED, "merged into"), (Fate.COMPENSATED, "joined the")):
        patch = int((fate == which).nonzero()[3])
        picture(page).click(position=spot(page, patch))
        interval = int(fact["interval"][patch])
        inside = (fact["interval"] == interval).nonzero().flatten()
        winner = int(inside[fact["importance"][inside].argmax()])
        best, likeness = int(fact["best_target"][patch]), float(fact["similarity"][patch])
        why = page.locator(".i-card .i-why").inner_text()
        assert why.startswith(
            f"Interval {interval}: importance {short(float(fact['importance'][patch]))}, beaten by "
            f"patch {winner} ({short(float(fact['importance'][winner]))}); best similarity "
            f"{likeness:.2f}".replace("0.", ".", 1)
        )
        assert words in why and ("is not above" in why) == (which == Fate.COMPENSATED)
        rank = int((fact["importance"] > fact["importance"][patch]).sum()) + 1
        shown = facts(page)
        assert shown["Importance"].endswith(f"rank {rank} of {N}")
        assert shown["Best target"].startswith(f"patch {best} ·")
        weight = float(reduction.dense()[:, patch].max())
        size = int((reduction.group() == reduction.group()[patch]).sum())
        assert shown["Weight"] == f"{short(weight)} in a token of {size} patches"


def test_the_card_tells_why_fastv_dropped(open_file, fastv):
    page = open_file(fastv)
    importance = fastv.events[0].reduction.evidence["importance"]
    worst, best = int(importance.argmin()), int(importance.argmax())
    picture(page).click(position=spot(page, worst))
    expect(page.locator(".i-card .i-why")).to_contain_text(
        f"ranks {N} of {N}; only the best {N // 2}"
    )
    expect(page.locator(".i-card .i-fate")).to_have_text("dropped")
    expect(page.locator(".i-path li")).to_have_text(["after layer 1: gone"])
    picture(page).click(position=spot(page, best))
    expect(page.locator(".i-card .i-why")).to_contain_text(f"ranks 1 of {N}")
    expect(page.locator(".i-card .i-fate")).to_have_text("kept")


def test_later_stages_speak_of_the_token_that_holds_the_patch(open_file, libra):
    page = open_file(libra)
    page.locator(".i-stages label").nth(2).click()
    before = roots(libra.lineage(1))
    patch = next(p for p, root in enumerate(before) if root >= 0 and root != p)
    picture(page).click(position=spot(page, patch))
    expect(page.locator(".i-card .i-why")).to_contain_text(
        f"it had merged into patch {before[patch]}, and that token:"
    )
    expect(page.locator(".i-card .i-why")).to_have_text(re.compile("^After layer 1: .* After lay"))
    lost = before.index(-2)
    picture(page).click(position=spot(page, lost))
    expect(page.locator(".i-card .i-why")).to_contain_text(
        "it was in the compensation token before, and stays in it."
    )


def test_a_token_that_takes_in_nothing_now_says_what_it_has_taken_in(open_file, libra):
    page = open_file(libra)
    page.locator(".i-stages label").nth(2).click()
    held, step = libra.lineage(1).group().bincount(), libra.events[1].reduction
    told = {}
    for token, into in enumerate(step.group().tolist()):
        alone = int((step.target == into).sum()) == 1 and into != step.compensation
        if alone and token != libra.events[0].reduction.compensation:
            others = int(held[token]) - 1
            what = f"kept with {others} patch" if others else "kept as it is"
            told.setdefault(what, int(libra.lineage(1).slot[token]))
    assert len(told) > 1
    for what, patch in told.items():
        picture(page).click(position=spot(page, patch))
        expect(page.locator(".i-card .i-why")).to_contain_text(what)


# ----- words -----


def test_a_word_shows_its_attention_in_every_layer(open_file, libra):
    page = open_file(libra)
    page.locator(".i-words button").nth(2).click()
    expect(page.locator(".i-overlays input:checked + span")).to_have_text("Attention")
    layers = page.locator(".i-layer input")
    for layer in (0, 5):
        layers.fill(str(layer))
        expect(page.locator(".i-caption")).to_contain_text(
            f"Layer {layer}, while the model produced"
        )
        row = run(page, "return [...I.current().attention.row]")
        assert row == pytest.approx(libra.attention[2][layer].tolist(), rel=1e-3, abs=1e-8)
    total = float(libra.attention[2][5].sum())
    expect(page.locator(".i-caption")).to_contain_text(f"{100 * total:.3g} %")


def test_a_heat_map_says_where_no_token_is_left(open_file, libra, fastv):
    """What has merged has a token still: its value is on all patches that it stands for."""
    for trace in (libra, fastv):
        fates = set(trace.lineage(len(trace.events)).fate().tolist())
        page = open_file(trace)
        page.locator(".i-overlays label", has_text="Attention").click()
        page.locator(".i-layer input").fill("7")
        legend = page.locator(".i-legend")
        expect(legend).to_contain_text("per token")
        for words, fate in (
            ("no token here any more", Fate.DROPPED),
            ("compensation token", Fate.COMPENSATED),
        ):
            said = expect(legend)  # the picture of another layer may still be there
            (said.to_contain_text if fate in fates else said.not_to_contain_text)(words)


def test_attention_opens_at_the_layer_that_looks_most_and_a_tour_goes_back_to_it(open_file):
    plain = make_trace("vanilla", grid=(GRID, GRID), pictures=[PICTURE])
    loud = max(range(8), key=lambda layer: float(plain.attention[0][layer].sum()))
    page = open_file(plain)
    page.locator(".i-overlays label", has_text="Attention").click()
    expect(page.locator(".i-layer output")).to_have_text(str(loud))
    page.locator(".i-layer input").fill(str((loud + 3) % 8))
    expect(page.locator(".i-layer output")).not_to_have_text(str(loud))
    page.get_by_role("button", name="Guided tour").click()
    while "looks at the picture most" not in page.locator(".i-guide .i-text").inner_text():
        page.locator(".i-guide .i-next").click()
    expect(page.locator(".i-layer output")).to_have_text(str(loud))


def test_a_tour_that_ends_elsewhere_leaves_the_focus_alone(open_file, libra, fastv):
    page = open_file(libra, fastv)
    page.get_by_role("button", name="Guided tour").click()
    expect(page.locator(".i-guide .i-next")).to_be_focused()
    answers = page.locator(".i-answers input")
    answers.first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".i-guide")).to_be_hidden()
    expect(answers.nth(1)).to_be_focused()
    page.get_by_role("button", name="Guided tour").click()
    page.locator(".i-guide .i-close").click()
    expect(page.get_by_role("button", name="Guided tour")).to_be_focused()


def test_the_word_where_two_answers_part_shows_both_lists(open_file, libra, fastv):
    page = open_file(libra, fastv)
    expect(page.locator(".i-words .i-parts")).to_have_text("woman")
    expect(page.locator(".i-parting")).to_have_text(
        "The answers part at word 2: Libra-Merging says “woman”, FastV “man”."
    )
    expect(page.locator(".i-rivals h3")).to_have_text(["Libra-Merging", "FastV"])
    expect(page.locator(".i-rivals li:first-child span")).to_have_text(["woman", "man"])
    page.locator(".i-words button").nth(0).click()
    expect(page.locator(".i-rivals h3")).to_have_count(1)


def test_chances_are_worded_as_the_page_words_them(open_file, libra):
    shares = [
        1.0,
        0.9996,
        0.9962,
        0.995,
        0.9949,
        0.722,
        0.1,
        0.0996,
        0.0094,
        0.001,
        0.00099,
        1e-5,
        0.0,
    ]
    first = Word("a", 0.722, [(f"w{i}", share) for i, share in enumerate(shares)])
    page = open_file(replace(libra, words=[first, *libra.words[1:]]))
    page.locator(".i-words button").first.click()
    expect(page.locator(".i-rivals b")).to_have_text([percent(share) for share in shares])


def test_buttons_in_use_keep_the_focus(open_file, libra):
    page = open_file(libra)
    word = page.locator(".i-words button").nth(3)
    word.focus()
    page.keyboard.press("Enter")
    expect(word).to_have_attribute("aria-pressed", "true")
    expect(word).to_be_focused()
    picture(page).click(position=spot(page, 40))
    step = page.locator(".i-path button").first
    step.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".i-stages input").nth(1)).to_be_checked()
    expect(step).to_be_focused()


# ----- what if -----


def decided(common: float = 0.0, **params) -> tuple[Trace, Tokens]:
    """An answer whose only event Libra-Merging decided on tokens that come with it.

    The larger what they have in `common`, the more alike they are.
    """
    generator = torch.Generator().manual_seed(1)
    plain = make_trace("vanilla", grid=(GRID, GRID), pictures=[PICTURE], n_layers=2)
    tokens = Tokens(
        torch.randn(N, 8, generator=generator) + common,
        importance=torch.rand(N, generator=generator) ** 3 / N,
    )
    method = methods.create("libra", **params)
    event = Event("decoder", 0, method.reduce(tokens))
    importance = [tokens.importance, plain.importance[1][: event.reduction.n_out]]
    return (
        replace(
            plain,
            method="libra",
            params=asdict(method),
            events=[event],
            importance=importance,
            attention=[importance for _ in plain.words],
        ),
        tokens,
    )


def matches(page, reduction):
    shown = situation(page)
    weights = run(
        page,
        "const s = I.current().situation;"
        " return Array.from(s.root, (r, p) => r === -1 ? 0 : s.weight(p))",
    )
    assert shown["fate"] == reduction.fate().tolist() and shown["root"] == roots(reduction)
    assert weights == pytest.approx(reduction.dense().max(0).values.tolist(), abs=1e-6)


@pytest.mark.parametrize("params", [{"tau": 0.2}, {"tau": 0.75}, {"tau": -1.0}, {"eta": 0.002}])
def test_tau_and_eta_are_decided_again_as_the_method_would(open_file, params):
    trace, tokens = decided(tau=0.7)
    page = open_file(trace)
    run(page, "I.update({whatIf: argument})", params)
    again = methods.create("libra", **{"tau": 0.7, **params}).reduce(tokens)
    assert roots(again) != roots(trace.events[0].reduction) or "eta" in params
    matches(page, again)
    page.get_by_role("button", name="As it was").click()
    matches(page, trace.events[0].reduction)


@pytest.mark.parametrize("keep", [1, 20, 71, 100, 144])
def test_another_count_elects_the_targets_that_the_method_would(open_file, keep):
    trace, tokens = decided()
    page = open_file(trace)
    page.locator(".i-whatif input[name=keep]").fill(str(keep))
    again = methods.create("libra", keep=keep).reduce(tokens).fate() == Fate.KEPT
    shown = np.array(situation(page)["fate"])
    assert (shown == Fate.KEPT).tolist() == again.tolist()
    assert set(shown) <= {Fate.KEPT, 4}, "where the others go, only a run can tell"


def test_another_count_of_fastv_is_complete(open_file, fastv):
    page = open_file(fastv)
    page.locator(".i-whatif input[name=keep]").fill("30")
    importance = fastv.events[0].reduction.evidence["importance"]
    best = set(importance.topk(30).indices.tolist())
    expected = [Fate.KEPT if p in best else Fate.DROPPED for p in range(N)]
    assert situation(page)["fate"] == expected
    expect(page.locator(".i-whatif .i-result")).to_contain_text("kept 30 (−42)")


def decided_in_full(**params) -> tuple[Trace, Tokens]:
    """The same with the similarities of all pairs of tokens stored."""
    trace, tokens = decided(**params)
    alike = {0: Similarity.of(tokens.hidden)}
    detail = Detail(encoder={}, matrices={}, heads=[], similarity=alike)
    return replace(trace, detail=detail), tokens


@pytest.mark.parametrize(
    ("params", "change"),
    [
        ({}, {"keep": 1}),
        ({}, {"keep": 20}),
        ({}, {"keep": 29, "tau": 0.2}),  # the ratio of 80 %
        ({}, {"keep": 48, "tau": 0.9}),
        ({}, {"keep": 100, "eta": 0.002}),
        ({}, {"keep": 144}),
        ({"compensation": "none"}, {"keep": 40, "tau": 0.6}),
        ({"identify": "topk"}, {"keep": 40}),
        ({"merge": "positive"}, {"keep": 40}),
        ({"merge": "average"}, {"keep": 40}),
    ],
)
def test_another_ratio_is_decided_to_the_end_where_similarities_are_stored(
    open_file, params, change
):
    trace, tokens = decided_in_full(**params)
    page = open_file(trace)
    run(page, "I.update({whatIf: argument})", change)
    shown = situation(page)
    again = methods.create("libra", **params | change).reduce(tokens)
    expected = roots(again)
    # Eight bits leave some doubt; whoever goes elsewhere must be within it.
    cosine = torch.nn.functional.normalize(tokens.hidden, dim=-1)
    cosine = cosine @ cosine.T
    doubt = float(cosine.max() - cosine.min()) / 510 + 1e-6
    targets = [p for p in range(N) if expected[p] == p]
    assert [p for p in range(N) if shown["root"][p] == p] == targets
    for p, root in enumerate(shown["root"]):
        if root == expected[p]:
            continue
        best = float(cosine[p, targets].max())
        to = best - doubt if root < 0 else float(cosine[p, root])
        undecided = abs(best - params.get("tau", change.get("tau", 0.7))) <= doubt
        assert undecided if (root < 0) != (expected[p] < 0) else to >= best - 2 * doubt
    assert sum(a == b for a, b in zip(shown["root"], expected, strict=True)) >= 0.95 * N

    weights = run(
        page,
        "const s = I.current().situation;"
        " return Array.from(s.root, (r, p) => r === -1 ? 0 : s.weight(p))",
    )
    eta = change.get("eta", float(tokens.importance.mean()))
    logits = tokens.importance / (torch.inf if params.get("merge") == "average" else eta)
    for root in set(shown["root"]) - {-1}:
        members = [p for p in range(N) if shown["root"][p] == root]
        share = logits[members].softmax(0).tolist()
        assert [weights[p] for p in members] == pytest.approx(share, abs=1e-6)


def test_count_and_tau_can_be_moved_together_where_similarities_are_stored(open_file):
    trace, _ = decided_in_full()
    page = open_file(trace)
    page.locator(".i-whatif input[name=keep]").fill("40")
    page.locator(".i-whatif input[name=tau]").fill("0.2")
    assert run(page, "return I.state.whatIf") == {"keep": 40, "tau": 0.2}
    expect(page.locator(".i-whatif .i-note")).to_contain_text("only known to")
    expect(page.locator(".i-whatif label").first).to_contain_text("40 of 144, R = 72 %")
    picture(page).hover(position=spot(page, 31))
    expect(page.locator(".i-why")).to_contain_text(re.compile(r"nterval \d+: importance"))


def test_tau_can_be_dragged_in_its_histogram(open_file):
    trace, tokens = decided(tau=0.7)
    page = open_file(trace)
    chart = page.locator(".i-similarity canvas")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    low = min(0.0, float(trace.events[0].reduction.evidence["similarity"].min()))

    def x(tau):
        return box["x"] + 6 + (tau - low) / (1 - low) * (int(box["width"]) - 12)

    page.mouse.move(x(0.7), box["y"] + 40)
    page.mouse.down()
    page.mouse.move(x(0.5), box["y"] + 40, steps=4)
    page.mouse.up()
    tau = run(page, "return I.state.whatIf.tau")
    assert tau == pytest.approx(0.5, abs=0.011)
    matches(page, methods.create("libra", tau=tau).reduce(tokens))


def test_similarities_that_are_nearly_all_one_have_bars_of_their_own(open_file):
    """On an axis where .9, .99 and .999 are as far apart."""
    trace, tokens = decided(common=40.0, tau=0.7)
    reduction = trace.events[0].reduction
    similarity = reduction.evidence["similarity"].double()
    others = reduction.fate() != Fate.KEPT
    bars = (-(1 - similarity).log10() / 6 * 40).floor().where(others, -1)
    fullest = int(bars[others].mode().values)
    assert similarity.median() > 0.99 and len(bars[others].unique()) > 5
    page = open_file(trace)
    chart = page.locator(".i-similarity canvas")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()

    def x(nines):
        return 6 + nines / 6 * (int(box["width"]) - 12)

    chart.hover(position={"x": x((fullest + 0.5) * 6 / 40), "y": box["height"] / 2})
    assert run(page, "return I.state.bar") == (bars == fullest).nonzero().flatten().tolist()
    page.mouse.move(box["x"] + x(-np.log10(0.3)), box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + x(3), box["y"] + 40, steps=4)
    page.mouse.up()
    tau = run(page, "return I.state.whatIf.tau")
    assert tau == pytest.approx(0.999, abs=0.0002)
    matches(page, methods.create("libra", tau=tau).reduce(tokens))


def test_a_what_if_ends_with_its_stage(open_file, libra):
    page = open_file(libra)
    run(page, "I.update({whatIf: {tau: 0.1}})")
    page.locator(".i-stages label").nth(1).click()
    assert situation(page)["root"] == roots(libra.lineage(1))


# ----- selection, agreement, quiz, tour -----


def test_a_box_and_a_brush_select_and_clicks_toggle(open_file, libra):
    page = open_file(libra)
    page.locator(".i-tools label").nth(1).click()
    box = picture(page).bounding_box()

    def go(patch):
        place = spot(page, patch)
        page.mouse.move(box["x"] + place["x"], box["y"] + place["y"])

    go(2 * GRID + 3)
    page.mouse.down()
    go(4 * GRID + 5)
    page.mouse.up()
    square = [r * GRID + c for r in (2, 3, 4) for c in (3, 4, 5)]
    assert sorted(run(page, "return [...I.state.selected]")) == square
    page.locator(".i-tools label").nth(2).click()
    go(100)
    page.mouse.down()
    go(101)
    page.mouse.up()
    assert set(run(page, "return [...I.state.selected]")) >= {*square, 100, 101}
    page.locator(".i-tools label").nth(0).click()
    picture(page).click(position=spot(page, square[0]), modifiers=["Control"])
    assert square[0] not in run(page, "return [...I.state.selected]")
    expect(page.locator(".i-selection .i-keep")).to_be_hidden()  # nobody could answer here
    page.get_by_role("button", name="Clear").click()
    assert run(page, "return I.state.selected.size") == 0


def test_the_evidence_box_counts_what_is_alive_in_each_layer(open_file, libra, fastv):
    page = open_file(libra, fastv)
    patches = [r * GRID + c for r in (4, 5, 6) for c in (4, 5, 6, 7)]
    run(page, "I.update({selected: new Set(argument)})", patches)
    rows = page.locator(".i-shares tbody tr")
    for row, trace in enumerate((libra, fastv)):
        alive = (trace.lineage(len(trace.events)).fate()[patches] == Fate.KEPT).float().mean()
        expect(rows.nth(row).locator("td")).to_have_text(["100 %", f"{100 * float(alive):.3g} %"])
    # Drawn after the layer that compressed: layers 0 and 1 still process everything.
    points = page.locator(".i-evidence polyline").nth(1).get_attribute("points").split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(set(heights[:4])) == 1 and len(set(heights[4:])) == 1
    assert heights[4] > heights[3]


def test_agreement_counts_who_keeps_what(open_file, libra, fastv):
    page = open_file(libra, fastv)
    page.locator(".i-overlays label", has_text="Agreement").click()
    a, b = (t.lineage(len(t.events)).fate() == Fate.KEPT for t in (libra, fastv))
    both, either = int((a & b).sum()), int((a | b).sum())
    expect(page.locator(".i-legend li")).to_have_text(
        [
            f"only Libra-Merging {int((a & ~b).sum())}",
            f"only FastV {int((b & ~a).sum())}",
            f"both {both}",
            f"IoU {both / either:.2f} {bounds(int(a.sum()), int(b.sum()))}",
        ]
    )
    page.locator(".i-answers label", has_text="FastV").click()  # its end beside the other's
    expect(page.locator(".i-legend li").last).to_contain_text(f"IoU {both / either:.2f} (")
    page.locator(".i-answers label", has_text="Libra").click()
    page.locator(".i-stages label").nth(1).click()
    a = libra.lineage(1).fate() == Fate.KEPT
    expect(page.locator(".i-legend li").last).to_have_text(
        f"IoU {int((a & b).sum()) / int((a | b).sum()):.2f} {bounds(int(a.sum()), int(b.sum()))}"
    )


def bounds(a: int, b: int) -> str:
    """What sets of these sizes agree in by chance, drawn often, and at most."""
    rng = np.random.default_rng(0)
    draws = [[rng.permutation(N)[:size] for size in (a, b)] for _ in range(4_000)]
    shared = np.mean([len(np.intersect1d(*draw)) for draw in draws])
    return f"(by chance {shared / (a + b - shared):.2f}, at most {min(a, b) / max(a, b):.2f})"


def test_blind_agreement_is_that_of_the_figure(chromium):
    page = chromium.new_page()
    for sizes in ((0, 0, 9), (0, 5, 9), (1, 1, 576), (72, 288, 576), (576, 144, 576)):
        body = f"sizes => {{ {script()} return Object.values(blindAgreement(...sizes)); }}"
        assert page.evaluate(body, sizes) == pytest.approx(list(blind_agreement(*sizes)))
    page.close()


def test_agreement_says_where_there_is_nothing_to_agree_about(open_file, libra, fastv):
    plain = make_trace("vanilla", grid=(GRID, GRID), pictures=[PICTURE])
    page = open_file(libra, plain, fastv)
    page.locator(".i-overlays label", has_text="Agreement").click()
    caption = page.locator(".i-caption")
    expect(caption).to_contain_text("Vanilla (no compression) keeps every patch")
    page.locator(".i-beside label", has_text="FastV").click()
    expect(caption).to_contain_text("Kept by Libra-Merging, after layer 5, and by FastV")
    page.locator(".i-stages label").first.click()
    expect(caption).to_contain_text("Before compression every patch is kept")


def test_answers_about_other_pictures_are_not_compared(open_file, libra):
    other = make_trace("fastv", layers=(1,), grid=(6, 6), pictures=[PICTURE])
    page = open_file(libra, other)
    expect(page.locator(".i-overlays label")).to_have_text(
        ["Fate", "Groups", "Importance", "Attention"]
    )
    expect(page.locator(".i-parting")).to_be_hidden()


def test_the_quiz_hides_the_answer_and_scores_the_guesses(open_file, fastv):
    page = open_file(fastv)
    kept = (fastv.lineage(1).fate() == Fate.KEPT).tolist()
    page.get_by_role("button", name="Quiz").click()
    for hidden in (".i-timeline", ".i-panels", ".i-overlays", ".i-legend li"):
        expect(page.locator(hidden).first).to_be_hidden()
    grid = run(
        page,
        "const pen = I.picture.painted.getContext('2d'), [x, y, w, h] = I.picture.box(30);"
        " const at = (u, v) => [...pen.getImageData(u, v, 1, 1).data].join();"
        " return [at(x + w - 1, y + h / 2), at(x + w / 2, y + h / 2)]",
    )
    assert grid[0] != grid[1]  # borders show what there is to choose from
    picks = [kept.index(True), kept.index(False), kept.index(False, kept.index(False) + 1)]
    for patch in picks:
        picture(page).click(position=spot(page, patch))
    expect(page.locator(".i-card h3")).to_have_text("")
    expect(page.locator(".i-quiz .i-text")).to_contain_text("Choose 12: 9 left.")
    page.get_by_role("button", name="Reveal").click()
    chance = 3 * sum(kept) / N
    expect(page.locator(".i-quiz .i-text")).to_contain_text(
        f"1 of your 3 survive; blind guessing would get {chance:.1f}."
    )
    judged = "clearly better" if chance < 2 / 3 else "no better"
    expect(page.locator(".i-quiz .i-text")).to_contain_text(f"You did {judged} than that.")
    expect(page.locator(".i-timeline")).to_be_visible()


@pytest.mark.parametrize("method", ["libra", "fastv"])
def test_a_tour_leads_through_its_steps(open_file, method, libra, fastv):
    trace = {"libra": libra, "fastv": fastv}[method]
    steps = inspector.view({"it": trace})["traces"][0]["tour"]
    page = open_file(trace)
    page.get_by_role("button", name="Guided tour").click()
    for i, step in enumerate(steps):
        expect(page.locator(".i-guide .i-text")).to_have_text(step["text"])
        shown = run(page, "return [I.state.stage, I.state.overlay, I.state.lock]")
        assert shown == [step["stage"], step["overlay"], step["patch"] or -1]
        page.locator(".i-guide .i-next").click()
        expect(page.locator(".i-guide")).to_be_visible(visible=i < len(steps) - 1)


def test_play_runs_through_the_stages_and_stops(open_file, libra):
    page = open_file(libra)
    page.clock.install()
    page.get_by_role("button", name="Play").click()
    seen = []
    for _ in range(35):  # seven seconds: three moves and their rests
        page.clock.run_for(200)
        seen.append(run(page, "return I.state.stage"))
    assert [stage for stage, _ in itertools.groupby(seen)] == [0, 1, 2, 3]
    expect(page.get_by_role("button", name="Play")).to_be_visible()


def test_play_can_be_stopped(open_file, libra):
    page = open_file(libra)
    page.clock.install()
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Stop").click()
    stage = run(page, "return I.state.stage")
    page.clock.run_for(2500)  # longer than a move and its rest
    assert run(page, "return [I.state.stage, I.state.playing]") == [stage, False]


# ----- surroundings -----


def test_colours_follow_the_scheme_and_a_class(open_file, libra):
    background = "getComputedStyle(document.querySelector('.i-card')).backgroundColor"
    light = open_file(libra, color_scheme="light")
    dark = open_file(libra, color_scheme="dark")
    assert light.evaluate(background) == "rgb(255, 255, 255)"
    assert dark.evaluate(background) == "rgb(27, 27, 26)"
    light.evaluate("document.body.classList.add('dark')")
    assert light.evaluate(background) == "rgb(27, 27, 26)"


@pytest.fixture(scope="module")
def film():
    """Twenty frames of 144 patches each."""
    pictures = [photo(112, 112 + i) for i in range(20)]
    trace = make_trace("libra", grid=(GRID, GRID), pictures=pictures)
    return replace(trace, times=[i / 4 for i in range(20)])


def test_one_of_several_pictures_can_be_shown_alone(open_file, film):
    page = open_file(film)
    choice = page.locator(".i-pictures label")
    expect(choice).to_have_count(21)
    expect(choice.nth(6)).to_have_text("1.2 s")
    small = run(page, "return [...I.current().trace.image.keys()].filter(p => I.picture.shows(p))")
    assert len(small) == 20 * N
    choice.nth(6).click()
    shown = run(page, "return [...I.current().trace.image.keys()].filter(p => I.picture.shows(p))")
    assert shown == list(range(5 * N, 6 * N))
    box = picture(page).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    row, column = divmod(run(page, "return I.state.hover") - 5 * N, GRID)
    assert abs(row - GRID / 2) <= 1 and abs(column - GRID / 2) <= 1
    place = f"frame 6, row {row + 1}, column {column + 1}"
    expect(page.locator(".i-card .i-place")).to_have_text(place)
    picture(page).focus()
    page.mouse.move(1, 1)
    page.keyboard.press("ArrowRight")
    assert run(page, "return I.state.hover") == 5 * N  # the first patch of this frame
    page.keyboard.press("ArrowUp")
    assert run(page, "return I.state.hover") == 5 * N  # and none of another above it


def test_one_picture_alone_takes_no_more_room_than_it_needs(open_file):
    page = open_file(twice(make_trace("libra", grid=(GRID, GRID), pictures=[PICTURE])))
    column, choice = page.locator(".i-left"), page.locator(".i-pictures label")
    both = box_of(column)["width"]
    choice.nth(1).click()
    next_frame(page)
    assert box_of(column)["width"] < both
    choice.first.click()
    next_frame(page)
    assert box_of(column)["width"] == both


def test_the_legend_counts_what_is_shown(open_file, film):
    """The caption below it tells of the whole sequence."""
    page = open_file(film)
    stage, pictures = len(film.events), page.locator(".i-pictures label")
    kept = film.lineage(stage).fate() == Fate.KEPT
    legend, caption = page.locator(".i-legend li").first, page.locator(".i-caption")
    expect(legend).to_have_text(f"kept {int(kept.sum())}")
    expect(caption).to_contain_text(f"{20 * N} patches.")
    pictures.nth(6).click()
    expect(legend).to_have_text(f"kept {int(kept[film.layout.image == 5].sum())}")
    expect(caption).to_contain_text(f"{20 * N} patches of all frames.")
    page.locator(".i-overlays label", has_text="Groups").click()
    group, merged = film.lineage(stage).group(), film.lineage(stage).fate() != Fate.COMPENSATED
    sizes, here = group[merged].bincount(), merged & (film.layout.image == 5)
    groups = {root for root in group[here].tolist() if sizes[root] > 1}
    expect(legend).to_have_text(f"{len(groups)} groups of several patches")


def test_a_patch_of_another_frame_brings_its_frame_up(open_file, film):
    page = open_file(film)
    page.locator(".i-pictures label").nth(1).click()
    strip = page.locator("canvas.i-strip")
    width = strip.bounding_box()["width"] - 26
    strip.click(position={"x": (7 * N + 40.5) * width / (20 * N), "y": 10})
    lock = run(page, "return I.state.lock")
    assert 7 * N <= lock < 8 * N
    assert run(page, "return I.state.image") == 7
    expect(page.locator(".i-pictures input").nth(8)).to_be_checked()
    page.locator(".i-pictures label").first.click()
    assert run(page, "return [I.state.image, I.state.lock]") == [-1, -1]


@pytest.mark.parametrize("alone", [-1, 3])
def test_a_hover_takes_less_than_a_frame_with_three_thousand_tokens(open_file, film, alone):
    """The handler with all that it draws, over patches of the largest token: half of them light up.

    All are alike, and the machine may be busy with other work: the best one counts.
    """
    page = open_file(film)
    times = run(
        page,
        "I.update({image: argument}); I.render();"
        " const canvas = document.querySelector('canvas.i-picture'), {picture} = I, times = [];"
        " const {left, top} = canvas.getBoundingClientRect();"
        " const lit = I.current().situation.members(-2).patches.filter(p => picture.shows(p));"
        " for (let i = 0; i < 120; i++) {"
        "  const [x, y] = picture.centre(lit[(i * 7) % lit.length]);"
        "  const at = {clientX: left + x, clientY: top + y, pointerType: 'mouse'};"
        "  const begin = performance.now();"
        "  canvas.dispatchEvent(new PointerEvent('pointermove', at)); I.render();"
        "  times.push(performance.now() - begin); }"
        " return [lit.includes(I.state.hover), ...times.sort((a, b) => a - b)]",
        alone,
    )
    assert times[0]
    assert times[1] < 16, f"{times[1]} ms per frame"


@pytest.mark.parametrize(
    "trace",
    [
        make_trace("libra", grid=(1, 1), pictures=[PICTURE], n_layers=6),
        replace(make_trace("libra", grid=(4, 4)), importance=[], attention=[]),
        replace(make_trace("vanilla", grid=(4, 4)), answer="", words=[], attention=[]),
        make_trace("random", grid=(6, 6), pictures=[photo(300, 90), photo(90, 300)]),
        make_trace("illava", grid=(6, 6)),
        nothing_left(make_trace("fastv", layers=(1,), grid=(6, 6))),
    ],
    ids=["one token", "no rows", "no words", "two pictures", "encoder", "all dropped"],
)
def test_odd_answers_open_without_an_error(open_file, trace):
    page = open_file(trace)
    for overlay in page.locator(".i-overlays label").all():
        overlay.click()
    page.keyboard.press("Tab")
    picture(page).focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".i-card h3")).to_have_text("Patch 0")


def test_gradio_shows_it_and_hears_it(chromium, libra, fastv):
    import gradio as gr

    with gr.Blocks() as demo:
        value = inspector.view({"Libra-Merging": libra}, ask=True)
        view = gr.HTML(value, **inspector.component())
        heard = gr.Textbox(elem_id="heard")
        other = gr.Button("Other")
        other.click(lambda: inspector.view({"FastV": fastv}, ask=True), None, view)

        def tell(event: gr.EventData):
            return json.dumps([event.trace, event.how, event.patches])

        view.again(tell, None, heard)

        def write(event: gr.EventData):
            return json.dumps([event.trace, event.format])

        view.save(write, None, heard)

        def see(event: gr.EventData):
            told = (event.trace, event.stage, event.overlay, event.word, event.image, event.patch)
            return json.dumps(told)

        view.select(see, None, heard)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True)
    try:
        page = chromium.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(PATIENCE)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.locator(".inspector[data-tool]").wait_for()
        picture(page).click(position=spot(page, 8), modifiers=["Control"])
        picture(page).click(position=spot(page, 5), modifiers=["Control"])
        heard = page.locator("#heard textarea")
        for label, name in (("Keep these", "keep"), ("Drop these", "drop"), ("Drop all", "only")):
            page.get_by_role("button", name=label).click()
            expect(heard).to_have_value(json.dumps(["Libra-Merging", name, [5, 8]]))
        page.get_by_role("button", name="GIF").click()
        expect(heard).to_have_value(json.dumps(["Libra-Merging", "gif"]))
        page.locator(".i-words button").nth(1).click()
        expect(heard).to_have_value(json.dumps(["Libra-Merging", 3, "attention", 1, -1, -1]))
        page.get_by_role("button", name="Other").click()
        expect(page.locator(".i-stages label")).to_have_count(2)
        assert run(page, "return I.current().trace.name") == "FastV"
        assert not errors
        page.close()
    finally:
        demo.close()


def test_what_is_told_of_another_picture_too_late_is_not_taken_in(chromium):
    page = chromium.new_page()
    page.set_content(f"<body>{static('pane.html')}</body>")
    taken = page.evaluate(
        f"""() => {{ {joined(SCRIPTS)}
        const pane = createPane(document.querySelector(".i-pane"), "img", () => {{}});
        pane.show({{of: "new", stages: [0], image: 0}});
        const takes = of => {{
          try {{ pane.show({{traces: [{{}}], looks: {{}}, of}}); return false; }}
          catch {{ return true; }} // it was looked into
        }};
        return [takes("old"), takes("new")];
        }}"""
    )
    page.close()
    assert taken == [False, True]
