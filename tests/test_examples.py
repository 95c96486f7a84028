"""Drawing the examples and answering their questions, on discs and a micro model."""

import json
import shutil
import sys

import pytest
from conftest import make_image

from page import examples as shown
from tiny import examples


@pytest.fixture
def folder(tmp_path, monkeypatch, drawn):
    """An empty folder for examples, with the clip that is not drawn."""
    monkeypatch.setattr(examples, "FOLDER", tmp_path)
    monkeypatch.setattr(examples, "_photo", lambda member: make_image())  # they are fetched
    shutil.copy(shown.FOLDER / "coffee-pan.webm", tmp_path)
    return tmp_path


def test_one_command_draws_and_answers_all_of_them(folder, model_folder, monkeypatch):
    """Whatever the answers are: the micro model's are nonsense."""
    monkeypatch.setattr(sys, "argv", ["examples", "--model", str(model_folder)])
    examples.main()
    index = json.loads((folder / "examples.json").read_text("utf-8"))
    prepared = {example.title: example for example in shown.load(folder)}
    assert len(prepared) == len(index)
    album, film, clip = (prepared[title] for title in ("Pets", "Crossing", "Coffee pan"))
    assert len(album.trace().images) == 3 == 1 + len(album.added().pictures)
    for each in (film, clip):
        assert len(each.trace().times) == 8
        assert each.vanilla().times == each.trace().times == each.added().clip.times
    for example in prepared.values():
        assert example.trace().detail is not None and example.trace().question == example.question
