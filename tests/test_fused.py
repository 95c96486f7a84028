"""Norms in one kernel: the same numbers as those that transformers writes out."""

import copy

import pytest
import torch
from test_family_all import BUILD, ask, clip
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from libra.models.fused import fuse_norms


@pytest.fixture(params=BUILD)
def lvlm(request):
    with BUILD[request.param]() as model:
        yield model


def written_out(model):
    """The norms that are not torch's own."""
    return [
        m for m in model.modules() if "RMSNorm" in type(m).__name__ and type(m) is not nn.RMSNorm
    ]


class Count(TorchDispatchMode):
    """Counts operations that compute: views are free."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += not func.is_view
        return func(*args, **(kwargs or {}))


def test_answers_are_the_same(lvlm):
    before = ask(lvlm, video=clip(2), method="libra", max_new_tokens=4).trace
    model = lvlm.family.model
    names, n_norms = list(model.state_dict()), len(written_out(model))
    fuse_norms(model)
    after = ask(lvlm, video=clip(2), method="libra", max_new_tokens=4).trace
    assert n_norms > 0 and not written_out(model)
    assert list(model.state_dict()) == names
    assert after.answer == before.answer
    for mine, theirs in zip(after.words, before.words, strict=True):
        assert mine.probability == pytest.approx(theirs.probability, rel=1e-4)
    for mine, theirs in zip(after.importance, before.importance, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)  # theirs is fp32 inside


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
def test_halves_are_rounded_once(dtype):
    parent = nn.Module()
    with BUILD["llava"]() as lvlm:
        parent.norm = copy.deepcopy(written_out(lvlm.family.model)[0])
    width = len(parent.norm.weight)
    parent.norm.weight.data = torch.linspace(0.1, 3, width)
    x = 30 * torch.randn(64, width, generator=torch.Generator().manual_seed(0)).to(dtype)
    parent.to(dtype)
    square = x.double().pow(2).mean(-1, keepdim=True) + parent.norm.variance_epsilon
    exact = x.double() / square.sqrt() * parent.norm.weight.double()
    twice = parent.norm(x)
    fuse_norms(parent)
    once = parent.norm(x)
    assert once.dtype == dtype
    assert (once - exact).abs().max() <= (twice - exact).abs().max()
    torch.testing.assert_close(once, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=0)


def test_fewer_operations():
    with BUILD["llava"]() as lvlm:
        layer = lvlm.family.decoder_layers[0].float()
        x = torch.randn(1, 3, lvlm.family.geometry.d)
        table = torch.ones(1, 3, layer.self_attn.head_dim)
        counts = []
        for change in (lambda model: None, fuse_norms):
            change(layer)
            with torch.inference_mode(), Count() as count:
                layer(x, position_embeddings=(table, table))
            counts.append(count.n)
    assert counts[1] <= counts[0] - 8, counts


def test_a_norm_that_brings_its_input_along_stays(lvlm):
    norms = written_out(lvlm.family.model)
    for norm in norms:
        norm._hf_hook = object()  # what accelerate leaves
    fuse_norms(lvlm.family.model)
    assert written_out(lvlm.family.model) == norms
