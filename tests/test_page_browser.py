"""The page in headless Chromium, on the micro model."""

import io
import re
import time
import zipfile

import pytest
from gradio_client import Client, handle_file
from PIL import Image

from libra import methods
from libra.trace import Trace
from page import engine, link, panels, texts
from page.shown import Result
from tests.conftest import N_VISUAL, QUESTION, expect, make_image

pytestmark = pytest.mark.browser

# From here on, what screen readers are told, each for a second, is in the set `said`.
HEAR = """() => {
  window.said = new Set();
  const listen = () => document.querySelectorAll("[role=status]").forEach(
    told => said.add(told.textContent.trim()));
  const changes = {subtree: true, childList: true, characterData: true};
  new MutationObserver(listen).observe(document.body, changes);
}"""


def question(page):
    return page.locator("#question textarea, #question input").first


def answered(page):
    """Wait until the answer is complete and vanilla measured."""
    expect(page.locator("#answer .status")).to_contain_text("Answered in")
    expect(page.locator("#ask-button")).to_be_visible()


def choose_method(page, name):
    page.locator("#method summary").click()
    page.locator(f"#method input[value='{name}']").click()


def compare_methods(page, *names):
    """Open the Compare tab and set its methods."""
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-methods summary").click()
    page.locator("#compare-methods [data-all=false]").click()
    for name in names:
        page.locator(f"#compare-methods input[value='{name}']").check()
    page.keyboard.press("Escape")


def card(page, title):
    return page.locator("#cards .card").filter(has=page.get_by_role("heading", name=title))


def hero(page):
    return page.locator("#hero img").get_attribute("src")


def changed_hero(page, before):
    page.wait_for_function(
        "before => document.querySelector('#hero img').getAttribute('src') !== before", arg=before
    )


def test_first_visit_shows_a_stored_answer_without_running_the_model(open_page, model, monkeypatch):
    monkeypatch.setattr(engine, "ask", None)  # a call would fail
    page = open_page()
    expect(page.locator("#answer .asked")).to_have_text(QUESTION)
    expect(page.locator("#answer .status")).to_contain_text("stored answer")
    expect(page.locator("#readouts")).to_contain_text(f"{N_VISUAL} › {N_VISUAL // 2}")
    expect(page.locator("#readouts")).to_contain_text("vanilla")
    expect(page.locator("#stage input:checked")).to_have_value("3")
    assert page.locator("#hero img").get_attribute("alt")


def test_enter_asks_and_the_numbers_follow(open_page):
    page = open_page()
    choose_method(page, "fastv")
    expect(page.locator("#method summary")).to_have_text("FastV")
    expect(page.locator("#method .choices")).to_be_hidden()
    expect(page.locator(".about")).to_contain_text("attention")
    question(page).fill("how many cat in the image ?")
    page.evaluate(HEAR)
    question(page).press("Enter")
    answered(page)
    expect(page.locator("#answer .asked")).to_have_text("how many cat in the image ?")
    expect(page.locator("#readouts")).to_contain_text(f"{N_VISUAL} › {N_VISUAL // 2}")
    expect(page.locator("#stage label")).to_have_count(2)
    page.wait_for_function("said.has('Done')")
    assert not page.evaluate("[...said].filter(words => words.startsWith('common.'))")


def test_stage_overlay_and_word_move_the_pictures(open_page):
    page = open_page()
    before, strip = hero(page), page.locator("#tokens img").get_attribute("src")
    page.locator("#stage label").nth(1).click()
    changed_hero(page, before)
    expect(page.locator("#caption")).to_contain_text(f"stand for {N_VISUAL} patches")
    assert page.locator("#tokens img").get_attribute("src") != strip

    before = hero(page)
    page.get_by_role("button", name="Importance").click()
    changed_hero(page, before)
    pressed = page.locator("#overlays [aria-pressed=true]")
    expect(pressed).to_have_text("Importance")
    expect(page.locator("#caption")).to_contain_text("of the attention per token")

    before = hero(page)
    page.locator("#answer [data-pick='1']").click()
    changed_hero(page, before)
    expect(page.locator("#caption")).to_contain_text("word 2 of")
    expect(pressed).to_have_text("Word")


def test_methods_are_chosen_by_keyboard_too(open_page):
    page = open_page()
    page.locator("#method summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#method summary")).not_to_have_text("Libra-Merging")
    expect(page.locator("#method .choices")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#method .choices")).to_be_hidden()


@pytest.fixture
def slow_settings(monkeypatch):
    """The settings of a method arrive late, as on a slow line."""
    about = panels.about_method
    monkeypatch.setattr(panels, "about_method", lambda method: time.sleep(0.7) or about(method))


def test_who_runs_through_the_methods_sees_the_settings_of_the_last(open_page, slow_settings):
    page = open_page()
    page.locator("#method summary").click()
    page.locator("#method input:checked").focus()
    for _ in range(2):  # to Turbo and, while its settings are on their way, to PruMerge
        page.keyboard.press("ArrowDown")
    expect(page.locator("#method summary")).to_have_text("PruMerge")
    expect(page.locator(".about")).to_contain_text("outlier")
    expect(page.locator("#layers input:checked")).to_have_count(0)


@pytest.mark.parametrize("start", ["button", "key"])
def test_who_asks_while_settings_are_on_their_way_asks_with_them(open_page, slow_settings, start):
    page = open_page()
    choose_method(page, "fastv")
    if start == "button":
        page.locator("#ask-button").click()
    else:
        question(page).press("Enter")
    answered(page)
    expect(page.locator("#readouts")).to_contain_text(f"{N_VISUAL} › {N_VISUAL // 2}")
    expect(page.locator("#stage label")).to_have_count(2)


def test_two_answers_to_what_is_asked_now_are_compared_under_a_slider(open_page, monkeypatch):
    asked, real = [], engine.compare
    monkeypatch.setattr(
        engine, "compare", lambda model, requests: asked.extend(requests) or real(model, requests)
    )
    page = open_page()
    question(page).fill("is there a dog ?")
    page.locator("#compare-button").click()
    expect(page.locator("#compare-status")).to_have_text(texts.COMPARED.format(2, 2))
    assert [(r["method"], r["question"]) for r in asked] == [
        ("vanilla", "is there a dog ?"),
        ("libra", "is there a dog ?"),
    ]
    expect(page.locator("#cards .card h3")).to_have_text(
        ["Vanilla (no compression)", "Libra-Merging"]
    )
    expect(page.locator("#numbers")).to_contain_text("FLOPs")
    expect(page.locator("#compare-run")).to_be_visible()
    expect(page.locator("#slider img")).to_have_count(2)
    expect(page.locator("#cards img")).to_have_count(0)
    pictures = page.locator("#slider img").evaluate_all("images => images.map(i => i.src)")
    page.locator("#compare-overlay label").first.click()
    page.wait_for_function(
        "old => [...document.querySelectorAll('#slider img')].every((i, k) => i.src !== old[k])",
        arg=pictures,
    )


def test_the_slider_over_two_pictures_knows_keys(open_page):
    page = open_page()
    page.get_by_role("tab", name="Compare").click()
    slider = page.get_by_role("slider", name="Share of the left picture")
    slider.focus()
    expect(slider).to_have_attribute("aria-valuenow", "50")
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuenow", "55")
    above = page.get_by_role("img", name="Libra-Merging", exact=True)
    expect(above).to_have_attribute("style", re.compile(r"clip-path: inset\(0px 0px 0px 5[45]"))


def test_a_parameter_left_empty_is_found_automatically(open_page):
    page = open_page()
    page.get_by_role("button", name="Parameters of Libra-Merging").click()
    expect(page.get_by_label("eta")).to_have_value("")
    page.locator("#ask-button").click()
    answered(page)
    page.get_by_label("eta").fill("much")
    page.locator("#ask-button").click()
    expect(page.get_by_test_id("toast-body")).to_contain_text("eta: give a number or nothing")


def test_any_set_of_methods_is_compared_side_by_side_and_in_step(open_page, model):
    page = open_page()
    compare_methods(page, "fastv", "vanilla", "tome", "libra")
    page.locator("#compare-run").click()
    expect(page.locator("#compare-status")).to_have_text(texts.COMPARED.format(4, 4))
    expect(page.locator("#cards .card h3")).to_have_text(
        ["Vanilla (no compression)", "FastV", "Libra-Merging", "ToMe"]
    )
    expect(page.locator("#cards img")).to_have_count(4)
    expect(page.locator("#slider")).to_have_count(0)
    expect(page.locator("#numbers tbody tr")).to_have_count(4)
    expect(card(page, "Vanilla")).to_contain_text(texts.REFERENCE)
    expect(card(page, "FastV")).to_contain_text("After layer 1 · 8")
    expect(card(page, "Libra-Merging")).to_contain_text("After layer 5 · 2")

    before = page.locator("#cards img").evaluate_all("images => images.map(i => i.src)")
    page.locator("#compare-stage label").first.click()
    expect(card(page, "FastV")).to_contain_text(f"Before · {N_VISUAL}")
    expect(card(page, "Libra-Merging")).to_contain_text(f"Before · {N_VISUAL}")
    after = page.locator("#cards img").evaluate_all("images => images.map(i => i.src)")
    assert before[0] == after[0] and before[2] != after[2]

    page.get_by_role("tab", name="Efficiency").click()
    expect(page.locator("#per-layer tbody tr")).to_have_count(4)


def test_one_ratio_for_all_methods(open_page):
    page = open_page()
    compare_methods(page, "fastv", "random")
    page.locator("#compare-ratio label").filter(has_text="80 %").click()
    page.locator("#compare-run").click()
    expect(page.locator("#compare-status")).to_have_text(texts.COMPARED.format(2, 2))
    expect(page.locator("#numbers")).to_contain_text(f"{N_VISUAL} › 3")


def test_all_methods_leave_the_same_number_of_tokens(open_page):
    page = open_page()
    compare_methods(page, "fastv", "pyramiddrop", "prumerge")
    page.locator("#compare-ratio label").filter(has_text="¼ left").click()
    page.locator("#compare-run").click()
    expect(page.locator("#compare-status")).to_have_text(texts.COMPARED.format(3, 3))
    for method in ("fastv", "pyramiddrop", "prumerge"):
        row = page.locator("#numbers tbody tr").filter(has_text=methods.title(method)).first
        expect(row).to_contain_text(f"› {N_VISUAL // 4}")


def test_a_method_that_fails_says_so_in_its_place(open_page):
    page = open_page()
    checked = page.locator("#layers input:checked").all()
    for layer in reversed(checked):  # each click makes them fewer
        layer.click()
    compare_methods(page, "vanilla", "libra", "fastv")
    page.locator("#compare-run").click()
    expect(page.locator("#compare-status")).to_have_text(texts.COMPARED.format(2, 3))
    expect(card(page, "Libra-Merging")).to_contain_text("choose at least one")
    expect(page.locator("#numbers tr").filter(has_text="Libra")).to_contain_text("at least one")
    expect(page.locator("#cards img")).to_have_count(2)


def test_table_and_pictures_of_a_comparison_download(open_page):
    page = open_page()
    compare_methods(page, "vanilla", "fastv", "libra")
    page.locator("#compare-run").click()
    expect(page.locator("#compare-status")).to_have_text(texts.COMPARED.format(3, 3))
    with page.expect_download() as table:
        page.locator("#save-table").click()
    assert table.value.suggested_filename == "comparison.csv"
    lines = table.value.path().read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["method", "vanilla", "fastv", "libra"]
    with page.expect_download() as pictures:
        page.locator("#save-pictures").click()
    assert Image.open(pictures.value.path()).format == "PNG"


def test_no_method_and_no_question_are_explained_and_nothing_is_lost(open_page):
    page = open_page()
    compare_methods(page)
    expect(page.locator("#cards .card")).to_have_count(2)
    page.locator("#compare-run").click()
    expect(page.get_by_test_id("toast-body")).to_contain_text("choose at least one")
    expect(page.locator("#compare-run")).to_be_visible()
    expect(page.locator("#cards .card")).to_have_count(2)
    page.get_by_role("tab", name="Ask").click()
    question(page).fill("")
    compare_methods(page, "vanilla")
    page.locator("#compare-run").click()
    expect(page.get_by_test_id("toast-body").last).to_contain_text("There is no question")
    expect(page.locator("#cards .card")).to_have_count(2)


def test_a_stopped_comparison_keeps_what_is_complete(open_page, model, monkeypatch):
    from threading import Event

    closed, go = Event(), Event()
    real = engine.compare

    def slow(model, requests):
        yield from real(model, requests[:1])
        try:
            while not go.wait(0.1):
                yield Result(requests[1]["method"], "slowly")
        finally:
            closed.set()

    monkeypatch.setattr(engine, "compare", slow)
    page = open_page()
    compare_methods(page, "vanilla", "fastv", "libra")
    try:
        page.locator("#compare-run").click()
        expect(card(page, "FastV")).to_contain_text("slowly")
        expect(page.locator("#compare-status")).to_contain_text("FastV · 2 of 3")
        expect(card(page, "Libra-Merging")).to_be_visible()
        expect(page.locator("#cards img")).to_have_count(1)
        page.locator("#compare-stop").click()
        expect(page.locator("#compare-run")).to_be_visible()
        expect(page.locator("#compare-status")).to_have_text(texts.STOPPED.format(1, 3))
        expect(page.locator("#cards .card h3")).to_have_text(["Vanilla (no compression)"])
        assert closed.wait(10)
    finally:
        go.set()


def test_an_example_without_a_trace_fills_the_controls_and_leaves_the_answer(open_page):
    page = open_page()
    before = hero(page)
    question(page).fill("")
    page.locator(".strip [data-pick='1']").click()
    expect(question(page)).to_have_value(QUESTION)
    expect(page.locator("#picture img")).to_have_attribute("alt", "The second picture")
    assert hero(page) == before


def test_pictures_and_trace_download(open_page, model, tmp_path):
    page = open_page()
    with page.expect_download() as picture:
        page.locator("#save-picture").click()
    assert picture.value.suggested_filename == "libra-merged-after-layer-5.png"
    assert Image.open(picture.value.path()).format == "PNG"
    with page.expect_download() as file:
        page.locator("#save-trace").click()
    trace = Trace.load(file.value.path())
    assert trace.question == QUESTION and len(trace.events) == 3
    saved = {}
    for name in ("svg", "page"):
        with page.expect_download() as file:
            page.locator(f"#save-{name}").click()
        saved[file.value.suggested_filename] = file.value.path().read_text("utf-8")
    assert list(saved) == ["libra-merged-after-layer-5.svg", "libra.html"]
    picture, alone = saved.values()
    assert "<svg" in picture and f"<title>{QUESTION}</title>" in alone


def test_a_trace_file_redraws_everything_without_a_model(open_page, model, tmp_path, monkeypatch):
    make_image(seed=3).save(tmp_path / "other.png")
    answer = engine.load(model).answer(
        images=[tmp_path / "other.png"], question="is there a dog ?", method="fastv", ratio=0.75
    )
    answer.trace.save(tmp_path / "some.trace.zip")
    monkeypatch.setattr(engine, "ask", None)
    page = open_page()
    before = hero(page)
    page.locator("#open-trace").locator("..").locator("input[type=file]").first.set_input_files(
        tmp_path / "some.trace.zip"
    )
    changed_hero(page, before)
    expect(page.locator("#answer .asked")).to_have_text("is there a dog ?")
    expect(page.locator("#answer .status")).to_have_text(texts.FROM_FILE)
    expect(page.locator("#readouts")).to_contain_text(f"{N_VISUAL} › {N_VISUAL // 4}")
    expect(question(page)).to_have_value("is there a dog ?")


def newer_trace():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        z.writestr("trace.json", '{"format": "libra-trace", "version": 999}')
    return file.getvalue()


BAD_TRACES = {
    "foreign": (b"not a zip", "is not a trace file"),
    "newer": (newer_trace(), "newer version"),
}


@pytest.mark.parametrize("case", BAD_TRACES)
def test_a_bad_trace_file_is_explained_and_nothing_is_lost(open_page, tmp_path, case):
    content, message = BAD_TRACES[case]
    (tmp_path / "file.zip").write_bytes(content)
    page = open_page()
    before = hero(page)
    page.locator("#open-trace").locator("..").locator("input[type=file]").first.set_input_files(
        tmp_path / "file.zip"
    )
    expect(page.get_by_test_id("toast-body")).to_contain_text(message)
    assert hero(page) == before
    expect(page.locator("#answer .asked")).to_have_text(QUESTION)


def test_an_empty_question_is_explained_and_nothing_is_lost(open_page):
    page = open_page()
    before = hero(page)
    question(page).fill("")
    page.locator("#ask-button").click()
    expect(page.get_by_test_id("toast-body")).to_contain_text("There is no question")
    expect(page.locator("#ask-button")).to_be_visible()
    assert hero(page) == before
    expect(page.locator("#answer .asked")).to_have_text(QUESTION)


def test_a_picture_that_cannot_be_read_gives_way_to_the_one_before(open_page, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    page = open_page()
    alt = page.locator("#picture img").get_attribute("src")
    page.get_by_label("Remove Image").click()
    page.locator("#picture input[type=file]").first.set_input_files(tmp_path / "cut.png")
    expect(page.get_by_test_id("toast-body")).to_contain_text("cut.png")
    expect(page.locator("#picture img")).to_have_attribute("src", alt)


def test_a_removed_picture_is_asked_for(open_page):
    page = open_page()
    page.get_by_label("Remove Image").click()
    page.locator("#ask-button").click()
    expect(page.get_by_test_id("toast-body")).to_contain_text(texts.NO_PICTURE)


def test_stop_frees_the_slot_and_the_next_in_the_queue_sees_its_place(open_page, monkeypatch):
    from threading import Event

    asked, closed, go = [], Event(), Event()

    def slow(model, request):
        asked.append(request["question"])
        try:
            while not go.wait(0.1):
                yield engine.Progress("slowly")
        finally:
            closed.set()

    monkeypatch.setattr(engine, "ask", slow)
    first, second = open_page(), open_page()
    try:
        first.locator("#ask-button").click()
        expect(first.locator("#answer .words")).to_have_text("slowly")
        second.locator("#ask-button").click()
        expect(second.locator("#answer .status")).to_have_text(texts.IN_LINE.format(1))
        assert len(asked) == 1
        first.locator("#stop-button").click()
        expect(first.locator("#ask-button")).to_be_visible()
        expect(first.locator("#answer .status")).to_have_text(texts.UNFINISHED)
        expect(second.locator("#answer .words")).to_have_text("slowly")
        assert closed.is_set() and len(asked) == 2
    finally:
        go.set()


def test_a_refused_question_changes_nothing(open_page):
    page = open_page()
    status = page.locator("#answer .status")
    for _ in range(2):  # before an answer was computed here, and after
        before = status.inner_text()
        page.locator("#question textarea, #question input").fill("")
        page.locator("#ask-button").click()
        expect(page.locator(".toast-body")).to_be_visible()
        expect(status).to_have_text(before)
        page.locator(".toast-close").click()
        page.locator("#question textarea, #question input").fill(QUESTION)
        page.locator("#ask-button").click()
        answered(page)


def test_a_question_over_the_api_and_one_of_the_page_take_turns(
    open_page, url, tmp_path, monkeypatch
):
    from threading import Event

    begun, go, real = Event(), Event(), engine.ask

    def slow(model, request):
        begun.set()
        while not go.wait(0.1):
            yield engine.Progress("slowly")
        yield from real(model, request)

    monkeypatch.setattr(engine, "ask", slow)
    make_image().save(tmp_path / "picture.png")
    image = handle_file(str(tmp_path / "picture.png"))
    page, status = open_page(), texts.IN_LINE.format(1)
    call = Client(url, verbose=False).submit(image=image, question=QUESTION, api_name="/ask")
    try:
        assert begun.wait(60)
        page.locator("#ask-button").click()
        expect(page.locator("#answer .status")).to_have_text(status)
        page.locator("#stop-button").click()
        expect(page.locator("#answer .status")).to_have_text(texts.FROM_EXAMPLE)
        expect(page.locator("#answer .asked")).to_have_text(QUESTION)
        page.locator("#ask-button").click()
        expect(page.locator("#answer .status")).to_have_text(status)
        assert not call.done()
    finally:
        go.set()
    answered(page)
    assert call.result(timeout=60)[1]["method"] == "libra"


def test_figures_and_efficiency_draw_from_the_trace(open_page):
    page = open_page()
    page.get_by_role("tab", name="Figures").click()
    images = page.locator("#gallery img")
    expect(images.and_(page.get_by_alt_text("CLS attention."))).to_be_attached()  # the last one
    # What comes in one update is attached one by one.
    page.wait_for_function("document.querySelectorAll('#gallery img').length > 5")
    images.evaluate_all("all => all.forEach(i => { i.loading = 'eager' })")  # below the fold, too
    assert images.count() > 5
    for image in images.all():
        expect(image).to_be_visible()
        assert image.get_attribute("alt")
    page.get_by_role("tab", name="Efficiency").click()
    expect(page.locator("#per-layer")).to_contain_text("Decoder layer")


def test_learn_explains_methods_terms_and_other_models(open_page):
    page = open_page()
    page.get_by_role("tab", name="Learn").click()
    expect(page.locator("#learn")).to_contain_text("MODEL=llava-hf/llava-1.5-7b-hf make demo")
    expect(page.locator("#learn .diagram").first).to_be_visible()
    for term in texts.TERMS:
        expect(page.locator("#learn .terms")).to_contain_text(term)


def test_presets_set_ratio_and_layers_at_this_depth(open_page):
    page = open_page()
    page.locator("#preset input").click()
    page.get_by_role("option", name="R = 80 %").click()
    expect(page.locator("#ratio input[type=number]")).to_have_value("0.8")
    checked = page.locator("#layers input:checked").evaluate_all(
        "inputs => inputs.map(i => i.name)"
    )
    assert checked == ["1", "3", "5"]


def test_vanilla_has_nothing_to_set(open_page):
    page = open_page()
    choose_method(page, "vanilla")
    expect(page.locator("#layers input").first).to_be_disabled()
    expect(page.locator("#ratio input[type=range]")).to_be_disabled()
    expect(page.locator("#preset")).to_contain_text("no settings")


def test_every_picture_has_a_description(open_page):
    page = open_page()
    missing = page.locator("img").evaluate_all(
        "images => images.filter(i => !i.alt && !i.closest('button')?.innerText.trim()).length"
    )
    assert missing == 0


TABS = {  # and what stands in each once it is drawn; figures go on coming, so they are last
    "Ask": "#hero img",
    "Compare": "#numbers .tip",
    "Inspect": "#inspector .inspector[data-tool]",
    "Efficiency": "#per-layer tbody tr",
    "Learn": "#learn .diagram",
    "Figures": "#gallery img",
}


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()
    page.locator(TABS[name]).first.wait_for(state="attached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(open_page, scheme):
    page = open_page(color_scheme=scheme)
    for tab in TABS:
        open_tab(page, tab)
        page.wait_for_timeout(500)  # colours that change have changed
        faint = page.evaluate(CONTRAST)
        assert not faint, f"{tab}: {faint}"


# Every visible text against the first opaque background behind it: WCAG AA.
CONTRAST = """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.99) return c;
    }
    return document.body.classList.contains("dark") ? [0, 0, 0] : [255, 255, 255];
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!/[\\p{L}\\p{N}]/u.test(text) || !e.checkVisibility()) continue;
    if (e.closest("svg, :disabled, script, style")) continue;
    const box = e.getBoundingClientRect();
    if (box.width < 2 || box.height < 2) continue;
    const style = getComputedStyle(e);
    const [a, b] = [luminance(parse(style.color)), luminance(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) faint.push(`${ratio.toFixed(2)}: ${text.slice(0, 40)}`);
  }
  return faint;
}"""


@pytest.mark.parametrize("width", [1440, 390])
def test_every_part_has_a_name_a_place_and_room(open_page, width):
    page = open_page(width=width)
    assert page.title() and page.locator("html").get_attribute("lang") == "en"
    for tab in TABS:
        open_tab(page, tab)
        page.wait_for_timeout(500)
        faults = page.evaluate(FAULTS)
        assert not faults, f"{tab}: {faults}"
    for window in ("help", "share"):
        page.locator(f"[data-act={window}]").click()
        expect(page.locator(f"#{window}")).to_be_visible()
        assert not page.evaluate(FAULTS), window
        page.keyboard.press("Escape")


# What cannot be told apart by those who listen, or hardly be hit: WCAG A, AA and headings in order.
FAULTS = """() => {
  const faults = [];
  const fault = (what, part) => faults.push(`${what}: ${part.outerHTML.slice(0, 100)}`);
  const open = document.querySelector("dialog[open]");
  const all = selector => [...(open ?? document).querySelectorAll(selector)]
    .filter(e => e.checkVisibility({visibilityProperty: true}) && !e.closest("[aria-hidden=true]"));

  const title = e => document.getElementById(e.getAttribute("aria-labelledby"));
  const named = e => [
    e.ariaLabel, e.alt, e.title, title(e)?.innerText, e.labels?.[0]?.innerText,
    e.querySelector(":scope > legend, :scope > summary")?.innerText,
    ...(e.matches("button, a, summary") ? [e.innerText, e.querySelector("img")?.alt] : []),
  ].some(name => name?.trim());
  const controls = "button, a[href], input, select, textarea, summary, [tabindex='0']";
  const groups = "fieldset, details, dialog, [role=group], [role=radiogroup]";
  for (const e of all(`${controls}, ${groups}, img, canvas, [role=img]`)) {
    const decorates = e.matches("img[alt='']") && e.closest("button, label, #media");
    if (e.tabIndex >= 0 || !e.matches(controls)) named(e) || decorates || fault("no name", e);
  }

  let level = open ? 1 : 0;
  for (const heading of all("h1, h2, h3, h4, h5, h6")) {
    const own = Number(heading.tagName[1]);
    if (own > level + 1) fault(`after a heading ${level}`, heading);
    if (!heading.textContent.trim()) fault("empty", heading);
    level = own;
  }
  for (const e of all("dl > :not(dt, dd, div), dl > div > :not(dt, dd)")) fault("in a list", e);

  // 24 pixels, or as much room around the middle; words of a sentence are as high as their line.
  const targets = all(controls).filter(e => e.tabIndex >= 0 && !e.closest(".words")).map(e => {
    const {left, right, top, bottom} = (e.closest("label") ?? e).getBoundingClientRect();
    const small = Math.min(right - left, bottom - top) < 24;
    return {e, small, left, right, top, bottom, x: (left + right) / 2, y: (top + bottom) / 2};
  });
  const meet = ({e, x, y}, other) => !e.contains(other.e) && !other.e.contains(e) && (
    (other.small && Math.hypot(other.x - x, other.y - y) < 24) || Math.hypot(
      Math.max(other.left - x, 0, x - other.right), Math.max(other.top - y, 0, y - other.bottom)
    ) < 12);
  for (const target of targets)
    if (target.small && targets.some(other => meet(target, other))) fault("no room", target.e);
  return faults;
}"""


def test_an_answer_is_heard_once_and_as_a_whole(open_page):
    page = open_page()
    page.evaluate(
        "() => { window.heard = []; new MutationObserver(() => {"
        " const now = document.querySelector('#answer .unseen[role=status]').textContent;"
        " if (now !== heard.at(-1)) heard.push(now);"
        "}).observe(document.querySelector('#answer'), {subtree: true, childList: true,"
        " characterData: true}) }"
    )
    question(page).press("Enter")
    answered(page)
    words = page.locator("#answer .words button").all_inner_texts()
    heard = page.evaluate("heard")
    (answer,) = heard[heard.index("") + 1 :]  # nothing while it streams
    assert answer.startswith(texts.HEARD.format(""))
    assert all(word in answer for word in words if word != "␣")


def test_where_the_system_sets_all_colours_what_is_chosen_shows(open_page):
    page = open_page(forced_colors="active")
    grounds = "labels => labels.map(label => getComputedStyle(label).backgroundColor)"
    before, *_, chosen = page.locator("#stage label").evaluate_all(grounds)
    assert before != chosen
    chosen = page.locator("#overlays [aria-pressed=true]").evaluate_all(grounds)
    assert chosen[0] not in page.locator("#overlays [aria-pressed=false]").evaluate_all(grounds)
    assert page.locator(".columns i").first.evaluate(
        "column => getComputedStyle(column).backgroundImage.includes('gradient')"
    )


def test_the_theme_switch_is_remembered(open_page):
    page = open_page(color_scheme="light")
    expect(page.locator("body.dark")).to_have_count(0)
    page.get_by_label("Switch between light and dark").click()
    expect(page.locator("body.dark")).to_have_count(1)
    page.reload()
    page.locator("#hero img").wait_for()
    expect(page.locator("body.dark")).to_have_count(1)


def test_nothing_is_wider_than_a_phone(open_page):
    page = open_page(width=390, height=844)
    for tab in TABS:
        open_tab(page, tab)  # all six fit: none is behind a menu
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
        cut = page.evaluate(CUT)
        assert not cut, f"{tab}: {cut}"


# What ends beyond the window and cannot be moved there: Gradio cuts it off.
CUT = """() => {
  const moves = e => !e.matches(".gradio-container")
    && (getComputedStyle(e).overflowX !== "visible" || moves(e.parentElement));
  return [...document.querySelectorAll(".gradio-container *")]
    .filter(e => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1)
    .filter(e => !moves(e.parentElement))
    .map(e => e.outerHTML.slice(0, 80));
}"""


def test_a_phone_shows_answer_picture_controls_in_this_order(open_page):
    page = open_page(width=390, height=844)
    tops = [page.locator(i).bounding_box()["y"] for i in ("#answer", "#hero", "#left-column")]
    assert tops == sorted(tops)


def test_focus_is_visible(open_page):
    page = open_page()
    for _ in range(12):
        page.keyboard.press("Tab")
        ring = page.evaluate(
            "() => { const e = document.activeElement, r = e.closest('label') || e;"
            " return [e, r, e.closest('.wrap')].filter(Boolean)"
            ".some(x => getComputedStyle(x).outlineStyle !== 'none'"
            " && parseFloat(getComputedStyle(x).outlineWidth) >= 2) }"
        )
        assert ring, page.evaluate("document.activeElement.outerHTML")[:200]


def test_arrow_keys_go_from_tab_to_tab(open_page):
    page = open_page()
    page.get_by_role("tab", name="Ask").focus()
    for key, name in (("ArrowRight", "Compare"), ("ArrowLeft", "Ask"), ("ArrowLeft", "Learn")):
        page.keyboard.press(key)
        expect(page.get_by_role("tab", name=name)).to_be_focused()
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")


def test_keys_of_the_browser_and_of_scrolling_change_no_tab(open_page):
    page = open_page()
    page.get_by_role("tab", name="Ask").focus()
    for key in ("ArrowDown", "ArrowUp", "Control+ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    expect(page.get_by_role("tab", name="Ask")).to_have_attribute("aria-selected", "true")


def test_figures_are_loaded_before_they_are_scrolled_to(open_page):
    page = open_page(height=300)
    page.get_by_role("tab", name="Figures").click()
    expect(page.locator("#gallery img").last).to_have_js_property("complete", True)
    expect(page.locator('#gallery img[loading="lazy"]')).to_have_count(0)


def test_charts_turn_dark_and_pictures_do_not(open_page):
    page = open_page(color_scheme="dark")
    page.get_by_role("tab", name="Figures").click()
    for title, turned in (("Visual tokens per layer", True), ("Selected tokens", False)):
        picture = page.locator(
            "#gallery .figure", has=page.get_by_role("heading", name=title, exact=True)
        )
        shown = picture.locator("img").evaluate("img => getComputedStyle(img).filter")
        assert ("invert" in shown) == turned, title
        assert ("brightness" in shown) != turned, title  # their paper does not glare


def test_figures_that_an_answer_cannot_have_come_last_and_say_why(open_page):
    page = open_page()
    page.get_by_role("tab", name="Figures").click()
    expect(page.locator("#figures-status")).to_contain_text(texts.DRAWN)
    cards = page.locator("#gallery .figure")
    missing = cards.filter(has=page.locator(".empty"))
    expect(missing.filter(has_text="Retention")).to_contain_text("needs several pictures")
    drawn = cards.filter(has=page.locator("img")).all()
    ends = [box["y"] + box["height"] for box in (card.bounding_box() for card in drawn)]
    assert all(card.bounding_box()["y"] >= max(ends) for card in missing.all())


@pytest.mark.parametrize("width", [1280, 390])
def test_explanations_stay_inside_the_window(open_page, width):
    """Also those of a table that can be moved sideways."""
    page = open_page(width=width, height=800)
    page.get_by_role("tab", name="Compare").click()
    page.locator("#numbers .tip").first.wait_for()
    for term in page.locator("#numbers .tip").all():
        term.focus()
        expect(page.locator("#tip")).to_be_visible()
        box = page.locator("#tip").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        assert box["y"] >= 0 and box["y"] + box["height"] <= 800
        expect(page.locator("#tip")).to_have_text(term.get_attribute("data-tip"))
    page.get_by_role("tab", name="Compare").focus()
    expect(page.locator("#tip")).to_be_hidden()


def test_an_explanation_can_be_pointed_at(open_page):
    page = open_page()
    page.locator("#readouts .tip").first.hover()
    box = page.locator("#tip").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 20, steps=20)
    expect(page.locator("#tip")).to_be_visible()
    page.mouse.move(4, 4)
    expect(page.locator("#tip")).to_be_hidden()


def test_a_chosen_word_leaves_the_status_of_the_answer(open_page):
    page = open_page()
    status = page.locator("#answer .status").inner_text()
    page.locator("#answer .words button").last.click()
    expect(page.locator("#answer .words button").last).to_have_attribute("aria-pressed", "true")
    assert status and page.locator("#answer .status").inner_text() == status


def test_arrow_keys_move_along_the_stages(open_page):
    page = open_page()
    page.locator("#stage input:checked").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#stage input:checked")).to_have_value("2")
    expect(page.locator("#stage input:checked")).to_be_focused()
    expect(page.locator("#caption")).to_contain_text("stand for")
    page.keyboard.press("Tab")  # the choices are one stop
    expect(page.locator("#overlays button").first).to_be_focused()


def test_own_settings_are_no_preset(open_page):
    page = open_page()
    choose_method(page, "fastv")
    expect(page.locator("#left-column .about")).to_contain_text("highest attention")
    page.locator("#preset input").click()
    with page.expect_response(lambda response: "/run/predict" in response.url):
        page.get_by_role("option").nth(1).click()
    page.wait_for_timeout(300)  # what has come is shown: these settings are the method's own
    expect(page.locator("#preset input")).not_to_have_value(texts.OWN_SETTINGS)
    page.locator("#layers input").first.click()
    expect(page.locator("#preset input")).to_have_value(texts.OWN_SETTINGS)


def test_a_picture_that_fills_the_window_has_a_way_back(open_page):
    page = open_page(width=390, height=844)
    page.locator("#hero button[title=Fullscreen]").click()
    filled = page.locator("#hero.fullscreen")
    expect(filled).to_be_visible()
    box = page.locator("#hero img").bounding_box()
    assert box["width"] > 300 and box["y"] >= 0 and box["y"] + box["height"] <= 844
    back = page.locator("#hero .icon-button-wrapper button").last
    spot = back.bounding_box()
    assert spot["x"] >= 0 and spot["y"] >= 0 and spot["y"] + spot["height"] <= 844
    back.click()
    expect(filled).to_have_count(0)


def test_the_keyboard_stays_at_the_button(open_page):
    page = open_page()
    page.locator("#ask-button").focus()
    page.keyboard.press("Enter")
    answered(page)
    expect(page.locator("#ask-button")).to_be_focused()


def test_the_keyboard_stays_at_the_button_where_a_question_fails_at_once(open_page):
    page = open_page()
    page.locator("#question textarea").fill("")
    page.locator("#ask-button").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("There is no question")).to_be_visible()
    expect(page.locator("#ask-button")).to_be_focused()


def test_enter_asks_nothing_while_a_comparison_runs(open_page, monkeypatch):
    """It would stand in line, and be what Stop stops no more once the comparison is over."""
    from threading import Event

    asked, go = [], Event()

    def slow(model, requests):
        while not go.wait(0.1):
            yield Result(requests[0]["method"], "slowly")

    monkeypatch.setattr(engine, "compare", slow)
    monkeypatch.setattr(engine, "ask", lambda *request: asked.append(request) or iter(()))
    page = open_page()
    try:
        compare_methods(page, "fastv")
        page.locator("#compare-run").click()
        expect(card(page, "FastV")).to_contain_text("slowly")
        page.get_by_role("tab", name="Ask").click()
        page.locator("#question textarea").press("Enter")
        page.wait_for_timeout(500)
        expect(page.locator("#answer .status")).not_to_contain_text("Waiting")
    finally:
        go.set()
    expect(page.locator("#ask-button")).to_be_visible()
    assert not asked


def test_an_empty_number_keeps_its_number(open_page):
    page = open_page()
    ratio = page.locator("#ratio input[type=number]")
    before = ratio.input_value()
    ratio.fill("")
    ratio.press("Tab")
    expect(ratio).to_have_value(before)
    assert before != "0"
    page.locator("#ask-button").click()
    answered(page)
    expect(page.locator("#readouts")).to_contain_text("16 › 8 + 1")


def test_lists_of_choices_close_behind_who_leaves_them_and_open_again(open_page):
    page = open_page()
    preset = page.locator("#preset input")
    preset.focus()
    expect(preset).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Tab")
    expect(preset).to_have_attribute("aria-expanded", "false")
    preset.click()
    page.keyboard.press("Escape")
    expect(preset).to_have_attribute("aria-expanded", "false")
    preset.click()
    page.get_by_role("option", name="R = 67 %").click()
    expect(preset).to_have_value("R = 67 %")


def test_an_answer_to_other_settings_says_so_until_it_is_asked_anew(open_page):
    page = open_page()
    script = "getComputedStyle(document.querySelector('#answer .status'), '::before').content"
    question = page.locator("#question textarea")

    def said(is_said):
        page.wait_for_function(
            f"([words, is]) => {script}.includes(words) === is", arg=[texts.OUTDATED, is_said]
        )

    said(False)
    question.fill("is there a cat ?")
    said(True)
    before = hero(page)
    page.locator("#answer .words button").last.click()  # the same answer, drawn anew
    changed_hero(page, before)
    before = hero(page)
    page.locator("#stage label").first.click()
    changed_hero(page, before)
    said(True)
    page.locator("#ask-button").click()
    answered(page)
    said(False)
    question.fill("is there a dog ?")
    said(True)
    page.locator(".strip button").first.click()
    expect(question).to_have_value(QUESTION)
    said(False)
    question.fill("")
    page.locator("#ask-button").click()
    expect(page.get_by_text("There is no question")).to_be_visible()
    said(True)


def test_what_is_changed_before_the_server_has_welcomed_a_visitor_is_a_change(
    open_page, monkeypatch
):
    from threading import Event

    go = Event()

    class Late:
        def __iter__(self):
            go.wait(60)
            return iter(())

    monkeypatch.setattr(link, "PARTS", Late())
    page = open_page()
    page.evaluate("""() => {
      const note = noteSettings;
      window.noteSettings = (step, values) => { note(step, values); window.noted = step; };
    }""")
    page.locator("#question textarea").fill("is there a cat ?")
    page.wait_for_function("document.body.classList.contains('outdated')")
    go.set()
    page.wait_for_function("window.noted === 'arrive'")
    page.wait_for_timeout(200)  # longer than the page waits for what else a step changes
    assert page.evaluate("document.body.classList.contains('outdated')")


def test_what_is_changed_while_an_answer_is_given_is_not_what_it_answers(open_page, monkeypatch):
    from threading import Event

    begun, go, real = Event(), Event(), engine.ask

    def slow(model, request):
        begun.set()
        yield engine.Progress("slowly")
        go.wait(60)
        yield from real(model, request)

    monkeypatch.setattr(engine, "ask", slow)
    page = open_page()
    page.locator("#ask-button").click()
    expect(page.locator("#answer .words")).to_have_text("slowly")
    page.locator("#question textarea").fill("is there a cat ?")
    go.set()
    answered(page)
    script = "getComputedStyle(document.querySelector('#answer .status'), '::before').content"
    assert begun.is_set() and texts.OUTDATED in page.evaluate(script)


def test_keys_stop_at_nothing_without_a_name(open_page):
    page = open_page()
    expect(page.locator("#hero .image-container > button")).to_have_attribute("tabindex", "-1")
    expect(page.locator("#tokens .image-container > button")).to_have_attribute("tabindex", "-1")


def test_full_screen_stays_behind_a_list_that_was_left_open(open_page):
    page = open_page()
    page.locator("#preset input").focus()
    page.locator("#hero button[title=Fullscreen]").click(delay=80)
    page.wait_for_timeout(500)
    expect(page.locator("#hero.fullscreen")).to_be_visible()
    expect(page.locator("#preset input")).to_have_attribute("aria-expanded", "false")


def test_on_a_phone_what_is_asked_or_opened_comes_into_view(open_page):
    page = open_page(width=390, height=844)
    shown = "(() => { const at = document.querySelector('#answer').getBoundingClientRect();"
    shown += " return at.top > -200 && at.top < 300; })()"
    page.locator("#ask-button").click()
    answered(page)
    page.wait_for_function(shown)
    page.locator(".strip button").last.click()
    page.wait_for_function(shown)
    page.get_by_role("tab", name="Compare").click()
    page.locator(".jump").click()
    expect(page.get_by_role("tab", name="Ask")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#ask-button")).to_be_in_viewport()


def test_what_is_chosen_from_a_list_is_a_change(open_page):
    page = open_page()
    changed = "document.body.classList.contains('outdated')"
    assert not page.evaluate(changed)
    page.locator("#preset input").click()
    page.get_by_role("option", name="R = 67 %").click()
    page.wait_for_function(changed)


def test_how_a_comparison_looks_can_be_chosen_wherever_one_is(open_page):
    page = open_page(height=400)
    compare_methods(page, "fastv")
    page.locator("#compare-run").click()
    expect(card(page, "FastV").locator("img")).to_be_visible()
    page.locator("#cards").evaluate("cards => cards.scrollIntoView()")
    page.wait_for_function(
        "Math.abs(document.querySelector('#compare-looks').getBoundingClientRect().top) < 2"
    )


def test_the_way_to_the_question_does_not_load_the_page_anew(open_page):
    page = open_page(width=390, height=844)
    page.goto(page.url + "?__theme=dark")
    page.locator("#hero img").wait_for()
    page.evaluate("window.here = true")
    page.locator(".jump").click()
    expect(page.locator("#ask-button")).to_be_in_viewport()
    assert page.evaluate("window.here")


@pytest.mark.parametrize("width", [768, 1024, 1440])
def test_the_methods_of_a_comparison_have_room(open_page, width):
    page = open_page(width=width)
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator("#compare-methods summary")).to_be_visible()
    assert page.locator("#compare-methods").bounding_box()["width"] >= 250


def outdated(page):
    return page.locator("body.outdated")


def test_a_method_chosen_again_is_no_change(open_page):
    page = open_page()
    place = page.locator("#readouts").evaluate("part => part.offsetTop")
    choose_method(page, "fastv")
    expect(outdated(page)).to_have_count(1)
    assert page.locator("#readouts").evaluate("part => part.offsetTop") == place
    choose_method(page, "libra")
    expect(outdated(page)).to_have_count(0)


def test_a_refused_picture_is_no_change(open_page, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    page = open_page()
    page.get_by_label("Remove Image").click()
    expect(outdated(page)).to_have_count(1)
    page.locator("#picture input[type=file]").first.set_input_files(tmp_path / "cut.png")
    expect(page.get_by_test_id("toast-body")).to_contain_text("cut.png")
    expect(page.locator("#picture img")).to_be_visible()
    expect(outdated(page)).to_have_count(0)


def test_settings_put_back_by_hand_are_no_change(open_page):
    page = open_page()
    page.get_by_role("button", name="Parameters of Libra-Merging").click()
    for field, value in ((question(page), "is there a dog ?"), (page.get_by_label("eta"), "2")):
        before = field.input_value()
        field.fill(value)
        expect(outdated(page)).to_have_count(1)
        field.fill(before)
        expect(outdated(page)).to_have_count(0)
    for box in (page.locator("#layers input").first, page.locator("#follow input")):
        box.click()
        expect(outdated(page)).to_have_count(1)
        box.click()
        expect(outdated(page)).to_have_count(0)


def test_an_example_without_an_answer_leaves_another_ones(open_page):
    page = open_page()
    page.locator(".strip [data-pick='1']").click()
    expect(outdated(page)).to_have_count(1)
    page.locator(".strip [data-pick='0']").click()
    expect(outdated(page)).to_have_count(0)


def test_an_opened_trace_is_an_answer_to_what_it_fills_in(open_page, tmp_path):
    page = open_page()
    with page.expect_download() as file:
        page.locator("#save-trace").click()
    file.value.save_as(tmp_path / "own.trace.zip")
    question(page).fill("is there a dog ?")
    expect(outdated(page)).to_have_count(1)
    upload = page.locator("#open-trace").locator("..").locator("input[type=file]").first
    upload.set_input_files(tmp_path / "own.trace.zip")
    expect(question(page)).to_have_value(QUESTION)
    expect(outdated(page)).to_have_count(0)
    question(page).fill("is there a dog ?")
    expect(outdated(page)).to_have_count(1)


def test_a_narrow_picture_has_no_empty_frame_around_it(open_page):
    page = open_page(width=768, height=1000)
    frame, picture = (
        page.locator(f"#hero {part}").bounding_box() for part in (".image-frame", "img")
    )
    assert abs(frame["height"] - picture["height"]) < 1
    page.locator("#hero button[title=Fullscreen]").click()
    expect(page.locator("#hero.fullscreen")).to_be_visible()
    assert page.locator("#hero img").bounding_box()["height"] > 900


def test_figures_on_a_phone_fit_or_begin_at_a_size_that_can_be_read(open_page):
    """What is moved sideways says so below the picture, where it hides nothing."""
    page = open_page(width=390, height=844)
    page.get_by_role("tab", name="Figures").click()
    page.wait_for_function(
        """() => {
          const images = [...document.querySelectorAll("#gallery .figure img")];
          return images.length > 15 && images.every(i => i.naturalWidth);
        }"""
    )
    figures = page.evaluate(
        """() => [...document.querySelectorAll("#gallery .figure img")].map(img => {
          const frame = img.closest(".image-frame"), chart = img.closest(".chart") !== null;
          const {content, opacity} = getComputedStyle(frame, "::after");
          const width = img.getBoundingClientRect().width;
          return {
            moves: width > frame.clientWidth + 1,
            text: (chart ? 27.5 : 17) * width / img.naturalWidth,
            arrow: content !== "none" && opacity > 0.5,
            below: parseFloat(getComputedStyle(frame).paddingBottom),
          };
        })"""
    )
    assert any(figure["moves"] for figure in figures)
    for figure in figures:
        assert figure["text"] >= 10.9
        assert figure["arrow"] == figure["moves"]
        assert (figure["below"] >= 38) == figure["moves"]


def test_a_refused_number_of_tokens_gives_way_to_that_of_the_charts(open_page):
    page = open_page()
    page.get_by_role("tab", name="Efficiency").click()
    tokens = page.locator("#elsewhere-tokens textarea, #elsewhere-tokens input")
    cost = page.locator("#estimates td").first
    before = cost.inner_text()
    page.locator("#elsewhere input[role=combobox]").first.click()
    page.get_by_role("option", name="llava-1.5-7b").click()
    for refused, valid in (("1000000", ""), ("many", "1024")):
        tokens.fill(valid)
        tokens.press("Enter")
        expect(cost).not_to_have_text(before)  # it is drawn
        before = cost.inner_text()
        tokens.fill(refused)
        tokens.press("Enter")
        expect(tokens).to_have_value(valid)
        expect(page.get_by_test_id("toast-body").first).to_contain_text("Visual tokens:")
        expect(cost).to_have_text(before)


def test_many_counts_leave_the_explanation_beside_its_term(open_page):
    page = open_page()
    row = page.locator(".readouts > div").first
    row.locator("dd").first.evaluate(
        "counts => { counts.textContent = '2880 › 1440 + 1 › 720 + 1 › 360' }"
    )
    term, mark = (row.locator(part).bounding_box() for part in ("dt", ".tip"))
    assert term["height"] < 1.5 * mark["height"]
