"""Compression in the Qwen-VL decoders, against a recomputation without cache and hooks."""

import pytest
import torch
from conftest import make_image
from micro_qwen import (
    FAMILIES,
    IMAGE_ID,
    N_LAYERS,
    QUESTION,
    VIDEO_ID,
    make_family,
    make_film,
    make_model,
    mrope_by_hand,
)
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from libra.compression import Compression
from libra.decoder import CompressedCache, DecoderSequence
from libra.lvlm import LVLM
from libra.media import Media
from libra.methods import Tokens, create

PLANS = {
    "vanilla": (create("vanilla"), ()),
    "fastv, one stage": (create("fastv", ratio=0.5), (2,)),
    "fastv, up to the last layer": (create("fastv", ratio=0.4), (2, 5, 7)),
    "libra, three stages": (create("libra", ratio=0.5), (2, 4, 6)),
    "libra, compensation first": (
        create("libra", ratio=0.5, tau=1.0, compensation="begin"),
        (3, 5),
    ),
    "sparsevlm": (create("sparsevlm", ratio=0.4), (2, 4)),
    "pyramiddrop, which renumbers elsewhere": (create("pyramiddrop", ratio=0.5), (2, 4, 6)),
    "illava, as in the paper": (create("illava", ratio=0.5, follow="paper"), (2, 5)),
}
MEDIA = {
    "a picture": lambda: Media([make_image(0, 150, 100)]),
    "two pictures": lambda: Media([make_image(0, 150, 100), make_image(1, 60, 130)]),
    "a video": lambda: make_film(5),
}


@pytest.fixture(scope="module", params=FAMILIES)
def lvlm(request):
    with LVLM("micro", make_family(request.param)) as model:
        yield model


@torch.no_grad()
def decode(lvlm, media, method, layers, n_tokens=3, **settings):
    """Greedy decoding through the engine: tokens, logits [n_tokens, V], cache."""
    family = lvlm.family
    prepared = family.prepare(media)
    compression = Compression(method, prepared, layers, **settings)
    features = compression.encode(family)
    tokens = family.connect(compression.connect(family, features))
    prompt = family.prompt(QUESTION, prepared).reduced(compression.standing.place)
    sequence = DecoderSequence(compression, prompt.visual, in_line=prompt.positions is None)
    cache = CompressedCache(family.model.config, sequence)
    inputs, words, logits = family.inputs(prompt, tokens), [], []
    for step in range(n_tokens):
        output = family.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits.append(output.logits[0, -1])
        words.append(int(logits[-1].argmax()))
        inputs = family.next_inputs(words[-1], prompt, step + 1)
    return words, torch.stack(logits), cache


@torch.no_grad()
def recompute(family, media, method, layers, n_tokens=3):
    """The same from scratch at every step, on a model without hooks and without a cache.

    `family` gives ids and pixels; features, positions, DeepStack and attention are worked out
    here, from the model's own modules.
    """
    model, prepared = make_model(family.name), family.prepare(media)
    decoder, ids = model.model.language_model, family.prompt(QUESTION, prepared).ids
    grids = family.grids(prepared)
    visual_id, look = (IMAGE_ID, model.get_image_features)
    if media.is_video:
        visual_id, look = (VIDEO_ID, model.get_video_features)
        grids = torch.tensor([[len(grids), *grids[0, 1:].tolist()]])
    output = look(family.pixels(prepared).double(), grids)
    visual = (ids == visual_id).nonzero().flatten()
    prompt = model.get_input_embeddings()(ids)
    prompt[visual] = torch.cat(list(output.pooler_output))
    deep = [torch.cat(list(parts)) for parts in getattr(output, "deepstack_features", [])]

    cells = [(t, h // 2, w // 2) for t, h, w in grids.tolist()]
    if media.is_video and family.name == "qwen3_vl":
        cells = [(1, *cells[0][1:])] * cells[0][0]
    apart = 2 * 2 * 0.5 if media.is_video and family.name == "qwen2_5_vl" else None
    mrope = mrope_by_hand(ids, cells, visual_id, apart)
    words, logits = [], []
    for _ in range(n_tokens):
        answer = model.get_input_embeddings()(torch.tensor(words, dtype=torch.long))
        x = torch.cat([prompt, answer])[None]
        after = mrope.max() + 1 + torch.arange(len(words))
        table = torch.cat([mrope, after.expand(3, -1)], dim=1)
        places = list(range(x.shape[1]))
        seen, patches, compensated = visual.tolist(), list(range(len(visual))), 0
        for i, layer in enumerate(decoder.layers):
            n, n_prompt = x.shape[1], x.shape[1] - len(words)
            tables = decoder.rotary_emb(x, table[:, None, places])
            causal = torch.full((1, 1, n, n), torch.finfo(x.dtype).min, dtype=x.dtype).triu(1)
            hidden = layer(x, attention_mask=causal, position_embeddings=tables)
            if i < len(deep):
                hidden[0, visual] += deep[i]
            if i not in layers:
                x = hidden
                continue
            attention = attention_matrix(layer, x, tables)
            seen_hidden = hidden[0, seen]
            instruction = slice(max(visual.tolist()) + 1 - len(ids) + n_prompt, n_prompt)
            reduction = method.reduce(
                Tokens(
                    seen_hidden,
                    importance=attention[n_prompt - 1, seen],
                    received=attention[seen][:, seen].mean(0),
                    text_attention=attention[instruction][:, seen].T,
                    text_similarity=prompt[visual[patches]] @ prompt[int(visual[-1]) + 1 :].T,
                    layout=prepared.layout.select(torch.tensor(patches)),
                    n_previous_compensation=compensated,
                )
            )
            outputs = reduction.dense().double() @ seen_hidden
            first = reduction.compensation == 0
            entries = [(places[j], 0, None, hidden[0, j]) for j in range(n) if j not in seen]
            for k, slot in enumerate(reduction.slot.tolist()):
                side = (-1 if first else 1) if k == reduction.compensation else 0
                entries.append((places[seen[slot]], side, k, outputs[k]))
            entries.sort(key=lambda entry: entry[:2])
            x = torch.stack([entry[3] for entry in entries])[None]
            places, order = [entry[0] for entry in entries], [entry[2] for entry in entries]
            seen = [order.index(k) for k in range(reduction.n_out)]
            patches = [patches[slot] for slot in reduction.slot.tolist()]
            compensated = int(reduction.compensation is not None)
        logits.append(model.lm_head(decoder.norm(x))[0, -1])
        words.append(int(logits[-1].argmax()))
    return words, torch.stack(logits)


def attention_matrix(layer, x, tables):
    """[S, S] causal attention of a layer for its input, mean over heads, from the weights."""
    attention = layer.self_attn
    normed = layer.input_layernorm(x)
    q, k = (
        project(normed).view(1, x.shape[1], -1, attention.head_dim)
        for project in (attention.q_proj, attention.k_proj)
    )
    if hasattr(attention, "q_norm"):  # Qwen3
        q, k = attention.q_norm(q), attention.k_norm(k)
    q, k = apply_rotary_pos_emb(q.transpose(1, 2), k.transpose(1, 2), *tables)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = (q @ k.transpose(-1, -2))[0] * attention.head_dim**-0.5
    later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1).mean(0).float()


@pytest.mark.parametrize("about", MEDIA)
@pytest.mark.parametrize("plan", PLANS)
def test_compression_equals_recomputation(lvlm, plan, about):
    method, layers = PLANS[plan]
    media = MEDIA[about]()
    words, logits, _ = decode(lvlm, media, method, layers)
    expected_words, expected_logits = recompute(lvlm.family, media, method, layers)
    assert words == expected_words
    torch.testing.assert_close(logits, expected_logits, atol=1e-4, rtol=0)
    if method.kind != "none":
        _, vanilla, _ = decode(lvlm, media, create("vanilla"), ())
        assert not torch.allclose(logits, vanilla, atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_eager_attention_compresses_alike(family):
    method, layers = PLANS["libra, three stages"]
    media = MEDIA["two pictures"]()
    with LVLM("micro", make_family(family, "eager")) as eager:
        words, logits, _ = decode(eager, media, method, layers)
        expected_words, expected_logits = recompute(eager.family, media, method, layers)
    assert words == expected_words
    torch.testing.assert_close(logits, expected_logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("plan", PLANS)
def test_each_cache_is_as_long_as_the_plan_says(lvlm, plan):
    method, layers = PLANS[plan]
    media = MEDIA["a video"]()
    prepared = lvlm.family.prepare(media)
    visual = len(prepared.layout)
    n_text = len(lvlm.family.prompt(QUESTION, prepared).ids) - visual
    cache = decode(lvlm, media, method, layers)[2]
    events = {event.layer: event.reduction for event in cache.sequence.compression.events}
    expected, extra = [], 0
    for layer in range(N_LAYERS):
        expected.append(n_text + visual + extra + 2)  # two fed-back tokens
        if layer in layers:
            visual = max(1, round(visual * (1 - method.ratio)))
            extra = int(method.name == "libra" and events[layer].compensation is not None)
    assert [cache.get_seq_length(i) for i in range(N_LAYERS)] == expected


@pytest.mark.parametrize("about", MEDIA)
@pytest.mark.parametrize("name", ["vanilla", "libra"])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_to_remove_is_generate_bit_for_bit(family, name, about):
    """In fp32, as `generate` hands out its logits in fp32."""
    method = create(name) if name == "vanilla" else create(name, ratio=0.0)
    layers = () if name == "vanilla" else (2, 4)
    media = MEDIA[about]()
    with LVLM("micro", make_family(family, dtype=torch.float32)) as lvlm:
        words, logits, _ = decode(lvlm, media, method, layers)
        prepared = lvlm.family.prepare(media)
        pixels, grids = lvlm.family.pixels(prepared), lvlm.family.grids(prepared)
        ids = lvlm.family.prompt(QUESTION, prepared).ids[None]
    inputs = {"pixel_values": pixels, "image_grid_thw": grids}
    if media.is_video:
        grid = torch.tensor([[len(grids), *grids[0, 1:].tolist()]])
        inputs = {"pixel_values_videos": pixels, "video_grid_thw": grid}
        if family == "qwen2_5_vl":
            inputs["second_per_grid_ts"] = [2 * 0.5]
    generated = make_model(family, dtype=torch.float32).generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == IMAGE_ID) + 2 * (ids == VIDEO_ID),
        **inputs,
        max_new_tokens=3,
        do_sample=False,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert words == generated.sequences[0, ids.shape[1] :].tolist()
    assert torch.equal(logits, torch.cat(generated.logits))


def test_kept_tokens_keep_their_positions(lvlm):
    """After the event, positions in the prompt are those of its text and of the kept tokens."""
    media = MEDIA["two pictures"]()
    method, layers = create("fastv", ratio=0.75), (2,)
    cache = decode(lvlm, media, method, layers, n_tokens=1)[2]
    prompt = lvlm.family.prompt(QUESTION, lvlm.family.prepare(media))
    kept = prompt.visual[cache.sequence.compression.events[0].reduction.slot]
    text = set(range(len(prompt.ids))) - set(prompt.visual.tolist())
    assert cache.sequence.positions.tolist() == sorted(text | set(kept.tolist()))
