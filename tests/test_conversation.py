"""Follow-up questions, against the whole conversation without any cache."""

import gc
import weakref

import pytest
import torch
from conftest import N_LAYERS, N_VISUAL, QUESTION, make_image, make_lvlm

from libra import InputError
from libra.compression import Compression
from libra.conversation import Memory
from libra.media import Media
from libra.trace import Trace

TEMPLATE = (
    "<s>{% for message in messages %}"
    "{{ '<user>' if message['role'] == 'user' else '<assistant>' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}<{{ part['type'] }}>{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
FIRST, SECOND = QUESTION, "how many cat left of the dog ?"


def talking(lvlm):
    """The model with a chat template for more than one turn."""
    lvlm.family.tokenizer.chat_template = TEMPLATE
    return lvlm


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def lvlm(request):
    with make_lvlm(request.param) as model:
        yield talking(model)


def settings(**changes):
    return {"images": [make_image()], "max_new_tokens": 5} | changes


def same(ours: Trace, theirs: Trace):
    """The same words for the same reasons."""
    assert ours.answer == theirs.answer and ours.counts == theirs.counts
    assert [word.text for word in ours.words] == [word.text for word in theirs.words]
    ours_sure, theirs_sure = ([w.probability for w in t.words] for t in (ours, theirs))
    assert ours_sure == pytest.approx(theirs_sure, rel=1e-5)  # eager attention: fp32
    for row, other in zip(ours.importance, theirs.importance, strict=True):
        torch.testing.assert_close(row, other, atol=1e-6, rtol=1e-5)
    for step, others in zip(ours.attention, theirs.attention, strict=True):
        for row, other in zip(step, others, strict=True):
            torch.testing.assert_close(row, other, atol=1e-6, rtol=1e-5)


def replay(monkeypatch, trace):
    """Let the decoder's reductions be those of a trace, whatever the question is."""
    monkeypatch.setattr(
        Compression,
        "decide",
        lambda self, tokens: trace.events[len(self.events)].reduction.to(tokens.hidden.device),
    )


def n_read(lvlm):
    """How many tokens each call of the decoder reads, from now on; and how to stop counting."""
    counts = []
    handle = lvlm.family.decoder_layers[0].register_forward_pre_hook(
        lambda module, args: counts.append(args[0].shape[1])
    )
    return counts, handle


def plain_words(lvlm, history, question, n):
    """Greedy decoding of a whole conversation, each word from scratch without a cache."""
    family = lvlm.family
    prepared = family.prepare(Media([make_image()]))
    prompt = family.prompt(question, prepared, history)
    with torch.no_grad():
        tokens = family.connect(family.tokens(family.encode(prepared), prepared))
        embedded = family.inputs(prompt, tokens)["inputs_embeds"]
        ids = []
        for _ in range(n):
            token = family.model(inputs_embeds=embedded, use_cache=False).logits[0, -1].argmax()
            if int(token) in family.eos:
                break
            ids.append(int(token))
            new = family.model.get_input_embeddings()(token[None, None])
            embedded = torch.cat([embedded, new], 1)
    return family.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_a_prompt_holds_the_whole_conversation(lvlm):
    prepared = lvlm.family.prepare(Media([make_image()]))
    prompt = lvlm.family.prompt("what ?", prepared, [("is there a cat ?", "yes")])
    text = lvlm.family.tokenizer.decode(prompt.ids).replace("<image> " * N_VISUAL, "<image> ")
    assert (
        text.split()
        == (
            "<s> <user> <image> is there a cat ? <assistant> yes </s> <user> what ? <assistant>"
        ).split()
    )


def test_a_follow_up_without_compression_is_one_prompt_with_all_of_it(lvlm):
    chat = lvlm.chat(**settings(method="vanilla"))
    first = chat.ask(FIRST)
    assert first.text == plain_words(lvlm, [], FIRST, 5)
    for question in (SECOND, "what ?"):
        history = list(chat.turns)
        counts, handle = n_read(lvlm)
        answer = chat.ask(question)
        handle.remove()
        assert counts[0] < N_VISUAL  # the picture has not been read again
        assert answer.text == plain_words(lvlm, history, question, 5)
        anew = settings(method="vanilla", question=question, history=history)
        same(answer.trace, lvlm.answer(**anew).trace)
    assert chat.turns[-1] == ("what ?", answer.text) and answer.trace.history == chat.turns[:-1]


@pytest.mark.parametrize("method", ["libra", "fastv", "pyramiddrop", "sparsevlm", "random"])
def test_a_follow_up_keeps_the_reductions_of_the_first_question(lvlm, method, monkeypatch):
    memory, request = Memory(), settings(method=method, ratio=0.5)
    if method == "sparsevlm":
        request.pop("ratio")
    first = lvlm.answer(**request, question=FIRST, memory=memory)
    cache = memory._kept[method].cache
    n_text = len(memory._kept[method].ids) - N_VISUAL
    lengths = [cache.get_seq_length(layer) - n_text for layer in range(N_LAYERS)]
    assert lengths == first.trace.counts and lengths[-1] < N_VISUAL

    follow = {"question": SECOND, "history": [(FIRST, first.text)]}
    counts, handle = n_read(lvlm)
    answer = lvlm.answer(**request, **follow, memory=memory)
    handle.remove()
    assert counts[0] < N_VISUAL and answer.trace.timings.encoder == 0
    n_text = len(memory._kept[method].ids) - N_VISUAL
    lengths = [cache.get_seq_length(layer) - n_text for layer in range(N_LAYERS)]
    assert lengths == answer.trace.counts == first.trace.counts
    for ours, theirs in zip(answer.trace.events, first.trace.events, strict=True):
        assert torch.equal(ours.reduction.slot, theirs.reduction.slot)

    replay(monkeypatch, first.trace)
    same(answer.trace, lvlm.answer(**request, **follow).trace)


@pytest.mark.parametrize("method", ["prumerge", "visionzip", "tome", "evit"])
def test_a_follow_up_behind_tokens_that_never_reached_the_decoder(lvlm, method):
    memory, request = Memory(), settings(method=method)
    first = lvlm.answer(**request, question=FIRST, memory=memory)
    follow = {"question": SECOND, "history": [(FIRST, first.text)]}
    counts, handle = n_read(lvlm)
    answer = lvlm.answer(**request, **follow, memory=memory)
    handle.remove()
    assert counts[0] < len(SECOND.split()) + 10
    same(answer.trace, lvlm.answer(**request, **follow).trace)  # they decide without the question


OTHERWISE = {
    "ratio": {"ratio": 0.75},
    "method": {"method": "fastv"},
    "layers": {"layers": (2,)},
    "seed": {"seed": 1},
    "patches": {"drop": [3]},
    "picture": {"images": [make_image(1)]},
    "history": {"history": [("what ?", "yes")]},
    "no history": {"history": []},
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_anything_else_begins_anew(lvlm, case):
    memory, request = Memory(), settings(method="libra", ratio=0.5)
    first = lvlm.answer(**request, question=FIRST, memory=memory)
    other = request | {"question": SECOND, "history": [(FIRST, first.text)]} | OTHERWISE[case]
    counts, handle = n_read(lvlm)
    answer = lvlm.answer(**other, memory=memory)
    handle.remove()
    assert counts[0] > N_VISUAL
    same(answer.trace, lvlm.answer(**other).trace)
    assert memory  # and can be followed up on in its turn


def test_a_follow_up_that_is_put_again_goes_on_from_the_same_place(lvlm):
    memory, request = Memory(), settings(method="libra", ratio=0.5)
    first = lvlm.answer(**request, question=FIRST, memory=memory)
    follow = {"question": SECOND, "history": [(FIRST, first.text)]}
    once = lvlm.answer(**request, **follow, memory=memory)
    counts, handle = n_read(lvlm)
    again = lvlm.answer(**request, **follow, memory=memory)
    handle.remove()
    assert counts[0] == 1  # the last word of the prompt
    same(again.trace, once.trace)


def test_another_model_begins_anew(lvlm):
    memory, request = Memory(), settings(method="libra")
    first = lvlm.answer(**request, question=FIRST, memory=memory)
    with talking(make_lvlm()) as other:
        follow = request | {"question": SECOND, "history": [(FIRST, first.text)]}
        same(other.answer(**follow, memory=memory).trace, other.answer(**follow).trace)


def test_an_answer_that_reads_otherwise_is_read_again(lvlm, monkeypatch):
    """Its tokens in the cache are not those of its text: the cache is cut there."""
    memory, request = Memory(), settings(method="libra")
    first = lvlm.answer(**request, question=FIRST, memory=memory)
    follow = {"question": SECOND, "history": [(FIRST, "no " + first.text)]}
    counts, handle = n_read(lvlm)
    answer = lvlm.answer(**request, **follow, memory=memory)
    handle.remove()
    assert counts[0] < len(SECOND.split()) + 10
    replay(monkeypatch, first.trace)
    same(answer.trace, lvlm.answer(**request, **follow).trace)


def test_a_question_that_is_stopped_leaves_nothing_behind(lvlm):
    memory, request = Memory(), settings(method="libra")
    first = lvlm.answer(**request, question=FIRST, memory=memory)
    assert memory
    stream = lvlm.stream(**request, question=SECOND, history=[(FIRST, first.text)], memory=memory)
    next(stream)
    stream.close()
    assert not memory


def test_the_pictures_of_a_conversation_are_read_once(lvlm, tmp_path):
    make_image().save(tmp_path / "picture.png")
    expected = [lvlm.chat(**settings()).ask(FIRST).text]
    once = (path for path in [tmp_path / "picture.png"])
    chat = lvlm.chat(once, max_new_tokens=5)
    (tmp_path / "picture.png").unlink()
    assert [chat.ask(FIRST).text] == expected
    assert chat.ask(SECOND).trace.follows
    with pytest.raises(InputError, match="no picture"):
        lvlm.chat()


def test_full_tracing_of_a_follow_up_has_no_detail(lvlm):
    chat = lvlm.chat(**settings(method="libra", tracing="full"))
    assert chat.ask(FIRST).trace.detail is not None
    assert chat.ask(SECOND).trace.detail is None


def test_a_memory_does_not_keep_its_model():
    memory, lvlm = Memory(), talking(make_lvlm())
    lvlm.answer(**settings(), question=FIRST, memory=memory)
    model = weakref.ref(lvlm.family.model)
    lvlm.close()
    del lvlm
    gc.collect()
    assert memory and model() is None


def test_the_history_is_part_of_a_trace_file(lvlm, tmp_path):
    chat = lvlm.chat(**settings())
    chat.ask(FIRST)
    trace = chat.ask(SECOND).trace
    trace.save(tmp_path / "second.trace.zip")
    assert Trace.load(tmp_path / "second.trace.zip").history == trace.history == chat.turns[:1]


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("abc", "list of pairs"),
        (5, "list of pairs"),
        ([("a",)], "list of pairs"),
        ([("what ?", None)], "no text"),
        ([("", "yes")], "no question"),
        ([(None, "yes")], "no question"),
        ([("what ?", "<image>")], "control word"),
        ([("what ?", "yes")] * 33, "at most 32"),
        ([("what " * 300, "yes")], "new conversation"),
    ],
)
def test_a_history_that_is_none_is_refused(lvlm, history, message):
    with pytest.raises(InputError, match=message):
        lvlm.stream(**settings(), question=SECOND, history=history)


# Memory of the GPU


def full(*args, **kwargs):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")


@pytest.mark.parametrize("where", ["encoder", "decoder"])
def test_memory_that_runs_out_is_one_message_that_says_what_would_fit(lvlm, monkeypatch, where):
    layers = getattr(lvlm.family, f"{where}_layers")
    request = settings(images=[make_image(0), make_image(1)], method="libra", ratio=0.6)
    with monkeypatch.context() as patch:
        patch.setattr(layers[2], "forward", full)
        with pytest.raises(InputError) as error:
            lvlm.answer(**request, question=FIRST)
    assert str(error.value) == (
        "micro has run out of memory on cpu. This needs less: fewer than 2 pictures, or a ratio "
        "above 0.6."
    )
    assert lvlm.answer(**request, question=FIRST).text  # the model lives on


def test_encoding_alone_may_run_out_of_memory_too(lvlm, monkeypatch):
    monkeypatch.setattr(lvlm.family.encoder_layers[0], "forward", full)
    with pytest.raises(InputError, match="run out of memory"):
        lvlm.encode(images=[make_image()])


def test_what_was_computed_is_freed_when_memory_runs_out(lvlm, monkeypatch):
    held = []

    def fill(module, args, output):
        held.append(weakref.ref(output))

    handle = lvlm.family.decoder_layers[0].register_forward_hook(fill)
    monkeypatch.setattr(lvlm.family.decoder_layers[2], "forward", full)
    try:
        with pytest.raises(InputError) as error:
            lvlm.answer(**settings(), question=FIRST)
    finally:
        handle.remove()
    assert held and all(reference() is None for reference in held), error
