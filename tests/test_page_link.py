"""Links to the page: what they hold, what a visit makes of them, and what is refused."""

import json
from types import SimpleNamespace
from urllib.parse import parse_qs, parse_qsl, urlsplit

import gradio as gr
import pytest

from libra.errors import InputError
from page import examples, link, plan, texts
from page.shown import Added, Shown
from tests.conftest import QUESTION, expect
from tests.serve_page import unserved


@pytest.fixture(scope="module")
def prepared():
    return examples.load(examples.FOLDER)


@pytest.fixture(scope="module")
def visit(model, tmp_path_factory):
    return unserved(model, tmp_path_factory.mktemp("examples"))


def of(parts):
    """What a visit by a link brings along."""
    return SimpleNamespace(query_params=parts)


def test_a_link_holds_what_is_not_as_usual_and_is_read_again(prepared, model):
    settings = {"ratio": 0.7, "layers": [1, 3], "tau": 0.6, "merge": "grouped", "keep": None}
    text = link.query(prepared[1], "what & why?", "libra", settings)
    parts = dict(parse_qsl(text))
    assert json.loads(parts["settings"]) == {"ratio": 0.7, "layers": [1, 3], "tau": 0.6}
    own = {"ratio": 0.7, "layers": [1, 3], "tau": 0.6}
    assert link.read(parts, prepared, model) == (prepared[1], "what & why?", "libra", own)


def test_every_example_is_known_by_its_media_and_no_picture_of_a_visitor(prepared):
    for example in prepared:
        video = str(example.video) if example.video else ""
        added = Added(tuple(map(str, example.more)), video=video)
        shown = Shown(picture=str(example.image), added=added)
        assert link.example_of(shown, prepared) is example
        shown.picture = "/tmp/own.png"
        assert link.example_of(shown, prepared) is None
    assert (
        link.example_of(Shown(picture=str(prepared[0].image), added=Added(("x",))), prepared)
        is None
    )


BAD = [
    {"example": "../../secret"},
    {"method": "evil"},
    {"question": "x" * 5000},
    {"method": "fastv", "settings": "{"},
    {"method": "fastv", "settings": "[1]"},
    {"method": "fastv", "settings": "7"},
    {"method": "fastv", "settings": '{"ratio": 9}'},
    {"method": "fastv", "settings": '{"ratio": 0.99}'},
    {"method": "fastv", "settings": '{"ratio": NaN}'},
    {"method": "fastv", "settings": '{"images": ["/etc/passwd"]}'},
    {"method": "fastv", "settings": '{"layers": 5}'},
    {"method": "fastv", "settings": '{"layers": [-1]}'},
    {"method": "fastv", "settings": '{"layers": [true]}'},
    {"method": "fastv", "settings": "[" * 3900},
    {"method": "fastv", "settings": '{"layers": ["a"]}'},
    {"method": "illava", "settings": '{"encoder_layers": [[1]]}'},
]


@pytest.mark.parametrize("parts", BAD, ids=str)
def test_a_link_that_nobody_can_follow_is_refused_and_changes_nothing(visit, model, parts):
    shown = Shown()
    before = dict(vars(shown))
    with pytest.raises(gr.Error, match="This link"):
        visit.arrive(shown, model, of(parts))
    assert vars(shown) == before


def test_a_visit_without_a_link_begins_as_always(visit, model):
    for parts in ({}, {"__theme": "dark"}):
        assert visit.arrive(Shown(), model, of(parts)) == gr.skip()


@pytest.mark.usefixtures("all_uploaded")
def test_a_visit_by_a_link_finds_it_in_the_controls(visit, model):
    shown, c = Shown(), visit.controls
    parts = {"example": "first", "question": "why ?", "method": "fastv"}
    filled = visit.arrive(shown, model, of(parts | {"settings": '{"ratio":0.25,"layers":[2]}'}))
    assert (filled[c.question], filled[c.method]) == ("why ?", "fastv")
    assert (filled[c.ratio].value, filled[c.layers].value) == (0.25, [2])
    assert shown.trace is not None and texts.FROM_LINK in filled[visit.tab.answer]
    values = [QUESTION, model, "fastv", 0.25, [2], []]
    values += [plan.defaults(method, model)[name] for method, name in c.parameters]
    again = parse_qs(visit.share(shown, {"path": shown.picture}, *values))
    assert again["example"] == ["first"] and again["method"] == ["fastv"]
    assert "example" not in parse_qs(visit.share(shown, None, *values))  # it was taken out


def test_what_the_browser_makes_up_is_no_link(visit, model):
    own = visit.controls.parameters
    with pytest.raises(gr.Error, match="no method"):
        visit.share(Shown(), None, "?", model, "evil", 0.5, [], [], *own)
    with pytest.raises(gr.Error, match="no model"):  # nothing is loaded for it
        visit.share(Shown(), None, "?", "evil-org/evil-model", "fastv", 0.5, [], [], *own)
    with pytest.raises(InputError, match="too long"):
        link.query(None, "x" * 4001, "fastv", {})


def test_layers_of_a_deeper_model_give_way_to_the_methods_own(prepared, model):
    parts = {"method": "illava"}
    for layers, expected in (([2, 99], {}), ([2], {"layers": [2]})):
        parts["settings"] = json.dumps({"layers": layers, "encoder_layers": [99]})
        assert link.read(parts, prepared, model)[3] == expected


def test_without_any_answer_a_link_speaks_of_none(visit, model):
    filled = visit.arrive(Shown(), model, of({"method": "fastv"}))
    assert texts.FROM_LINK in filled[visit.tab.answer]
    assert texts.STORED not in filled[visit.tab.answer]


@pytest.mark.browser
def test_a_link_is_shared_and_opened(open_page, url):
    page = open_page()
    page.locator("#question textarea, #question input").first.fill("what is it ?")
    page.locator("#layers label", has_text="3").first.click()
    page.get_by_role("button", name="Share").click()
    expect(page.locator("#share")).to_be_visible()
    address = page.locator("#share input").input_value()
    assert address.startswith(url) and urlsplit(address).query
    page.keyboard.press("Escape")
    expect(page.locator("#share")).to_be_hidden()
    page.get_by_role("button", name="Help").click()
    expect(page.locator("#help")).to_be_visible()
    page.locator("#help .close").click()
    expect(page.locator("#help")).to_be_hidden()
    page.goto(address)
    expect(page.locator("#question textarea, #question input").first).to_have_value("what is it ?")
    expect(page.locator("#answer .status")).to_have_text(f"{texts.STORED} {texts.FROM_LINK}")
    assert not page.evaluate("document.body.classList.contains('outdated')")


@pytest.mark.browser
def test_an_example_that_is_opened_once_more_has_no_other_settings(open_page, url):
    page = open_page()
    page.goto(f"{url}?example=first")
    expect(page.locator("#answer .status")).to_have_text(f"{texts.STORED} {texts.FROM_LINK}")
    outdated = page.locator("body.outdated")
    expect(outdated).to_have_count(0)
    page.locator("#question textarea, #question input").first.fill("what else ?")
    expect(outdated).to_have_count(1)
    page.locator(".strip [data-pick='0']").click()
    expect(page.locator("#question textarea, #question input").first).to_have_value(QUESTION)
    expect(outdated).to_have_count(0)
