"""Requests on an accelerator, and on two, that are not there: see `pretend_gpu`."""

import contextlib
import types

import conftest
import pytest
import torch
from pretend_gpu import GPUS, Gpus, GpuTensor, put
from test_family_all import BUILD, QUESTION, ask, clip
from torch.utils._pytree import tree_map_only

from libra import InputError, generation, methods
from libra.conversation import Memory

VACANT = {  # whether there is a compensation token stays open on a GPU: there is none, or there is
    "libra, none": {"method": "libra", "tau": -1.0},
    "libra, one": {"method": "libra", "tau": 0.99},
}
ONE = {"images": [conftest.make_image(0)]}


@pytest.fixture
def gpus(monkeypatch):
    """The devices; random numbers come from the CPU, which alone has a generator."""
    stand_in = types.SimpleNamespace(**vars(torch))
    stand_in.Generator = lambda device: torch.Generator()
    monkeypatch.setattr(generation, "torch", stand_in)
    return Gpus()


def alike(one, other):
    """The same answer for the same reason."""
    assert one.text == other.text
    for a, b in zip(one.trace.events, other.trace.events, strict=True):
        assert b.reduction.slot.device.type == "cpu" and a.reduction.slot.equal(b.reduction.slot)


def test_what_a_card_refuses_is_refused(gpus):
    here = torch.ones(3)
    with gpus:
        there, far = (torch.ones(3, device=gpu) for gpu in GPUS)
        there[1:] += 1
        assert isinstance(there, GpuTensor) and (there.cpu() + here).tolist() == [2, 3, 3]
        assert far.to(GPUS[0]).add(there).tolist() == [2, 3, 3]
        assert there[torch.tensor([0])].tolist() == [1]
        for wrong in (
            lambda: there + here,
            lambda: there + far,
            lambda: here[torch.tensor([0], device=GPUS[0])],
        ):
            with pytest.raises(RuntimeError, match="same device"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


@pytest.mark.parametrize("name", methods.names())
def test_every_method_on_a_gpu(gpus, name, lvlm):
    request = ONE | {"method": name, "tracing": True}
    plain = ask(lvlm, **request)
    with conftest.make_lvlm() as other:
        put(other.family.model, GPUS[0])
        with gpus:
            alike(plain, ask(other, **request))


@pytest.mark.parametrize("family", BUILD)
@pytest.mark.parametrize("name", ["libra", "illava", "prumerge"])
def test_every_family_on_a_gpu(gpus, family, name):
    request = {"video": clip(3), "method": name, "tracing": "full"}
    with BUILD[family]() as plain, BUILD[family]() as other:
        put(other.family.model, GPUS[0])
        try:
            expected = ask(plain, **request)
        except InputError:
            pytest.skip("its encoder has not what the method needs")
        with gpus:
            alike(expected, ask(other, **request))


INSIDE = [name for name in methods.names() if "decoder" in methods.create(name).sites()]


@pytest.mark.parametrize("tracing", [True, "full"])
@pytest.mark.parametrize("name", [*INSIDE, *VACANT])
def test_a_decoder_spread_over_two_gpus(gpus, name, lvlm, tracing):
    layers = {"layers": [1, 5]} if name != "vanilla" else {}  # before and after the border
    request = ONE | layers | VACANT.get(name, {"method": name}) | {"tracing": tracing}
    plain = ask(lvlm, **request)
    with conftest.make_lvlm() as other:
        spread(other.family)
        with gpus:
            alike(plain, ask(other, **request))


@pytest.mark.parametrize("family", ["llava-next-video", "qwen2_vl", "qwen3_vl", "videollama3"])
def test_a_follow_up_on_two_gpus(gpus, family):
    first = {"video": clip(3), "method": "libra", "tracing": True}
    answers = []
    with BUILD[family]() as plain, BUILD[family]() as other:
        spread(other.family)
        for lvlm in (plain, other):
            with gpus if lvlm is other else contextlib.nullcontext():
                memory = Memory()
                history = [(QUESTION, ask(lvlm, **first, memory=memory).text)]
                further = {"question": "what is there ?", "history": history}
                answers.append(ask(lvlm, **first | further, memory=memory))
    alike(*answers)
    assert answers[1].trace.timings.encoder == 0


@pytest.mark.parametrize("tracing", [True, "full"])
@pytest.mark.parametrize("cards", [1, 2])
def test_a_batch_on_gpus(gpus, lvlm, cards, tracing):
    names = ("vanilla", *VACANT, "prumerge+", "illava", "turbo")
    requests = [
        ONE | {"question": QUESTION, "tracing": tracing} | VACANT.get(name, {"method": name})
        for name in names
    ]
    plain = lvlm.answer_batch(requests)
    with conftest.make_lvlm() as other:
        spread(other.family) if cards == 2 else put(other.family.model, GPUS[0])
        with gpus:
            answers = other.answer_batch(requests)
    for one, expected in zip(answers, plain, strict=True):
        alike(one, expected)


def spread(family):
    """Put the second half of a decoder on another card, as accelerate does.

    What a layer is called with comes to its card when the layer itself runs, after its hooks.
    """
    put(family.model, GPUS[0])
    second = list(family.decoder_layers)[family.geometry.n_layers // 2 :]
    for layer in second:
        put(layer, GPUS[1])
        layer.forward = bringing(layer.forward, GPUS[1])
    norm = family.model.model.language_model.norm
    norm.forward = bringing(norm.forward, GPUS[0])


def bringing(forward, gpu):
    """A forward whose arguments come to the GPU first."""

    def called(*args, **kwargs):
        args, kwargs = tree_map_only(GpuTensor, lambda x: x.to(gpu), (args, kwargs))
        return forward(*args, **kwargs)

    return called
