"""Compression before the decoder, against a recomputation from weights and plain modules."""

import threading
from dataclasses import asdict, replace

import pytest
import torch
from conftest import (
    N_ENCODER_LAYERS,
    N_LAYERS,
    N_VISUAL,
    QUESTION,
    make_image,
    make_lvlm,
    make_model,
)
from prompts import prepare
from test_compression import recompute
from transformers.modeling_outputs import BaseModelOutputWithPooling

from libra import InputError, Trace
from libra.compression import Compression
from libra.media import Media
from libra.methods import METHODS, Tokens, create
from libra.reduction import Fate, Reduction
from libra.request import default_encoder_layers, default_layers

CONNECTOR = {
    "fastervlm": create("fastervlm", ratio=0.5),
    "prumerge": create("prumerge", neighbours=4),
    "prumerge, as in the paper": create("prumerge", keep=5, neighbours=3, follow="paper"),
    "prumerge+": create("prumerge+", neighbours=4),
    "visionzip": create("visionzip", ratio=0.25),
    "divprune": create("divprune", ratio=0.6),
    "spatial": create("spatial", rows=2, columns=3),
    "sequential": create("sequential", ratio=0.5),
    "random": create("random", ratio=0.5, site="connector"),
    "kmeans": create("kmeans", ratio=0.5, site="connector"),
}
ENCODER = {
    "tome": create("tome", ratio=0.25),
    "evit": create("evit", ratio=0.3),
    "illava": create("illava", ratio=0.4),
    "illava, as in the paper": create("illava", ratio=0.4, follow="paper"),
    "illava without merging": create("illava", ratio=0.4, merge="none"),
    "random": create("random", ratio=0.25, site="encoder"),
    "greedy": create("greedy", ratio=0.25, site="encoder"),
    "kmeans": create("kmeans", ratio=0.25, site="encoder"),
}
ENCODER_LAYERS = (1, 3)


def run(lvlm, method, images, n_tokens=5, **settings):
    """Trace of an answer through the engine, with a method object instead of a name."""
    return lvlm.answer(
        images=images,
        question=QUESTION,
        method=method.name,
        max_new_tokens=n_tokens,
        **asdict(method) | settings,
    ).trace


def seeded():
    """The generator of a request that gives no seed."""
    return torch.Generator().manual_seed(0)


def reference_of(lvlm):
    """The same weights and attention without the engine."""
    return make_model(lvlm.family.model.config._attn_implementation)


def pixels_of(lvlm, image):
    processor = lvlm.family.image_processor
    return processor([image], return_tensors="pt").pixel_values.to(lvlm.family.model.dtype)


def attention_of(layer, x, joint=False):
    """[heads, T, T] attention of a CLIP layer for its input [T, D], and its keys [heads, T, d]."""
    normed, heads = layer.layer_norm1(x), 1 if joint else layer.self_attn.num_heads
    q, k = (
        torch.stack(projection(normed).chunk(heads, dim=-1))
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    )
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1), k


def plain_states(model, pixels):
    """Inputs of every CLIP layer and the output of the last, from the tower itself."""
    return [s[0] for s in model.model.vision_tower(pixels, output_hidden_states=True).hidden_states]


def generate(model, lvlm, features, n_tokens=5):
    """Logits [W, V] of transformers' own generate, given encoder features [n, D] per picture."""
    places = [N_VISUAL * i + j for i, f in enumerate(features) for j in range(len(f))]
    ids = prepare(lvlm, [make_image()] * len(features), QUESTION, places)[1].ids
    tokens = [model.model.multi_modal_projector(f[None])[0] for f in features]
    generated = model.generate(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids[None]),
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=tokens)},
        max_new_tokens=n_tokens,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return torch.cat(generated.logits)


def assert_same_words(trace, logits):
    """The five best probabilities of each word are those of the logits [W, V]."""
    got = [[p for _, p in word.top] for word in trace.words]
    expected = logits.softmax(-1).topk(5).values.tolist()
    assert len(got) >= 3
    torch.testing.assert_close(
        torch.tensor(got), torch.tensor(expected[: len(got)]), atol=1e-5, rtol=0
    )


def connector_tokens(method, model, states, layout, generator):
    """What a connector method is given for one picture."""
    last = method.name.startswith("prumerge") and method.follow == "code"
    layer = model.model.vision_tower.encoder.layers[-1 if last else -2]
    x = states[-2 if last else -3]
    attention, _ = attention_of(layer, x, joint=last)
    _, keys = attention_of(layer, x, joint=method.name.startswith("prumerge"))
    return Tokens(
        hidden=states[-2][1:],
        importance=attention.mean(0)[0, 1:].float(),
        keys=keys.mean(0)[1:],
        layout=layout,
        generator=generator,
    )


@torch.no_grad()
@pytest.mark.parametrize("case", CONNECTOR)
@pytest.mark.parametrize("n_images", [1, 2])
def test_connector_equals_recomputation(any_lvlm, case, n_images):
    method, model = CONNECTOR[case], reference_of(any_lvlm)
    images = [make_image(i, 80 - 20 * i, 60) for i in range(n_images)]
    trace = run(any_lvlm, method, images)
    generator = seeded()
    features, slots = [], []
    for i, image in enumerate(images):
        states = plain_states(model, pixels_of(any_lvlm, image))
        layout = any_lvlm.family.prepare(Media([image])).layout
        reduction = method.reduce(connector_tokens(method, model, states, layout, generator))
        features.append(reduction.dense().double() @ states[-2][1:])
        slots += [N_VISUAL * i + slot for slot in reduction.slot.tolist()]
    assert_same_words(trace, generate(model, any_lvlm, features))
    assert trace.stages == ["before", "after the encoder"]
    assert trace.events[0].reduction.slot.tolist() == slots
    assert trace.counts == [len(slots)] * N_LAYERS
    plain = run(any_lvlm, create("vanilla"), images)
    assert [w.probability for w in trace.words] != [w.probability for w in plain.words]


@torch.no_grad()
@pytest.mark.parametrize("case", ENCODER)
def test_encoder_equals_recomputation(any_lvlm, case):
    method, model, image = ENCODER[case], reference_of(any_lvlm), make_image()
    trace = run(any_lvlm, method, [image], encoder_layers=ENCODER_LAYERS, layers=(2,))
    tower = model.model.vision_tower
    x = tower.pre_layrnorm(tower.embeddings(pixels_of(any_lvlm, image)))[0]
    size, lineage = torch.ones(N_VISUAL), torch.eye(N_VISUAL, dtype=torch.float64)
    generator = seeded()
    for i, layer in enumerate(tower.encoder.layers[:-1]):
        attention, keys = attention_of(layer, x)
        values = torch.stack(
            layer.self_attn.v_proj(layer.layer_norm1(x)).chunk(layer.self_attn.num_heads, -1)
        )
        mixed = (attention @ values).transpose(0, 1).flatten(1)
        x = x + layer.self_attn.out_proj(mixed)
        if i in ENCODER_LAYERS:
            received = attention.mean((0, 1))[1:].float()
            cls = attention.mean(0)[0, 1:].float()
            patches, n = x[1:], len(x) - 1
            step = method
            if method.name == "illava":
                step = replace(method, keep=n - 4)
            reduction = step.reduce(
                Tokens(
                    hidden=patches,
                    importance=received if method.name == "illava" else cls,
                    received=received,
                    keys=keys.mean(0)[1:],
                    size=size,
                    generator=generator,
                )
            )
            matrix = reduction.dense().double()
            size, lineage = (matrix != 0).float() @ size, matrix @ lineage
            x = torch.cat([x[:1], matrix @ patches])
        x = x + layer.mlp(layer.layer_norm2(x))
    torch.testing.assert_close(trace.lineage(2).dense().double(), lineage, atol=1e-6, rtol=1e-5)
    assert trace.counts[0] == len(x) - 1 < N_VISUAL
    features = encoder_output(any_lvlm, method)
    torch.testing.assert_close(features, x[1:], atol=1e-5, rtol=0)
    if method.name != "illava":  # which goes on in the decoder: see below
        assert_same_words(trace, generate(model, any_lvlm, [x[1:]]))


@torch.no_grad()
@pytest.mark.parametrize("follow", ["code", "paper"])
def test_illava_acts_in_encoder_and_decoder(lvlm, follow):
    """Decoder part against the recomputation of test_compression, on the encoder's output."""
    trace = run(
        lvlm,
        create("illava", ratio=0.4, follow=follow),
        [make_image()],
        encoder_layers=ENCODER_LAYERS,
        layers=(2,),
    )
    assert trace.stages == [
        *("before", "encoder layer 1", "encoder layer 3", "after layer 2"),
    ]
    assert [e.reduction.n_out for e in trace.events] == [12, 8, 5]
    assert trace.counts == [8] * 3 + [5] * (N_LAYERS - 3)
    whole = torch.eye(N_VISUAL, dtype=torch.float64)
    for event in trace.events:
        whole = event.reduction.dense().double() @ whole
    torch.testing.assert_close(trace.lineage(3).dense().double(), whole, atol=1e-6, rtol=1e-5)
    assert whole.sum(1) == pytest.approx(torch.ones(5), abs=1e-6)  # merges are means of patches

    encoded = run(
        lvlm,
        create("illava", ratio=0.0, follow=follow),
        [make_image()],
        encoder_layers=ENCODER_LAYERS,
        layers=(2,),
    )
    assert encoded.counts == [8] * N_LAYERS
    features = encoder_output(lvlm, create("illava", follow=follow))
    slot = trace.lineage(2).slot
    prepared, prompt = prepare(lvlm, [make_image()], QUESTION, slot)
    embedded = lvlm.family.inputs(prompt, lvlm.family.connect(features))["inputs_embeds"]
    prepared = replace(prepared, layout=prepared.layout.select(slot))
    model = make_model()
    _, logits = recompute(
        model,
        (embedded, prompt.visual, prepared),
        create("illava", ratio=0.4, follow=follow),
        (2,),
        5,
    )
    assert_same_words(trace, logits)


def encoder_output(lvlm, method):
    """Features [n, D] of the picture after two events inside the encoder."""
    prepared = lvlm.family.prepare(Media([make_image()]))
    compression = Compression(method, prepared, encoder_layers=ENCODER_LAYERS, generator=seeded())
    return compression.encode(lvlm.family).hidden[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {"ratio": 0.0}) for name in ("fastervlm", "visionzip", "divprune", "spatial")),
        *((name, {"ratio": 0.0}) for name in ("prumerge", "prumerge+", "tome", "evit")),
        ("illava", {"ratio": 0.0, "encoder_ratio": 0.0}),
        ("illava", {"ratio": 0.0, "encoder_ratio": 0.0, "merge": "none"}),
        *(("kmeans", {"ratio": 0.0, "site": site}) for site in ("encoder", "connector")),
    ],
)
def test_nothing_to_remove_is_the_plain_model_bit_for_bit(name, settings, attention):
    with make_lvlm(attention, torch.float32) as lvlm:
        request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 5}
        trace = lvlm.answer(**request, method=name, **settings).trace
        model = make_model(attention, torch.float32)
        ids = prepare(lvlm, [make_image()], QUESTION)[1].ids
        generated = model.generate(
            input_ids=ids[None],
            attention_mask=torch.ones_like(ids[None]),
            pixel_values=pixels_of(lvlm, make_image()),
            max_new_tokens=5,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    expected = [float(x.softmax(-1).max()) for x in generated.logits]
    assert [word.probability for word in trace.words] == expected[: len(trace.words)]
    assert trace.events


def test_pictures_are_compressed_one_by_one(lvlm):
    """Each picture keeps its own share, and maps speak of its own patches."""
    images = [make_image(0), make_image(1, 40, 90)]
    together = run(lvlm, create("tome", ratio=0.25), images, encoder_layers=(1, 2))
    alone = [run(lvlm, create("tome", ratio=0.25), [i], encoder_layers=(1, 2)) for i in images]
    lineage = together.lineage(2).dense()
    torch.testing.assert_close(
        lineage, torch.block_diag(*(trace.lineage(2).dense() for trace in alone))
    )
    assert together.counts[0] == sum(trace.counts[0] for trace in alone) == 18


def test_adaptive_counts_differ_between_pictures(lvlm):
    images = [make_image(i) for i in range(6)]
    counts = [run(lvlm, create("prumerge+"), [image]).counts[0] for image in images]
    assert len(set(counts)) > 1
    assert run(lvlm, create("prumerge+"), images[:3]).counts[0] == sum(counts[:3])


@pytest.mark.parametrize("name", ["fastervlm", "prumerge", "visionzip", "evit", "illava"])
def test_counterfactuals_act_at_the_first_event_of_any_site(lvlm, name):
    images = [make_image(0), make_image(1)]
    keep, drop = [2, N_VISUAL + 3], [5, N_VISUAL + 7]
    request = {"images": images, "question": QUESTION, "method": name, "ratio": 0.5}
    trace = lvlm.answer(**request, keep=keep, drop=drop, max_new_tokens=2).trace
    first = trace.events[0].reduction
    assert (first.fate()[keep] == Fate.KEPT).all()
    assert (first.fate()[drop] == Fate.DROPPED).all()
    assert not first.dense()[:, drop].any()
    assert all(row.count_nonzero() == 1 for row in first.dense()[:, keep].T)


def test_encoder_features_are_not_reused_inside_the_encoder(lvlm):
    features = lvlm.encode([make_image()])
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 2}
    for name in ("tome", "prumerge"):
        fresh = lvlm.answer(**request, method=name).trace
        given = lvlm.answer(**request, method=name, features=features).trace
        assert given.counts == fresh.counts
        assert [w.probability for w in given.words] == [w.probability for w in fresh.words]


def test_traces_of_all_methods_come_back(lvlm, tmp_path):
    for name in METHODS:
        request = {"images": [make_image()], "question": QUESTION, "method": name}
        trace = lvlm.answer(**request, max_new_tokens=2).trace
        trace.save(tmp_path / "t.zip")
        loaded = Trace.load(tmp_path / "t.zip")
        assert loaded.stages == trace.stages and loaded.params == trace.params
        assert 0 <= loaded.ratio < 1
        n = len(trace.events)
        assert torch.equal(loaded.lineage(n).dense(), trace.lineage(n).dense())


def test_tome_weighs_tokens_by_the_patches_they_stand_for(lvlm):
    """However often tokens merge, each is the plain mean of its patches."""
    trace = run(lvlm, create("tome", ratio=0.35), [make_image()], encoder_layers=(0, 1, 2, 3))
    lineage = trace.lineage(4).dense()
    members = (lineage > 0).sum(1, keepdim=True)
    assert len(lineage) < 6 and members.max() > 3
    torch.testing.assert_close(lineage, (lineage > 0).double() / members)


def test_pictures_side_by_side_renumber_what_names_tokens():
    tokens = Tokens(hidden=torch.randn(8, 4), importance=torch.rand(8))
    alone = create("libra", ratio=0.5).reduce(tokens)
    both = Reduction.side_by_side([alone, alone])
    torch.testing.assert_close(both.dense(), torch.block_diag(alone.dense(), alone.dense()))
    best = alone.evidence["best_target"].tolist()
    assert both.evidence["best_target"].tolist() == [*best, *(8 + b for b in best)]
    assert both.slot.tolist() == [*alone.slot.tolist(), *(8 + s for s in alone.slot.tolist())]
    assert Reduction.side_by_side([alone]) is alone


def test_illava_removes_as_many_as_published_in_each_encoder_layer():
    step = create("illava").encoder_step
    assert [step(n, 729, 4).keep for n in (729, 637, 545, 453)] == [637, 545, 453, 361]
    assert step(576, 576, 4).keep == 576 - 73


def test_default_encoder_layers_scale_with_the_depth():
    def layers(name, n):
        return default_encoder_layers(create(name), n, n - 2)

    assert layers("illava", 24) == (4, 5, 6, 7)
    assert layers("illava", 6) == (1, 2)
    assert layers("illava", 27) == (4, 5, 6, 7)  # in a row
    assert default_encoder_layers(create("illava"), 26, 25, "LLaVA-OneVision") == (5, 6, 7, 8)
    assert default_layers(create("illava"), 28, 0, "LLaVA-OneVision") == (7,)
    assert layers("evit", 24) == (6, 12, 18)
    assert layers("evit", 6) == (2, 3, 4)
    assert layers("fastv", 24) == ()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((N_ENCODER_LAYERS - 1,), f"0..{N_ENCODER_LAYERS - 2}"),
        ((-1,), "0.."),
        ((2, 1), "ascend"),
        ((1, 1), "without repeats"),
        ((), "at least one"),
    ],
)
def test_bad_encoder_layers_are_refused(lvlm, layers, message):
    with pytest.raises(InputError, match=message):
        run(lvlm, create("tome"), [make_image()], encoder_layers=layers)


def test_a_grid_that_does_not_fit_is_refused(lvlm):
    with pytest.raises(InputError, match="does not fit"):
        run(lvlm, create("spatial", rows=6, columns=6), [make_image()])


def test_requests_at_all_sites_share_a_model(lvlm):
    names = ("prumerge", "illava", "tome", "libra")
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 8}
    serial = [lvlm.answer(**request, method=name).trace for name in names]
    results = {}

    def work(i):
        results[i] = lvlm.answer(**request, method=names[i % 4], tracing=i < 4).trace

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for i, trace in results.items():
        assert trace.counts == serial[i % 4].counts
        got, expected = ([w.probability for w in t.words] for t in (trace, serial[i % 4]))
        assert got == expected
