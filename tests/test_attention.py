"""Hybrid attention: the tapped row, and what is left behind."""

import pytest
import torch
from conftest import QUESTION, make_image, make_lvlm, make_model
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from libra.attention import LAST, LAST_TWO, PARTS, TAP, HybridAttention, attention_rows
from libra.lvlm import LVLM


def full_rows(query, key, scaling, mask=None):
    """All rows of the causal attention matrix, one head and one query at a time."""
    heads, groups = query.shape[1], query.shape[1] // key.shape[1]
    n, later = query.shape[2], key.shape[2] - query.shape[2]
    rows = torch.zeros(n, key.shape[2], dtype=torch.float64)
    for head in range(heads):
        for i in range(n):
            visible = key[0, head // groups, : i + later + 1].double()
            scores = visible @ query[0, head, i].double() * scaling
            if mask is not None:
                scores = scores + mask[i, : i + later + 1]
            rows[i, : i + later + 1] += scores.softmax(0) / heads
    return rows


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("queries", [[-1], [6], [0, 3, 6]])
def test_rows_are_those_of_the_matrix(key_heads, dtype, queries):
    query, key = torch.randn(1, 4, 7, 8).to(dtype), torch.randn(1, key_heads, 9, 8).to(dtype)
    rows = attention_rows(query, key, 0.3, torch.tensor(queries) % 7)
    assert rows.dtype == torch.promote_types(dtype, torch.float32)
    expected = full_rows(query, key, 0.3)[queries].to(rows.dtype)
    torch.testing.assert_close(rows.mean(0), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows[..., 0]))


def test_rows_are_those_of_each_head():
    query, key = torch.randn(1, 4, 7, 8), torch.randn(1, 2, 9, 8)
    rows = attention_rows(query, key, 0.3, torch.tensor([2, 6]))
    for head in range(4):
        alone = full_rows(query[:, [head]], key[:, [head // 2]], 0.3)[[2, 6]].float()
        torch.testing.assert_close(rows[head], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("n_keys", [7, 9])
def test_the_last_rows_can_be_had_without_their_numbers(n_keys):
    query, key = torch.randn(1, 4, 7, 8), torch.randn(1, 2, n_keys, 8)
    hidden = torch.zeros(1, 1, 7, n_keys).index_fill(3, torch.tensor([1, 4]), -torch.inf)
    for mask in (None, hidden, hidden == 0):
        rows = attention_rows(query, key, 0.3, LAST, mask)
        torch.testing.assert_close(rows, attention_rows(query, key, 0.3, torch.tensor([6]), mask))
        two = attention_rows(query, key, 0.3, LAST_TWO, mask)
        torch.testing.assert_close(two, attention_rows(query, key, 0.3, torch.tensor([5, 6]), mask))
    assert rows.shape == (4, 1, n_keys) and (rows[..., [1, 4]] == 0).all()


def test_rows_obey_masks():
    query, key = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8)
    visible = torch.ones(6, 6, dtype=torch.bool).tril()
    visible[3:, 2] = False
    additive = torch.zeros(6, 6).masked_fill(~visible, torch.finfo(torch.float32).min)
    expected = full_rows(query, key, 0.5, additive.double()).float()
    assert expected[5, 2] == 0
    for mask in (visible, additive):
        rows = attention_rows(query, key, 0.5, torch.arange(6), mask[None, None])
        torch.testing.assert_close(rows.mean(0), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("method", ["libra", "fastv", "prumerge"])
def test_answers_through_flash_attention_are_those_of_sdpa(monkeypatch, method):
    """It is called by its own name, without masks and taps; here SDPA computes for it."""
    calls, sdpa = [], ALL_ATTENTION_FUNCTIONS["sdpa"]

    def flash(module, query, key, value, mask, *args, **settings):
        assert mask is None and not {TAP, PARTS} & settings.keys()
        calls.append(module)
        return sdpa(module, query, key, value, mask, *args, **settings)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", flash)
    request = {"images": [make_image()], "question": QUESTION, "method": method}
    with make_lvlm() as lvlm:
        expected, family = lvlm.answer(**request, max_new_tokens=4).trace, lvlm.family
    assert not calls
    family.model.config._attn_implementation = "flash_attention_2"
    with LVLM("micro", family) as lvlm:
        trace = lvlm.answer(**request, max_new_tokens=4).trace
    assert {layer.self_attn for layer in family.decoder_layers} <= set(calls)
    assert (trace.answer, trace.counts) == (expected.answer, expected.counts)
    assert [w.probability for w in trace.words] == [w.probability for w in expected.words]
    for row, other in zip(trace.importance, expected.importance, strict=True):
        assert row.equal(other)
    assert ALL_ATTENTION_FUNCTIONS["flash_attention_2"] is flash


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_tapped_layer_sees_what_eager_attention_computes(attention):
    """Against the matrix that the model itself forms, for every layer."""
    ids = torch.arange(7, 20)[None]
    reference = make_model("eager", torch.float32)
    with torch.no_grad():
        matrices = reference(input_ids=ids, output_attentions=True).attentions
    model = make_model(attention, torch.float32)
    layers = model.model.language_model.layers
    hybrid = HybridAttention([layer.self_attn for layer in layers], attention)
    seen = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda module, args, kwargs, i=i: (
                args,
                kwargs | {TAP: lambda rows: seen.update({i: rows(torch.tensor([4, 12]))})},
            ),
            with_kwargs=True,
        )
        for i, layer in enumerate(layers)
    ]
    with torch.no_grad():
        tapped = model(input_ids=ids).logits
        for hook in hooks:
            hook.remove()
        plain = model(input_ids=ids).logits
    hybrid.remove()
    assert torch.equal(tapped, plain)
    for i, matrix in enumerate(matrices):
        expected = matrix[0][:, [4, 12]]
        torch.testing.assert_close(seen[i], expected, atol=1e-5, rtol=1e-4)


def test_the_registry_is_restored_when_the_last_user_goes():
    def plain(module, query, key, value, attention_mask, **kwargs):
        return kwargs

    ALL_ATTENTION_FUNCTIONS.register("plain_for_test", plain)
    first, second = HybridAttention([], "plain_for_test"), HybridAttention([], "plain_for_test")
    wrapped = ALL_ATTENTION_FUNCTIONS["plain_for_test"]
    assert wrapped is not plain
    rows, query = [], torch.randn(1, 2, 3, 4)
    tap = {TAP: lambda rows_of: rows.append(rows_of(torch.tensor([2])))}
    passed = wrapped(None, query, query, query, None, scaling=1.0, **tap)
    assert passed == {"scaling": 1.0}
    assert [row.shape for row in rows] == [(2, 1, 3)]
    first.remove()
    assert ALL_ATTENTION_FUNCTIONS["plain_for_test"] is wrapped
    second.remove()
    assert ALL_ATTENTION_FUNCTIONS["plain_for_test"] is plain
