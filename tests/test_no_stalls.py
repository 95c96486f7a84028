"""The way through the decoder on an accelerator: nothing there may wait for a number.

Meta tensors stand in for those of an accelerator. They have a shape and a device but no contents,
so whatever asks for a number, or brings one back to the CPU, raises.
"""

import pytest
import torch
from conftest import make_model

from libra import methods
from libra.compression import Compression
from libra.decoder import CompressedCache, DecoderSequence, Hooks
from libra.layout import TokenLayout
from libra.media import Media
from libra.models.prepared import Prepared
from libra.reduction import Reduction

N, WORDS, LAYERS = 16, 5, (1, 3)


@pytest.fixture(scope="module")
def model():
    return make_model(dtype=torch.float32).to("meta")


def prefill(model, method, tracing):
    """The decoder over a prompt, and one word more: visual tokens in every layer."""
    prepared = Prepared.of_pictures(Media([]), TokenLayout.square_crop(1, 1, (4, N // 4)))
    request = Compression(method, prepared, LAYERS, tracing=tracing)
    sequence = DecoderSequence(request, torch.arange(2, 2 + N))
    cache = CompressedCache(model.config, sequence)
    embedded = torch.zeros(1, N + WORDS, 64, device="meta")
    word = torch.zeros(1, 1, dtype=torch.long, device="meta")
    hooks = Hooks(model.model.language_model.layers, "sdpa")
    try:
        with torch.no_grad():
            model(inputs_embeds=embedded, past_key_values=cache, use_cache=True)
            model(input_ids=word, past_key_values=cache, use_cache=True)
    finally:
        hooks.remove()
    return sequence.counts


@pytest.mark.parametrize("tracing", [False, True])
@pytest.mark.parametrize("name", ["fastv", "turbo", "pyramiddrop", "sparsevlm"])
def test_the_decoder_waits_for_nothing(model, name, tracing):
    counts = prefill(model, methods.create(name, ratio=0.5), tracing)
    assert counts == [16, 16, 8, 8, 4, 4, 4, 4]


def test_what_waits_is_found(model):
    with pytest.raises(RuntimeError, match="item"):
        prefill(model, methods.create("greedy", ratio=0.5), False)


def test_libra_waits_once_for_whether_anything_needs_compensation(model, monkeypatch):
    with pytest.raises(RuntimeError, match="item"):
        prefill(model, methods.create("libra", ratio=0.5), False)
    asked = []
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: bool(asked.append(tensor)))
    prefill(model, methods.create("libra", ratio=0.5), False)
    assert len(asked) == len(LAYERS)


def test_a_map_on_an_accelerator_is_applied_without_a_look_at_it():
    index = torch.zeros(3, dtype=torch.long, device="meta")
    hidden = torch.zeros(1, 4, 8, device="meta")
    assert Reduction.select(index, 4).apply(hidden).shape == (1, 3, 8)
    more = torch.zeros(5, dtype=torch.long, device="meta")
    merged = Reduction(4, more, more, torch.ones(5, device="meta"), index)
    assert merged.apply(hidden).shape == (1, 3, 8)
