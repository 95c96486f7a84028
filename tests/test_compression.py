"""Compression inside the decoder, against a recomputation without cache and without hooks."""

import threading

import pytest
import torch
from conftest import N_LAYERS, N_VISUAL, QUESTION, make_image, make_lvlm, make_model
from prompts import prepare
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import libra.attention
from libra.compression import Compression
from libra.decoder import CompressedCache, DecoderSequence
from libra.methods import Tokens, create

PLANS = {
    "fastv, one stage": (create("fastv", ratio=0.5), (1,)),
    "fastv, two stages": (create("fastv", ratio=0.4), (0, 4)),
    "libra, one stage": (create("libra", ratio=0.75), (2,)),
    "libra, three stages": (create("libra", ratio=0.5), (1, 3, 5)),
    "libra, everything compensated": (create("libra", ratio=0.5, merge="negative"), (1, 2, 6)),
    "libra, compensation first": (
        create("libra", ratio=0.5, tau=1.0, compensation="begin"),
        (1, 3),
    ),
    "libra, up to the last layer": (create("libra", ratio=0.5), (3, 5, 7)),
    "fastv, up to the last layer": (create("fastv", ratio=0.4), (0, 4, 7)),
    "sparsevlm": (create("sparsevlm", ratio=0.4), (1, 3)),
    "pyramiddrop": (create("pyramiddrop", ratio=0.5), (1, 3, 5)),
    "illava, as in the paper": (create("illava", ratio=0.5, follow="paper"), (1, 4)),
    "k-means": (create("kmeans", ratio=0.5), (2,)),
    "k-means of means": (create("kmeans", ratio=0.5), (1, 4)),
    "turbo, bipartite": (create("turbo", ratio=0.4, matching="bipartite"), (0, 2, 5)),
    "greedy": (create("greedy", ratio=0.5), (1, 3)),
}


def prompt_of(lvlm, n_images=1):
    """Embedded prompt [1, S, D], places of the visual tokens, their layout."""
    images = [make_image(i) for i in range(n_images)]
    with torch.no_grad():
        tokens = lvlm.family.connect(torch.cat(lvlm.encode(images).hidden))
        prepared, prompt = prepare(lvlm, images, QUESTION)
        embedded = lvlm.family.inputs(prompt, tokens)["inputs_embeds"]
        return embedded, prompt.visual, prepared


@torch.no_grad()
def decode(lvlm, prompt, method, layers, n_tokens=6, **settings):
    """Greedy decoding through the engine: tokens, logits [n_tokens, V], cache."""
    embedded, visual, prepared = prompt
    compression = Compression(method, prepared, layers, **settings)
    cache = CompressedCache(lvlm.family.model.config, DecoderSequence(compression, visual))
    inputs, tokens, logits = {"inputs_embeds": embedded}, [], []
    for _ in range(n_tokens):
        output = lvlm.family.model(
            **inputs, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        logits.append(output.logits[0, -1])
        tokens.append(int(logits[-1].argmax()))
        inputs = {"input_ids": torch.tensor([tokens[-1:]])}
    return tokens, torch.stack(logits), cache


def generate(lvlm, prompt, method, layers, n_tokens=6):
    """The same tokens by transformers' own generate, with a cache that carries the plan."""
    embedded, visual, prepared = prompt
    sequence = DecoderSequence(Compression(method, prepared, layers), visual)
    generated = lvlm.family.model.generate(
        inputs_embeds=embedded,
        attention_mask=torch.ones(embedded.shape[:2]),
        past_key_values=CompressedCache(lvlm.family.model.config, sequence),
        max_new_tokens=n_tokens,
        do_sample=False,
        eos_token_id=None,
    )
    return generated[0].tolist()


@torch.no_grad()
def recompute(model, prompt, method, layers, n_tokens=6):
    """The same from scratch at every step, on a model without hooks and without a cache."""
    embedded, visual, prepared = prompt
    decoder = model.model.language_model
    embedding = model.get_input_embeddings()
    tokens, logits = [], []
    instruction = embedded[0, int(visual[-1]) + 1 :]
    for _ in range(n_tokens):
        answer = embedding(torch.tensor([tokens], dtype=torch.long))
        x = torch.cat([embedded, answer], dim=1)
        positions = list(range(x.shape[1]))
        seen, patches, compensated = visual.tolist(), list(range(len(visual))), 0
        size = torch.ones(len(visual))
        for i, layer in enumerate(decoder.layers):
            n, n_prompt = x.shape[1], x.shape[1] - len(tokens)
            if method.name == "pyramiddrop":
                positions = list(range(n))
            tables = decoder.rotary_emb(x, torch.tensor([positions]))
            causal = torch.full((1, 1, n, n), torch.finfo(x.dtype).min, dtype=x.dtype).triu(1)
            hidden = layer(x, attention_mask=causal, position_embeddings=tables)
            if i not in layers:
                x = hidden
                continue
            attention = attention_matrix(layer, x, tables)
            visual_hidden = hidden[0, seen]
            reduction = method.reduce(
                Tokens(
                    visual_hidden,
                    importance=attention[n_prompt - 1, seen],
                    received=attention[seen][:, seen].mean(0),
                    text_attention=attention[max(seen) + 1 : n_prompt][:, seen].T,
                    text_similarity=embedded[0, visual[patches]] @ instruction.T,
                    layout=prepared.layout.select(torch.tensor(patches)),
                    size=size,
                    n_previous_compensation=compensated,
                )
            )
            outputs = reduction.dense().double() @ visual_hidden
            first = reduction.compensation == 0
            entries = [(positions[j], 0, None, hidden[0, j]) for j in range(n) if j not in seen]
            for k, slot in enumerate(reduction.slot.tolist()):
                side = (-1 if first else 1) if k == reduction.compensation else 0
                entries.append((positions[seen[slot]], side, k, outputs[k]))
            entries.sort(key=lambda entry: entry[:2])
            x = torch.stack([entry[3] for entry in entries])[None]
            positions = [entry[0] for entry in entries]
            order = [entry[2] for entry in entries]
            seen = [order.index(k) for k in range(reduction.n_out)]
            patches = [patches[slot] for slot in reduction.slot.tolist()]
            size = (reduction.dense() > 0).float() @ size
            compensated = int(reduction.compensation is not None)
        if method.name != "pyramiddrop":
            assert positions[-len(tokens) - 1] == embedded.shape[1] - 1
        logits.append(model.lm_head(decoder.norm(x))[0, -1])
        tokens.append(int(logits[-1].argmax()))
    return tokens, torch.stack(logits)


def attention_matrix(layer, x, tables):
    """[S, S] causal attention of a layer for its input, mean over heads, from the weights."""
    attention = layer.self_attn
    shape = (1, x.shape[1], -1, attention.head_dim)
    normed = layer.input_layernorm(x)
    q = attention.q_proj(normed).view(shape).transpose(1, 2)
    k = attention.k_proj(normed).view(shape).transpose(1, 2)
    q, k = apply_rotary_pos_emb(q, k, *tables)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = (q @ k.transpose(-1, -2))[0] * attention.head_dim**-0.5
    later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1).mean(0).float()


@pytest.mark.parametrize("plan", PLANS)
def test_compression_equals_recomputation(any_lvlm, plan):
    method, layers = PLANS[plan]
    prompt = prompt_of(any_lvlm)
    implementation = any_lvlm.family.model.config._attn_implementation
    tokens, logits, _ = decode(any_lvlm, prompt, method, layers)
    expected_tokens, expected_logits = recompute(make_model(implementation), prompt, method, layers)
    assert tokens == expected_tokens
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=0)
    _, vanilla, _ = decode(any_lvlm, prompt, create("vanilla"), ())
    assert not torch.allclose(logits, vanilla, atol=1e-2)


@pytest.mark.parametrize("plan", [name for name in PLANS if "last layer" in name])
def test_an_event_after_the_last_layer_rearranges_its_output(any_lvlm, plan):
    """What reaches the final norm, which the answer's own logits do not tell."""
    method, layers = PLANS[plan]
    prompt, seen = prompt_of(any_lvlm), []
    plain = make_model(any_lvlm.family.model.config._attn_implementation)
    for model in (any_lvlm.family.model, plain):
        norm = model.model.language_model.norm
        hook = norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        if model is plain:
            recompute(model, prompt, method, layers, n_tokens=1)
        else:
            _, _, cache = decode(any_lvlm, prompt, method, layers, n_tokens=1)
        hook.remove()
    torch.testing.assert_close(seen[0], seen[1], atol=1e-5, rtol=1e-5)
    last = cache.sequence.compression.events[-1].reduction
    assert seen[0].shape[1] == prompt[0].shape[1] - N_VISUAL + last.n_out
    assert last.n_out < cache.sequence.counts[-1]


def test_tracing_changes_nothing(any_lvlm):
    prompt = prompt_of(any_lvlm)
    method, layers = PLANS["libra, three stages"]
    _, plain, _ = decode(any_lvlm, prompt, method, layers)
    _, traced, cache = decode(any_lvlm, prompt, method, layers, tracing=True)
    assert torch.equal(plain, traced)
    assert len(cache.sequence.rows) == 6
    for row in cache.sequence.rows:
        assert [len(x) for x in row] == cache.sequence.counts


def test_traced_rows_are_those_of_the_attention_matrix():
    """Every layer and step of a compressed run, against eager matrices of the same model."""
    with make_lvlm("eager") as eager, make_lvlm("sdpa") as fast:
        method, layers = PLANS["libra, three stages"]
        prompt = prompt_of(fast)
        rows = decode(fast, prompt, method, layers, tracing=True)[2].sequence.rows
        expected = decode(eager, prompt, method, layers, tracing=True)[2].sequence.rows
    for row, other in zip(rows, expected, strict=True):
        for a, b in zip(row, other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_two_pictures(lvlm):
    """The visual tokens are not contiguous in the prompt's layout, but one set to the method."""
    prompt = prompt_of(lvlm, n_images=2)
    method, layers = PLANS["libra, three stages"]
    tokens, logits, cache = decode(lvlm, prompt, method, layers)
    expected_tokens, expected_logits = recompute(make_model(), prompt, method, layers)
    assert tokens == expected_tokens
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=0)
    assert cache.sequence.counts[0] == 2 * N_VISUAL


@pytest.mark.parametrize("plan", PLANS)
def test_each_cache_is_as_long_as_the_plan_says(lvlm, plan):
    method, layers = PLANS[plan]
    prompt = prompt_of(lvlm)
    _, _, cache = decode(lvlm, prompt, method, layers, n_tokens=4)
    n_text = prompt[0].shape[1] - N_VISUAL
    visual, expected = N_VISUAL, []
    compensated = {
        event.layer: event.reduction.compensation for event in cache.sequence.compression.events
    }
    extra = 0
    for layer in range(N_LAYERS):
        expected.append(n_text + visual + extra + 3)  # 3 fed-back tokens
        if layer in layers:
            visual = max(1, round(visual * (1 - method.ratio)))
            extra = int(method.name == "libra" and compensated[layer] is not None)
    assert [cache.get_seq_length(i) for i in range(N_LAYERS)] == expected
    assert [n - n_text - 3 for n in expected] == cache.sequence.counts


def test_kept_tokens_keep_their_positions(lvlm):
    """After the last event, positions are those of the prompt's text and of the kept patches."""
    prompt = prompt_of(lvlm)
    method, layers = create("fastv", ratio=0.75), (1,)
    _, _, cache = decode(lvlm, prompt, method, layers, n_tokens=1)
    kept = prompt[1][cache.sequence.compression.events[0].reduction.slot]
    text = [i for i in range(prompt[0].shape[1]) if i not in prompt[1].tolist()]
    assert cache.sequence.positions.tolist() == sorted(text + kept.tolist())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["vanilla", "fastv", "libra"])
def test_nothing_to_remove_is_the_plain_model_bit_for_bit(name, attention):
    """In fp32, as `generate` hands out its logits in fp32."""
    method = create(name) if name == "vanilla" else create(name, ratio=0.0)
    layers = () if name == "vanilla" else (1, 3)
    with make_lvlm(attention, torch.float32) as lvlm:
        family = lvlm.family
        ids = prepare(lvlm, [make_image(0)], QUESTION)[1].ids
        pixels = family.image_processor([make_image(0)], return_tensors="pt").pixel_values
        tokens, logits, _ = decode(lvlm, prompt_of(lvlm), method, layers)
    generated = make_model(attention, torch.float32).generate(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids[None]),
        pixel_values=pixels,
        max_new_tokens=6,
        do_sample=False,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert tokens == generated.sequences[0, len(ids) :].tolist()
    assert torch.equal(logits, torch.cat(generated.logits))


def test_generate_takes_the_cache(lvlm):
    """transformers' own generate compresses too when the cache carries a plan."""
    method, layers = PLANS["libra, three stages"]
    prompt = prompt_of(lvlm)
    tokens, _, _ = decode(lvlm, prompt, method, layers)
    assert generate(lvlm, prompt, method, layers) == tokens


def test_requests_share_a_model_without_interference(lvlm):
    plans = [(create("vanilla"), ()), *(PLANS[name] for name in list(PLANS)[:3])]
    prompt = prompt_of(lvlm)
    serial = [decode(lvlm, prompt, *plan, n_tokens=12)[:2] for plan in plans]
    results = {}

    def work(i):
        results[i] = decode(lvlm, prompt, *plans[i % 4], n_tokens=12, tracing=i >= 4)[:2]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, (tokens, logits) in results.items():
        assert tokens == serial[i % 4][0]
        assert torch.equal(logits, serial[i % 4][1])
    assert len(results) == 8


def test_no_row_is_computed_that_nobody_needs(lvlm, monkeypatch):
    calls = []
    rows = libra.attention.attention_rows
    monkeypatch.setattr(
        libra.attention, "attention_rows", lambda *a, **k: calls.append(1) or rows(*a, **k)
    )
    prompt = prompt_of(lvlm)
    for method, layers, tracing, expected in (
        (create("vanilla"), (), False, 0),
        (create("fastv"), (1,), False, 1),
        (create("libra"), (1, 3, 5), False, 3),
        (create("libra"), (1, 3, 5), True, 4 * N_LAYERS),
    ):
        calls.clear()
        decode(lvlm, prompt, method, layers, n_tokens=4, tracing=tracing)
        assert len(calls) == expected


def hooks_of(model):
    """Every hook on every module of a model, by kind."""
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    return {
        (name, kind): list(getattr(module, kind).values())
        for name, module in model.named_modules()
        for kind in kinds
        if getattr(module, kind)
    }


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_close_leaves_the_model_as_it_was(attention):
    model = make_lvlm(attention)
    model.close()
    plain = model.family.model
    decode(model, prompt_of(model), create("vanilla"), ())  # transformers' own lazy hooks
    hooks, attributes = hooks_of(plain), {n: set(vars(m)) for n, m in plain.named_modules()}
    registry = dict(ALL_ATTENTION_FUNCTIONS)

    with type(model)("again", model.family) as again:
        assert len(hooks_of(plain)) > len(hooks)
        prompt = prompt_of(again)
        decode(again, prompt, *PLANS["libra, three stages"], tracing=True)
        layer = plain.model.language_model.layers[3]
        assert layer._forward_pre_hooks  # the modules looked at are the hooked ones
    assert hooks_of(plain) == hooks
    assert {n: set(vars(m)) for n, m in plain.named_modules()} == attributes
    assert dict(ALL_ATTENTION_FUNCTIONS) == registry
