"""Several pictures and a video in headless Chromium, on the micro model."""

from threading import Event

import pytest

import app
import viz
from page import engine
from page.ask import AskTab
from page.compare import CompareTab
from tests import clips
from tests.conftest import N_VISUAL, PATIENCE, QUESTION, expect, make_image
from tests.serve_page import prepare_examples, serve_page

pytestmark = pytest.mark.browser
TIMES = ["0.0 s", "0.4 s", "0.7 s", "1.1 s"]  # of the sampled frames
FILES = "#left-column input[type=file][multiple]"
MAX_BYTES = 2**20  # of a file


@pytest.fixture(scope="module")
def url(model, tmp_path_factory):
    """The page with a low limit for files."""
    folder = prepare_examples(tmp_path_factory.mktemp("examples"), model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(app.LAUNCH, "max_file_size", MAX_BYTES)
        with serve_page(model, folder) as address:
            yield address


def ask(page):
    page.locator("#ask-button").click()
    expect(page.locator("#answer .status")).to_contain_text("Answered in")
    expect(page.locator("#ask-button")).to_be_visible()


def test_pictures_and_a_video_are_added_asked_about_and_scrubbed_through(open_page, tmp_path):
    for i in range(2):
        make_image(i + 5, 60 + 30 * i, 70).save(tmp_path / f"{i}.png")
    film = clips.write(tmp_path / "film.webm", [*map(clips.numbered, range(12))])
    page = open_page()
    expect(page.locator("#media")).to_be_hidden()
    expect(page.locator("#frames")).to_be_hidden()

    page.locator(FILES).set_input_files([tmp_path / "0.png", tmp_path / "1.png"])
    expect(page.locator("#media li")).to_have_count(3)
    page.get_by_role("button", name="Remove picture 2").click()
    expect(page.locator("#media li")).to_have_count(2)
    ask(page)
    expect(page.locator("#readouts")).to_contain_text(f"{2 * N_VISUAL} ›")
    expect(page.locator("#frames label")).to_have_count(2)
    before = page.locator("#hero img").get_attribute("src")
    page.locator("#frames input").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#caption")).to_contain_text("Picture 2 of 2")
    expect(page.locator("#hero img")).not_to_have_attribute("src", before)
    expect(page.locator("#frames input").nth(1)).to_be_focused()

    page.locator(FILES).set_input_files([film, tmp_path / "0.png"])
    expect(page.locator(".toast-body")).to_contain_text("add a video alone")
    expect(page.locator("#media li")).to_have_count(2)
    page.locator(FILES).set_input_files(film)
    expect(page.locator("#media .note")).to_contain_text("film.webm · 1.2 s · 8 frames")
    page.locator("#sampling label").first.click()
    expect(page.locator("#media li")).to_have_count(4)
    ask(page)
    expect(page.locator("#frames label")).to_have_count(4)
    page.locator("#frames label").nth(3).click()
    expect(page.locator("#caption")).to_contain_text("Frame 4 of 4, at 1.1 s")

    page.locator("#compare-button").click()
    expect(page.locator("#compare-status")).to_contain_text("2 of 2 methods answered")
    expect(page.locator("#compare-frames label")).to_have_count(4)
    expect(page.locator("#compare-frames input").nth(3)).to_be_checked()
    slide = page.locator("#slider img").first
    before = slide.get_attribute("src")
    page.locator("#compare-frames label").first.click()
    expect(slide).not_to_have_attribute("src", before)

    # One scrubber in every tab, and every tab shows what was chosen in another.
    page.get_by_role("tab", name="Figures").click()
    frames = page.locator("#figures-frames input")
    expect(frames).to_have_count(4)
    expect(frames.first).to_be_checked()
    ready = page.locator("#figures-status .note, #figures-status p").first
    expect(ready).to_have_text("")
    fates, steps = (figure(page, name) for name in ("fate_map", "staircase"))
    before = fates.get_attribute("src"), steps.get_attribute("src")
    page.locator("#figures-frames label").nth(2).click()
    expect(fates).not_to_have_attribute("src", before[0])
    assert steps.get_attribute("src") == before[1]

    page.get_by_role("tab", name="Inspect").click()
    expect(page.locator("#inspector .i-pictures input:checked + span")).to_have_text(TIMES[2])
    page.locator("#inspector .i-pictures label").nth(2).click()
    page.get_by_role("tab", name="Ask").click()
    expect(page.locator("#caption")).to_contain_text("Frame 2 of 4")
    expect(page.locator("#frames input").nth(1)).to_be_checked()
    page.locator("#frames label").nth(3).click()
    expect(page.locator("#caption")).to_contain_text("Frame 4 of 4")
    page.get_by_role("tab", name="Inspect").click()
    expect(page.locator("#inspector .i-pictures input:checked + span")).to_have_text(TIMES[3])


def figure(page, name):
    """The picture of one figure of the gallery."""
    heading = page.get_by_role("heading", name=viz.FIGURES[name].title)
    return page.locator("#gallery .figure").filter(has=heading).locator("img")


def test_a_film_beyond_the_limit_is_refused_in_words(open_page, tmp_path):
    film = tmp_path / "film.mp4"
    film.write_bytes(b"\0\0\0\x18ftypisom" + bytes(MAX_BYTES))
    page = open_page()
    page.locator(FILES).set_input_files(film)
    expect(page.get_by_test_id("toast-body")).to_contain_text(
        'exceed the maximum allowed size of 1.0 Mb: "film.mp4"'
    )
    expect(page.locator("#media")).to_be_hidden()
    ask(page)


@pytest.mark.parametrize(
    ("scrubber", "tab", "drawing"),
    [("#frames", AskTab, "draw_picture"), ("#compare-frames", CompareTab, "draw")],
)
def test_what_is_picked_while_a_picture_is_drawn_is_drawn_next(
    open_page, model, tmp_path, monkeypatch, scrubber, tab, drawing
):
    pictures = [make_image(seed) for seed in range(3)]
    request = {"images": pictures, "question": QUESTION, "max_new_tokens": 1}
    engine.load(model).answer(**request).trace.save(tmp_path / "three.zip")
    page = open_page()
    page.locator("#open-trace").locator("..").locator("input[type=file]").first.set_input_files(
        tmp_path / "three.zip"
    )
    expect(page.locator("#frames input")).to_have_count(3)
    if tab is CompareTab:
        page.get_by_role("tab", name="Compare").click()
        expect(page.locator(f"{scrubber} input")).to_have_count(3)

    drawn, draw, go = [], getattr(tab, drawing), Event()

    def slow(self, shown, *how):
        drawn.append(shown.image)
        go.wait(PATIENCE / 1000)
        return draw(self, shown, *how)

    monkeypatch.setattr(tab, drawing, slow)
    try:
        for i in (1, 2):
            page.locator(f"{scrubber} label").nth(i).click()
            until(page, lambda: drawn)
    finally:
        go.set()
    until(page, lambda: drawn == [1, 2])
    expect(page.locator(f"{scrubber} input").nth(2)).to_be_checked()


def until(page, done):
    """Wait for what happens on the server."""
    for _ in range(PATIENCE // 50):
        if done():
            return
        page.wait_for_timeout(50)
    raise AssertionError
