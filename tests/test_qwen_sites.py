"""Qwen-VL before the decoder, and whole requests: every method, trace, figures, folders."""

import itertools
import threading

import pytest
import torch
from conftest import make_image, ranks_by_cls
from micro_qwen import (
    FAMILIES,
    N_ENCODER_LAYERS,
    N_LAYERS,
    QUESTION,
    make_family,
    make_film,
    make_model,
    save,
)
from test_qwen import attention_matrix, decode

import libra
import viz
from libra import InputError, methods
from libra.lvlm import LVLM
from libra.media import Media
from libra.methods import create
from libra.request import scale_encoder_layers, scale_layers
from libra.trace import Trace
from libra.video import Clip

MEDIA = {
    "two pictures": {"images": [make_image(0, 200, 110), make_image(1, 60, 130)]},
    "a video": {"video": Clip(make_film(5).pictures, make_film(5).times, 2.5, "film")},
}
FIRST = {"qwen2_vl": 0, "qwen2_5_vl": 0, "qwen3_vl": 2}  # Qwen3-VL: behind DeepStack


@pytest.fixture(scope="module", params=FAMILIES)
def lvlm(request):
    with LVLM("micro", make_family(request.param)) as model:
        yield model


@pytest.fixture(scope="module")
def qwen2():
    with LVLM("micro", make_family("qwen2_vl")) as model:
        yield model


def ask(lvlm, about="two pictures", **settings):
    """An answer to the standard question."""
    request = {**MEDIA[about], "question": QUESTION, "max_new_tokens": 3}
    return lvlm.answer(**request | settings)


ENCODED = {"qwen2_vl"}  # methods can act inside the encoder


WHY_NOT = {"qwen2_5_vl": "within windows", "qwen3_vl": "early layers"}


@pytest.mark.parametrize("family", WHY_NOT)
def test_methods_inside_the_encoder_are_refused_for_a_reason(family):
    reason = rf"not possible \(.*{WHY_NOT[family]}.*\) in that of micro. Choose"
    with LVLM("micro", make_family(family)) as lvlm, pytest.raises(InputError, match=reason):
        ask(lvlm, method="illava")


@pytest.mark.parametrize("about", MEDIA)
@pytest.mark.parametrize("name", methods.names())
def test_every_method_answers_or_says_which_do(lvlm, name, about):
    family, method = lvlm.family.name, create(name)
    refused = (
        ranks_by_cls(method)
        or ("encoder" in method.sites() and family not in ENCODED)
        or ("connector" in method.sites() and family == "qwen3_vl")
    )
    if refused:
        with pytest.raises(InputError, match="Choose one of: vanilla, fastv, libra"):
            ask(lvlm, about, method=name)
        return
    trace = ask(lvlm, about, method=name).trace
    assert len(trace.words) <= 3 and len(trace.counts) == N_LAYERS
    assert (trace.counts[-1] < len(trace.layout)) == (name != "vanilla")
    assert [len(row) for row in trace.importance] == trace.counts
    assert trace.lineage(len(trace.events)).n_out == trace.counts[-1]
    n_views = 2 if about == "two pictures" else 3
    assert len(trace.images) == n_views == int(trace.layout.image.max()) + 1
    assert all(layer >= FIRST[family] for layer in trace.layers)
    assert trace.cost.vanilla_flops >= trace.cost.flops


def test_layers_that_still_take_deepstack_features_are_refused():
    with LVLM("micro", make_family("qwen3_vl")) as lvlm:
        for layers in ((0,), (1, 4)):
            with pytest.raises(InputError, match=r"must lie in 2\.\.7"):
                ask(lvlm, method="fastv", layers=layers)
        assert lvlm.default_layers("libra") == (2, 3, 5)
        assert lvlm.default_layers("fastv") == (2,)
        assert ask(lvlm, method="fastv", layers=(2,)).trace.counts[3] < 26


@pytest.mark.parametrize("drop", [[0, 3, 7]])
def test_vanilla_without_some_patches_is_the_model_without_their_tokens(lvlm, drop):
    """The reference leaves placeholder and features out and keeps everybody's position."""
    media = Media([make_image(0, 150, 100)])
    _, logits, cache = decode(lvlm, media, create("vanilla"), (), drop=drop)
    family, model = lvlm.family, make_model(lvlm.family.name)
    prepared = family.prepare(media)
    prompt = family.prompt(QUESTION, prepared)
    left = torch.ones(len(prompt.ids), dtype=torch.bool)
    left[prompt.visual[drop]] = False
    rest = torch.tensor([i for i in range(len(prepared.layout)) if i not in drop])
    with torch.no_grad():
        seen = model.get_image_features(family.pixels(prepared).double(), family.grids(prepared))
        seen.pooler_output = [torch.cat(list(seen.pooler_output))[rest]]
        if hasattr(seen, "deepstack_features"):
            deep = seen.deepstack_features
            seen.deepstack_features = [[torch.cat(list(parts))[rest]] for parts in deep]
        expected = model(
            input_ids=prompt.ids[None, left],
            position_ids=prompt.positions[:, None, left],
            mm_encoder_outputs={"image": seen},
        ).logits[0, -1]
    torch.testing.assert_close(logits[0], expected, atol=1e-6, rtol=0)
    assert cache.sequence.counts == [len(rest)] * N_LAYERS


@torch.no_grad()
@pytest.mark.parametrize("about", MEDIA)
@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])
def test_divprune_at_the_connector_equals_the_model_with_its_choice_alone(name, about):
    """It chooses among the tokens of each unit; those left keep their positions."""
    media = make_film(5) if about == "a video" else Media(MEDIA[about]["images"])
    with LVLM("micro", make_family(name)) as lvlm:
        trace, family = ask(lvlm, about, method="divprune", ratio=0.5).trace, lvlm.family
        prepared = family.prepare(media)
        prompt, pixels = family.prompt(QUESTION, prepared), family.pixels(prepared)
        grids = family.grids(prepared)
    model, kept = make_model(name), []
    tokens = torch.cat(list(model.get_image_features(pixels.double(), grids).pooler_output))
    for unit in prepared.layout.image.unique():
        own = (prepared.layout.image == unit).nonzero().flatten()
        chosen = create("divprune", ratio=0.5).reduce(
            methods.Tokens(tokens[own], layout=prepared.layout.select(own))
        )
        kept += own[chosen.slot].tolist()
    assert trace.events[0].reduction.slot.tolist() == sorted(kept)
    left = torch.ones(len(prompt.ids), dtype=torch.bool)
    left[prompt.visual] = False
    left[prompt.visual[kept]] = True
    embedded = model.get_input_embeddings()(prompt.ids)
    embedded[prompt.visual] = tokens
    logits = model(
        inputs_embeds=embedded[None, left], position_ids=prompt.positions[:, None, left]
    ).logits[0, -1]
    best = logits.softmax(-1).topk(5).values.tolist()
    assert [p for _, p in trace.words[0].top] == pytest.approx(best, abs=1e-5)


def received_by_hand(layer, x, tables):
    """[T] mean attention that each patch receives in an encoder layer, from the weights."""
    q, k, _ = layer.attn.qkv(layer.norm1(x)).view(len(x), 3, layer.attn.num_heads, -1).unbind(1)
    cos, sin = (table[:, None] for table in tables)
    q, k = (v * cos + torch.cat([-v.chunk(2, -1)[1], v.chunk(2, -1)[0]], -1) * sin for v in (q, k))
    scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
    return scores.softmax(-1).mean((0, 1))


@torch.no_grad()
def recycle(model, pixels, grid, layers, share, seen):
    """iLLaVA inside Qwen2-VL's encoder for one unit, from its equations: the states [n, D].

    `seen` collects the patches whose places are left after each layer.
    """
    tower = model.model.visual
    x, patches = tower.patch_embed(pixels), list(range(len(pixels)))
    rows, columns = grid
    places = [
        (2 * (k // (columns // 2)) + i, 2 * (k % (columns // 2)) + j)
        for k in range(rows * columns // 4)
        for i in (0, 1)
        for j in (0, 1)
    ]
    cos, sin = tower.rotary_pos_emb(x, torch.tensor(places))
    for number, layer in enumerate(tower.blocks):
        tables = (cos[patches], sin[patches])
        whole = torch.tensor([0, len(x)], dtype=torch.int32)
        attended = x + layer.attn(layer.norm1(x), cu_seqlens=whole, position_embeddings=tables)
        if number in layers:
            received = received_by_hand(layer, x, tables)
            r = round(share * len(pixels) / len(layers)) // 4 * 4
            lowest = received.sort(stable=True).indices[: r + 1]
            weight = torch.arange(r + 1, 0, -1, dtype=x.dtype)
            attended[lowest[-1]] = weight / weight.sum() @ attended[lowest]
            stay = [i for i in range(len(x)) if i not in lowest[:-1].tolist()]
            attended, patches = attended[stay], [patches[i] for i in stay]
            seen.append(patches)
        x = attended + layer.mlp(layer.norm2(attended))
    return x


@pytest.mark.parametrize("about", ["two pictures", "a video"])
def test_illava_inside_the_encoder_equals_its_equations(qwen2, about):
    layers, share = (1, 3), 0.5
    family, model = qwen2.family, make_model("qwen2_vl")
    request = MEDIA[about]
    media = make_film(5) if about == "a video" else Media(request["images"])
    prepared, plain = family.prepare(media, pooled=False), family.prepare(media)
    assert len(prepared.layout) == 4 * len(plain.layout)
    assert torch.equal(family.grids(prepared), family.grids(plain))
    method = create("illava", encoder_ratio=share)
    compression = libra.compression.Compression(method, prepared, (), encoder_layers=layers)
    with torch.no_grad():
        tokens = compression.connect(family, compression.encode(family))
    pixels, start, expected, sources = family.pixels(plain).double(), 0, [], []
    for _, rows, columns in family.grids(plain).tolist():
        seen, n = [], rows * columns
        states = recycle(model, pixels[start : start + n], (rows, columns), layers, share, seen)
        expected.append(model.model.visual.merger(states))
        sources += [start + p for p in seen[-1]]
        start += n
    torch.testing.assert_close(tokens, torch.cat(expected), atol=1e-5, rtol=0)
    # Four survivors in a row become one token, wherever they come from.
    joined = compression.events[-1]
    assert (joined.site, joined.layer) == ("connector", -1)
    assert compression.standing.place.tolist() == sources[::4]
    assert (joined.reduction.dense().sum(1) == 1).all()
    assert joined.reduction.group().bincount().tolist() == [4] * len(tokens)


def test_tokens_from_the_encoder_stand_where_their_first_patch_stood(qwen2):
    media = Media([make_image(0, 150, 100)])
    family = qwen2.family
    whole = family.prompt(QUESTION, family.prepare(media))
    prepared = family.prepare(media, pooled=False)
    patches = family.prompt(QUESTION, prepared)
    assert torch.equal(patches.positions[:, patches.visual[::4]], whole.positions[:, whole.visual])
    places = torch.tensor([2, 9, 40, 79])
    left = patches.reduced(places)
    assert torch.equal(
        left.positions[:, left.visual], whole.positions[:, whole.visual[places // 4]]
    )
    assert int(left.positions[0, -1]) == int(whole.positions[0, -1])


def test_illava_counts(qwen2):
    """Each encoder layer removes a multiple of four patches, each decoder layer its share."""
    settings = {"encoder_layers": (1, 2), "layers": (2, 4), "ratio": 0.1}
    trace = ask(qwen2, method="illava", encoder_ratio=0.5, **settings).trace
    sites = [event.site for event in trace.events]
    assert sites == ["encoder", "encoder", "connector", "decoder", "decoder"]
    for event in trace.events[:2]:
        assert (event.reduction.n_in - event.reduction.n_out) % 4 == 0
    n = trace.events[2].reduction.n_out
    assert trace.counts == [n] * 3 + [round(0.9 * n)] * 2 + [round(0.9 * round(0.9 * n))] * 3
    assert trace.cost.vanilla_flops > trace.cost.flops
    whole = ask(qwen2, method="vanilla").trace
    assert trace.cost.vanilla_flops == whole.cost.flops


def test_illava_at_its_setting_for_qwen2_vl():
    """Layers and counts of the published setting, on the published depths and 1,024 patches."""
    preset = methods.get("illava").presets["Qwen2-VL"]
    assert scale_layers(preset["layers"], 28) == (6, 7, 8)
    assert scale_encoder_layers(preset["encoder_layers"], 32, 31) == (12, 13, 14, 15)
    method = create("illava", ratio=0.1, encoder_layer_ratio=preset["encoder_layer_ratio"])
    family = make_family("qwen2_vl")
    family.image_processor.size.longest_edge = 256 * 28**2
    prepared = family.prepare(Media([make_image(0, 448, 448)]), pooled=False)
    plan = libra.compression.Compression(method, prepared, (), encoder_layers=(0, 1, 2, 3))
    with torch.no_grad():
        assert len(plan.connect(family, plan.encode(family))) == 129
    counts = [event.reduction.n_in for event in plan.events]
    assert counts == [1024, 864, 728, 612, 516]


def test_illava_is_set_as_published_for_qwen2_vl_unless_told_otherwise(qwen2):
    usual = ask(qwen2, method="illava").trace
    assert (usual.ratio, usual.params["encoder_layer_ratio"]) == (0.1, 0.16)
    assert usual.layers == qwen2.default_layers("illava")
    assert usual.params["encoder_layers"] == [*qwen2.default_encoder_layers("illava")]
    assert ask(qwen2, method="illava", ratio=0.5).trace.params == usual.params
    other = ask(qwen2, method="illava", encoder_ratio=0.4).trace
    assert (other.ratio, other.params["encoder_layer_ratio"]) == (0.3, None)


def test_nothing_removed_inside_the_encoder_is_the_plain_model(qwen2):
    plain, same = (
        ask(qwen2, method=name, **settings)
        for name, settings in (("vanilla", {}), ("illava", {"encoder_ratio": 0.0, "ratio": 0.0}))
    )
    assert plain.text == same.text
    for a, b in zip(plain.trace.words, same.trace.words, strict=True):
        assert a.probability == pytest.approx(b.probability, abs=1e-6)


def test_patches_cannot_be_forced_inside_the_encoder(qwen2):
    with pytest.raises(InputError, match="acts in the decoder"):
        ask(qwen2, method="illava", keep=[3])
    assert 3 in ask(qwen2, method="fastv", keep=[3]).trace.events[0].reduction.slot.tolist()


@torch.no_grad()
def test_received_attention_is_that_of_the_models_own_layer(lvlm):
    """Token by token the mean of its four patches, in the last layer without windows."""
    family, model, seen = lvlm.family, make_model(lvlm.family.name), []
    prepared = family.prepare(Media([make_image(0, 150, 100), make_image(1, 60, 130)]))
    layer = model.model.visual.blocks[family.attention_layer]
    layer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args[0], kwargs["position_embeddings"])),
        with_kwargs=True,
    )
    features = family.encode(prepared)
    rows = [family.encoder_attention(-1, x).received() for x in features.inputs[-1]]
    for picture, row in zip(prepared.media.pictures, rows, strict=True):
        one = family.prepare(Media([picture]))
        model.model.visual(family.pixels(one).double(), grid_thw=family.grids(one))
        expected = received_by_hand(layer, *seen.pop()).float()
        if family.name == "qwen2_5_vl":  # whose tower goes window by window
            expected, row = expected.sort().values, row.sort().values
        torch.testing.assert_close(row, expected, atol=1e-6, rtol=1e-4)
    packed = family.pack([row[:, None] for row in rows], prepared)[:, 0]
    assert packed.tolist() == pytest.approx(torch.cat(rows).view(-1, 4).mean(1).tolist())


WATCHED = {"qwen2_vl": (0, 1, 3, 4), "qwen2_5_vl": (2, 4), "qwen3_vl": (0, 1, 3, 4)}


@torch.no_grad()
def test_full_tracing_knows_what_patches_receive_inside_the_encoder(lvlm):
    """In layers without windows: against each layer of the model, run on one picture at a time."""
    family, model = lvlm.family, make_model(lvlm.family.name)
    trace, seen = ask(lvlm, method="fastv", tracing="full").trace, {}
    assert tuple(trace.detail.encoder) == WATCHED[family.name]
    for number, layer in enumerate(model.model.visual.blocks):
        layer.register_forward_pre_hook(
            lambda module, args, kwargs, number=number: seen.update(
                {number: (module, args[0], kwargs["position_embeddings"])}
            ),
            with_kwargs=True,
        )
    start = 0
    for picture in MEDIA["two pictures"]["images"]:
        one = family.prepare(Media([picture]))
        model.model.visual(family.pixels(one).double(), grid_thw=family.grids(one))
        end = start + len(one.layout)
        for number, row in trace.detail.encoder.items():
            expected = received_by_hand(*seen[number]).float().view(-1, 4).mean(1)
            got = row[start:end]
            if family.name == "qwen2_5_vl":  # whose tower goes window by window
                expected, got = expected.sort().values, got.sort().values
            torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)
        start = end
    assert start == len(trace.layout)


def test_patches_merged_inside_the_encoder_receive_nothing_afterwards(qwen2):
    settings = {"encoder_layers": (1, 3), "encoder_ratio": 0.5, "tracing": "full"}
    trace = ask(qwen2, method="illava", **settings).trace
    for layer, row in trace.detail.encoder.items():
        done = sum(event.layer < layer for event in trace.events[:2])
        standing = torch.zeros(len(trace.layout), dtype=torch.bool)
        standing[trace.lineage(done).slot] = True
        assert torch.equal(~row.isnan(), standing), layer
    received = trace.events[0].reduction.evidence["importance"]
    torch.testing.assert_close(trace.detail.encoder[1], received.float(), atol=1e-6, rtol=1e-4)


def test_windows_are_undone():
    """A patch of Qwen2.5-VL draws attention where it lies, not where its window put it."""
    family = make_family("qwen2_5_vl")
    media = Media([make_image(0, 140, 84)])
    prepared = family.prepare(media)
    with torch.no_grad():
        states = family.encode(prepared).inputs[-1][0].hidden
        seen = []
        first = family.tower.blocks[0]
        hook = first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        layer = family.tower.blocks[family.attention_layer]
        last = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        family.encode(prepared)
        hook.remove(), last.remove()
        embedded = family.tower.patch_embed(family.pixels(prepared).double())
    order = (embedded[:, None] - seen[0][None]).norm(dim=-1).argmin(1)
    assert order.tolist() != list(range(len(order)))
    assert torch.equal(states, seen[1][order])


@pytest.mark.parametrize("method", ["vanilla", "libra"])
def test_a_stream_grows_and_ends_with_the_trace(lvlm, method):
    request = {**MEDIA["a video"], "question": QUESTION, "max_new_tokens": 4, "method": method}
    steps = list(lvlm.stream(**request))
    texts = [step.text for step in steps]
    assert all(later.startswith(text) for text, later in itertools.pairwise(texts))
    assert [step.trace is None for step in steps] == [True] * (len(steps) - 1) + [False]
    assert steps[-1].text == lvlm.answer(**request).text


@pytest.mark.parametrize("about", MEDIA)
def test_traces_are_stored_and_give_every_figure(lvlm, tmp_path, about):
    trace = stored_and_loaded(lvlm, tmp_path, about, "libra")
    assert left_out(trace) <= {"cls_distribution", "compensation_lens", "accuracy"}
    assert trace.times == ([0.0, 1.0, 2.0] if about == "a video" else None)


@pytest.mark.parametrize("about", MEDIA)
def test_traces_of_methods_inside_the_encoder(qwen2, tmp_path, about):
    trace = stored_and_loaded(qwen2, tmp_path, about, "illava")
    assert not {"encoder_attention", "attention_heads", "retention"} & left_out(trace)


def stored_and_loaded(lvlm, folder, about, method):
    """A trace out of its file, which holds what was in it."""
    trace = ask(lvlm, about, method=method, tracing="full").trace
    trace.save(folder / "trace.zip")
    stored = Trace.load(folder / "trace.zip")
    assert stored.counts == trace.counts and stored.stages == trace.stages
    assert stored.times == trace.times
    assert torch.equal(stored.layout.box, trace.layout.box)
    assert [x.shape for x in stored.images] == [x.shape for x in trace.images]
    return stored


def left_out(trace):
    """The figures that a trace cannot give; all others are drawn."""
    lacking = {name for name, spec in viz.FIGURES.items() if spec.missing(trace)}
    for name in viz.FIGURES.keys() - lacking:
        viz.FIGURES[name].function(trace)
    return lacking


def test_threads_do_not_disturb_each_other(lvlm):
    requests = [("two pictures", "vanilla"), ("a video", "vanilla"), ("two pictures", "libra")]
    alone = [ask(lvlm, about, method=method).text for about, method in requests]
    found = {}

    def work(i):
        about, method = requests[i % 3]
        found[i] = ask(lvlm, about, method=method).text

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(6)] == alone * 2


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_of_shards_in_half_precision_loads(name, tmp_path):
    save(name, tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    with (
        libra.load(str(tmp_path)) as loaded,
        LVLM("micro", make_family(name, dtype=torch.float16)) as half,
    ):
        half.family.model.float()
        assert loaded.card["dtype"] == "float32" and loaded.card["family"] == name
        assert loaded.family.video_size == half.family.video_size
        for about in MEDIA:
            texts = [ask(model, about, method="libra").text for model in (loaded, half)]
            assert texts[0] == texts[1]


def test_an_older_folder_has_its_limits_with_the_image_processor(tmp_path):
    save("qwen2_vl", tmp_path)
    (tmp_path / "video_preprocessor_config.json").unlink()
    with libra.load(str(tmp_path)) as loaded:
        pictures, video = loaded.family.image_processor.size, loaded.family.video_size
        assert video.longest_edge == pictures.longest_edge
        assert ask(loaded, "a video", method="fastv").trace.counts[-1] > 0


def test_decoder_attention_is_the_models_own(lvlm):
    """The reference of these tests, against eager attention."""
    family = lvlm.family
    prepared = family.prepare(Media([make_image(0, 90, 60)]))
    prompt = family.prompt(QUESTION, prepared)
    model, seen = make_model(family.name, "eager"), []
    layer = model.model.language_model.layers[1]
    hook = layer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args[0], kwargs["position_embeddings"])),
        with_kwargs=True,
    )
    with torch.no_grad():
        tokens = family.connect(family.tokens(family.encode(prepared), prepared))
        inputs = family.inputs(prompt, tokens)
        matrices = model(**inputs, output_attentions=True).attentions
        found = attention_matrix(layer, *seen[0])
    hook.remove()
    torch.testing.assert_close(found, matrices[1][0].mean(0).float(), atol=1e-6, rtol=1e-5)
    assert len(family.encoder_layers) == N_ENCODER_LAYERS
