"""The endpoint /ask, from gradio_client and over plain HTTP, with good and bad input."""

import json

import httpx
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from libra.trace import Trace
from libra.video import MAX_BYTES
from page import engine
from tests import clips
from tests.conftest import N_LAYERS, N_VISUAL, QUESTION, make_image


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    make_image(seed=7).save(path)
    return path


def ask(client, picture, question=QUESTION, **settings):
    image = handle_file(str(picture)) if picture else None
    return client.predict(image=image, question=question, **settings, api_name="/ask")


def test_answer_numbers_and_trace_are_those_of_the_engine(client, picture, model):
    answer, readouts, trace_file = ask(
        client, picture, method="libra", ratio=0.5, layers="1, 4", parameters={"tau": 0.6}
    )
    expected = engine.load(model).answer(
        images=[picture], question=QUESTION, method="libra", ratio=0.5, layers=(1, 4), tau=0.6
    )
    trace = Trace.load(trace_file)
    assert answer == expected.text == trace.answer
    assert readouts["tokens"] == [N_VISUAL, N_VISUAL // 2, N_VISUAL // 4]
    assert readouts["tokens_per_layer"] == expected.trace.counts == trace.counts
    assert readouts["flops"] == expected.trace.cost.flops < readouts["vanilla_flops"]
    assert readouts["kv_bytes"] == expected.trace.cost.kv_bytes < readouts["vanilla_kv_bytes"]
    assert readouts["layers"] == [1, 4]
    assert trace.params["tau"] == 0.6


def test_vanilla_is_measured_on_the_same_inputs(client, picture, model):
    _, readouts, _ = ask(client, picture, method="fastv", ratio=0.75)
    plain = engine.load(model).answer(images=[picture], question=QUESTION, method="vanilla")
    assert readouts["vanilla_answer"] == plain.text
    assert readouts["vanilla_flops"] == plain.trace.cost.flops
    assert readouts["vanilla_prefill_seconds"] > 0


def test_what_is_left_out_is_as_in_the_paper(client, picture, model):
    _, readouts, _ = ask(client, picture)
    assert readouts["method"] == "libra"
    assert readouts["ratio"] == 0.5
    assert readouts["layers"] == list(engine.load(model).default_layers("libra"))


def test_ratio_0_keeps_all_tokens_and_ratio_1_one(client, picture):
    _, nothing, _ = ask(client, picture, method="fastv", ratio=0, layers="1")
    _, everything, _ = ask(client, picture, method="fastv", ratio=1, layers="1")
    assert nothing["tokens"] == [N_VISUAL, N_VISUAL]
    assert everything["tokens"] == [N_VISUAL, 1]


def test_plain_http_as_with_curl(url, picture):
    api = f"{url}gradio_api/"
    (path,) = httpx.post(f"{api}upload", files={"files": picture.read_bytes()}).json()
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, QUESTION, "fastv", 0.5, "1", {}]
    event = httpx.post(f"{api}call/ask", json={"data": data}).json()["event_id"]
    stream = httpx.get(f"{api}call/ask/{event}", timeout=60).text
    assert "event: complete" in stream
    answer, readouts, _ = json.loads(stream.rsplit("data: ", 1)[1])
    assert isinstance(answer, str)
    assert readouts["tokens"] == [N_VISUAL, N_VISUAL // 2]


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("films") / "clip.webm"
    return clips.write(path, [*map(clips.numbered, range(20))])


def test_several_pictures(client, picture, tmp_path, model):
    make_image(3, 30, 90).save(tmp_path / "tall.png")
    paths = [picture, tmp_path / "tall.png"]
    files = [handle_file(str(path)) for path in paths]
    answer, readouts, trace_file = client.predict(files, QUESTION, "fastv", 0.5, api_name="/ask")
    expected = engine.load(model).answer(images=paths, question=QUESTION, method="fastv", ratio=0.5)
    assert answer == expected.text and readouts["tokens"] == [2 * N_VISUAL, N_VISUAL]
    assert len(Trace.load(trace_file).images) == 2


@pytest.mark.parametrize(("settings", "n"), [({}, 8), ({"frames": 3}, 3)])
def test_a_video(client, film, settings, n):
    _, readouts, trace_file = ask(client, film, method="fastv", parameters=settings)
    trace = Trace.load(trace_file)
    assert len(trace.images) == len(trace.times) == n
    assert trace.times[0] == 0 and trace.times[-1] == pytest.approx(1.9)
    assert readouts["tokens"][0] == n * N_VISUAL


def test_media_that_do_not_go_together(client, picture, film):
    both = [handle_file(str(path)) for path in (picture, film)]
    with pytest.raises(AppError, match="about pictures or about one video"):
        client.predict(both, QUESTION, api_name="/ask")
    with pytest.raises(AppError, match="frames are about a video"):
        ask(client, picture, parameters={"frames": 3})
    with pytest.raises(AppError, match=r"whole number in 1\.\.64, not 0"):
        ask(client, film, parameters={"frames": 0})
    with pytest.raises(AppError, match="use at most 13 frames"):
        ask(client, film, parameters={"frames": 20})
    with pytest.raises(AppError, match="These are 65 pictures; at most 64 are possible"):
        client.predict([handle_file(str(picture))] * 65, QUESTION, api_name="/ask")
    with pytest.raises(AppError, match="There is no picture"):
        client.predict([], QUESTION, api_name="/ask")


def test_a_picture_of_one_pixel_is_answered(client, tmp_path):
    make_image(width=1, height=1).save(tmp_path / "pixel.png")
    _, readouts, _ = ask(client, tmp_path / "pixel.png")
    assert readouts["tokens"][0] == N_VISUAL


BAD_SETTINGS = {
    "no question": ({"question": "  "}, "no question"),
    "long question": ({"question": "a" * 10_000}, "10,000 characters"),
    "unknown method": ({"method": "magic"}, "no method 'magic'"),
    "ratio above 1": ({"ratio": 1.5}, "ratio must be a number from 0.0 to 1.0"),
    "ratio below 0": ({"ratio": -0.5}, "ratio must be a number from 0.0 to 1.0"),
    "ratio NaN": ({"parameters": {"ratio": "nan"}}, "ratio must be a number from 0.0 to 1.0"),
    "layers out of range": ({"layers": f"1,{N_LAYERS}"}, "must lie in 0.."),
    "negative layer": ({"layers": "-1"}, "must lie in 0.."),
    "repeated layers": ({"layers": "1,1"}, "must ascend without repeats"),
    "descending layers": ({"layers": "5,3"}, "must ascend without repeats"),
    "layers in words": ({"layers": "one"}, "Layers are whole numbers"),
    "unknown parameter": ({"parameters": {"speed": 9}}, "no parameter 'speed'"),
    "parameter out of range": ({"parameters": {"tau": 7}}, "tau must be"),
    "parameters not an object": ({"parameters": [1, 2]}, "one JSON object"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_bad_settings_get_one_clear_message(client, picture, case):
    settings, message = BAD_SETTINGS[case]
    with pytest.raises(AppError, match=message) as error:
        ask(client, picture, **settings)
    assert "Traceback" not in str(error.value)


def test_ratio_nan_on_the_wire(url, picture):
    api = f"{url}gradio_api/"
    (path,) = httpx.post(f"{api}upload", files={"files": picture.read_bytes()}).json()
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [file, QUESTION, "fastv", float("nan"), "1", {}]})
    reply = httpx.post(f"{api}call/ask", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 200  # it is taken for a number
    stream = httpx.get(f"{api}call/ask/{reply.json()['event_id']}", timeout=60).text
    assert stream.startswith("event: error\n") and "from 0.0 to 1.0, not nan" in stream


@pytest.mark.parametrize(
    "file", ["/etc/passwd", "http://127.0.0.1/a.png", 5, [None], ["a.png"], {"path": "a.png"}]
)
def test_what_is_no_file_gets_one_clear_message(client, file):
    with pytest.raises(AppError, match="no picture or video: give an uploaded file"):
        client.predict(file, QUESTION, api_name="/ask")


@pytest.mark.parametrize("settings", [{"layers": "9" * 5000}, {"method": "a" * 5000}])
def test_what_was_sent_is_not_sent_back_at_length(client, picture, settings):
    with pytest.raises(AppError, match=r"aaaa|9999") as error:
        ask(client, picture, **settings)
    assert len(str(error.value)) < 1200


def test_a_video_that_was_cut_off_is_answered(client, film, tmp_path):
    cut = tmp_path / "cut.webm"
    cut.write_bytes(film.read_bytes())
    job = client.submit(
        image=handle_file(str(clips.cut(cut, 0.6))), question=QUESTION, api_name="/ask"
    )
    assert len(Trace.load(job.result()[2]).times) > 1


def test_no_picture(client):
    with pytest.raises(AppError, match="There is no picture"):
        ask(client, None)


BAD_FILES = {
    "empty": (lambda data: b"", "is empty"),
    "truncated": (lambda data: data[: len(data) // 2], "damaged or cut off"),
    "not a picture": (lambda data: b"hello", "is not a picture"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_pictures_get_one_clear_message(client, picture, tmp_path, case):
    spoil, message = BAD_FILES[case]
    path = tmp_path / "spoiled.png"
    path.write_bytes(spoil(picture.read_bytes()))
    with pytest.raises(AppError, match=message):
        ask(client, path)


def test_memory_that_runs_out_is_a_message_and_the_next_question_is_answered(
    client, picture, model, monkeypatch
):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    layer = engine.load(model).family.decoder_layers[2]
    with monkeypatch.context() as patch:
        patch.setattr(layer, "forward", full)
        with pytest.raises(AppError, match=r"run out of memory on cpu\. This needs less: .*ratio"):
            ask(client, picture)
    assert ask(client, picture)[1]["tokens"][0] == N_VISUAL


def test_files_beyond_the_limit_are_refused_on_upload(url):
    too_much = {"files": bytes(MAX_BYTES + 2**20)}
    reply = httpx.post(f"{url}gradio_api/upload", files=too_much, timeout=60)
    assert reply.status_code == 413


def test_only_ask_is_public(client):
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert list(named) == ["/ask"]
    parameters = [p["parameter_name"] for p in named["/ask"]["parameters"]]
    assert parameters == ["image", "question", "method", "ratio", "layers", "parameters"]


def test_nothing_is_reported_or_recorded(url):
    config = httpx.get(f"{url}config").json()
    assert config["analytics_enabled"] is False
    assert config["footer_links"] == []
    assert not config.get("run_history")
