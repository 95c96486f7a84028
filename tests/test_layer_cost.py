"""FLOPs, bytes and memory of a workload against counters that watch the real model run."""

import math
import weakref
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, LlamaConfig, LlamaModel, Qwen2VLConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from libra.architecture import ARCHITECTURES, Architecture, Stack
from libra.cost import prefill_flops
from libra.devices import name_of
from libra.layer_cost import layer_operations, peak_activation
from libra.lvlm import LVLM
from libra.media import Media
from libra.models import open_model
from libra.models.llava import Llava
from libra.video import Clip
from libra.workload import Workload
from tests.conftest import (
    N_ENCODER_LAYERS,
    N_LAYERS,
    N_VISUAL,
    QUESTION,
    make_image,
    make_image_processor,
    make_lvlm,
    make_model,
    make_tokenizer,
)
from tests.micro_llava import FAMILIES, lvlm_of
from tests.micro_qwen import make_family
from tests.micro_videollama import make_lvlm_3

TEXT = 9


@pytest.fixture(scope="module")
def model():
    return make_model("eager")  # the counter does not see fused attention on a CPU


@pytest.fixture(scope="module")
def workload(model):
    architecture = Architecture.of("micro", model.config)
    return Workload(architecture, N_VISUAL, [N_VISUAL] * N_LAYERS, TEXT)


@pytest.fixture(scope="module")
def encode(model):
    """Run the encoder over so many pictures."""
    family = Llava(model, make_tokenizer(), make_image_processor())
    return lambda n: family.encode(family.prepare(Media([make_image()] * n)))


def counted(run):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def total(operations):
    return sum(operation.flops for operation in operations)


def test_the_full_count_is_what_the_model_multiplies(model, encode, workload):
    assert total(workload.encoder()) == counted(lambda: encode(1))
    patches = torch.zeros(N_VISUAL, 32).double()
    projector = model.model.multi_modal_projector
    assert total(workload.connector()) == counted(lambda: projector(patches))
    cache = DynamicCache(config=model.config.get_text_config())
    prompt = {"inputs_embeds": torch.zeros(1, N_VISUAL + TEXT, 64).double()}
    word = {"input_ids": torch.zeros(1, 1, dtype=torch.long)}
    run = {"past_key_values": cache, "logits_to_keep": 1}
    assert total(workload.prefill()) == counted(lambda: model(**prompt, **run))
    for step in (1, 2):
        assert total(workload.decode(step)) == counted(lambda: model(**word, **run))


def test_the_cache_is_what_the_formula_says(model, workload):
    cache = DynamicCache(config=model.config.get_text_config())
    prompt = torch.zeros(1, N_VISUAL + TEXT, 64).double()
    model(inputs_embeds=prompt, past_key_values=cache, logits_to_keep=1)
    held = [layer.keys.nbytes + layer.values.nbytes for layer in cache.layers]
    assert [8 / 2 * n for n in workload.kv_bytes()] == held  # two bytes there, eight here


def test_several_pictures_are_several_units(model, encode):
    architecture = Architecture.of("micro", model.config)
    two = Workload(architecture, 2 * N_VISUAL, [2 * N_VISUAL] * N_LAYERS, TEXT)
    assert total(two.encoder()) == counted(lambda: encode(2))
    one = Workload(architecture, N_VISUAL, [N_VISUAL] * N_LAYERS, TEXT)
    weights = [sum(o.weights for o in work.encoder()) for work in (one, two)]
    assert weights[0] == weights[1]


def test_an_encoder_that_merges_has_less_to_do_in_later_layers(workload):
    patches = [16, 16, 12, 8, 8]
    merging = Workload(workload.architecture, 16, [8] * N_LAYERS, TEXT, patches)
    stack = workload.architecture.encoder
    expected = sum(
        total(layer_operations(stack, n + 1, left=left + 1)) for n, left in pairwise(patches)
    )
    assert total(merging.encoder()) == expected + 2 * 16 * 588 * 32
    assert total(merging.connector()) == total(workload.connector()) / 2


def test_qwen2_vl_sizes_come_from_its_configuration():
    config = Qwen2VLConfig(
        text_config={"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100},
        vision_config={"embed_dim": 32, "depth": 2, "num_heads": 4, "hidden_size": 64},
    )
    architecture = Architecture.of("micro", config)
    config.vision_config._attn_implementation = "eager"
    vision = Qwen2VisionTransformerPretrainedModel(config.vision_config).eval()
    grid = torch.tensor([[1, 4, 6]])
    work = Workload(architecture, 6, [6, 6], TEXT)
    run = counted(lambda: vision(torch.zeros(24, 3 * 2 * 14 * 14), grid_thw=grid))
    assert total(work.encoder()) + total(work.connector()) == run


def test_the_embedded_model_is_listed_as_it_is():
    listed = ARCHITECTURES["tiny-llava"]
    assert Architecture.of("tiny-llava", open_model("tiny-llava").model.config) == listed


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llava-1.5-7b", 7.06),
        ("llava-1.5-13b", 13.35),
        ("llava-next-8b", 8.36),
        ("llava-onevision-7b", 8.03),
        ("qwen2-vl-7b", 8.29),
    ],
)
def test_listed_models_have_the_published_number_of_weights(name, billions):
    a = ARCHITECTURES[name]

    def weights(stack):
        return stack.n_layers * sum(math.prod(shape) for shape in stack.matrices.values())

    outside = 2 * a.vocabulary * a.decoder.d + a.pixels * a.encoder.d
    outside += sum(math.prod(shape) for shape in a.connector)
    whole = weights(a.decoder) + weights(a.encoder) + outside
    assert whole / 1e9 == pytest.approx(billions, rel=0.005)


class Live(TorchDispatchMode):
    """The most bytes that the results of operations held at once."""

    def __init__(self, *others):
        super().__init__()
        self.now = self.peak = 0
        self.known = {tensor.untyped_storage().data_ptr() for tensor in others}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor.untyped_storage())
        return result

    def _watch(self, storage):
        if (place := storage.data_ptr()) in self.known or not storage.nbytes():
            return
        self.known.add(place)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, place, storage.nbytes())

    def _forget(self, place, size):
        self.known.discard(place)
        self.now -= size


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("d", "m", "heads", "n"), [(64, 320, 4, 96), (64, 32, 8, 200)])
def test_the_estimated_peak_is_near_the_observed_one(attention, d, m, heads, n):
    config = LlamaConfig(
        hidden_size=d,
        intermediate_size=m,
        num_attention_heads=heads,
        num_hidden_layers=3,
        attn_implementation=attention,
    )
    model = LlamaModel(config).eval()
    prompt = torch.randn(1, n, d)
    with torch.no_grad(), Live(*model.parameters(), prompt) as live:
        model(inputs_embeds=prompt, use_cache=False)
    seen = live.peak + prompt.nbytes  # it is there from the beginning
    estimate = peak_activation(Stack(1, d, m, heads, d), n, 4, fused=attention == "sdpa")
    assert estimate == pytest.approx(seen, rel=0.1)


def test_a_trace_says_what_its_request_multiplied():
    with make_lvlm("eager") as lvlm:
        request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 1}
        request |= {"method": "fastv", "layers": (1, 3), "tracing": False}
        traces = []
        flops = counted(lambda: traces.append(lvlm.answer(**request).trace))
        architecture = Architecture.of("micro", lvlm.family.model.config)
    n_text = 3 + len(QUESTION.split())
    assert traces[0].timings.where == (
        f"{name_of(torch.device('cpu'))}, float64, eager, batch 1, 16 visual and {n_text} other "
        "tokens"
    )
    work = Workload.of(traces[0], architecture)
    assert (work.counts, work.itemsize) == ([16, 16, 8, 8, 4, 4, 4, 4], 8)
    assert total(work.encoder()) + total(work.connector()) + total(work.prefill()) == flops
    attention = [(n + n_text) * (n + n_text - 1) / 2 * 4 * 64 for n in work.counts]  # hidden pairs
    assert total(work.prefill()) - total(work.prefill(causal=True)) == sum(attention)
    rows = work.per_layer()
    assert sum(row["prefill_flops"] for row in rows) + 2 * 64 * architecture.vocabulary == total(
        work.prefill()
    )
    assert [row["kv_bytes"] for row in rows] == work.kv_bytes()
    assert max(row["peak_activation_bytes"] for row in rows) == work.peak_activation()
    assert work.vanilla.counts == [16] * 8 and work.vanilla.text == work.text == n_text
    assert not work.fused and not work.elsewhere(ARCHITECTURES["llava-1.5-7b"], 576).fused


def test_an_encoder_that_compresses_is_in_the_trace(lvlm):
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 1}
    trace = lvlm.answer(**request, method="illava", encoder_layers=(1, 2)).trace
    architecture = Architecture.of("micro", lvlm.family.model.config)
    work = Workload.of(trace, architecture)
    (first, second), depth = [e.reduction.n_out for e in trace.events[:2]], N_ENCODER_LAYERS
    assert work.patches == [16, 16, first] + [second] * (depth - 3)
    assert work.n == 16 and work.vanilla.patches is None
    there = work.elsewhere(ARCHITECTURES["llava-1.5-7b"], 2 * 576)
    assert (len(there.patches), there.patches[0], len(there.counts)) == (24, 1152, 32)
    assert there.patches[-1] / 1152 == pytest.approx(second / 16, abs=0.001)
    assert there.counts[0] / 1152 == pytest.approx(work.counts[0] / 16, abs=0.001)


@pytest.mark.parametrize("name", ["llava", *FAMILIES, "qwen2_vl"])
def test_every_counted_family_multiplies_what_is_said(name, monkeypatch):
    build = {"llava": make_lvlm, "qwen2_vl": lambda a: LVLM(name, make_family(name, a))}
    with build.get(name, lambda a: lvlm_of(name, a))("eager") as lvlm:
        model, calls = lvlm.family.model, []
        monkeypatch.setattr(model, "forward", recorded(model.forward, calls))
        images = [make_image(0, 160, 120), make_image(1, 60, 90)]
        work, _ = of_answer(lvlm, lvlm.architecture, images=images, method="vanilla")
        assert [total(work.prefill()), total(work.decode())] == calls
        prepared = lvlm.family.prepare(Media(images))
        merger = total(work.connector()) if name == "qwen2_vl" else 0  # part of its encoder
        assert total(work.encoder()) + merger == counted(lambda: lvlm.family.encode(prepared))


@pytest.mark.parametrize("name", ["llava", "llava-next", "llava-onevision", "qwen2_vl"])
def test_an_encoder_that_compresses_multiplies_what_is_said(name, monkeypatch):
    """A layer that compresses does so between its attention and its MLP."""
    build = {"llava": make_lvlm, "qwen2_vl": lambda a: LVLM(name, make_family(name, a))}
    with build.get(name, lambda a: lvlm_of(name, a))("eager") as lvlm:
        calls, family = [], lvlm.family
        monkeypatch.setattr(family, "encode", recorded(family.encode, calls))
        last = family.last_encoder_layer
        own = {"method": "random", "site": "encoder", "ratio": 0.3, "encoder_layers": (1, last)}
        work, _ = of_answer(lvlm, lvlm.architecture, images=[make_image(0, 160, 120)], **own)
        merger = total(work.connector()) if name == "qwen2_vl" else 0
        assert work.patches[-1] < work.patches[-2] < work.patches[0]
        # Tiles with a margin of padding have fewer to reduce than others; counted is their mean.
        exact = 0.01 if name == "llava-next" else 0
        assert total(work.encoder()) + merger == pytest.approx(sum(calls), rel=exact)


@pytest.mark.parametrize("name", ["llava", *FAMILIES])
def test_the_connector_takes_what_a_method_before_it_leaves_where_it_comes_after(name, monkeypatch):
    with lvlm_of(name, "eager") if name in FAMILIES else make_lvlm("eager") as lvlm:
        projector, calls = lvlm.family.model.model.multi_modal_projector, []
        monkeypatch.setattr(projector, "forward", recorded(projector.forward, calls))
        inside = {"method": "random", "site": "encoder", "encoder_layers": (1,)}
        for own in (*({"method": name} for name in ("vanilla", "spatial", "libra")), inside):
            calls.clear()
            work, _ = of_answer(lvlm, lvlm.architecture, images=[make_image()], **own)
            assert total(work.connector()) == sum(calls), own


def recorded(forward, calls):
    """A model's call that notes down what it multiplies."""

    def run(*args, **kwargs):
        out = []
        calls.append(counted(lambda: out.append(forward(*args, **kwargs))))
        return out[0]

    return run


def test_other_families_are_not_counted():
    for name in ("qwen2_5_vl", "qwen3_vl"):
        with LVLM(name, make_family(name)) as lvlm:
            assert lvlm.architecture is None
    with make_lvlm_3() as lvlm:
        assert lvlm.architecture is None


@pytest.fixture(scope="module", params=["qwen2_vl", "llava-next-video", "videollama3"])
def pooling(request):
    """A model that pools patches, unless a method shrinks them in its encoder; its sizes."""
    build = {
        "qwen2_vl": lambda: LVLM("qwen2_vl", make_family("qwen2_vl", "eager")),
        "llava-next-video": lambda: lvlm_of("llava-next-video", "eager"),
        "videollama3": make_lvlm_3,
    }[request.param]
    with build() as lvlm:
        yield lvlm, Architecture.of(request.param, lvlm.family.model.config)


def of_answer(lvlm, architecture, **request):
    trace = lvlm.answer(question=QUESTION, max_new_tokens=2, **request).trace
    return Workload.of(trace, architecture), trace


def test_what_vanilla_would_cost_is_what_it_costs(pooling):
    film = {"video": Clip([make_image(i, 160, 120) for i in range(4)], [0, 1, 2, 3], 4.0, "film")}
    plain, _ = of_answer(*pooling, method="vanilla", **film)
    for method in ("vanilla", "libra", "illava"):
        work, trace = of_answer(*pooling, method=method, **film)
        assert (work.n, work.units) == (plain.n, plain.units), method
        assert f", {plain.n} visual and " in trace.timings.where
        assert work.vanilla.counts == plain.counts
        assert work.vanilla.kv_bytes() == plain.kv_bytes()
        assert work.itemsize == pooling[0].family.model.dtype.itemsize
        assert sum(trace.counts) / sum(plain.counts) == trace.cost.kv_bytes / (
            trace.cost.vanilla_kv_bytes
        )
        there = work.elsewhere(ARCHITECTURES["qwen2-vl-7b"], 100)
        assert max(there.patches or [400]) == 400


def test_pictures_of_different_sizes_are_units_of_different_sizes():
    with LVLM("qwen2_vl", make_family("qwen2_vl", "eager")) as lvlm:
        architecture = Architecture.of("micro", lvlm.family.model.config)
        images = [make_image(i, *size) for i, size in enumerate(((160, 120), (60, 60), (60, 200)))]
        work, trace = of_answer(lvlm, architecture, images=images, method="vanilla")
        assert len(set(trace.cost.units)) > 1
        prepared = lvlm.family.prepare(Media(images))
        everything = counted(lambda: lvlm.family.encode(prepared))  # its merger is the connector
        assert total(work.encoder()) + total(work.connector()) == everything


def test_heads_together_may_be_wider_than_the_hidden_state():
    """As in Qwen3-VL-4B: 32 heads of 128 numbers, and hidden states of 2,560."""
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_hidden_layers=1,
        attn_implementation="eager",
    )
    layer, rotary = LlamaDecoderLayer(config, layer_idx=0), LlamaRotaryEmbedding(config)
    hidden, position = torch.zeros(1, 10, 64), torch.arange(10)[None]
    tables = rotary(hidden, position)
    expected = counted(lambda: layer(hidden, position_embeddings=tables))
    stack = Stack(1, 64, 96, 4, 64, d_q=128)
    assert total(layer_operations(stack, 10)) == expected
    assert 2 * prefill_flops([10], 64, 96, d_kv=64, d_q=128) == expected
