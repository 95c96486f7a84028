"""Units that go through the encoder together, against the same units sent alone."""

from types import SimpleNamespace

import pytest
import torch
from conftest import make_image
from test_family_all import BUILD

from libra.compression import Compression
from libra.media import Media
from libra.methods import create
from libra.models import features
from libra.models.features import EncoderAttention
from libra.models.units import alike, bounds, together

LAYERS = (1, 2)
METHODS = {
    "illava": create("illava", ratio=0.4),
    "illava, as in the paper": create("illava", ratio=0.4, follow="paper"),
    "tome": create("tome", ratio=0.25),
    "evit": create("evit", ratio=0.3),
}
EQUAL = [(80, 60)] * 3
DIFFERENT = [(80, 60), (60, 130), (80, 60), (150, 90)]
FAMILIES = ("llava", "llava-next", "llava-onevision", "qwen2_vl", "videollama3")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    with BUILD[request.param]() as lvlm:
        yield lvlm.family


def pictures(sizes):
    """One picture of noise of each size."""
    return [make_image(i, *size) for i, size in enumerate(sizes)]


@torch.no_grad()
def encoded(family, images, method, layers=LAYERS, **settings):
    """Patches [n, D] and maps of every unit, reduced inside the encoder."""
    prepared = family.prepare(Media(images), pooled=False)
    compression = Compression(method, prepared, encoder_layers=layers, **settings)
    hidden = compression.encode(family).hidden
    return hidden, [unit.reductions for unit in compression.encoder_units.values()]


def skip_without_cls(family, method):
    """A method that ranks by the CLS token needs one."""
    if method.name == "evit" and not family.has_cls:
        pytest.skip("its encoder has no CLS token")


@pytest.mark.parametrize("sizes", [EQUAL, DIFFERENT], ids=["equal", "different"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_units_at_onceequal_units_alone(family, sizes, method):
    skip_without_cls(family, method)
    images = pictures(sizes)
    hidden, maps = encoded(family, images, method)
    if family.name == "llava-onevision":  # one picture alone is cut into tiles
        alone = [encoded(family, [image, images[0]], method) for image in images]
        alone = [(x[:1], own[:1]) for x, own in alone]
    else:
        alone = [encoded(family, [image], method) for image in images]
    one_by_one = [x for parts, _ in alone for x in parts], [x for _, parts in alone for x in parts]
    for got, expected in zip(hidden, one_by_one[0], strict=True):
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=0)
    for got, expected in zip(maps, one_by_one[1], strict=True):
        assert len(got) == len(expected) == len(LAYERS)
        for one, other in zip(got, expected, strict=True):
            assert one.slot.equal(other.slot)
            torch.testing.assert_close(one.dense(), other.dense(), atol=1e-9, rtol=0)


def test_tokens_forced_in_one_unit_change_no_other(family):
    """The unit that a patch is taken from may be shorter than the others from then on."""
    method, images = create("random", ratio=0.0, site="encoder"), pictures(EQUAL)
    chunk = family.prepare(Media(images), pooled=False).chunk
    plain, _ = encoded(family, images, method, generator=torch.Generator())
    drop = {"drop": [*range(chunk)], "generator": torch.Generator()}
    less, maps = encoded(family, images, method, **drop)
    counts = [own[-1].n_out for own in maps]
    assert counts[0] == maps[0][0].n_in - chunk and counts[1:] == [own[0].n_in for own in maps[1:]]
    assert len(less[0]) < len(plain[0])
    for one, other in zip(less[1:], plain[1:], strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_number_of_calls_does_not_grow_with_equal_units(family, method):
    skip_without_cls(family, method)
    calls = []
    modules = [m for m in family.encoder_layers.modules() if isinstance(m, torch.nn.Linear)]
    hooks = [m.register_forward_pre_hook(lambda *call: calls.append(call)) for m in modules]
    spent = []
    for n in (2, 6):
        calls.clear()
        encoded(family, [make_image(i, 80, 60) for i in range(n)], method)
        spent.append(len(calls))
    for hook in hooks:
        hook.remove()
    assert spent[0] == spent[1] > 0


def test_units_are_grouped_by_their_length():
    assert alike("abacb") == [[0, 2], [1, 4], [3]]
    seen, units = [], [torch.full((n, 2), float(n)) for n in (3, 5, 3, 4)]
    out = together(lambda x: seen.append(x.shape) or 2 * x, units)
    assert seen == [(2, 3, 2), (1, 5, 2), (1, 4, 2)]
    assert all(torch.equal(x, 2 * unit) for x, unit in zip(out, units, strict=True))


@pytest.mark.parametrize("pairs", [1, 3 * 4 * 7, 2 * 4 * 7**2, 2**26])
def test_attention_of_several_units_is_that_of_each(pairs, monkeypatch):
    """However much of it is formed at once: some rows of a unit, or several units."""
    query, key = torch.randn(2, 5, 4, 7, 3, dtype=torch.float64)
    facts = (
        EncoderAttention.received,
        EncoderAttention.cls_row,
        lambda x: x.cls_row(joint=True),
        EncoderAttention.keys,
        lambda x: x.keys(joint=True),
    )
    for fact in facts:
        alone = [fact(EncoderAttention(q, k, 2)) for q, k in zip(query, key, strict=True)]
        with monkeypatch.context() as patched:
            patched.setattr(features, "PAIRS", pairs)
            at_once = fact(EncoderAttention(query, key, 2))
        torch.testing.assert_close(at_once, torch.stack(alone))


def test_where_units_begin_is_known_without_a_question_to_a_gpu():
    """Only flash attention takes it on the device; all others read the numbers in each layer."""
    for attention, device in (("sdpa", "cpu"), ("eager", "cpu"), ("flash_attention_2", "meta")):
        config = SimpleNamespace(_attn_implementation=attention)
        assert bounds([3, 4], config, torch.device("meta")).device.type == device
    assert bounds([3, 4], SimpleNamespace(_attn_implementation="sdpa"), "cpu").tolist() == [0, 3, 7]


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@torch.no_grad()
def test_whole_encoders_are_told_where_units_begin(name, monkeypatch):
    with BUILD[name]() as lvlm:
        family = lvlm.family
        prepared = family.prepare(Media([make_image(0, 80, 60), make_image(1, 60, 130)]))
        pixels, grids = family.pixels(prepared).to(family.model.dtype), family.grids(prepared)
        told, forward = [], family.tower.forward
        monkeypatch.setattr(
            family.tower, "forward", lambda *a, **k: told.append(k) or forward(*a, **k)
        )
        seen = family.see(pixels, grids, []).pooler_output
        assert torch.equal(seen, forward(pixels, grid_thw=grids).pooler_output)
        (kwargs,) = told
        assert kwargs["cu_seqlens"].tolist() == [0, *grids.prod(-1).cumsum(0).tolist()]
