"""The models of the page: what is offered, how they are shared, and that they leave no trace."""

import gc
import time
import weakref
from functools import partial
from threading import Event as Signal
from threading import Thread

import gradio as gr
import pytest
import torch
from conftest import QUESTION, make_image, make_lvlm

import app
from libra import InputError, models
from libra.errors import ShortageError
from libra.models import room
from page import engine, panels, plan
from page.shelf import Shelf
from page.shown import Shown


class Model:
    """A model that is loaded and closed."""

    def __init__(self, name):
        self.name, self.closed = name, False

    def close(self):
        self.closed = True


def shelf_of(opened, need=lambda name: 1.0, capacity=2.0):
    """A shelf for two models by default; `opened` counts what is loaded."""

    def open_(name):
        opened.append(name)
        return Model(name)

    return Shelf(open_, need, lambda: capacity)


def taken(shelf, name):
    with shelf.use(name) as model:
        return model


def test_models_stay_while_they_fit_and_the_one_unused_for_longest_gives_way():
    opened = []
    shelf = shelf_of(opened)
    first, second = taken(shelf, "a"), taken(shelf, "b")
    assert taken(shelf, "a") is first and opened == ["a", "b"]
    taken(shelf, "c")
    assert second.closed and not first.closed
    assert [name in shelf for name in "abc"] == [True, False, True]


def test_one_of_unknown_size_takes_all_the_room():
    opened = []
    shelf = shelf_of(opened, need=lambda name: None if name == "unknown" else 1.0)
    small = taken(shelf, "small")
    unknown = taken(shelf, "unknown")
    assert small.closed
    taken(shelf, "small")
    assert unknown.closed and "unknown" not in shelf


def test_what_cannot_be_had_leaves_the_others_where_they_are():
    def need(name):
        if name == "missing":
            raise InputError("There is no such model.")
        return 2.0

    shelf = shelf_of([], need)
    model = taken(shelf, "here")
    with pytest.raises(InputError, match="no such model"):
        taken(shelf, "missing")
    assert taken(shelf, "here") is model and not model.closed


def test_what_fails_to_load_can_be_tried_again():
    failing = [InputError("The hub cannot be reached.")]

    def open_(name):
        if failing:
            raise failing.pop()
        return Model(name)

    shelf = Shelf(open_, lambda name: 1.0, lambda: 1.0)
    with pytest.raises(InputError, match="hub"):
        taken(shelf, "a")
    assert "a" not in shelf and taken(shelf, "a").name == "a"


def test_a_model_at_work_keeps_its_room_until_it_is_done():
    opened, has_begun, go, waited = [], Signal(), Signal(), Signal()
    shelf = shelf_of(opened, capacity=1.0)
    still_open = []

    def work():
        with shelf.use("a") as model:
            has_begun.set()
            go.wait(10)
            still_open.append(not model.closed)

    def want():
        taken(shelf, "b")
        waited.set()

    threads = [Thread(target=work), Thread(target=want)]
    threads[0].start()
    assert has_begun.wait(10)
    threads[1].start()
    assert not waited.wait(0.3) and opened == ["a"]
    go.set()
    for thread in threads:
        thread.join(10)
    assert opened == ["a", "b"] and still_open == [True]
    assert "a" not in shelf and "b" in shelf


def test_those_who_want_the_same_one_at_once_wait_for_one_loading():
    opened, go = [], Signal()

    def slow(name):
        opened.append(name)
        go.wait(10)
        return Model(name)

    shelf, got = Shelf(slow, lambda name: 1.0, lambda: 1.0), []
    threads = [Thread(target=lambda: got.append(taken(shelf, "a"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(10)
    assert opened == ["a"] and len(got) == 3 and len(set(map(id, got))) == 1


def test_models_are_loaded_one_at_a_time():
    """transformers sets the default type of the whole program meanwhile."""
    loading, most = [], []

    def slow(name):
        loading.append(name)
        most.append(len(loading))
        time.sleep(0.05)
        loading.remove(name)
        return Model(name)

    shelf = Shelf(slow, lambda name: 1.0, lambda: 9.0)
    threads = [Thread(target=taken, args=(shelf, name)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == [1, 1, 1, 1]


def test_nobody_is_held_up_while_a_model_is_loaded():
    begun, go = Signal(), Signal()

    def slow(name):
        if name == "slow":
            begun.set()
            assert go.wait(10)
        return Model(name)

    shelf = Shelf(slow, lambda name: 1.0, lambda: 2.0)
    with shelf.use("here"):
        loading = Thread(target=taken, args=(shelf, "slow"))
        loading.start()
        assert begun.wait(10)
    taken(shelf, "here")  # whoever is done gives it back, and others may have it
    waits = Thread(target=taken, args=(shelf, "third"))
    waits.start()
    waits.join(0.3)  # there is no room for three: the idle one goes, what is being loaded stays
    assert "here" not in shelf and "slow" not in shelf and "third" not in shelf
    go.set()
    for thread in (loading, waits):
        thread.join(10)
    assert "slow" in shelf and "third" in shelf


def test_a_model_that_gives_way_leaves_nothing_behind():
    """Not even after it has answered, failed and been stopped in the middle."""
    shelf = Shelf(lambda name: make_lvlm(), lambda name: 1.0, lambda: 1.0)
    with shelf.use("a") as lvlm:
        request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 2}
        trace = lvlm.answer(**request, tracing="full").trace
        next(lvlm.stream(**request))
        with pytest.raises(InputError):
            lvlm.answer(**request | {"question": ""})
        references = [weakref.ref(x) for x in (lvlm, lvlm.family, lvlm.family.model)]
        weights = [weakref.ref(p) for p in lvlm.family.model.parameters()]
    del lvlm
    gc.collect()
    assert all(reference() is not None for reference in references)  # the shelf holds them
    taken(shelf, "b")
    assert all(reference() is None for reference in references + weights)
    assert trace.words  # the answer stays


def test_a_model_that_runs_out_of_memory_gets_the_room_of_those_that_nobody_uses():
    shelf = shelf_of([], capacity=3.0)
    idle = taken(shelf, "idle")

    def run_out():
        with pytest.raises(InputError) as error, shelf.use("large"):
            raise ShortageError("Use less.")
        return str(error.value)

    with shelf.use("busy") as busy:
        assert run_out() == "Use less. idle made room meanwhile: asking again may do, too."
        assert idle.closed and not busy.closed
        assert run_out() == "Use less."
    assert ["idle" in shelf, "busy" in shelf, "large" in shelf] == [False, True, True]


# What is offered


def test_models_are_offered_with_size_and_memory(monkeypatch):
    monkeypatch.setattr(room, "capacity", lambda: (20e9, "memory"))
    labels = {name: label for label, name in engine.choices("tiny-llava")}
    assert next(iter(labels)) == "tiny-llava"
    assert labels["tiny-llava"] == "tiny-llava · 9 M parameters · 44 MB"
    assert labels["qwen2-vl-2b"] == "qwen2-vl-2b · 2.2 B parameters · 10.6 GB"
    assert "llava-1.5-7b" not in labels  # 34 GB without a GPU
    assert set(labels) == {e.name for e in models.catalog() if e.runnable}


def test_a_model_by_its_hub_id_is_offered_once(monkeypatch):
    monkeypatch.setattr(room, "capacity", lambda: (80e9, "memory"))
    offered = engine.offered("llava-hf/llava-1.5-7b-hf")
    assert list(offered)[:2] == ["llava-1.5-7b", "tiny-llava"]
    assert offered["llava-1.5-7b"] == "llava-hf/llava-1.5-7b-hf"
    assert list(offered.values()).count("llava-1.5-7b") == 0


def test_strangers_on_a_space_cannot_make_it_fetch_models(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/libra")
    assert list(engine.offered("qwen2-vl-2b")) == ["qwen2-vl-2b", "tiny-llava"]


# The page


def test_choosing_a_model_loads_it_and_says_so(visit, model, monkeypatch):
    said, shown = [], Shown(model="before")
    engine.shelf.clear()
    (drawn,) = visit.choose_model(shown, "libra", model, lambda done, desc: said.append(desc))
    assert said == [f"Loading {engine.label(model)} …"]
    assert model in engine.shelf and shown.model == model
    usual = engine.shape(model).default_layers("libra")
    assert drawn[visit.controls.layers].value == list(usual)


def test_a_start_with_a_model_that_cannot_be_had_is_one_line(monkeypatch, capsys):
    """As with `MODEL=no/such-model make demo` on a machine without a connection."""

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(models.HfApi, "model_info", unreachable)
    monkeypatch.setattr(app, "build", partial(app.build, "no/such-model"))
    assert app.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("The model hub cannot be reached, and 'no/such-model' is not stored")
    assert said.count("\n") == 1


def test_a_model_that_cannot_be_had_is_one_message_and_the_last_one_stays(visit, monkeypatch):
    shown = Shown(model="before")
    error = InputError("org/x is a gated model: ... set HF_TOKEN")
    monkeypatch.setattr(engine, "load", lambda name: (_ for _ in ()).throw(error))
    with pytest.raises(gr.Error, match="HF_TOKEN"):
        list(visit.choose_model(shown, "libra", "qwen2-vl-2b", lambda *a, **k: None))
    assert visit.last_model(shown) == ("before", panels.knows("before"))


def test_settings_need_no_model_once_it_was_loaded(model, monkeypatch):
    engine.shape(model)
    engine.shelf.clear()
    monkeypatch.setattr(engine, "load", None)  # a call would fail
    assert plan.defaults("libra", model)["layers"] and plan.last_layer(model) == 7
    assert model not in engine.shelf


def test_a_question_loads_a_model_that_has_given_way(model, tmp_path):
    engine.shelf.clear()
    make_image().save(tmp_path / "a.png")
    request = plan.request(str(tmp_path / "a.png"), QUESTION, "vanilla", {"max_new_tokens": 1})
    *_, last = engine.ask(model, request)
    assert last.trace.words and model in engine.shelf


def test_memory_that_runs_out_while_loading_is_one_message(model_folder, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(models.Llava, "load", full)
    engine.shelf.clear()
    with pytest.raises(InputError, match="Choose a smaller model"):
        engine.load(str(model_folder))
