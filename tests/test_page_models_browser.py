"""Choosing another model in headless Chromium: it is loaded, or the last one stays."""

import json
import shutil
from threading import Event

import pytest

import libra
from page import engine
from tests.conftest import PATIENCE, expect
from tests.serve_page import prepare_examples, serve_page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folders(model_folder, tmp_path_factory):
    """The micro model twice, and a model of a family that is not supported."""
    place = tmp_path_factory.mktemp("models")
    for name in ("first-llava", "second-llava"):
        shutil.copytree(model_folder, place / name)
    foreign = place / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return {folder.name: str(folder) for folder in sorted(place.iterdir())}


@pytest.fixture(scope="module")
def url(folders, tmp_path_factory):
    """The page on the first of them, which offers them all."""
    first = folders["first-llava"]
    prepared = prepare_examples(tmp_path_factory.mktemp("examples"), first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "offered", lambda model: folders)
        with serve_page(first, prepared) as address:
            yield address


def choose(page, name):
    page.locator("#model input").click()
    page.get_by_role("option", name=name).click()


def at_work(page, name):
    """That model is the one that the page names, and it answers."""
    expect(page.locator("#top .chip b")).to_have_text(name)
    expect(page.locator("#model input")).to_have_value(name)
    page.locator("#ask-button").click()
    expect(page.locator("#answer .status")).to_contain_text("Answered in")


def test_another_model_is_loaded_and_one_that_cannot_be_had_leaves_it_there(
    open_page, folders, monkeypatch
):
    go, load = Event(), libra.load

    def slow(name):
        go.wait(PATIENCE / 1000)
        return load(name)

    monkeypatch.setattr(libra, "load", slow)
    page = open_page()
    try:
        choose(page, "second-llava")
        expect(page.locator("#model")).to_contain_text("Loading second-llava …")
        expect(page.locator("#top .chip b")).to_have_text("first-llava")
    finally:
        go.set()
    at_work(page, "second-llava")
    assert folders["second-llava"] in engine.shelf

    choose(page, "foreign")
    expect(page.get_by_test_id("toast-body")).to_contain_text("is a bert model; supported are")
    at_work(page, "second-llava")
