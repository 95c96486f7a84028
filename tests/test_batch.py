"""Several requests at once: each one's answer, decisions and records are those it has alone."""

import json
from contextlib import contextmanager

import pytest
import torch
from conftest import QUESTION, make_image, make_lvlm
from test_family_all import BUILD, clip

import libra
from libra import InputError, batch
from libra.conversation import Memory
from libra.decoder import CompressedCache
from libra.media import Media
from libra.models import ASSETS

METHODS = {
    "vanilla": {},
    "fastv": {"ratio": 0.75, "layers": (1,)},
    "libra": {"layers": (1, 3, 5)},
    "turbo": {},
    "prumerge+": {},
    "illava": {},  # in encoder and decoder
    "tome": {},
    "sparsevlm": {"layers": (2, 7)},  # the last layer, too
    "pyramiddrop": {"layers": (0, 3)},  # counts positions anew
}
QUESTIONS = [QUESTION, "is there a dog in the image ?", "how many cat", "no left no right"]


def requests_of(*names, **shared):
    """A request for each method, about pictures and with questions of their own."""
    return [
        {
            "images": [make_image(i)],
            "question": QUESTIONS[i % len(QUESTIONS)],
            "method": name,
            "max_new_tokens": 6,
            **METHODS[name],
            **shared,
        }
        for i, name in enumerate(names)
    ]


def alone(lvlm, requests):
    """The answers to the requests, one after the other."""
    return [lvlm.answer(**request) for request in requests]


@contextmanager
def calls_of(module):
    """What a module puts out, call by call."""
    outputs = []
    hook = module.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        yield outputs
    finally:
        hook.remove()


def caches_made(monkeypatch):
    """The caches of all requests from now on."""
    caches, init = [], CompressedCache.__init__
    monkeypatch.setattr(
        CompressedCache, "__init__", lambda self, *a: caches.append(self) or init(self, *a)
    )
    return caches


def alike(one, other):
    """The same answer, for the same reasons, with the same records."""
    a, b = one.trace, other.trace
    assert (one.text, a.counts, a.cost, a.stages) == (other.text, b.counts, b.cost, b.stages)
    assert [word.text for word in a.words] == [word.text for word in b.words]
    assert len(a.timings.decode) == len(b.timings.decode)
    for x, y in zip(a.words, b.words, strict=True):
        assert x.probability == pytest.approx(y.probability, abs=1e-6)
        assert [token for token, _ in x.top] == [token for token, _ in y.top]
    for x, y in zip(a.events, b.events, strict=True):
        for name in ("source", "target", "slot"):
            assert getattr(x.reduction, name).equal(getattr(y.reduction, name))
        assert x.reduction.compensation == y.reduction.compensation
        close(x.reduction.weight, y.reduction.weight)
        assert x.reduction.evidence.keys() == y.reduction.evidence.keys()
    rows, others = ([t.importance, *t.attention] for t in (a, b))
    for row, expected in zip(rows, others, strict=True):
        for x, y in zip(row, expected, strict=True):
            close(x, y)
    assert (a.cls_attention is None) == (b.cls_attention is None)
    assert (a.detail is None) == (b.detail is None)
    if a.detail:
        assert a.detail.matrices.keys() == b.detail.matrices.keys()
        assert a.detail.similarity.keys() == b.detail.similarity.keys()
        for x, y in zip(a.detail.heads, b.detail.heads, strict=True):
            close(x, y)


def close(one, other):
    """Equal but for rounding, of numbers that are kept in fp32."""
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("tracing", [False, True, "full"])
def test_methods_side_by_side(any_lvlm, tracing):
    requests = requests_of(*METHODS, tracing=tracing)
    answers = any_lvlm.answer_batch(requests)
    for one, other in zip(answers, alone(any_lvlm, requests), strict=True):
        alike(one, other)


@pytest.mark.parametrize("name", METHODS)
def test_logits_and_caches_are_those_of_serial_answers(lvlm, name, monkeypatch):
    """To nine digits: what is left is the order of sums in larger products."""
    caches = caches_made(monkeypatch)
    requests = requests_of(name, name, name, name)
    with calls_of(lvlm.family.model.lm_head) as outputs:
        answers = lvlm.answer_batch(requests)
        together, kept = list(outputs), caches.copy()
        for i, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            outputs.clear(), caches.clear()
            alike(answer, lvlm.answer(**request))
            own = [step[:, i : i + 1] for step in together]
            torch.testing.assert_close(torch.cat(own), torch.cat(outputs), atol=1e-9, rtol=1e-9)
            for layer, expected in zip(kept[i].layers, caches[0].layers, strict=True):
                torch.testing.assert_close(layer.keys, expected.keys, atol=1e-9, rtol=1e-9)
                torch.testing.assert_close(layer.values, expected.values, atol=1e-9, rtol=1e-9)


def test_each_layer_runs_once_a_word_for_all(lvlm):
    requests = requests_of("vanilla", "libra", "fastv", "illava")
    for i, layer in enumerate(lvlm.family.decoder_layers[:-1]):  # of the last, one token goes on
        with calls_of(layer) as outputs:
            answers = lvlm.answer_batch(requests)
        assert len(outputs) == 6
        n = sum(answer.trace.counts[i] + answer.trace.cost.text for answer in answers)
        assert [output.shape[1] for output in outputs] == [n, *[len(requests)] * 5]


def test_lengths_of_all_kinds(lvlm):
    """Pictures, questions, histories and answers that are not equally long."""
    longer = {"images": [make_image(0), make_image(1)], "history": [(QUESTION, "yes")]}
    requests = requests_of("libra", "fastv", "libra", "turbo")
    requests[0] |= longer | {"max_new_tokens": 1}
    requests[1] |= longer | {"max_new_tokens": 9}
    requests[2] |= {"images": [make_image(2)] * 3, "max_new_tokens": 3}
    with calls_of(lvlm.family.decoder_layers[0]) as outputs:
        answers = lvlm.answer_batch(requests)
    assert [output.shape[1] for output in outputs][1:] == [3, 3, 2, 2, 2, 1, 1, 1]
    for one, other in zip(answers, alone(lvlm, requests), strict=True):
        alike(one, other)


def test_an_answer_that_ends_leaves_the_others_alone(lvlm, monkeypatch):
    requests = requests_of("vanilla", "libra", "fastv")
    words = lvlm.answer(**requests[1]).trace.words
    last = lvlm.family.tokenizer.convert_tokens_to_ids(words[2].text.strip())
    monkeypatch.setattr(lvlm.family, "eos", {last})
    expected = alone(lvlm, requests)
    lengths = [len(answer.trace.words) for answer in expected]
    assert lengths[1] <= 2 and max(lengths) > lengths[1]
    for one, other in zip(lvlm.answer_batch(requests), expected, strict=True):
        alike(one, other)


def test_an_answer_without_a_word(lvlm, monkeypatch):
    monkeypatch.setattr(lvlm.family, "eos", set(range(100)))
    for answer in lvlm.answer_batch(requests_of("vanilla", "libra")):
        assert answer.text == "" and answer.trace.timings.decode == []


@pytest.mark.parametrize("family", BUILD)
def test_every_family(family):
    """A video, a picture and several pictures in one call."""
    with BUILD[family]() as lvlm:
        medias = [{"video": clip(3)}, {"images": [make_image(0)]}, {"images": [make_image(1)] * 2}]
        requests = [
            {"question": q, "method": name, "max_new_tokens": 4, **media}
            for media, name, q in zip(
                medias, ("libra", "fastv", "vanilla"), QUESTIONS, strict=False
            )
        ]
        with calls_of(lvlm.family.decoder_layers[0]) as outputs:
            answers = lvlm.answer_batch(requests)
        assert len(outputs) == max(len(answer.trace.timings.decode) for answer in answers) + 1
        for one, other in zip(answers, alone(lvlm, requests), strict=True):
            alike(one, other)


def test_the_encoder_runs_once_for_all_that_leave_it_be(lvlm):
    requests = requests_of("vanilla", "libra", "prumerge+", "illava", "fastv")
    requests[4]["features"] = lvlm.encode(requests[4]["images"])
    with calls_of(lvlm.family.encoder_layers[0]) as outputs:
        lvlm.answer_batch(requests)
    assert [len(output) for output in outputs] == [3, 1]


def test_features_of_several_requests_are_those_of_each(lvlm):
    family = lvlm.family
    medias = [Media([make_image(i) for i in range(n)]) for n in (1, 3, 2)]
    prepared = [family.prepare(media) for media in medias]
    with torch.no_grad():
        together, each = family.encode_each(prepared), [family.encode(x) for x in prepared]
    assert len({features.seconds for features in together}) == 1
    for one, other in zip(together, each, strict=True):
        for parts, expected in (
            (one.hidden, other.hidden),
            (one.special, other.special),
            *((one.inputs[layer], other.inputs[layer]) for layer in other.inputs),
        ):
            for x, y in zip(parts, expected, strict=True):
                torch.testing.assert_close(x, y, atol=1e-9, rtol=1e-9)


def test_times_are_those_of_the_batch(lvlm):
    answers = lvlm.answer_batch(requests_of("vanilla", "libra", "illava"))
    timings = [answer.trace.timings for answer in answers]
    for name in ("encoder", "connector", "prefill", "decode"):
        first, *others = (getattr(timing, name) for timing in timings)
        assert first and all(other == first for other in others)
    assert all(", batch 3, " in timing.where for timing in timings)
    assert ", batch 1, " in lvlm.answer(**requests_of("libra")[0]).trace.timings.where


def test_what_cannot_be_packed_is_answered_alone(lvlm):
    """A conversation goes behind its own cache, beside requests that are packed."""
    first, *others = requests_of("libra", "libra", "vanilla")
    first["memory"] = Memory()
    said = lvlm.answer(**first).text
    further = first | {"question": "what is there ?", "history": [(QUESTION, said)]}
    with calls_of(lvlm.family.decoder_layers[0]) as outputs:
        follow_up, *answers = lvlm.answer_batch([further, *others])
    assert len(outputs) == 6 + 6
    for one, other in zip(answers, alone(lvlm, others), strict=True):
        alike(one, other)
        assert ", batch 2, " in one.trace.timings.where
    assert ", batch 1, " in follow_up.trace.timings.where
    assert follow_up.trace.timings.encoder == 0  # it went behind the first question


def test_eager_attention_is_answered_alone():
    requests = requests_of("libra", "vanilla")
    with make_lvlm("eager") as lvlm, calls_of(lvlm.family.decoder_layers[0]) as outputs:
        answers = lvlm.answer_batch(requests)
    assert len(outputs) == 12
    assert all(", batch 1, " in answer.trace.timings.where for answer in answers)


def test_one_request_is_the_plain_path_bit_for_bit(lvlm):
    (request,) = requests_of("libra")
    (answer,) = lvlm.answer_batch([request])
    expected = lvlm.answer(**request)
    alike(answer, expected)
    assert [w.top for w in answer.trace.words] == [w.top for w in expected.trace.words]
    assert lvlm.answer_batch([]) == []


def test_the_first_bad_request_stops_all_before_anything_runs(lvlm, monkeypatch):
    monkeypatch.setattr(batch, "run_all", lambda generations: pytest.fail("the model was run"))
    requests = requests_of("vanilla", "libra")
    for changes, message in (({"ratio": 2.0}, "ratio"), ({"shade": 1}, "shade")):
        with pytest.raises(InputError, match=message):
            lvlm.answer_batch([requests[0], requests[1] | changes])
    with pytest.raises(InputError, match=r"mapping of arguments of `LVLM.stream`, not str"):
        lvlm.answer_batch(requests[0])  # one, not in a list
    with make_lvlm() as closed:
        pass
    with pytest.raises(InputError, match="closed"):
        closed.answer_batch(requests)


def test_too_many_for_the_memory(lvlm, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    monkeypatch.setattr(lvlm.family.model, "forward", fail)
    with pytest.raises(InputError, match="needs less: fewer than 2 questions at once, "):
        lvlm.answer_batch(requests_of("vanilla", "libra"))


@pytest.mark.parametrize("method", ["libra", "fastv"])
def test_the_embedded_model_says_the_same_words(method):
    examples = json.loads((ASSETS / "examples" / "examples.json").read_text(encoding="utf-8"))
    requests = [
        {"images": [ASSETS / "examples" / x["image"]], "question": x["question"], "method": method}
        for x in examples
        if "image" in x and "more" not in x
    ][:8]
    with libra.load("tiny-llava", device="cpu", dtype=torch.float32) as lvlm:
        answers, expected = lvlm.answer_batch(requests), alone(lvlm, requests)
    assert len(answers) == 8 and len({answer.text for answer in answers}) > 4
    for one, other in zip(answers, expected, strict=True):
        assert one.text == other.text
        assert one.trace.counts == other.trace.counts
