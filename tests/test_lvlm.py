"""The engine's front: answers, streams, comparisons, and every request it refuses."""

import dataclasses
import io
import itertools
import json
import shutil
import threading

import huggingface_hub
import numpy as np
import pytest
import torch
from conftest import (
    N_LAYERS,
    N_VISUAL,
    QUESTION,
    make_image,
    make_image_processor,
    make_lvlm,
    make_model,
    make_tokenizer,
)
from prompts import prepare
from transformers import LlavaProcessor

import libra
from libra import InputError, cost, models
from libra.decoder import CompressedCache
from libra.layout import TokenLayout
from libra.methods import create
from libra.prefills import TURNS
from libra.request import default_layers
from libra.trace import kept_size


def ask(lvlm, **changes):
    """An answer to the standard question."""
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 6}
    return lvlm.answer(**request | changes)


def plain_text(image, max_new_tokens=6):
    """The answer of transformers' own processor and generate."""
    model, tokenizer = make_model(dtype=torch.float32), make_tokenizer()
    processor = LlavaProcessor(
        make_image_processor(),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=text, images=[image], add_special_tokens=False, return_tensors="pt")
    generated = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return tokenizer.decode(generated[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)


@pytest.fixture(scope="module")
def loaded(model_folder):
    """The micro model read from its folder."""
    with libra.load(str(model_folder)) as lvlm:
        yield lvlm


def test_a_folder_in_half_precision_becomes_fp32_on_the_cpu(loaded):
    assert loaded.family.model.dtype == torch.float32
    assert loaded.card == {
        "name": loaded.name,
        "family": "llava",
        "parameters": loaded.family.model.num_parameters(),
        "device": "cpu",
        "dtype": "float32",
        "layers": N_LAYERS,
        "visual_tokens": N_VISUAL,
        "knows": "",
    }


def test_an_older_folder_keeps_its_chat_template_with_the_processor(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "older")
    (tmp_path / "older" / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template"):
        libra.load(str(tmp_path / "older"))
    template = {"chat_template": make_tokenizer().chat_template}
    (tmp_path / "older" / "chat_template.json").write_text(json.dumps(template))
    with libra.load(str(tmp_path / "older")) as lvlm:
        assert ask(lvlm).trace.words


@pytest.mark.parametrize("size", [(80, 60), (30, 200), (56, 56)])
def test_vanilla_answers_like_the_processor_and_generate_of_transformers(size):
    image = make_image(3, *size)
    with make_lvlm(dtype=torch.float32) as lvlm:
        answer = ask(lvlm, images=[image], method="vanilla", max_new_tokens=20)
    assert answer.text == plain_text(image, 20).strip()
    assert answer.text


def test_every_step_extends_the_answer_and_the_last_carries_the_trace(lvlm):
    steps = list(lvlm.stream(images=[make_image()], question=QUESTION, max_new_tokens=6))
    assert [step.trace is None for step in steps] == [True] * (len(steps) - 1) + [False]
    for before, after in itertools.pairwise(steps):
        assert after.text.startswith(before.text)
    trace = steps[-1].trace
    assert steps[-1].text == trace.answer == "".join(word.text for word in trace.words).strip()


def test_generation_stops_at_the_end_token(lvlm, monkeypatch):
    full = ask(lvlm, max_new_tokens=6)
    ids = lvlm.family.tokenizer(full.text, add_special_tokens=False).input_ids
    monkeypatch.setattr(lvlm.family, "eos", {ids[2]})
    cut = ask(lvlm, max_new_tokens=6)
    assert len(cut.trace.words) == ids.index(ids[2])
    assert full.text.startswith(cut.text)
    assert len(cut.trace.attention) == len(cut.trace.words)
    assert len(cut.trace.timings.decode) == len(cut.trace.words)


def test_closing_a_stream_stops_the_model(lvlm):
    calls = []
    handle = lvlm.family.decoder_layers[0].register_forward_hook(lambda *a: calls.append(1))
    stream = lvlm.stream(images=[make_image()], question=QUESTION, max_new_tokens=20)
    next(stream), next(stream)
    stream.close()
    handle.remove()
    assert len(calls) == 2


def test_the_trace_tells_what_happened(lvlm):
    trace = ask(lvlm, method="libra", ratio=0.5, layers=(1, 4), tau=0.9).trace
    assert (trace.model, trace.family, trace.method) == ("micro", "llava", "libra")
    assert (trace.ratio, trace.layers, trace.question) == (0.5, (1, 4), QUESTION)
    assert trace.params["tau"] == 0.9 and "keep" not in trace.params
    assert trace.stages == ["before", "after layer 1", "after layer 4"]
    assert trace.counts[:2] == [N_VISUAL] * 2
    assert trace.counts[2] == trace.events[0].reduction.n_out
    assert trace.counts[5] == trace.events[1].reduction.n_out
    assert [len(row) for row in trace.importance] == trace.counts
    assert len(trace.attention) == len(trace.words) == 6
    for row in trace.attention:
        assert [len(x) for x in row] == trace.counts
    assert all(0 < float(row.sum()) < 1 for row in trace.importance)
    assert trace.lineage(2).n_in == N_VISUAL and trace.lineage(2).n_out == trace.counts[-1]
    assert trace.images[0].shape == (60, 80, 3) and trace.images[0].dtype == np.uint8
    assert torch.equal(trace.layout.box, TokenLayout.square_crop(80, 60, (4, 4)).box)
    assert trace.timings.prefill > 0 and len(trace.timings.decode) == 5
    for word in trace.words:
        assert word.probability == pytest.approx(word.top[0][1])
        assert [p for _, p in word.top] == sorted((p for _, p in word.top), reverse=True)
        assert word.top[0][0] == word.text or not word.text


@pytest.mark.parametrize("method", ["vanilla", "libra", "prumerge", "illava", "tome", "kmeans"])
def test_what_is_handed_out_can_be_changed_and_learned_from(lvlm, method):
    """The engine computes in inference mode, whose own tensors could be neither."""
    request = {"images": [make_image()], "question": QUESTION, "method": method}
    answered = lvlm.answer(**request, tracing="full", max_new_tokens=3)
    assert not [t for t in tensors_in(answered.trace) if t.is_inference()]
    row = answered.trace.importance[0].mul_(2)
    (row * torch.ones(len(row), requires_grad=True)).sum().backward()
    features = lvlm.encode([make_image()])
    found = [*tensors_in(features.hidden), *tensors_in(features.inputs)]
    assert found and not any(t.is_inference() for t in found)


def tensors_in(thing):
    """All tensors inside of dataclasses, mappings and sequences."""
    if isinstance(thing, torch.Tensor):
        return [thing]
    if dataclasses.is_dataclass(thing):
        thing = vars(thing)
    if isinstance(thing, dict):
        thing = list(thing.values())
    return [t for x in thing for t in tensors_in(x)] if isinstance(thing, list | tuple) else []


def test_the_importance_the_method_used_is_the_traced_one(lvlm):
    trace = ask(lvlm, method="fastv", layers=(2,)).trace
    torch.testing.assert_close(
        trace.events[0].reduction.evidence["importance"], trace.importance[2], atol=0, rtol=0
    )


def test_cls_attention_is_the_row_of_the_last_encoder_layer(lvlm):
    trace = ask(lvlm).trace
    model = make_model("eager", torch.float64)
    pixels = make_image_processor()([make_image()], return_tensors="pt").pixel_values.double()
    with torch.no_grad():
        matrices = model.model.vision_tower(pixels, output_attentions=True).attentions
    expected = matrices[-1][0, :, 0, 1:].mean(0).float()
    torch.testing.assert_close(trace.cls_attention, expected, atol=1e-6, rtol=1e-5)


def test_without_tracing_only_the_attention_is_missing(lvlm):
    traced, untraced = ask(lvlm).trace, ask(lvlm, tracing=False).trace
    assert untraced.importance == [] and untraced.attention == []
    assert untraced.cls_attention is None
    assert untraced.answer == traced.answer
    assert untraced.counts == traced.counts
    assert untraced.cost == traced.cost


@pytest.mark.parametrize("method", ["vanilla", "fastv", "libra"])
def test_kv_bytes_are_those_of_the_cache(lvlm, method, monkeypatch):
    caches = []
    init = CompressedCache.__init__
    monkeypatch.setattr(
        CompressedCache, "__init__", lambda self, *a: caches.append(self) or init(self, *a)
    )
    trace = ask(lvlm, method=method, max_new_tokens=1).trace
    stored = sum(
        tensor.numel() * tensor.element_size()
        for layer in caches[0].layers
        for tensor in (layer.keys, layer.values)
    )
    n_text = len(prepare(lvlm, [make_image()], QUESTION)[1].ids) - N_VISUAL
    keys = caches[0].layers[0].keys
    text = 2 * n_text * N_LAYERS * keys.shape[1] * keys.shape[3] * keys.element_size()
    assert trace.cost.kv_bytes == stored - text
    assert trace.cost.vanilla_kv_bytes == 2 * N_LAYERS * N_VISUAL * 32 * 8
    sizes = lvlm.family.geometry
    assert trace.cost.flops == cost.prefill_flops(trace.counts, sizes.d, sizes.m, sizes.d_kv)
    assert (trace.cost.flops == trace.cost.vanilla_flops) == (method == "vanilla")


def test_several_pictures(lvlm):
    trace = ask(lvlm, images=[make_image(0), make_image(1, 40, 90)]).trace
    assert trace.counts[0] == len(trace.layout) == 2 * N_VISUAL
    assert trace.layout.image.bincount().tolist() == [N_VISUAL] * 2
    assert [image.shape[:2] for image in trace.images] == [(60, 80), (90, 40)]


def test_large_pictures_are_kept_small(lvlm):
    sizes = {(2000, 1000): (672, 336), (1600, 400): (1344, 336), (4000, 40): (2016, 20)}
    for size, kept in sizes.items():
        trace = ask(lvlm, images=[make_image(0, *size)]).trace
        assert trace.images[0].shape == (kept[1], kept[0], 3)
        assert kept_size(*kept) == kept  # a file with it opens again


def test_methods_that_act_elsewhere_leave_shared_layers_alone(lvlm):
    assert ask(lvlm, method="vanilla", layers=(1, 3), ratio=0.5).trace.events == []
    assert ask(lvlm, method="vanilla", layers=()).trace.layers == ()


def test_an_event_after_the_last_layer_saves_nothing(lvlm):
    early, late = (ask(lvlm, method="fastv", layers=layers).trace for layers in ((3, 5), (3, 5, 7)))
    assert late.stages == [*early.stages, "after layer 7"]
    assert late.layers == (3, 5, 7)
    assert (late.counts, late.cost) == (early.counts, early.cost)
    last = late.events[-1].reduction
    assert last.n_in == late.counts[-1] and last.n_out < last.n_in
    torch.testing.assert_close(last.evidence["importance"], late.importance[7], atol=0, rtol=0)
    assert late.answer == early.answer  # the word's own state is never touched


def test_a_path_or_an_image_alone_is_one_picture(lvlm, tmp_path):
    make_image().save(tmp_path / "a.png")
    expected = ask(lvlm).text
    for image in (str(tmp_path / "a.png"), tmp_path / "a.png", make_image()):
        assert ask(lvlm, images=image).text == expected


def test_pictures_may_come_as_any_collection(lvlm, tmp_path):
    pictures = [make_image(0), make_image(1)]
    expected = ask(lvlm, images=pictures).text
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    stack = np.stack([np.asarray(picture) for picture in pictures])
    for images in (
        (picture for picture in pictures),
        tuple(paths),
        map(str, paths),
        [path.read_bytes() for path in paths],
        stack,
        torch.tensor(stack),
    ):
        assert ask(lvlm, images=images).text == expected


@pytest.mark.parametrize(
    "images", [3, io.BytesIO(b"..."), bytearray(b"..."), torch.zeros(3, 8, 8), [None]]
)
def test_what_is_no_picture_is_named(lvlm, images):
    kind = type(images[0] if isinstance(images, list) else images).__name__
    with pytest.raises(InputError, match=f"A picture must be a path, .* not {kind}"):
        ask(lvlm, images=images)


def test_pictures_and_question_need_no_names(lvlm):
    expected = ask(lvlm).text
    assert lvlm.answer([make_image()], QUESTION, max_new_tokens=6).text == expected
    *_, last = lvlm.stream([make_image()], QUESTION, max_new_tokens=6)
    assert last.text == expected


def test_one_layer_may_stand_alone(lvlm):
    alone, listed = (ask(lvlm, layers=layers).trace for layers in (3, [3]))
    assert alone.layers == listed.layers == (3,) and alone.counts == listed.counts


def test_no_pictures_beside_a_video_may_be_none_at_all(lvlm):
    with pytest.raises(InputError, match=r"no file clip\.mp4"):
        ask(lvlm, images=None, video="clip.mp4")


@pytest.mark.parametrize("name", ["float16", torch.float16])
def test_a_precision_can_be_asked_for_by_name(model_folder, name):
    with libra.load(str(model_folder), dtype=name) as lvlm:
        assert lvlm.card["dtype"] == "float16"


@pytest.mark.parametrize("dtype", ["float3", "load", torch.int8, 16])
def test_what_is_no_precision(model_folder, dtype):
    with pytest.raises(InputError, match="dtype must be float32, bfloat16 or float16, not"):
        libra.load(str(model_folder), dtype=dtype)


def test_traces_do_not_tell_where_a_model_lies(loaded, model_folder):
    assert loaded.name == ask(loaded).trace.model == model_folder.name


def test_compare_leaves_an_encoder_alone_that_no_method_does(lvlm, monkeypatch):
    calls = []
    encode = lvlm.family.encode
    monkeypatch.setattr(lvlm.family, "encode", lambda *a: calls.append(len(a)) or encode(*a))
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 2}
    libra.compare(lvlm, ["evit", {"method": "tome"}], **request)
    assert calls == [2, 2] * (1 + TURNS)  # each with its own reducers, and so in every turn


def test_compare_encodes_once_and_answers_as_alone(lvlm, monkeypatch):
    alone = [ask(lvlm, method=m).text for m in ("vanilla", "fastv")]
    alone.append(ask(lvlm, method="libra", tau=0.5).text)
    calls = []
    encode = lvlm.family.encode
    monkeypatch.setattr(lvlm.family, "encode", lambda *a: calls.append(1) or encode(*a))
    answers = libra.compare(
        lvlm,
        ["vanilla", "fastv", {"method": "libra", "tau": 0.5}],
        images=[make_image()],
        question=QUESTION,
        max_new_tokens=6,
    )
    assert [answer.text for answer in answers] == alone
    assert len(calls) == 1
    assert len({answer.trace.timings.encoder for answer in answers}) == 1


def test_compare_takes_one_method_and_pictures_that_come_once(lvlm):
    request = {"question": QUESTION, "max_new_tokens": 6}
    expected = ask(lvlm, method="fastv").text
    for one in ("fastv", {"method": "fastv"}):
        (answer,) = libra.compare(lvlm, one, [make_image()], **request)
        assert answer.text == expected and answer.trace.method == "fastv"
    once = (make_image() for _ in range(1))
    _, second = libra.compare(lvlm, ["vanilla", "fastv"], once, **request)
    assert second.text == expected


def test_compare_watches_the_encoder_for_those_alone_that_are_traced_in_full(lvlm):
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 2}
    asked = ["vanilla", {"method": "fastv", "tracing": "full"}]
    plain, full = (answer.trace.detail for answer in libra.compare(lvlm, asked, **request))
    assert plain is None and full.encoder


def test_numbers_and_pictures_of_numpy_are_as_good(lvlm):
    picture = make_image()
    plain = ask(lvlm, images=[picture], method="libra", ratio=0.5, tau=0.75, seed=3)
    numbers = {"ratio": np.float32(0.5), "tau": np.float32(0.75), "seed": np.int64(3)}
    count = {"max_new_tokens": np.int64(6)}
    same = ask(lvlm, images=np.asarray(picture), method="libra", **numbers, **count)
    assert same.text == plain.text and same.trace.params == plain.trace.params
    assert len(same.trace.images) == 1
    stored = io.BytesIO()
    same.trace.save(stored)


def test_a_device_may_be_one_of_torch(model_folder):
    with libra.load(model_folder, device=torch.device("cpu")) as loaded:
        assert loaded.family.device.type == "cpu"


def test_concurrent_answers_equal_serial_ones(lvlm):
    plans = [
        {"method": "vanilla"},
        {"method": "fastv", "ratio": 0.75},
        {"method": "libra", "layers": (1, 3)},
        {"method": "libra", "ratio": 0.8, "tracing": False},
    ]
    serial = [ask(lvlm, **plan).trace for plan in plans]
    results = {}

    def work(i):
        results[i] = ask(lvlm, **plans[i % 4]).trace

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for i, trace in results.items():
        expected = serial[i % 4]
        assert (trace.answer, trace.counts) == (expected.answer, expected.counts)
        assert [w.probability for w in trace.words] == [w.probability for w in expected.words]
        for row, other in zip(trace.importance, expected.importance, strict=True):
            assert torch.equal(row, other)


def test_default_layers_scale_with_the_depth():
    libra_layers = {n: default_layers(create("libra"), n) for n in (8, 28, 32, 40)}
    assert libra_layers == {
        8: (1, 3, 5),
        28: (6, 13, 20),
        32: (7, 15, 23),
        40: (9, 19, 29),
    }
    assert [default_layers(create("fastv"), n) for n in (8, 28, 32, 40)] == [(1,), (3,), (3,), (3,)]
    assert default_layers(create("vanilla"), 32) == ()


# -- bad input --------------------------------------------------------------------------------

REFUSED = {
    "no picture": ({"images": []}, "no picture"),
    "missing file": ({"images": ["nowhere.png"]}, "nowhere.png"),
    "null pictures": ({"images": None}, "no picture"),
    "too many for a trace": ({"images": [make_image(0, 8, 8)] * 65}, "at most 64"),
    "null question": ({"question": None}, "no question"),
    "question number": ({"question": 5}, "no question"),
    "half a character": ({"question": "What \ud83d?"}, "characters that no text has: type it anew"),
    "null method": ({"method": None}, "no method None"),
    "method list": ({"method": ["libra"]}, "no method"),
    "null seed": ({"seed": None}, "seed"),
    "seed text": ({"seed": "x"}, "seed"),
    "negative seed": ({"seed": -1}, "seed"),
    "null tokens": ({"max_new_tokens": None}, "max_new_tokens"),
    "tokens text": ({"max_new_tokens": "x"}, "max_new_tokens"),
    "keep fraction": ({"keep": 5.5}, "list of patches"),
    "keep text": ({"keep": "abc"}, "whole numbers"),
    "keep truth": ({"keep": True}, "keep"),
    "drop number": ({"drop": 5}, "list of patches"),
    "mask of patches": ({"keep": np.zeros(N_VISUAL, bool)}, "list of patches"),
    "mask as a tensor": ({"drop": torch.ones(N_VISUAL, dtype=torch.bool)}, "list of patches"),
    "grid of patches": ({"keep": [[1, 2], [3, 4]]}, "list of patches"),
    "half a character before": ({"history": [("what ?", "\ud83d")]}, "no text"),
    "empty question": ({"question": " \n"}, "no question"),
    "long question": ({"question": "a" * 10_000}, "10,000 characters; at most 2,000"),
    "control word": ({"question": "what is <image> ?"}, "'<image>'"),
    "frames as a video": ({"images": [], "video": [make_image()]}, "path, or a Clip"),
    "missing video": ({"images": [], "video": "clip.mp4"}, "no file clip.mp4"),
    "pictures and a video": ({"video": "clip.mp4"}, "leave one of them out"),
    "unknown method": ({"method": "magic"}, "fastv"),
    "unknown parameter": ({"method": "fastv", "tau": 0.5}, "tau"),
    "ratio below 0": ({"ratio": -0.1}, "ratio"),
    "ratio above 1": ({"ratio": 1.5}, "ratio"),
    "ratio NaN": ({"ratio": float("nan")}, "ratio"),
    "ratio text": ({"ratio": "half"}, "ratio"),
    "left below 0": ({"left": -0.1}, "share that is left"),
    "left text": ({"left": "half"}, "share that is left"),
    "left beside a ratio": ({"left": 0.5, "ratio": 0.5}, "not both"),
    "ratio of vanilla": ({"method": "vanilla", "ratio": float("nan")}, "ratio"),
    "layer too deep": ({"layers": (1, N_LAYERS)}, f"0..{N_LAYERS - 1}"),
    "negative layer": ({"layers": (-1,)}, f"0..{N_LAYERS - 1}"),
    "layer of vanilla": ({"method": "vanilla", "layers": (99,)}, f"0..{N_LAYERS - 1}"),
    "layers text": ({"layers": "abc"}, "whole numbers"),
    "layers number": ({"layers": 3.0}, "whole numbers"),
    "encoder layer of fastv": ({"method": "fastv", "encoder_layers": (99,)}, "Encoder layers"),
    "repeated layer": ({"layers": (1, 1)}, "without repeats"),
    "descending layers": ({"layers": (3, 1)}, "ascend"),
    "fractional layer": ({"layers": (1.5,)}, "whole numbers"),
    "no layer": ({"layers": ()}, "at least one"),
    "no tokens": ({"max_new_tokens": 0}, "max_new_tokens"),
    "too many pictures": ({"images": [make_image()] * 20}, "use at most 14 pictures."),
    "patch out of range": ({"keep": [N_VISUAL]}, f"0 to {N_VISUAL - 1}"),
    "kept and dropped": ({"keep": [1, 2], "drop": [2]}, "Patch 2"),
    "all dropped": ({"drop": range(N_VISUAL)}, "At least one patch"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_requests_are_refused_before_anything_runs(lvlm, case, monkeypatch):
    changes, message = REFUSED[case]
    monkeypatch.setattr(lvlm.family, "encode", lambda *a: pytest.fail("the model was run"))
    with pytest.raises(InputError) as error:
        ask(lvlm, **changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_count_overrules_what_is_left(lvlm):
    assert ask(lvlm, method="fastv", left=0.5, keep=3).trace.counts[-1] == 3


def test_extreme_ratios_have_defined_results(lvlm):
    assert ask(lvlm, ratio=1.0, layers=(1,)).trace.events[0].reduction.n_out in (1, 2)
    assert ask(lvlm, method="fastv", ratio=1.0, layers=(1,)).trace.counts[-1] == 1
    assert ask(lvlm, ratio=0.0).trace.counts == [N_VISUAL] * N_LAYERS


def test_one_pixel_and_very_long_pictures(lvlm):
    assert ask(lvlm, images=[make_image(0, 1, 1)]).text
    assert ask(lvlm, images=[make_image(0, 600, 10)]).text


def test_a_closed_model_says_so():
    lvlm = make_lvlm()
    lvlm.close()
    with pytest.raises(InputError, match="closed"):
        ask(lvlm)


def test_unknown_and_unsupported_models(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in ("no-such-model", "no/such/folder", str(tmp_path)):  # no hub can have these
        with pytest.raises(InputError, match=r"tiny-llava, llava-1\.5-7b"):
            libra.load(name)
    with pytest.raises(InputError, match="hub cannot be reached, and 'no/such-model' is not"):
        libra.load("no/such-model")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="bert model; supported are: llava"):
        libra.load(str(tmp_path))
    with pytest.raises(InputError, match="attention must be one of"):
        libra.load(str(tmp_path), attention="magic")


def test_a_hub_out_of_reach_is_one_clear_line_at_once(monkeypatch, capfd, caplog):
    monkeypatch.setattr(models.HfApi, "model_info", failing(ConnectionError("no route")))
    with pytest.raises(InputError, match=r"hub cannot be reached.*tiny-llava.*local folder"):
        libra.load("no/such-model")
    assert (*capfd.readouterr(), caplog.records) == ("", "", [])


def test_a_model_that_the_hub_does_not_have(monkeypatch):
    missing = models.RepositoryNotFoundError.__new__(models.RepositoryNotFoundError)
    monkeypatch.setattr(models.HfApi, "model_info", failing(missing))
    with pytest.raises(InputError, match="no model 'no/such-model' here or on the model hub"):
        libra.load("no/such-model")


def test_a_model_stored_here_needs_no_hub(monkeypatch, model_folder):
    monkeypatch.setattr(models.HfApi, "model_info", failing(ConnectionError("no route")))
    monkeypatch.setattr(models, "snapshot_download", lambda *a, **k: str(model_folder))
    with libra.load("org/micro") as lvlm:
        assert lvlm.name == "org/micro"


def failing(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "model.safetensors", "preprocessor_config.json"]
)
@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_a_damaged_folder_is_one_clear_line(model_folder, tmp_path, name, content):
    folder = shutil.copytree(model_folder, tmp_path / "damaged")
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=r"could not be loaded|no chat template") as error:
        libra.load(str(folder))
    assert "\n" not in str(error.value)


def test_a_model_that_does_not_fit_the_memory(model_folder, monkeypatch):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")
    monkeypatch.setattr(models.Llava, "load", failing(error))
    with pytest.raises(InputError, match="does not fit into the memory of cpu"):
        libra.load(str(model_folder))


def test_features_with_cls_are_refused():
    model = make_model()
    model.config.vision_feature_select_strategy = "full"
    with pytest.raises(InputError, match="'full'"):
        models.Llava(model, make_tokenizer(), make_image_processor())


def test_a_prompt_without_places_for_the_pictures_is_refused(lvlm, monkeypatch):
    monkeypatch.setattr(lvlm.family.tokenizer, "chat_template", "<s>{{ messages|length }}")
    with pytest.raises(InputError, match="places for 0 pictures, not for 1"):
        ask(lvlm)


def test_the_catalogue_says_what_each_model_needs():
    entries = {e.name: e for e in models.catalog()}
    assert entries["tiny-llava"].runnable
    assert all(e.runnable == (not e.reason) for e in entries.values())
    assert models.entry("llava-hf/llava-1.5-7b-hf") is entries["llava-1.5-7b"]
    assert models.entry("something else") is None


def test_features_are_those_of_the_question(lvlm):
    features = lvlm.encode([make_image(0)])
    ask(lvlm, images=[make_image(0)], features=features)
    for images in ([make_image(1)], [make_image(0), make_image(1)]):
        with pytest.raises(InputError, match="other pictures"):
            ask(lvlm, images=images, features=features)
