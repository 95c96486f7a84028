"""The way through the decoder on an accelerator: nothing there may wait for a number.

Meta tensors stand in for those of an accelerator. They have a shape and a device but no contents,
so whatever asks for a number, or brings one back to the CPU, raises. `NothingBrought` refuses the
other way: numbers of the CPU that go there only once all that is queued is done.
"""

import contextlib

import pytest
import torch
from conftest import make_image, make_image_processor, make_model, make_tokenizer
from micro_qwen import make_family
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from libra import methods, vacancy
from libra.batch import PackedCache, PackedSequence
from libra.compression import Compression
from libra.decoder import CompressedCache, DecoderSequence, Hooks
from libra.layout import TokenLayout
from libra.media import Media
from libra.methods.fastv import FastV
from libra.models.llava import Llava
from libra.models.prepared import Prepared
from libra.models.qwen3_vl import with_deepstack
from libra.reduction import Reduction

N, WORDS, LAYERS, DEPTH = 16, 5, (1, 3), 5


class NoCopies(TorchDispatchMode):
    """Refuses copies from the CPU that are waited for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            there = kwargs.get("device", torch.device("cpu"))
            if there.type == "meta" and not kwargs.get("non_blocking"):
                raise RuntimeError("a copy from the CPU is waited for")
        return func(*args, **kwargs)


class NothingBrought(TorchFunctionMode):
    """Refuses whatever takes numbers along, and copies that are waited for."""

    def __enter__(self):
        self._copies = NoCopies()
        self._copies.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._copies.__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        made = func in (torch.tensor, torch.as_tensor) and "device" in kwargs
        if func is torch.Tensor.new_tensor or made:
            raise RuntimeError("a list is taken along")
        return func(*args, **kwargs)


@pytest.fixture(scope="module")
def model():
    """As shallow as two events and what comes after them need: each layer takes its time here."""
    model = make_model(dtype=torch.float32).to("meta")
    model.config.text_config.num_hidden_layers = DEPTH
    del model.model.language_model.layers[DEPTH:]
    return model


def cache_of(model, method, tracing):
    """The cache of a request about `N` visual tokens."""
    prepared = Prepared.of_pictures(Media([]), TokenLayout.square_crop(1, 1, (4, N // 4)))
    request = Compression(method, prepared, LAYERS, tracing=tracing)
    return CompressedCache(model.config, DecoderSequence(request, torch.arange(2, 2 + N)))


def prefill(model, method, tracing):
    """The decoder over a prompt, and three words more: visual tokens in every layer.

    No words with Libra-Merging: by the first one, which is waited for, what is open is settled.
    """
    cache = cache_of(model, method, tracing)
    embedded = torch.zeros(1, N + WORDS, 64, device="meta")
    word = torch.zeros(1, 1, dtype=torch.long, device="meta")
    hooks = Hooks(model.model.language_model.layers, "sdpa")
    try:
        with torch.no_grad(), NothingBrought():
            model(inputs_embeds=embedded, past_key_values=cache, use_cache=True)
            for _ in range(3 * (method.name != "libra")):
                model(input_ids=word, past_key_values=cache, use_cache=True)
    finally:
        hooks.remove()
    return cache.sequence.counts


@pytest.mark.parametrize("name", ["vanilla", "fastv", "libra"])
def test_flash_attention_need_not_ask_whether_sequences_are_packed(model, name):
    """It looks at position ids for that, in every layer: there must be none."""
    given, plain = [], ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attention(module, *args, **kwargs):
        given.append(kwargs.get("position_ids"))
        return plain(module, *args, **kwargs)

    ALL_ATTENTION_FUNCTIONS.register("sdpa", attention)
    try:
        prefill(model, made(name), False)
    finally:
        ALL_ATTENTION_FUNCTIONS.register("sdpa", plain)
    assert len(given) >= DEPTH and all(ids is None for ids in given)


def made(name, **params):
    """A method inside the decoder, halving the tokens where it can be told to."""
    known = {p.name for p in methods.parameters(name)}
    wanted = {"ratio": 0.5, "site": "decoder"} | params
    return methods.create(name, **{key: x for key, x in wanted.items() if key in known})


INSIDE = [name for name in methods.names() if "decoder" in made(name).sites()]


@pytest.mark.parametrize("tracing", [False, True])
@pytest.mark.parametrize("name", [name for name in INSIDE if name != "greedy"])
def test_the_decoder_waits_for_nothing(model, name, tracing):
    counts = prefill(model, made(name), tracing)
    fewer = name == "vanilla" or counts[-1] < counts[0]
    assert len(counts) == DEPTH and counts[0] == N and fewer


PRESETS = [
    (name, preset) for name in INSIDE if name != "greedy" for preset in methods.get(name).presets
]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_presets_wait_for_nothing(model, name, preset):
    settings = methods.get(name).presets[preset]
    waits = settings.get("compensation") == "none"  # how many tokens are dropped is a number
    with pytest.raises(NotImplementedError) if waits else contextlib.nullcontext():
        prefill(model, made(name, **settings), False)


@pytest.mark.parametrize("compensation", ["end", "begin"])
@pytest.mark.parametrize("merge", ["grouped", "positive", "negative", "average", "prune"])
@pytest.mark.parametrize("count", [{}, {"identify": "topk"}, {"ratio": 0.0}, {"keep": 5}])
def test_libra_waits_for_nothing(model, compensation, merge, count):
    prefill(model, made("libra", compensation=compensation, merge=merge, **count), False)


@pytest.mark.parametrize("tracing", [False, True])
@pytest.mark.parametrize("second", ["fastv", "libra"])
def test_a_batch_waits_for_nothing(model, second, tracing):
    caches = [cache_of(model, made(name), tracing) for name in ("vanilla", second, "turbo")]
    hooks = Hooks(model.model.language_model.layers, "sdpa")
    try:
        with torch.no_grad():
            for n in (N + WORDS, 1, 1)[: 1 if second == "libra" else 3]:
                sequence = PackedSequence(caches, [n] * len(caches))
                embedded = torch.zeros(1, n * len(caches), 64, device="meta")
                cache = PackedCache(sequence)
                out = model(inputs_embeds=embedded, past_key_values=cache, use_cache=True)
                assert out.logits.shape[1] == len(caches)
    finally:
        hooks.remove()
    assert [cache.sequence.counts[-1] for cache in caches] == [
        N,
        N // 4 + (second == "libra"),
        N // 4,
    ]


AT_ONCE = {"visionzip", "fastervlm", "sequential", "spatial"}
IN_ROUNDS = {"prumerge", "prumerge+", "divprune"}  # their numbers of tokens depend on the contents
IN_ENCODER = {"illava", "tome", "evit"}


def test_every_method_is_looked_at():
    assert set(INSIDE) | AT_ONCE | IN_ROUNDS | IN_ENCODER == set(methods.names())


@pytest.mark.parametrize("name", sorted(AT_ONCE | IN_ROUNDS))
def test_between_encoder_and_decoder_few_methods_wait(name):
    known = dict.fromkeys(("importance", "keys", "received"), torch.zeros(N, device="meta"))
    known["keys"] = torch.zeros(N, 8, device="meta")
    hidden, layout = torch.zeros(N, 64, device="meta"), TokenLayout.square_crop(1, 1, (4, N // 4))
    tokens, method = methods.Tokens(hidden, **known, layout=layout), methods.create(name)
    if name in AT_ONCE:
        assert len(method.reduce(tokens).apply(hidden)) == N // 2
    else:
        with pytest.raises((RuntimeError, NotImplementedError)):
            method.reduce(tokens)


CULPRITS = {
    "item": lambda x: x.sum().item(),
    "a branch": lambda x: 1 if (x > 0).any() else 2,
    "a list": lambda x: x.tolist(),
    "a copy": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "a mask as index": lambda x: x[x > 0],
    "distinct values": lambda x: x.unique(),
    "a list taken along": lambda x: x.new_tensor([1]),
    "a tensor taken along": lambda x: torch.arange(3).to(x.device),
}


@pytest.mark.parametrize("culprit", CULPRITS.values(), ids=CULPRITS)
def test_what_waits_is_found(model, culprit, monkeypatch):
    fastv, decide = made("fastv"), FastV.decide

    def stalling(self, tokens, n_keep):
        culprit(tokens.importance)
        return decide(self, tokens, n_keep)

    prefill(model, fastv, False)
    monkeypatch.setattr(FastV, "decide", stalling)
    with pytest.raises((RuntimeError, NotImplementedError)):
        prefill(model, fastv, False)


def test_merging_pair_by_pair_waits(model):
    with pytest.raises(RuntimeError, match="item"):
        prefill(model, made("greedy"), False)


def test_libra_waits_where_it_may(model, monkeypatch):
    prefill(model, made("libra"), False)
    monkeypatch.setattr(vacancy, "runs_ahead", lambda device: False)
    with pytest.raises(RuntimeError, match="item"):
        prefill(model, made("libra"), False)


@pytest.mark.parametrize("n_pictures", [1, 3])
@pytest.mark.parametrize("name", sorted(IN_ENCODER | {"random", "kmeans"}))
def test_the_encoder_waits_for_nothing_between_its_layers(name, n_pictures):
    known = {p.name for p in methods.parameters(name)}
    method = methods.create(name, **({"site": "encoder"} if "site" in known else {}))
    family = Llava(make_model(dtype=torch.float32), make_tokenizer(), make_image_processor())
    prepared = family.prepare(Media([make_image(i) for i in range(n_pictures)]))
    request = Compression(method, prepared, encoder_layers=(1, 2))
    family.model.to("meta")
    units, nothing = request._units(), NothingBrought()
    begin = family.encoder_layers[0].register_forward_pre_hook(
        lambda *x: nothing.__enter__() and None
    )
    try:
        with torch.no_grad():
            hidden = family.encode(prepared, units).hidden
    finally:
        nothing.__exit__(None, None, None)
        begin.remove()
    for i, unit in units.items():
        assert len(unit.reductions) == 2
        assert len(hidden[i]) == unit.reductions[-1].n_out < N
        assert unit.left.device.type == "meta" and len(unit.left) == len(hidden[i])


def test_a_map_on_an_accelerator_is_applied_without_a_look_at_it():
    index = torch.zeros(3, dtype=torch.long, device="meta")
    hidden = torch.zeros(1, 4, 8, device="meta")
    assert Reduction.select(index, 4).apply(hidden).shape == (1, 3, 8)
    more = torch.zeros(5, dtype=torch.long, device="meta")
    merged = Reduction(4, more, more, torch.ones(5, device="meta"), index)
    assert merged.apply(hidden).shape == (1, 3, 8)
    as_many = Reduction(4, more[:4], more[:4], torch.ones(4, device="meta"), more[:4])
    assert as_many.apply(hidden).shape == (1, 4, 8)  # it could be a selection: nobody asks


def test_deepstack_features_are_added_without_a_look_at_where():
    own = Qwen3VLTextModel._deepstack_process
    hidden, features = torch.randn(2, 6, 8), torch.randn(5, 8)
    places = torch.tensor([[0, 1, 1, 0, 1, 0], [1, 0, 0, 0, 0, 1]], dtype=torch.bool)
    assert torch.equal(
        with_deepstack(hidden, places, features), own(None, hidden, places, features)
    )
    there = [x.to("meta") for x in (hidden, places, features)]
    with NothingBrought():
        assert with_deepstack(*there).shape == hidden.shape
    with pytest.raises((RuntimeError, NotImplementedError)):
        own(None, *there)
    decoder = make_family("qwen3_vl").model.model.language_model
    assert decoder._deepstack_process is with_deepstack
