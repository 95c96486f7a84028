"""Drawing the examples and answering their questions, on discs and a micro model."""

import json
import sys

import pytest
from conftest import make_image

from page import examples as shown
from tiny import examples


@pytest.fixture
def folder(tmp_path, monkeypatch, drawn):
    """An empty folder for examples; what is fetched, not drawn, is replaced."""
    monkeypatch.setattr(examples, "FOLDER", tmp_path)
    monkeypatch.setattr(examples, "_photo", lambda member: make_image())
    monkeypatch.setattr(examples, "_clip", lambda member: [make_image()] * 20)
    return tmp_path


def test_one_command_draws_and_answers_all_of_them(folder, model_folder, monkeypatch):
    """Whatever the answers are: the micro model's are nonsense."""
    monkeypatch.setattr(sys, "argv", ["examples", "--model", str(model_folder)])
    examples.main()
    index = json.loads((folder / "examples.json").read_text("utf-8"))
    prepared = {example.title: example for example in shown.load(folder)}
    assert len(prepared) == len(index)
    album, film, clip = (prepared[title] for title in ("Pets", "Crossing", "Burrow"))
    assert len(album.trace().images) == 3 == 1 + len(album.added().pictures)
    for each in (film, clip):
        assert len(each.trace().times) == 8
        assert each.vanilla().times == each.trace().times == each.added().clip.times
    for example in prepared.values():
        assert example.trace().detail is not None and example.trace().question == example.question
