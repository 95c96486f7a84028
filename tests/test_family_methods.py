"""Every method at every site of the LLaVA families, against recomputations without the engine."""

from dataclasses import asdict

import pytest
import torch
from conftest import N_LAYERS, QUESTION, ranks_by_cls
from micro_llava import FAMILIES, VIDEO_FAMILIES, lvlm_of, model_of
from test_compression import recompute
from test_family_llava import media_of, official_inputs, request_of
from test_sites import assert_same_words, attention_of
from test_viz_gallery import pixels

import viz
from libra import InputError, Trace
from libra.decoder import CompressedCache
from libra.methods import METHODS, Tokens, create

N_WORDS = 4
ASKED = [
    *((name, "one") for name in FAMILIES),
    ("llava-onevision", "large"),
    ("llava-onevision", "two"),
    *((name, "video") for name in VIDEO_FAMILIES),
]
SMALL = [
    *(("llava-next", kind) for kind in ("one", "two")),
    *((name, "video") for name in VIDEO_FAMILIES),
    ("video-llava", "two"),
]


@pytest.fixture(scope="module")
def lvlms():
    models = {name: lvlm_of(name) for name in FAMILIES}
    for model in models.values():
        model.family.eos = set()  # answers are as long as they may be
    yield models
    for model in models.values():
        model.close()


@pytest.fixture(scope="module")
def models():
    """The same weights without the engine."""
    return {name: model_of(name) for name in FAMILIES}


def run(lvlm, kind, method, **settings):
    """Trace of an answer through the engine, with a method object instead of a name."""
    request = {**request_of(kind), "question": QUESTION, "max_new_tokens": N_WORDS}
    return lvlm.answer(**request, method=method.name, **asdict(method) | settings).trace


@torch.no_grad()
def official_prompt(name, model, family, kind):
    """What the model itself hands to its decoder [1, S, d], and the prompt."""
    seen = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    prepared = family.prepare(media_of(kind))
    prompt = family.prompt(QUESTION, prepared)
    model(input_ids=prompt.ids[None], **official_inputs(name, family, kind))
    hook.remove()
    return seen[0], prompt, prepared


def greedy(model, embedded):
    """Logits [N_WORDS, V] of the plain model, from scratch at every step."""
    logits, embedding = [], model.get_input_embeddings()
    for _ in range(N_WORDS):
        logits.append(model(inputs_embeds=embedded).logits[0, -1])
        embedded = torch.cat([embedded, embedding(logits[-1].argmax()[None, None])], dim=1)
    return torch.stack(logits)


def rearranged(embedded, prompt, slots, tokens):
    """The prompt with other visual tokens: each in the line of its slot, in the given order.

    Args:
        embedded: [1, S, d].
        prompt: places of its visual tokens.
        slots: [n] out of the N visual tokens.
        tokens: [n, d].
    """
    visual = prompt.visual.tolist()
    others = [i for i in range(embedded.shape[1]) if i not in visual]
    line = [sum(other < place for other in others) for place in visual]
    rows = []
    for number, other in enumerate(others):
        rows += [t for s, t in zip(slots, tokens, strict=True) if line[s] == number]
        rows.append(embedded[0, other])
    return torch.stack(rows)[None]


# -- inside the decoder -----------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("name", "kind"), SMALL)
@pytest.mark.parametrize(
    ("method", "layers"),
    [
        (create("libra", ratio=0.5), (1, 3)),
        (create("fastv", ratio=0.4), (2,)),
        (create("kmeans", ratio=0.5), (1,)),
        (create("pyramiddrop", ratio=0.5), (0, 2)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_decoder_equals_recomputation(name, kind, attention, method, layers):
    model = model_of(name, attention)
    with lvlm_of(name, attention) as lvlm:
        lvlm.family.eos = set()
        embedded, prompt, prepared = official_prompt(name, model, lvlm.family, kind)
        trace = run(lvlm, kind, method, layers=layers)
    _, logits = recompute(model, (embedded, prompt.visual, prepared), method, layers, N_WORDS)
    assert_same_words(trace, logits)


def test_the_instruction_begins_after_the_last_newline(lvlms, monkeypatch):
    """SparseVLM's raters are words of the question, not newline tokens of the picture."""
    lvlm, seen = lvlms["llava-next"], []
    reduce = METHODS["sparsevlm"].reduce
    monkeypatch.setattr(
        METHODS["sparsevlm"], "reduce", lambda self, t: seen.append(t) or reduce(self, t)
    )
    run(lvlm, "one", create("sparsevlm", ratio=0.9), layers=(1, 3))
    n_text = len(QUESTION.split()) + 1  # and the word that opens the answer
    assert [tokens.text_attention.shape[1] for tokens in seen] == [n_text] * 2
    assert [tokens.text_similarity.shape[1] for tokens in seen] == [n_text] * 2


# -- after the encoder ------------------------------------------------------------------------


@torch.no_grad()
def connector_units(name, model, family, kind, method):
    """What a method at the connector sees: per unit its tokens' numbers and facts."""
    prepared = family.prepare(media_of(kind))
    tower = tower_of(name, model, kind)
    states = tower(family.pixels(prepared).double(), output_hidden_states=True).hidden_states
    if name == "llava-onevision":  # behind projector and pooling; there is no CLS token
        embedded, prompt, _ = official_prompt(name, model, family, kind)
        seen = [attention_of(tower.encoder.layers[-1], x) for x in states[-2]]
        received = packed(model, [a.mean((0, 1))[:, None] for a, _ in seen], kind)[:, 0].float()
        keys = packed(model, [k.mean(0) for _, k in seen], kind)
        for unit in prepared.unit.unique():
            own = (prepared.unit == unit).nonzero().flatten()
            yield (
                own,
                {
                    "hidden": embedded[0, prompt.visual[own]],
                    "importance": received[own],
                    "keys": keys[own],
                    "layout": prepared.layout.select(own),
                },
            )
        return
    for unit in prepared.unit.unique().tolist():
        own = (prepared.unit == unit).nonzero().flatten()
        attention, keys = attention_of(tower.encoder.layers[-2], states[-3][unit])
        if method.joint_keys:
            _, keys = attention_of(tower.encoder.layers[-2], states[-3][unit], joint=True)
        facts = {
            "hidden": states[-2][unit][1:],
            "importance": attention.mean(0)[0, 1:, None].float(),
            "keys": keys.mean(0)[1:],
        }
        pooled = name == "llava-next-video" and kind == "video"
        facts = {
            fact: two_by_two(x) if pooled else x[prepared.patch[own]] for fact, x in facts.items()
        }
        facts["importance"] = facts["importance"][:, 0]
        yield own, facts | {"layout": prepared.layout.select(own)}


def packed(model, facts, kind):
    """Facts [25, C] of LLaVA-OneVision's units as the model packs them."""
    facts = torch.stack(facts)
    if kind == "video":
        grid = facts.view(-1, 5, 5, facts.shape[-1]).permute(0, 3, 1, 2)
        small = torch.nn.functional.interpolate(grid, (3, 3), mode="bilinear")
        return small.flatten(2).transpose(1, 2).flatten(0, 1)
    if kind == "two":
        return facts.flatten(0, 1)
    width, height = media_of(kind).pictures[0].size
    limit = model.config.vision_aspect_ratio
    return model.model.pack_image_features([facts], [(height, width)], None, limit)[0][0]


def tower_of(name, model, kind):
    """The vision encoder that sees these media."""
    if name != "video-llava":
        return model.model.vision_tower
    return model.model.video_tower if kind == "video" else model.model.image_tower


def two_by_two(x):
    """[16, C] -> [4, C]: means of 2 x 2 patches."""
    return x.view(2, 2, 2, 2, -1).mean((1, 3)).flatten(0, 1)


@torch.no_grad()
@pytest.mark.parametrize(("name", "kind"), ASKED)
@pytest.mark.parametrize(
    "method",
    [
        create("fastervlm", ratio=0.5),
        create("visionzip", ratio=0.4),
        create("prumerge", keep=2, neighbours=2, follow="paper"),
        create("divprune", ratio=0.5),
        create("spatial", ratio=0.5),
        create("sequential", ratio=0.6),
    ],
    ids=lambda method: method.name,
)
def test_connector_equals_recomputation(lvlms, models, name, kind, method):
    lvlm, model = lvlms[name], models[name]
    if name == "llava-onevision" and ranks_by_cls(method):
        with pytest.raises(InputError, match=r"CLS.*llava-onevision.*Choose one of: .*divprune"):
            run(lvlm, kind, method)
        return
    embedded, prompt, _ = official_prompt(name, models[name], lvlm.family, kind)
    slots, hidden = [], []
    for own, facts in connector_units(name, model, lvlm.family, kind, method):
        reduction = method.reduce(Tokens(**facts))
        slots += own[reduction.slot].tolist()
        hidden.append(reduction.dense().double() @ facts["hidden"])
    tokens = torch.cat(hidden)
    if name != "llava-onevision":
        tokens = models[name].model.multi_modal_projector(tokens)
    trace = run(lvlm, kind, method)
    expected = greedy(models[name], rearranged(embedded, prompt, slots, tokens))
    assert_same_words(trace, expected)
    assert trace.counts == [len(slots)] * N_LAYERS < [len(prompt.visual)] * N_LAYERS
    line = prompt.visual - torch.arange(len(prompt.visual))
    order = line[torch.tensor(slots)].argsort(stable=True)
    assert trace.events[0].reduction.slot.tolist() == torch.tensor(slots)[order].tolist()


# -- inside the encoder -----------------------------------------------------------------------

ENCODER_LAYERS = (1, 2)


def reduced_unit(tower, pixels, patches, method, has_cls):
    """One unit on its way through a tower, reduced in `ENCODER_LAYERS`.

    Returns:
        Features [F, D] of CLS, those [n, D] of the remaining tokens, and the slots [n] of these.
    """
    n_cls = int(has_cls)
    x = tower.embeddings(pixels[None])[0]
    x = tower.pre_layrnorm(x) if has_cls else x
    margin = [i for i in range(len(x) - n_cls) if i not in patches.tolist()]
    front = [*range(n_cls), *(n_cls + i for i in margin)]
    x = torch.cat([x[front], x[n_cls + patches]])
    n_front, slots, size = len(front), torch.arange(len(patches)), torch.ones(len(patches))
    for i, layer in enumerate(tower.encoder.layers[:-1] if has_cls else tower.encoder.layers):
        attention, keys = attention_of(layer, x)
        heads = layer.self_attn.num_heads
        values = torch.stack(layer.self_attn.v_proj(layer.layer_norm1(x)).chunk(heads, -1))
        mixed = (attention @ values).transpose(0, 1).flatten(1)
        x = x + layer.self_attn.out_proj(mixed)
        if i in ENCODER_LAYERS:
            reduction = method.reduce(
                Tokens(
                    hidden=x[n_front:],
                    importance=attention.mean(0)[0, n_front:].float() if has_cls else None,
                    received=attention.mean((0, 1))[n_front:].float(),
                    keys=keys.mean(0)[n_front:],
                    size=size,
                )
            )
            matrix = reduction.dense().double()
            size, slots = (matrix != 0).float() @ size, slots[reduction.slot]
            x = torch.cat([x[:n_front], matrix @ x[n_front:]])
        x = x + layer.mlp(layer.layer_norm2(x))
    return x[:n_cls], x[n_front:], slots


@torch.no_grad()
@pytest.mark.parametrize(("name", "kind"), ASKED)
@pytest.mark.parametrize("method", ["tome", "evit"])
def test_encoder_equals_recomputation(lvlms, models, name, kind, method):
    """Padding takes no part, and patches that would be pooled are merged instead."""
    lvlm, model = lvlms[name], models[name]
    method, has_cls = create(method, ratio=0.3), name != "llava-onevision"
    if method.name == "evit" and not has_cls:
        with pytest.raises(InputError, match="CLS"):
            run(lvlm, kind, method)
        return
    family = lvlm.family
    prepared = family.prepare(media_of(kind), pooled=False)
    prompt = family.prompt(QUESTION, prepared)
    embedded = model.get_input_embeddings()(prompt.ids)[None].clone()
    pixels, project = family.pixels(prepared).double(), model.model.multi_modal_projector
    slots, tokens = [], []
    for unit in prepared.unit.unique().tolist():
        own = (prepared.unit == unit).nonzero().flatten()
        front, hidden, slot = reduced_unit(
            tower_of(name, model, kind), pixels[unit], prepared.patch[own], method, has_cls
        )
        slots += own[slot].tolist()
        tokens.append(project(hidden))
        if name == "video-llava" and kind == "video":
            embedded[0, prompt.special[unit]] = project(front)[0]
    if name != "video-llava" and len(prompt.special):
        embedded[0, prompt.special] = model.model.image_newline
    trace = run(lvlm, kind, method, encoder_layers=ENCODER_LAYERS)
    expected = greedy(model, rearranged(embedded, prompt, slots, torch.cat(tokens)))
    assert_same_words(trace, expected)
    assert trace.stages == ["before", "encoder layer 1", "encoder layer 2"]
    assert len(trace.layout) == len(prompt.visual) and trace.counts == [len(slots)] * N_LAYERS
    line = prepared.line[torch.tensor(slots)]
    assert trace.lineage(2).slot.tolist() == torch.tensor(slots)[line.sort(stable=True)[1]].tolist()


def test_a_model_that_pools_costs_what_it_costs_with_pooling(lvlms):
    """Without compression frames are pooled: that is what compression is measured against."""
    lvlm = lvlms["llava-onevision"]
    plain = run(lvlm, "video", create("vanilla"))
    merged = run(lvlm, "video", create("tome", ratio=0.3), encoder_layers=ENCODER_LAYERS)
    assert len(plain.layout) == 27 and len(merged.layout) == 75
    assert merged.cost.vanilla_flops == plain.cost.flops
    assert merged.cost.vanilla_kv_bytes == plain.cost.kv_bytes


# -- all of them ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "kind"), SMALL)
def test_every_method_answers_and_its_trace_comes_back(
    lvlms, name, kind, method, tmp_path, monkeypatch
):
    lvlm, caches = lvlms[name], []
    init = CompressedCache.__init__
    monkeypatch.setattr(
        CompressedCache, "__init__", lambda self, *a: caches.append(self) or init(self, *a)
    )
    if name == "llava-onevision" and ranks_by_cls(create(method)):
        with pytest.raises(InputError, match="CLS"):
            run(lvlm, kind, create(method))
        return
    trace = run(lvlm, kind, create(method))
    prepared = lvlm.family.prepare(media_of(kind))
    n_text = len(lvlm.family.prompt(QUESTION, prepared).ids) - len(prepared.layout)
    lengths = [layer.keys.shape[2] for layer in caches[0].layers]
    n_words = lengths[0] - n_text - trace.counts[0]
    assert lengths == [n_text + count + n_words for count in trace.counts]
    assert n_words in (len(trace.words) - 1, len(trace.words))
    trace.save(tmp_path / "trace.zip")
    loaded = Trace.load(tmp_path / "trace.zip")
    assert loaded.counts == trace.counts and loaded.stages == trace.stages
    assert len(loaded.images) == len(trace.images) == len(prepared.views)


DETAIL = {"attention_heads", "attention_matrix", "attention_matrix_raw", "encoder_attention"}
LACKING = {
    ("llava-next", "one"): DETAIL | {"accuracy"},
    ("llava-onevision", "video"): DETAIL | {"accuracy", "cls_distribution"},  # without CLS
}


@pytest.fixture(scope="module", params=LACKING, ids="-".join)
def trace_and_lacking(request, lvlms):
    """A trace of tiles or of frames, and the figures that it cannot give."""
    name, kind = request.param
    return run(lvlms[name], kind, create("libra", ratio=0.5)), LACKING[request.param]


@pytest.mark.parametrize("figure", viz.FIGURES)
def test_figures_of_tiles_and_frames(trace_and_lacking, figure):
    trace, lacking = trace_and_lacking
    spec = viz.FIGURES[figure]
    assert bool(spec.missing(trace)) == (figure in lacking)
    if figure not in lacking:
        assert pixels(spec.function(trace)).std() > 5


@pytest.mark.parametrize("kind", ["large", "video"])
def test_what_is_left_is_a_share_of_what_the_model_sees_where_a_method_sees_more(lvlms, kind):
    """Inside the encoder there are patches that the model pools before its decoder."""
    request = request_of(kind) | {"question": QUESTION, "max_new_tokens": 1, "left": 1 / 4}
    model = lvlms["llava-onevision"]
    traces = [model.answer(**request, method=name).trace for name in ("fastv", "illava")]
    fastv, illava = (trace.lineage(len(trace.events)) for trace in traces)
    assert illava.n_in > 2 * fastv.n_in
    assert illava.n_out == pytest.approx(fastv.n_out, abs=2)
