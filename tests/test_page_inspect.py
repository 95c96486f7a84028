"""The Inspect tab, lessons that lead to it, and files of figures: in Chromium, and without."""

import csv
from dataclasses import replace
from threading import Event
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

import viz
from libra.errors import InputError
from libra.reduction import Fate
from libra.trace import Trace
from page import again, engine, examples, figures, inspect, learn, panels, plan, texts, views
from page.again import Again
from page.shown import Result, Shown
from tests.conftest import N_VISUAL, PATIENCE, QUESTION, expect, make_image
from tests.make_trace import make_trace
from viz import inspector
from viz.canvas import framed
from viz.inspector.tours import tour

SQUARE = [5, 6, 9, 10]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    make_image(seed=7).save(path)
    return str(path)


@pytest.fixture(scope="module")
def libra(model, picture) -> Trace:
    return engine.load(model).answer(images=[picture], question=QUESTION, tau=0.3).trace


# ----- what is asked again -----


@pytest.mark.parametrize(
    ("how", "forced"),
    [
        ("keep", {"keep": SQUARE}),
        ("drop", {"drop": SQUARE}),
        ("only", {"drop": [p for p in range(N_VISUAL) if p not in SQUARE]}),
    ],
)
def test_patches_are_forced_and_all_else_is_asked_as_before(libra, how, forced):
    asked = {"images": ["a"], "question": QUESTION, "method": "libra", "tau": 0.3}
    assert Again.of(libra, how, SQUARE).request(asked) == asked | forced


def test_a_stored_answer_is_asked_for_as_it_came_about(model, picture):
    own = {"method": "libra", "tau": 0.3, "ratio": 0.4, "layers": (2, 4), "merge": "average"}
    lvlm = engine.load(model)
    trace = lvlm.answer(images=[picture], question=QUESTION, **own).trace
    request = again.request_of(trace)
    assert {name: request[name] for name in own} == own
    repeated = lvlm.answer(**request).trace
    assert repeated.answer == trace.answer and repeated.counts == trace.counts
    for a, b in zip(repeated.events, trace.events, strict=True):
        assert a.reduction.dense().equal(b.reduction.dense())


def test_encoder_layers_are_those_of_the_stored_answer(model, picture):
    lvlm = engine.load(model)
    own = {"method": "illava", "encoder_layers": (1, 2), "layers": (3,)}
    trace = lvlm.answer(images=[picture], question=QUESTION, **own).trace
    assert lvlm.answer(**again.request_of(trace)).trace.counts == trace.counts


def test_an_exact_count_is_one_of_the_settings_of_a_stored_answer(model, picture):
    lvlm = engine.load(model)
    trace = lvlm.answer(images=[picture], question=QUESTION, method="visionzip", keep=3).trace
    assert trace.params["keep"] == 3
    repeated = lvlm.answer(**again.request_of(trace)).trace
    assert repeated.counts == trace.counts == [3] * len(trace.counts)


def test_a_trace_file_cannot_smuggle_arguments_in(libra):
    forged = replace(libra, params={"max_new_tokens": 512, "features": 1, "drop": 3, "tau": 0.3})
    assert set(again.request_of(forged)) == {
        *("images", "question", "method", "ratio", "layers", "tau"),
    }


@pytest.mark.parametrize(
    ("how", "patches"),
    [("forget", [1]), ("drop", []), ("drop", "all"), ("only", [[1]]), (["drop"], [1])],
)
def test_what_the_browser_says_is_looked_at(libra, how, patches):
    with pytest.raises(InputError):
        Again.of(libra, how, patches)


def test_a_fixed_number_of_tokens_leaves_no_room_to_keep_more(libra):
    asked = {"images": ["a"], "question": QUESTION, "method": "libra", "keep": 4}
    with pytest.raises(InputError, match="kept 4 tokens"):
        Again.of(libra, "keep", SQUARE).request(asked)
    assert Again.of(libra, "drop", SQUARE).request(asked)["keep"] == 4


def test_both_answers_stand_side_by_side_with_the_first_difference_marked(libra):
    words = [replace(word, text=f" {t}") for word, t in zip(libra.words, "ab<", strict=False)]
    before = replace(libra, words=words)
    after = replace(libra, words=[words[0], replace(words[1], text=" x", top=[(" x", 0.5)])])
    shown = again.panel(Again(before, "drop", [1], after))
    assert again.parting(before.words, after.words) == 1
    assert "a<mark> b</mark>" in shown and "a<mark> x</mark>" in shown
    assert texts.AGAIN_DIFFERS.format(2) in shown and "&lt;" in shown
    same = again.panel(Again(before, "drop", [1], before))
    assert texts.AGAIN_SAME in same and "<mark>" not in same
    ended = again.panel(Again(before, "drop", [1], replace(libra, words=words[:1])))
    assert f"<mark>{texts.ENDS}</mark>" in ended


# ----- which answers are inspected -----


def test_the_current_answer_comes_first_with_vanilla_beside_it():
    shown = Shown()
    shown.show(make_trace("libra"), make_trace("vanilla"))
    assert list(inspect.named(shown)) == ["Libra-Merging", "Vanilla (no compression)"]
    shown.again = Again(shown.trace, "only", [1], make_trace("libra", ratio=0.7))
    names = ["Libra-Merging, all but 1 patch dropped", "Libra-Merging", "Vanilla (no compression)"]
    assert list(inspect.named(shown)) == names


def test_a_comparison_replaces_what_was_asked_and_comes_back_if_nothing_came_of_it(libra):
    shown = Shown()
    asked = plan.comparison({"images": [], "question": "?", "method": "libra"}, ["libra"], {})
    shown.show(libra, requests=asked)
    shown.begin({}, [{"method": "fastv"}])
    assert shown.asked == {"fastv": {"method": "fastv"}}
    shown.settle()
    assert list(shown.asked) == ["libra"] and shown.traces == [libra]


@pytest.fixture(scope="module")
def tab(model):
    with gr.Blocks():
        return inspect.build(model)


def test_without_an_answer_nothing_changes_and_the_same_one_is_not_sent_twice(tab, libra):
    assert tab.draw(Shown()) == gr.skip()
    shown = Shown()
    shown.show(libra)
    assert tab.draw(shown)[tab.view]["ask"] is True
    assert tab.draw(shown) == gr.skip()
    assert tab.lead(shown)[tab.view]["tour"] is True


def click(*traces, x: float = 0.1, y: float = 0.1, index: int = 0) -> SimpleNamespace:
    """On one of the pictures of traces under panes, at stage 1."""
    return SimpleNamespace(of=panels.identity(*traces), index=index, stage=1, x=x, y=y)


@pytest.mark.parametrize("image", [0, 2])
def test_the_patch_at_a_place_of_the_picture_is_taken_in_hand(tab, film, image):
    shown = Shown()
    shown.show(film)
    shown.image, shown.stage = image, 1
    here = (film.layout.image == image).nonzero().flatten().tolist()
    for patch in (here[0], here[len(here) // 2], here[-1]):
        x0, y0, x1, y1 = framed(film).layout.box[patch].tolist()
        view = tab.point(shown, click(film, x=(x0 + x1) / 2, y=(y0 + y1) / 2))[tab.view]
        assert (view["patch"], view["stage"]) == (patch, 1)
    for outside in (1.0, -0.01, float("nan")):
        assert tab.point(shown, click(film, x=outside))[tab.view]["patch"] == -1


def test_a_click_shows_what_was_clicked_whatever_is_compared(tab, libra):
    """The comparison may be of other methods about another picture."""
    shown, at = Shown(), click(libra)
    other = make_trace("fastv", grid=(6, 6), pictures=[np.asarray(make_image(3, 60, 60))])
    shown.show(libra)
    shown.compared = {"fastv": Result("fastv", other.answer, other)}
    first, *rest = tab.point(shown, at)[tab.view]["traces"]
    assert first["n"] == len(libra.layout) != len(other.layout)
    assert first["name"] == "Libra-Merging, as asked" and [t["name"] for t in rest] == ["FastV"]
    assert tab.draw(shown) == gr.skip()  # the tab that opens finds all there
    shown.compared = {"libra": Result("libra")}  # nothing has been answered yet
    assert [t["n"] for t in tab.point(shown, at)[tab.view]["traces"]] == [len(libra.layout)]


def test_a_click_on_a_compared_picture_takes_its_answer_in_hand(tab, libra):
    shown, fastv = Shown(), make_trace("fastv")
    shown.show(libra)
    failed = Result("tome", error="no room")
    compared = [Result("vanilla", "2", make_trace("vanilla")), failed, Result("fastv", "2", fastv)]
    shown.compared = {result.method: result for result in compared}
    second = click(*shown.traces, index=1)  # of those that have a picture
    view = tab.point_compared(shown, second)[tab.view]
    assert [t["name"] for t in view["traces"]] == ["FastV", "Vanilla (no compression)"]
    assert (view["patch"], view["stage"]) == (views.patch_at(fastv, 0, 0.1, 0.1), 1)
    assert next(iter(shown.inspected.values())) is fastv
    for nowhere in (2, -1):
        assert tab.point_compared(shown, click(*shown.traces, index=nowhere)) == gr.skip()
    assert tab.point_compared(shown, click(fastv, libra)) == gr.skip()  # as they were before


def test_the_same_click_again_is_sent_again(tab, libra):
    shown = Shown()
    shown.show(libra)
    first, second = (tab.point(shown, click(libra))[tab.view] for _ in range(2))
    assert first != second and first["patch"] == second["patch"]


def test_a_click_leaves_the_question_that_is_asked_again_alone(tab, libra):
    shown = Shown()
    shown.show(libra)
    tab.draw(shown)
    shown.forcing = True
    assert set(tab.point(shown, click(libra))) == {tab.view}
    assert set(tab.lead(shown)) == {tab.view}
    shown.forcing = False
    assert set(tab.lead(shown)) == set(tab.outputs)


def test_answers_of_other_models_cannot_be_asked_again(tab, libra):
    shown = Shown()
    shown.show(replace(libra, model="llava-1.5-7b"))
    assert tab.draw(shown)[tab.view]["ask"] is False
    forged = gr.EventData(None, {"trace": "Libra-Merging", "how": "drop", "patches": [1]})
    with pytest.raises(gr.Error, match=r"from llava-1\.5-7b, which this page does not run"):
        list(tab.ask_again(shown, forged))


def test_nobody_gets_a_file_of_a_kind_that_there_is_not(tab, libra):
    shown = Shown()
    shown.show(libra)
    tab.draw(shown)
    for event in ({"trace": "Libra-Merging", "format": "../x"}, {"trace": "?", "format": "html"}):
        with pytest.raises(gr.Error):
            tab.save(shown, gr.EventData(None, event))


# ----- one of several pictures -----


@pytest.fixture(scope="module")
def film():
    pictures = [np.asarray(make_image(seed, 60, 60)) for seed in range(3)]
    return replace(make_trace("libra", pictures=pictures, grid=(4, 4)), times=[0.0, 0.5, 1.0])


def test_the_inspector_follows_the_picture_that_was_chosen_elsewhere_and_tells_its_own(tab, film):
    shown = Shown()
    shown.show(film)
    assert tab.draw(shown)[tab.view]["image"] == -1  # all of them
    shown.look_at(2)
    assert tab.draw(shown) == {tab.view: {"image": 2}}
    assert tab.draw(shown) == gr.skip()
    for image, then in ((1, 1), (-1, 1), (99, 2)):
        tab.follow(shown, gr.EventData(None, {"image": image}))
        assert shown.image == then
        assert tab.draw(shown) == gr.skip()


def test_figures_of_one_picture_are_drawn_anew_with_the_picture(monkeypatch, film):
    drawn = []
    monkeypatch.setattr(viz.FigureSpec, "draw", lambda spec, _, image: drawn.append(spec) or image)
    monkeypatch.setattr(figures.views, "save_figure", lambda image, name: str(image))
    with gr.Blocks():
        tab = figures.build()
    shown = Shown()
    assert list(tab.draw(shown)) == []
    shown.show(film)
    first = list(tab.draw(shown))
    assert first[0][tab.frames].visible and len(first) == len(viz.FIGURES) + 1
    everything = {spec.name for spec in drawn}
    assert everything == {n for n, spec in viz.FIGURES.items() if not spec.missing(film)}
    assert len(list(tab.draw(shown))) == 1  # nothing but the scrubber
    drawn.clear()
    list(tab.pick(shown, 2))
    own = {spec.name for spec in drawn}
    assert own == {name for name in everything if viz.FIGURES[name].of_picture} and shown.image == 2
    steps = tab.pick(shown, 0)
    next(steps)
    later = list(tab.pick(shown, 1))
    assert len(list(steps)) == 0 and len(later) > 3  # the earlier one ended there
    assert later[-1][tab.status] == figures.panels.counting("", texts.DRAWN)


# ----- lessons -----


def test_every_method_has_a_lesson_with_a_tour():
    prepared = learn.lessons(examples.load(examples.FOLDER))
    expected = [name for names in plan.grouped().values() for name in names]
    assert [lesson.method for lesson in prepared] == expected, (
        "store the answer of its lesson: CONTRIBUTING.md, Adding a method"
    )
    for method, example, file in prepared:
        trace = Trace.load(file)
        assert trace.method == method and trace.question == example.question
        assert 5 <= len(tour(trace)) <= 8
        assert inspector.view({method: trace, "vanilla": example.vanilla()})["traces"][0]["tour"]


def test_the_lesson_of_libra_has_a_compensation_token():
    """The answers that the examples open with have none: tokens are too much alike there."""
    prepared = learn.lessons(examples.load(examples.FOLDER))
    trace = next(Trace.load(lesson.file) for lesson in prepared if lesson.method == "libra")
    assert all(event.reduction.compensation is not None for event in trace.events)
    lost = [step for step in tour(trace) if "compensation token, one extra" in step["text"]]
    assert len(lost) == 1 and lost[0]["patch"] is not None and "0.97" in lost[0]["text"]


# ----- in the browser -----


def state(page, body, argument=None):
    """Evaluate a function body with `I`, the inspector of the page."""
    return page.evaluate(
        "argument => { const I = document.querySelector('#inspector .inspector').inspector;"
        f" I.render(); {body} }}",
        argument,
    )


def open_inspector(page):
    page.get_by_role("tab", name="Inspect").click()
    page.locator("#inspector .inspector[data-tool]").wait_for()


def select(page, patches):
    state(page, "I.update({selected: new Set(argument)}); I.render()", patches)


def names(page):
    return page.locator("#inspector .i-answers label")


@pytest.fixture(scope="module")
def stored(model, tmp_path_factory):
    """The answers that the page opens with."""
    from tests.serve_page import prepare_examples

    return prepare_examples(tmp_path_factory.mktemp("stored"), model)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("button", "how"),
    [("Drop these", "drop"), ("Keep these", "keep"), ("Drop all but these", "only")],
)
def test_patches_are_forced_and_both_answers_shown_until_the_visitor_goes_back(
    open_page, stored, model, button, how
):
    page = open_page()
    open_inspector(page)
    select(page, SQUARE)
    page.get_by_role("button", name=button).click()
    before = Trace.load(stored / "first.trace.zip")
    wanted = Again.of(before, how, SQUARE)
    expect(names(page)).to_have_text([wanted.name, "Libra-Merging", "Vanilla (no compression)"])
    after = engine.load(model).answer(**wanted.request(again.request_of(before))).trace
    sides = page.locator("#again article")
    expect(sides.locator("h3")).to_have_text([texts.AS_IT_WAS, wanted.title])
    place = again.parting(before.words, after.words)
    for side, trace in zip(sides.all(), (before, after), strict=True):
        assert side.locator(".words").inner_text().split() == trace.answer.split()
        assert side.locator("mark").count() == (place is not None)
    weighed = page.locator("#inspector .i-rivals ol")  # right below, of both where they part
    for words, trace in zip(weighed.all(), (after, before), strict=False):
        top = [text.strip() or "␣" for text, _ in trace.words[place or 0].top]
        expect(words.locator("span")).to_have_text(top)
    assert weighed.count() == (1 if place is None else 2)
    fates = state(page, "return [...I.current().trace.stages[1].fate]")
    assert fates == after.lineage(1).fate().tolist()
    forced = {"drop": Fate.DROPPED, "keep": Fate.KEPT, "only": Fate.DROPPED}[how]
    others = [p for p in range(N_VISUAL) if (p in SQUARE) != (how == "only")]
    assert {fates[p] for p in others} == {forced}
    page.get_by_role("button", name=texts.BACK).click()
    expect(names(page)).to_have_text(["Libra-Merging", "Vanilla (no compression)"])
    expect(page.locator("#again .again")).to_have_count(0)
    assert state(page, "return [...I.state.selected]") == SQUARE


@pytest.mark.browser
def test_what_cannot_be_asked_is_explained_and_nothing_is_lost(open_page):
    page = open_page()
    open_inspector(page)
    select(page, list(range(N_VISUAL - 1)))
    page.get_by_role("button", name="Keep these").click()
    expect(page.locator(".toast-body")).to_contain_text("15 patches are to be kept")
    expect(page.locator("#again .again")).to_have_count(0)
    expect(page.locator("#again-stop")).to_be_hidden()
    expect(names(page)).to_have_text(["Libra-Merging", "Vanilla (no compression)"])


@pytest.mark.browser
def test_the_new_question_is_the_visitors_own_and_can_be_stopped(open_page, monkeypatch):
    asked, closed, go = [], Event(), Event()

    def slow(model, requests):
        asked.extend(requests)
        try:
            while not go.wait(0.5):
                yield engine.Result(requests[0]["method"], "slowly")
        finally:
            closed.set()

    page = open_page()
    page.locator("#question textarea, #question input").first.fill("how many cat ?")
    page.locator("#layers input").nth(4).check()
    page.locator("#ask-button").click()
    expect(page.locator("#answer .status")).to_contain_text("Answered in")
    open_inspector(page)
    monkeypatch.setattr(engine, "compare", slow)
    select(page, SQUARE)
    try:
        page.get_by_role("button", name="Drop these").click()
        expect(page.locator("#again article .words").nth(1)).to_have_text("slowly")
        (request,) = asked
        assert request["drop"] == SQUARE and request["question"] == "how many cat ?"
        assert request["layers"] == [1, 3, 4, 5] and request["images"][0].endswith(".png")
        page.locator("#again-stop").click()
        expect(page.locator("#again .again")).to_have_count(0)
        expect(page.locator("#again-stop")).to_be_hidden()
        assert closed.wait(30)
    finally:
        go.set()


@pytest.mark.browser
def test_two_methods_agree_on_some_patches_and_keep_some_of_an_object(open_page, model):
    page = open_page()
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-methods summary").click()
    page.locator("#compare-methods [data-all=false]").click()
    for name in ("fastv", "libra"):
        page.locator(f"#compare-methods input[value='{name}']").check()
    page.keyboard.press("Escape")
    page.locator("#compare-run").click()
    expect(page.locator("#compare-status")).to_have_text(texts.COMPARED.format(2, 2))
    open_inspector(page)
    expect(names(page)).to_have_text(["Libra-Merging", "FastV"])  # that of the Ask tab first
    page.locator(".i-overlays label", has_text="Agreement").click()
    kept = state(
        page,
        "const {traces} = I.current(); return traces.map(t => [...t.stages[t.last].fate])",
    )
    mine, theirs = ({p for p, fate in enumerate(f) if fate == Fate.KEPT} for f in kept)
    both, either = mine & theirs, mine | theirs
    expect(page.locator(".i-legend li").last).to_contain_text(
        f"IoU {len(both) / len(either):.2f} ("
    )
    expect(page.locator(".i-legend li").first).to_have_text(
        f"only Libra-Merging {len(mine - theirs)}"
    )
    select(page, SQUARE)
    rows = page.locator(".i-shares tbody tr")
    for row, own in zip((0, 1), (mine, theirs), strict=True):
        share = f"{100 * len(own & set(SQUARE)) / len(SQUARE):g} %"
        expect(rows.nth(row).locator("td").last).to_have_text(share)
    first, second = (state(page, f"return I.current().traces[{i}].words") for i in (0, 1))
    texts_of = [[word["text"] for word in words] for words in (first, second)]
    note = page.locator(".i-parting")
    if texts_of[0] == texts_of[1]:
        expect(note).to_have_text("FastV gives the same answer.")
    else:
        place = next(i for i, (a, b) in enumerate(zip(*texts_of, strict=False)) if a != b)
        expect(note).to_contain_text(f"part at word {place + 1}:")
        expect(page.locator(".i-rivals ol")).to_have_count(2)


@pytest.mark.browser
def test_a_click_on_the_picture_leads_to_its_patch(open_page):
    page = open_page()
    box = page.locator("#hero img").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2 + 5, box["y"] + box["height"] / 2 + 5)
    expect(page.get_by_role("tab", name="Inspect")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".i-card h3")).to_contain_text("Patch 10")  # of 4 x 4


@pytest.mark.browser
def test_the_patch_under_the_pointer_tells_on_the_ask_tab_what_the_inspector_tells(open_page):
    page = open_page()
    picture, pane = page.locator("#hero img"), page.locator("#pane .i-pane > *")
    expect(pane).to_have_count(0)
    told, stages = {}, page.locator("#stage label")
    for stage in (stages.count() - 1, 1):
        before = picture.get_attribute("src")
        if stage == 1:
            stages.nth(1).click()
            expect(picture).not_to_have_attribute("src", before)
            page.wait_for_function("document.querySelector('#hero img').complete")
        box = picture.bounding_box()
        for patch in (0, 10):
            side = box["height"]  # the model sees the square in the middle
            x = (box["width"] - side) / 2 + side * (patch % 4 + 0.4) / 4
            page.mouse.move(box["x"] + x, box["y"] + side * (patch // 4 + 0.4) / 4)
            card = page.locator("#pane .i-card")
            expect(card.locator("h3")).to_have_text(f"Patch {patch}")
            parts = [card.locator(part) for part in (".i-place", ".i-fate", ".i-why")]
            told[stage, patch] = [part.inner_text() for part in parts]
        page.keyboard.press("Shift")
        expect(pane).to_have_count(0)
    page.mouse.move(5, 5)
    open_inspector(page)
    for (stage, patch), words in told.items():
        state(page, "I.update({stage: argument[0], lock: argument[1]})", [stage, patch])
        for part, expected in zip((".i-place", ".i-fate", ".i-why"), words, strict=True):
            expect(page.locator(f"#inspector .i-card {part}")).to_have_text(expected)


@pytest.mark.browser
def test_a_visit_to_another_tab_leaves_the_inspector_as_it_is(open_page):
    page = open_page()
    open_inspector(page)
    page.locator(".i-stages label").nth(1).click()
    page.locator(".i-overlays label", has_text="Groups").click()
    page.get_by_role("tab", name="Ask").click()
    page.get_by_role("tab", name="Inspect").click()
    page.wait_for_timeout(500)
    assert state(page, "return [I.state.stage, I.state.overlay]") == [1, "groups"]


@pytest.mark.browser
def test_a_lesson_opens_without_the_model_and_leads_through_its_steps(
    open_page, stored, monkeypatch
):
    monkeypatch.setattr(engine, "ask", None)  # a call would fail
    monkeypatch.setattr(engine, "compare", None)
    page = open_page()
    page.get_by_role("tab", name="Learn").click()
    page.locator("#lessons button", has_text="FastV").click()
    guide = page.locator("#inspector .i-guide")
    names = ("first.fastv.trace.zip", "first.vanilla.trace.zip")
    steps = tour(*(Trace.load(stored / name) for name in names))
    for i, step in enumerate(steps):
        expect(guide.locator(".i-text")).to_have_text(step["text"])
        expect(guide.locator(".i-count")).to_have_text(f"{i + 1} of {len(steps)}")
        shown = state(page, "return [I.state.stage, I.state.overlay, I.state.lock]")
        assert shown == [
            step["stage"],
            step["overlay"],
            -1 if step["patch"] is None else step["patch"],
        ]
        guide.locator(".i-next").click()
    expect(guide).to_be_hidden()
    page.get_by_role("tab", name="Ask").click()
    expect(page.locator("#method summary")).to_have_text("FastV")
    expect(page.locator("#answer .status")).to_contain_text("stored answer")


@pytest.mark.browser
def test_the_view_is_saved_as_a_page_that_works_offline_and_as_an_animation(
    open_page, chromium, tmp_path
):
    page = open_page()
    open_inspector(page)
    for name, kind in (("GIF", "gif"), ("WebP", "webp")):
        with page.expect_download() as download:
            page.get_by_role("button", name=name, exact=True).click()
        assert download.value.suggested_filename == f"libra.{kind}"
        with Image.open(download.value.path()) as film:
            assert film.format == name.upper() and film.n_frames > 10
    with page.expect_download() as download:
        page.get_by_role("button", name="Web page").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.name == "libra.html" and file.stat().st_size < 3 * 2**20
    context = chromium.new_context(offline=True)
    alone = context.new_page()
    alone.goto(file.as_uri())
    alone.locator(".inspector[data-tool]").wait_for()
    expect(alone.locator(".i-answers label")).to_have_count(2)
    expect(alone.locator(".i-save")).to_be_hidden()  # nobody could make files here
    context.close()


@pytest.mark.browser
def test_every_figure_downloads_to_print_and_as_numbers(open_page, stored, tmp_path):
    page = open_page()
    page.get_by_role("tab", name="Figures").click()
    card = page.locator("#gallery .figure").filter(
        has=page.get_by_role("heading", name=viz.FIGURES["staircase"].title)
    )
    card.locator("img").wait_for(timeout=3 * PATIENCE)  # they come one after the other
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "csv": b"layer"}
    for kind, start in starts.items():
        with page.expect_download() as download:
            card.get_by_role("button", name=kind.upper()).click()
        assert download.value.suggested_filename == f"libra-staircase.{kind}"
        content = download.value.path().read_bytes()
        assert content.startswith(start)
    rows = list(csv.DictReader(content.decode().splitlines()))
    counts = Trace.load(stored / "first.trace.zip").counts
    assert [int(row["visual tokens"]) for row in rows] == counts
