"""VideoLLaMA 2 (over CLIP), 2.1 (over SigLIP) and 3: what holds for every request to them."""

import io
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from micro_videollama import (
    KINDS,
    N_LAYERS,
    QUESTION,
    make_clip,
    make_lvlm,
    make_lvlm_3,
    make_model,
    make_model_3,
)
from PIL import Image
from test_compression import PLANS, decode, recompute

import libra
import viz
from libra import InputError, Trace
from libra.media import Media
from libra.methods import create, names

LVLMS = {kind: lambda *a, kind=kind, **k: make_lvlm(kind, *a, **k) for kind in KINDS}
LVLMS["3"] = make_lvlm_3


@pytest.fixture(scope="module", params=LVLMS)
def model_name(request):
    return request.param


@pytest.fixture(scope="module")
def lvlm(model_name):
    with LVLMS[model_name]() as model:
        yield model


def plain_model(model_name):
    """The same weights without the engine, named as in the families of transformers."""
    if model_name == "3":
        return make_model_3()
    model = make_model(model_name)
    return SimpleNamespace(
        model=SimpleNamespace(language_model=model.model),
        get_input_embeddings=model.get_input_embeddings,
        lm_head=model.lm_head,
    )


def media_of(kind):
    """A video, a picture, or two pictures of different sizes, as arguments of a request."""
    clip = make_clip()
    pictures = {
        "picture": clip.frames[:1],
        "pictures": [clip.frames[0], make_clip(1, 50, 90).frames[0]],
    }
    return {"video": clip} if kind == "video" else {"images": pictures[kind]}


@torch.no_grad()
def prompt_of(lvlm, kind="video"):
    """Embedded prompt [1, S, d], places of the visual tokens, prepared media."""
    media = media_of(kind)
    clip = media.get("video")
    media = Media(clip.frames, clip.times) if clip else Media(media["images"])
    family = lvlm.family
    prepared = family.prepare(media)
    prompt = family.prompt(QUESTION, prepared)
    tokens = family.connect(family.tokens(family.encode(prepared), prepared))
    return family.inputs(prompt, tokens)["inputs_embeds"], prompt.visual, prepared


def ask(lvlm, kind="video", **settings):
    request = {"question": QUESTION, "max_new_tokens": 4, **media_of(kind), **settings}
    return lvlm.answer(**request).trace


@pytest.mark.parametrize("plan", PLANS)
def test_compression_equals_recomputation(lvlm, model_name, plan):
    method, layers = PLANS[plan]
    prompt = prompt_of(lvlm)
    tokens, logits, cache = decode(lvlm, prompt, method, layers, n_tokens=4)
    expected = recompute(plain_model(model_name), prompt, method, layers, n_tokens=4)
    assert tokens == expected[0]
    torch.testing.assert_close(logits, expected[1], atol=1e-5, rtol=0)
    _, vanilla, _ = decode(lvlm, prompt, create("vanilla"), (), n_tokens=4)
    assert not torch.allclose(logits, vanilla, atol=1e-2)
    n_text = prompt[0].shape[1] - len(prompt[1])
    lengths = [cache.get_seq_length(i) for i in range(N_LAYERS)]
    assert lengths == [n_text + n + 3 for n in cache.sequence.counts]  # 3 fed-back tokens
    assert lengths[-1] < lengths[0]


@pytest.mark.parametrize("kind", ["picture", "pictures"])
def test_pictures_are_compressed_like_a_video(lvlm, model_name, kind):
    method, layers = PLANS["libra, three stages"]
    prompt = prompt_of(lvlm, kind)
    _, logits, _ = decode(lvlm, prompt, method, layers, n_tokens=4)
    expected = recompute(plain_model(model_name), prompt, method, layers, n_tokens=4)
    torch.testing.assert_close(logits, expected[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [n for n in names() if create(n).sites() == ("decoder",)])
@pytest.mark.parametrize("kind", ["video", "pictures"])
def test_every_method_of_the_decoder(lvlm, name, kind):
    trace = ask(lvlm, kind, method=name)
    assert trace.counts[0] == len(trace.layout)
    assert trace.counts[-1] < trace.counts[0] or name == "vanilla"
    assert len(trace.images) == int(trace.layout.image.max()) + 1
    assert (trace.times is None) == (kind != "video")


@pytest.mark.parametrize("name", ["divprune", "spatial", "sequential", "random"])
def test_methods_at_the_connector_reduce_each_unit(lvlm, name):
    site = {} if create(name).sites() == ("connector",) else {"site": "connector"}
    trace = ask(lvlm, method=name, ratio=0.5, **site)
    assert trace.stages == ["before", "after the encoder"]
    kept = trace.layout.select(trace.events[0].reduction.slot).image.bincount()
    assert kept.tolist() == [round(n / 2) for n in trace.layout.image.bincount().tolist()]


def test_divprune_at_the_connector_equals_recomputation(lvlm, model_name):
    """Its choice among the tokens of each unit, and the answer of the plain model to these."""
    method = create("divprune", ratio=0.5)
    trace = ask(lvlm, method="divprune", ratio=0.5)
    embedded, visual, prepared = prompt_of(lvlm)
    with torch.no_grad():
        tokens = lvlm.family.tokens(lvlm.family.encode(prepared), prepared)
    kept = []
    for unit in prepared.layout.image.unique():
        own = (prepared.layout.image == unit).nonzero().flatten()
        reduction = method.reduce(
            libra.methods.Tokens(tokens[own], layout=prepared.layout.select(own))
        )
        kept += own[reduction.slot].tolist()
    assert trace.events[0].reduction.slot.tolist() == sorted(kept)
    places = torch.ones(embedded.shape[1], dtype=torch.bool)
    places[visual] = False
    places[visual[sorted(kept)]] = True
    lost = visual[[i for i in range(len(visual)) if i not in kept]]
    left = torch.tensor([int(v) - int((lost < v).sum()) for v in visual[sorted(kept)]])
    prompt = (embedded[:, places], left, prepared)
    _, logits = recompute(plain_model(model_name), prompt, create("vanilla"), (), n_tokens=4)
    for word, expected in zip(trace.words, logits.softmax(-1), strict=False):
        assert [p for _, p in word.top] == pytest.approx(expected.topk(5).values.tolist(), abs=1e-5)


@pytest.mark.parametrize("name", ["tome", "illava"])
def test_methods_inside_the_encoder(lvlm, name):
    """VideoLLaMA 2's connector needs the whole grid; VideoLLaMA 3's takes what there is."""
    if not lvlm.family.keeps_in_encoder:
        assert ask(lvlm, method=name).counts[0] < len(ask(lvlm, method=name).layout)
        return
    with pytest.raises(InputError, match=r"acts inside the encoder.*Choose one of: .*libra"):
        ask(lvlm, method=name)


def test_visionzip_ranks_by_what_patches_receive_where_there_is_no_cls(lvlm):
    trace = ask(lvlm, method="visionzip", ratio=0.5)
    assert trace.stages == ["before", "after the encoder"]
    importance = trace.events[0].reduction.evidence["importance"]
    assert len(importance) == len(trace.layout) and len(importance.unique()) > 2


@pytest.mark.parametrize("name", ["fastervlm", "prumerge", "prumerge+"])
def test_methods_that_rank_by_a_cls_token(lvlm, name):
    if lvlm.family.has_cls:
        trace = ask(lvlm, method=name)
        assert trace.counts[0] < len(trace.layout) and trace.cls_attention is not None
        return
    with pytest.raises(InputError, match=r"CLS token.*Choose one of: .*divprune"):
        ask(lvlm, method=name)


def test_every_step_of_a_stream_extends_the_answer(lvlm):
    steps = list(lvlm.stream(**media_of("video"), question=QUESTION, max_new_tokens=5))
    assert [step.trace is None for step in steps] == [True] * (len(steps) - 1) + [False]
    for before, after in itertools.pairwise(steps):
        assert after.text.startswith(before.text)
    assert steps[-1].text == steps[-1].trace.answer


def test_features_are_shared_between_methods(lvlm):
    request = {**media_of("video"), "question": QUESTION, "max_new_tokens": 3}
    shared = libra.compare(lvlm, ["vanilla", "libra"], **request)
    alone = [ask(lvlm, method=m, max_new_tokens=3) for m in ("vanilla", "libra")]
    for answer, trace in zip(shared, alone, strict=True):
        assert [w.probability for w in answer.trace.words] == [w.probability for w in trace.words]


def test_a_trace_can_be_saved_and_drawn_without_the_model(lvlm, tmp_path):
    trace = ask(lvlm, method="libra", max_new_tokens=2, tracing="full")
    trace.save(tmp_path / "trace.zip")
    loaded = Trace.load(tmp_path / "trace.zip")
    assert loaded.counts == trace.counts
    assert torch.equal(loaded.layout.frame, trace.layout.frame)
    left_out = set()
    for spec in viz.FIGURES.values():
        if spec.missing(loaded):
            left_out.add(spec.name)
            continue
        picture = spec.function(loaded)
        if isinstance(picture, Figure):
            buffer = io.BytesIO()
            picture.savefig(buffer, format="png", dpi=40)
            picture = Image.open(buffer)
        assert np.asarray(picture.convert("RGB")).std() > 5, spec.name
    assert left_out <= {"cls_distribution", "compensation_lens", "accuracy"}


def test_forced_patches(lvlm):
    kept = ask(lvlm, method="fastv", ratio=0.8, keep=[0, 5], drop=[1])
    slots = kept.events[0].reduction.slot.tolist()
    assert {0, 5} <= set(slots) and 1 not in slots


def test_a_question_with_a_control_word_is_refused(lvlm):
    with pytest.raises(InputError, match="control word"):
        ask(lvlm, question=f"is it {lvlm.family.tokenizer.eos_token} a cat")
