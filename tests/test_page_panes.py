"""Panes over the pictures of a comparison: one patch in all of them; needs a browser."""

import pytest

from page import texts
from tests.conftest import expect
from tests.test_page_browser import card, compare_methods

pytestmark = pytest.mark.browser

SIDE = 4  # patches of the micro model's picture
TOLD = "#panes .i-card"
# What a canvas of the panes has drawn: how many of its pixels are not empty.
DRAWN = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)" + (
    ".data.filter((v, i) => i % 4 === 3 && v).length"
)
# When a picture is there and whatever scrolled has come to rest.
SETTLED = """async picture => {
  await picture.decode();
  for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame);
}"""
# When nothing of an element moves any more.
ARRIVED = "part => Promise.all(part.getAnimations({subtree: true}).map(each => each.finished))"


def point(page, picture, patch: int) -> tuple[float, float]:
    """Move the pointer over a patch of a picture whose middle square the model sees."""
    picture.evaluate(SETTLED)
    box = picture.bounding_box()
    side = min(box["width"], box["height"])
    x = box["x"] + (box["width"] - side) / 2 + side * (patch % SIDE + 0.4) / SIDE
    y = box["y"] + (box["height"] - side) / 2 + side * (patch // SIDE + 0.4) / SIDE
    page.mouse.move(x, y)
    return x, y


def compared(page, *names: str) -> None:
    compare_methods(page, *names)
    page.locator("#compare-run").click()
    expect(page.locator("#compare-status")).to_have_text(
        texts.COMPARED.format(len(names), len(names))
    )


def under_a_slider(page) -> list:
    page.locator("#compare-button").click()
    expect(page.locator("#compare-status")).to_have_text(texts.COMPARED.format(2, 2))
    pictures = page.locator("#slider img").all()
    pictures[1].scroll_into_view_if_needed()
    return pictures


def test_a_patch_is_pointed_at_in_all_pictures_of_a_comparison(open_page):
    page = open_page()
    compared(page, "vanilla", "fastv", "libra")
    pictures, panes = page.locator("#cards img"), page.locator("#panes canvas")
    pictures.nth(1).scroll_into_view_if_needed()
    expect(page.locator(TOLD)).to_have_count(0)
    fates = {}
    for patch in range(SIDE * SIDE):
        point(page, pictures.nth(1), patch)
        expect(page.locator(f"{TOLD} h3")).to_have_text(f"Patch {patch}")
        expect(panes).to_have_count(3)
        over, under = (
            part.evaluate_all("all => all.map(e => e.getBoundingClientRect().left)")
            for part in (panes, pictures)
        )
        assert over == pytest.approx(under, abs=1)
        assert all(panes.nth(k).evaluate(DRAWN) > 100 for k in range(3))
        notes = page.locator("#panes .i-note").all_inner_texts()
        assert notes[0] == "kept"
        fates[patch] = page.locator(f"{TOLD} .i-fate").inner_text(), notes[1]
    # What the panes say is what became of the tokens: FastV drops half, Libra-Merging nothing.
    assert [fate for fate, _ in fates.values()].count("dropped") == SIDE * SIDE // 2
    assert not any(note == "dropped" for _, note in fates.values())
    assert any(note.startswith("merged into patch") for _, note in fates.values())
    page.keyboard.press("Shift")
    expect(page.locator(TOLD)).to_have_count(0)


def test_the_card_leaves_the_picture_free_where_the_window_has_room(open_page):
    page = open_page(height=1200)
    compared(page, "vanilla", "fastv", "libra")
    picture = page.locator("#cards img").nth(1)
    point(page, picture, 6)
    expect(page.locator(f"{TOLD} h3")).to_have_text("Patch 6")
    seen, told = picture.bounding_box(), page.locator(TOLD).bounding_box()
    below = told["y"] >= seen["y"] + seen["height"]
    assert below or told["y"] + told["height"] <= seen["y"]
    assert told["y"] >= 0 and told["y"] + told["height"] <= 1200


def test_where_nothing_hovers_the_page_speaks_of_tapping(open_page):
    page = open_page(width=390, height=844, has_touch=True, is_mobile=True)
    expect(page.locator("#caption .taps")).to_be_visible()
    expect(page.locator("#caption .hovers")).to_be_hidden()
    compared(page, "vanilla", "fastv", "libra")
    expect(page.locator("#compare-legend .taps")).to_have_text(texts.TAP)
    expect(page.locator("#compare-legend .hovers")).to_be_hidden()
    page.locator("#cards img").nth(1).tap(position={"x": 40, "y": 40})
    expect(page.get_by_role("tab", name="Inspect")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#inspect-top .taps")).to_be_visible()


def test_with_a_pointer_the_page_speaks_of_pointing(open_page):
    page = open_page()
    expect(page.locator("#caption .hovers")).to_be_visible()
    expect(page.locator("#caption .taps")).to_be_hidden()


def test_a_click_on_a_picture_of_a_comparison_leads_to_its_answer(open_page):
    page = open_page()
    compared(page, "vanilla", "fastv", "libra")
    page.locator("#compare-stage label").first.click()
    expect(card(page, "FastV")).to_contain_text("Before")
    picture = page.locator("#cards img").nth(1)
    picture.scroll_into_view_if_needed()
    page.mouse.click(*point(page, picture, 6))
    expect(page.get_by_role("tab", name="Inspect")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#inspector .i-card h3")).to_have_text("Patch 6")
    expect(page.locator("#inspector .i-answers label:has(:checked)")).to_have_text("FastV")
    expect(page.locator("#inspector .i-stages label").first.locator("input")).to_be_checked()


def test_under_a_slider_the_picture_that_is_seen_tells(open_page):
    page = open_page()
    left, right = under_a_slider(page)
    for picture, patch, compressed in ((left, 4, False), (right, 7, True)):
        point(page, picture, patch)
        expect(page.locator(f"{TOLD} h3")).to_have_text(f"Patch {patch}")
        expect(page.locator("#panes canvas")).to_have_count(1)
        assert (page.locator(f"{TOLD} .i-path li").count() > 0) == compressed


def test_a_picture_of_which_nothing_is_known_yet_has_no_pane(open_page):
    page = open_page()
    compared(page, "vanilla", "fastv", "libra")
    pictures = page.locator("#cards img")
    pictures.first.evaluate("picture => picture.after(picture.cloneNode())")
    pictures.first.scroll_into_view_if_needed()
    point(page, pictures.first, 5)
    expect(page.locator("#panes canvas")).to_have_count(3)
    point(page, pictures.last, 5)
    expect(page.locator(TOLD)).to_have_count(0)


def test_a_click_leads_out_of_the_whole_screen_and_a_drag_nowhere(open_page):
    page = open_page()
    _, right = under_a_slider(page)
    page.locator("#slider").get_by_role("button", name="Fullscreen").click()
    expect(page.locator("#slider.fullscreen")).to_have_count(1)
    page.locator("#slider").evaluate(ARRIVED)
    x, y = point(page, right, 6)
    expect(page.locator(f"{TOLD} h3")).to_have_text("Patch 6")
    page.mouse.down()
    page.mouse.move(x + 20, y)
    page.mouse.up()
    page.wait_for_timeout(500)
    expect(page.get_by_role("tab", name="Compare")).to_have_attribute("aria-selected", "true")
    page.mouse.click(x, y)
    expect(page.get_by_role("tab", name="Inspect")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#inspector .i-card h3")).to_have_text("Patch 6")
    expect(page.locator("#slider.fullscreen")).to_have_count(0)
