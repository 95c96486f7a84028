"""What strangers send to the page, and what it holds back: files, markup, settings, models."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
from libra import methods
from libra.errors import InputError
from libra.lvlm import Generation
from libra.trace import Event, Trace, Word
from page import (
    ask,
    compare,
    comparison,
    controls,
    engine,
    examples,
    media,
    panels,
    plan,
    texts,
    views,
)
from page import readouts as numbers
from page.comparison import View
from page.legends import legend
from page.shown import Result, Shown, overlays
from tests.conftest import N_LAYERS, QUESTION, make_image
from tests.serve_page import prepare_examples, said_to, serve_page

EVIL = "\"'><script>alert(1)</script>"


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    make_image(seed=7).save(path)
    return path


@pytest.fixture(scope="module")
def traces(model, picture) -> dict[str, Trace]:
    """Traces by method, and one without attention rows."""
    request = {"images": [picture], "question": QUESTION, "max_new_tokens": 3}
    lvlm = engine.load(model)
    made = {name: lvlm.answer(**request, method=name).trace for name in ("vanilla", "libra")}
    return made | {"bare": lvlm.answer(**request, tracing=False).trace}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The folder of the files that the page makes."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    folder.mkdir()
    return folder


# File names


@pytest.mark.parametrize(
    "name", ["/{outside}/x", "../../x", "{outside}", ".", "..", "", ".x", "ä" * 999]
)
def test_files_stay_in_their_folder_whatever_a_trace_is_called(cache, tmp_path, traces, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    name = name.format(outside=outside)
    named = replace(traces["libra"], method=name)
    files = [
        views.save_png(make_image(), name),
        views.save_png(make_image(), views.file_name(named, "fate", "../../after")),
        views.save_trace(named),
    ]
    for file in map(Path, files):
        assert file.resolve().is_relative_to(cache.resolve())
        assert file.exists() and not file.name.startswith(".")
    assert not list(outside.iterdir())
    assert {p.name for p in tmp_path.iterdir()} == {"cache", "outside"}


@pytest.mark.parametrize("name", methods.names())
def test_files_carry_the_name_of_their_method(cache, traces, name):
    trace = replace(traces["libra"], method=name)
    assert Path(views.save_trace(trace)).name == f"{name}.trace.zip"
    saved = views.save_png(make_image(), views.file_name(trace, "fate", "after layer 1"))
    assert Path(saved).name == f"{name}-fate-after-layer-1.png"


def test_a_picture_is_never_found_half_written(cache, monkeypatch):
    picture, real = make_image(), Image.Image.save

    def interrupted(self, file, *args, **options):
        Path(file).write_bytes(b"half a picture")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(OSError, match="no space"):
        views.save_png(picture, "x")
    assert not list(cache.rglob("*.png"))
    monkeypatch.setattr(Image.Image, "save", real)
    with Image.open(views.save_png(picture, "x")) as saved:
        assert saved.tobytes() == picture.tobytes()


def test_a_picture_that_is_wanted_again_counts_as_new(cache):

    path = views.save_png(make_image(), "x")
    os.utime(path, (1, 1))
    assert views.save_png(make_image(), "x") == path
    assert Path(path).stat().st_mtime > 1


def test_files_are_put_out_with_their_component(visit, cache, traces):
    """Gradio clears away by age what it has seen of a component; a copy that an update makes of
    it, once for each visitor, sees what comes as a path alone.
    """
    shown = Shown()
    shown.show(traces["libra"], traces["vanilla"])
    drawn = visit.tab.draw(shown) | visit.several.draw(shown, "fate", comparison.LAST)
    assert visit.tab.tokens in drawn and list(cache.rglob("*.png"))
    assert not [v for v in drawn.values() if isinstance(v, str) and v.startswith(str(cache))]


# Markup


def test_nothing_in_a_trace_becomes_markup(traces):
    plain = traces["vanilla"]
    words = [Word(EVIL, 0.5, [(EVIL, 0.5)]) for _ in plain.words]
    evil = replace(
        traces["libra"], method=EVIL, question=EVIL, answer=EVIL, words=words, model=EVIL
    )
    staged = replace(evil, events=[Event(e.site, EVIL, e.reduction) for e in evil.events])
    last = len(evil.events)
    fragments = [
        *(
            fragment(Shown(evil, overlay=overlay, stage=stage, word=1))
            for overlay in texts.OVERLAYS
            for stage in (0, last)
            for fragment in (ask.caption, ask.overlays)
        ),
        *(legend(evil, overlay, last, 1) for overlay in texts.OVERLAYS),
        *(View.of([evil], key, comparison.LAST).legend for _, key in compare.OVERLAYS),
        *(panels.card(Result(EVIL, trace=staged), plain, "x", caption)
          for caption in View.of([staged], "fate", comparison.LAST).captions),
        panels.card(Result(EVIL, EVIL)),
        panels.card(Result(EVIL, error=EVIL)),
        panels.card(Result("vanilla", trace=plain), evil),
        panels.answer(evil, 1, EVIL),
        panels.streaming(EVIL, EVIL, EVIL),
        panels.progress(0, 1, EVIL),
        panels.note(EVIL),
        panels.below("", "fate", [evil, evil]),
        panels.header(EVIL, EVIL),
        numbers.readouts(evil, evil),
        numbers.comparison([Result(EVIL, trace=evil), Result(EVIL, error=EVIL)]),
        numbers.per_layer([evil]),
    ]  # fmt: skip
    for fragment in fragments:
        assert fragment and "<script" not in fragment


def test_counts_that_are_no_numbers_are_not_shown(traces):
    evil = replace(traces["libra"], counts=[EVIL] * N_LAYERS)
    for fragment in (lambda: numbers.per_layer([evil]), lambda: numbers.readouts(evil)):
        with pytest.raises((TypeError, ValueError)):
            fragment()


def test_examples_say_whose_pictures_they_are(picture):
    example = examples.Example(picture, EVIL, EVIL, EVIL, f"Ada, CC0 {EVIL}")
    strip = panels.example_strip([example, example])
    assert "<script" not in strip
    assert strip.count("Ada, CC0") == 3  # with each picture, and once to read


# Settings and models


def test_settings_cannot_replace_what_is_asked():
    sly = {"images": ["/etc/passwd"], "question": "other", "method": "vanilla", "tau": 0.5}
    request = plan.request("own.png", "q", "libra", sly)
    assert request == {"images": ["own.png"], "question": "q", "method": "libra", "tau": 0.5}


def request_of(visit, model, **changed):
    """What the Ask tab makes of the values of its controls."""
    c = visit.controls
    file = {"path": str(Path(media.get_upload_folder(), "p.png"))}
    values = {"picture": file, "question": "q", "model": model, "method": "libra"}
    values |= {"ratio": 0.5, "layers": [3, 1], "encoder_layers": []} | changed
    defaults = {p: None for p in c.parameters}
    return c.request(*values.values(), *defaults.values())


def test_the_page_asks_the_models_that_it_offers(visit, model):
    name, request = request_of(visit, model)
    assert name == model and request["layers"] == [1, 3]


@pytest.mark.parametrize("name", ["org/other-model", "/tmp", "", None, ["tiny-llava"], {}])
def test_no_other_model_is_loaded(visit, monkeypatch, name):
    monkeypatch.setattr(engine, "load", None)  # a call would fail
    with pytest.raises(InputError, match="no model"):
        request_of(visit, name)


@pytest.mark.parametrize("name", ["magic", "", None, ["libra"], {}])
def test_no_other_method_is_accepted(visit, model, name):
    with pytest.raises(InputError, match="no method"):
        request_of(visit, model, method=name)


@pytest.fixture(scope="module")
def client(model, tmp_path_factory):
    folder = prepare_examples(tmp_path_factory.mktemp("served"), model)
    with serve_page(model, folder) as address:
        yield Client(address, verbose=False)


def call(client, picture, **settings):
    settings = {"question": QUESTION, **settings}
    return client.predict(image=handle_file(str(picture)), **settings, api_name="/ask")


@pytest.mark.parametrize(
    "name", ["images", "question", "method", "max_new_tokens", "features", "tracing", "seed",
             "video", "layers"],
)  # fmt: skip
def test_the_endpoint_takes_the_parameters_of_the_method_alone(client, picture, name):
    with pytest.raises(AppError, match=f"fastv has no parameter '{name}'; it has ratio, keep"):
        call(client, picture, method="fastv", parameters={name: [str(picture)]})


def test_the_endpoint_takes_forced_patches(client, picture):
    _, _, file = call(client, picture, method="fastv", ratio=0.5, parameters={"drop": [0, 1]})
    assert not {0, 1} & set(Trace.load(file).events[0].reduction.slot.tolist())


def test_nulls_over_the_wire(client, picture):
    with pytest.raises(AppError, match="There is no question"):
        call(client, picture, question=None)
    assert call(client, picture, layers=None, parameters=None)[1]["method"] == "libra"


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """A folder of uploads, and a picture of the server beside it."""
    own, other = tmp_path / "uploads", tmp_path / "server.png"
    own.mkdir()
    make_image().save(own / "mine.png")
    make_image().save(other)
    (own / "link.png").symlink_to(other)
    monkeypatch.setattr(media, "get_upload_folder", lambda: str(own))
    return own


@pytest.mark.parametrize("path", ["../server.png", "link.png", "/etc/passwd", "."])
def test_no_file_of_the_server_is_asked_about(uploads, visit, model, path):
    shown, file = Shown(), {"path": str(uploads / path)}
    if path == ".":
        file = {"path": str(uploads.parent)}
    with pytest.raises(InputError, match="not a picture that was uploaded"):
        request_of(visit, model, picture=file)
    with pytest.raises(gr.Error, match="not a picture that was uploaded"):
        visit.check_picture(file, shown)
    assert shown.picture is None


def test_an_uploaded_picture_is_asked_about(uploads, visit, model):
    file = {"path": str(uploads / "mine.png")}
    assert request_of(visit, model, picture=file)[1]["images"] == [file["path"]]
    visit.check_picture(file, shown := Shown())
    assert shown.picture == file["path"]


@pytest.mark.parametrize("elem", ["picture", "question", "layers"])
def test_what_no_browser_sends_is_refused_in_words(uploads, visit, model, elem):
    bad = {"picture": {"path": "/etc/passwd"}, "question": None, "layers": ["a", 1]}[elem]
    changed = {"picture": {"path": str(uploads / "mine.png")}} | {elem: bad}
    if elem == "question":
        assert request_of(visit, model, **changed)[1]["question"] == ""
    else:
        with pytest.raises(InputError):
            request_of(visit, model, **changed)


def test_a_path_without_the_mark_of_a_file_is_refused_everywhere(client, tmp_path):
    make_image().save(tmp_path / "server.png")
    config = httpx.get(f"{client.src}config").json()
    props = {c["id"]: c["props"] for c in config["components"]}
    picture = next(i for i, p in props.items() if p.get("elem_id") == "picture")
    takes = [d for d in config["dependencies"] if picture in d["inputs"] and d["backend_fn"]]
    assert len(takes) >= 5  # asking, two ways to compare, sweeping, uploading
    for event in takes:
        values = [
            {"path": str(tmp_path / "server.png")} if i == picture else props[i].get("value")
            for i in event["inputs"]
        ]
        said = said_to(client.src, event, values)
        assert "not a picture that was uploaded" in said, event


# Trace files


def opened(visit, shown, trace, folder, model):
    trace.save(folder / "some.trace.zip")
    return visit.open_trace(str(folder / "some.trace.zip"), shown, model)


@pytest.mark.parametrize("error", [InputError("no such row"), TypeError("what is this")])
def test_a_trace_that_cannot_be_drawn_changes_nothing(
    visit, model, traces, tmp_path, monkeypatch, error
):
    shown = Shown(stage=2, overlay="kept", picture="before.png")
    shown.show(traces["libra"], traces["vanilla"])
    before = dict(vars(shown))

    def broken(*args, **options):
        raise error

    monkeypatch.setattr(ask.viz, "token_strip", broken)
    expected = gr.Error if isinstance(error, InputError) else type(error)
    with pytest.raises(expected):
        opened(visit, shown, traces["vanilla"], tmp_path, model)
    assert vars(shown) == before


def test_a_file_that_is_no_trace_changes_nothing(visit, model, traces, tmp_path):
    shown = Shown()
    shown.show(traces["libra"])
    before = dict(vars(shown))
    (tmp_path / "cut.zip").write_bytes(b"PK")
    with pytest.raises(gr.Error, match="is not a trace file"):
        visit.open_trace(str(tmp_path / "cut.zip"), shown, model)
    assert vars(shown) == before


def test_an_opened_trace_is_what_the_visitor_sees(visit, model, traces, tmp_path):
    shown = Shown(overlay="word", stage=3, word=2)
    shown.show(traces["libra"], traces["vanilla"])
    drawn = opened(visit, shown, traces["vanilla"], tmp_path, model)
    assert shown.trace.method == "vanilla" and shown.vanilla is None
    assert (shown.stage, shown.word, shown.overlay) == (0, 0, "word")
    assert drawn[visit.controls.question] == QUESTION
    assert list(shown.compared) == ["vanilla"]


@pytest.mark.parametrize("overlay", texts.OVERLAYS)
def test_a_trace_without_attention_rows_opens_without_heat_maps(
    visit, model, traces, tmp_path, overlay
):
    shown = Shown()
    shown.show(traces["libra"])
    shown.overlay = overlay
    drawn = opened(visit, shown, traces["bare"], tmp_path, model)
    there = [key for key in texts.OVERLAYS if key not in texts.HEAT]
    assert list(views.thumbnails(shown.trace, 1, 0)) == overlays(shown.trace) == there
    assert shown.overlay == (overlay if overlay in there else "fate")
    assert drawn[visit.tab.overlays].count("data-pick") == len(there)
    for i, key in enumerate(there):  # the buttons pick what they show
        visit.pick_overlay(shown, SimpleNamespace(index=i))
        assert shown.overlay == key
    visit.pick_word(shown, SimpleNamespace(index=1))
    assert (shown.overlay, shown.word) == (there[-1], 1)


def test_a_comparison_without_attention_rows_leaves_heat_maps_out(visit, traces):
    shown = Shown()
    shown.show(traces["bare"], traces["vanilla"])
    drawn = visit.several.draw(shown, "importance", comparison.LAST)
    radio = drawn[visit.several.overlay]
    assert "importance" not in [key for _, key in radio.choices]
    assert radio.value == compare.DEFAULT_OVERLAY
    assert texts.OVERLAYS[compare.DEFAULT_OVERLAY][1] in drawn[visit.several.legend]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [((1, 4), (1, 4)), ((7, 15, 23), (7,)), ((15, 23), None), ((3, 15, 23), (3,)), ((), None)],
)
def test_settings_of_a_deeper_model_are_cut_to_this_one(model, traces, layers, expected):
    settings = plan.of_trace(replace(traces["libra"], layers=layers, ratio=0.99), model)
    usual = engine.load(model).default_layers("libra")
    assert tuple(settings["layers"]) == (expected or usual)
    assert settings["ratio"] == plan.MAX_RATIO
    assert settings["tau"] == traces["libra"].params["tau"]


def test_encoder_layers_of_a_deeper_model_are_cut_to_this_one(model, traces):
    trace = replace(traces["libra"], method="tome", params={"encoder_layers": [1, 22]})
    assert plan.of_trace(trace, model)["encoder_layers"] == [1]
    trace = replace(trace, params={"encoder_layers": [22]})
    assert plan.of_trace(trace, model)["encoder_layers"] == engine.load(
        model
    ).default_encoder_layers("tome")


# Work


def test_files_are_checked_and_videos_decoded_two_at_a_time(model, tmp_path):
    page = app.build(model, tmp_path)
    queues = {
        fn.name: (fn.concurrency_id, fn.concurrency_limit)
        for fn in page.fns.values()
        if fn.name in ("open_trace", "check_picture", "take", "watch", "sample") and fn.queue
    }
    files, videos = ("files", 2), ("videos", 2)
    assert queues == {"open_trace": files, "check_picture": files, "take": files} | {
        "watch": videos,
        "sample": videos,
    }


@pytest.fixture
def runs(monkeypatch):
    """The steps that the engine has computed so far, by method."""
    steps, iterate = [], Generation.__iter__

    def counted(self):
        for text in iterate(self):
            steps.append(self.request.method.name)
            yield text

    monkeypatch.setattr(Generation, "__iter__", counted)
    return steps


def asked(picture, method="libra"):
    return plan.request(str(picture), QUESTION, method, {"max_new_tokens": 3})


def test_every_method_runs_once(model, picture, runs):
    *_, last = engine.ask(model, asked(picture))
    assert runs == ["libra"] * len(last.trace.words) + ["vanilla"] * len(last.vanilla.words)
    runs.clear()
    *_, last = engine.ask(model, asked(picture, "vanilla"))
    assert runs == ["vanilla"] * len(last.trace.words) and last.vanilla is last.trace


def test_the_trace_comes_before_vanilla_is_measured(model, picture, runs):
    steps = engine.ask(model, asked(picture))
    trace = next(step.trace for step in steps if step.trace)
    assert runs == ["libra"] * len(trace.words)
    steps.close()


def test_a_question_can_be_stopped_between_any_two_tokens_of_vanilla(model, picture, runs):
    steps = engine.ask(model, asked(picture))
    next(step for step in steps if step.trace)
    runs.clear()
    assert next(steps).vanilla is None and runs == ["vanilla"]
    assert next(steps).vanilla is None and runs == ["vanilla"] * 2
    steps.close()
    assert runs == ["vanilla"] * 2


@pytest.fixture
def asking(visit, traces, monkeypatch):
    """A question whose vanilla takes three tokens, as the page follows it."""
    trace, vanilla = traces["libra"], traces["vanilla"]

    def fake(model, request):
        yield engine.Progress("a")
        yield from [engine.Progress("a", trace)] * 4
        yield engine.Progress("a", trace, vanilla)

    monkeypatch.setattr(engine, "ask", fake)
    request = {"images": ["p.png"], "question": QUESTION, "method": "libra"}
    monkeypatch.setattr(controls.Controls, "request", lambda *values: ("tiny-llava", request))
    return lambda shown: visit.ask(shown)


def test_figures_are_drawn_once_and_the_page_can_stop_between_tokens(visit, asking):
    shown = Shown()
    updates = list(asking(shown))
    drawn = [visit.tab.hero in update for update in updates]
    assert drawn == [False, False, True, False, False, False, False]
    assert texts.MEASURING in updates[3][visit.tab.answer]
    assert visit.tab.readouts in updates[-1] and shown.vanilla is not None


def test_what_was_opened_meanwhile_stays(asking, traces):
    shown = Shown()
    updates = asking(shown)
    next(update for update in updates if shown.trace)
    shown.show(traces["vanilla"])
    assert list(updates) == []
    assert shown.trace is traces["vanilla"] and shown.vanilla is None


# Environment


@pytest.mark.parametrize(
    "variable, most", [("LIBRA_SLOTS", 32), ("LIBRA_QUEUE", 64), ("PORT", 65535)]
)
@pytest.mark.parametrize("value", ["many", "-1", "0", "1.5", "99999", " "])
def test_a_bad_number_in_the_environment_is_one_clear_line(
    monkeypatch, capsys, variable, most, value
):
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(engine, "load", None)  # it is said before anything is loaded
    assert app.main() == 2
    expected = f"{variable} must be a whole number from 1 to {most}, not {value!r}.\n"
    assert capsys.readouterr().err == expected


def test_everybody_who_may_wait_has_a_thread():
    """What waits in line must not keep others from looking at a figure."""
    assert app.LAUNCH["max_threads"] >= app.MOST_SLOTS + app.MOST_WAITING + 50


def test_what_visitors_leave_is_freed(model, tmp_path):
    """Gradio does so only with states that an event has put out, some time after the last one."""
    page = app.build(model, prepare_examples(tmp_path, model))
    states = (b for b in page.blocks.values() if isinstance(b, gr.State))
    (state,) = (b._id for b in states if isinstance(b.value, Shown))
    put_out = {
        t for fn in page.fns.values() for t in fn.targets if state in [b._id for b in fn.outputs]
    }
    (timer,) = (b for b in page.blocks.values() if isinstance(b, gr.Timer))
    assert {(page._id, "load"), (timer._id, "tick")} <= put_out
    assert timer.value < 3600
    (sign,) = {fn.fn for fn in page.fns.values() if (timer._id, "tick") in fn.targets}
    own = Shown()
    assert sign(own) is own
