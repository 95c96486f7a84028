"""What must hold for every method, on random and adversarial tokens."""

import contextlib
import math

import pytest
import torch

from libra.errors import InputError
from libra.layout import TokenLayout
from libra.methods import METHODS, Tokens, create, get, parameters
from libra.reduction import Fate

EVERY = list(METHODS)
BY_RATIO = [name for name in EVERY if name != "vanilla"]

# What is special of some. A new method is tested as the others are until it stands here, too.
HALF_AT_MOST = {"tome"}  # cannot remove more at once
FUSES = {"libra", "evit", "prumerge", "prumerge+"}  # one output more than counted
NORMALISED = {"vanilla", "fastv", "libra", "turbo", "illava", "tome", "greedy", "kmeans", "random"}
ONE_OUTPUT_EACH = set(EVERY) - {"prumerge", "prumerge+"}


def tokens_of(n, seed, kind="random", dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, 6, generator=generator)
    alpha = torch.rand(n, generator=generator) / n
    if kind == "alike":
        hidden, alpha = torch.ones_like(hidden), torch.full_like(alpha, 1 / n)
    if kind == "pairs":
        hidden, alpha = hidden[torch.arange(n) // 2], alpha[torch.arange(n) // 2]
    if kind == "zero":
        hidden, alpha = torch.zeros_like(hidden), torch.zeros_like(alpha)
    return Tokens(
        hidden=hidden.to(dtype),
        importance=alpha,
        keys=(hidden[:, :4] + 0.1).to(dtype),
        received=alpha.flip(0),
        text_similarity=torch.randn(n, 5, generator=generator),
        text_attention=torch.rand(n, 5, generator=generator),
        layout=TokenLayout.square_crop(1, n, (n, 1)),
        generator=generator,
    )


def allowed(name, ratio):
    return min(ratio, 0.5) if name in HALF_AT_MOST else ratio


def test_methods_say_whether_they_look_at_sizes(monkeypatch):
    """The engine keeps count of them only for those that say so."""
    asked, sizes, running = set(), Tokens.sizes, [None]
    monkeypatch.setattr(Tokens, "sizes", lambda t: asked.add(running[0]) or sizes(t))
    for name in BY_RATIO:
        known = {parameter.name for parameter in parameters(name)}
        for preset in ({}, *get(name).presets.values()):
            settings = {key: value for key, value in preset.items() if key in known}
            running[0] = name
            with contextlib.suppress(InputError):  # the grid of a preset may not fit
                create(name, **settings | {"ratio": allowed(name, 0.5)}).reduce(tokens_of(24, 0))
    assert asked == {name for name in EVERY if get(name).weighs}


@pytest.mark.parametrize("name", BY_RATIO)
@pytest.mark.parametrize("kind", ["random", "alike", "pairs", "zero"])
def test_counts_ranges_and_weights(name, kind):
    seed = 0
    for n in (1, 2, 3, 8, 29, 64):
        for ratio in (0.0, 0.1, 1 / 3, 0.5, 0.9, 0.999, 1.0):
            seed += 1
            ratio = allowed(name, ratio)
            tokens = tokens_of(n, seed, kind)
            reduction = create(name, ratio=ratio).reduce(tokens)  # checks ranges itself
            n_keep = max(1, round(n * (1 - ratio)))
            fused = reduction.compensation is not None
            assert reduction.n_out == n_keep + fused, "it must keep as many as the ratio says"
            assert fused <= (name in FUSES), "an extra token: if that is its idea, add it to FUSES"
            assert (reduction.weight >= 0).all() and reduction.weight.isfinite().all()
            assert reduction.apply(tokens.hidden).isfinite().all()
            own = reduction.slot[: reduction.n_out - fused]
            assert len(own.unique()) == n_keep, "two outputs share a slot"
            assert (reduction.fate()[own] == Fate.KEPT).all()
            if name in NORMALISED:
                total = reduction.dense().sum(1)
                torch.testing.assert_close(total, torch.ones_like(total))
            if name in ONE_OUTPUT_EACH:
                assert len(reduction.source.unique()) == len(reduction.source)
            for fact in reduction.evidence.values():
                assert fact.shape == (n,)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("n", [1, 2, 17])
def test_nothing_to_remove_is_the_identity(name, n):
    tokens = tokens_of(n, 5)
    params = {} if name == "vanilla" else {"ratio": 0.0}
    reduction = create(name, **params).reduce(tokens)
    assert reduction.is_selection
    assert torch.equal(reduction.apply(tokens.hidden), tokens.hidden)


@pytest.mark.parametrize("name", BY_RATIO)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision(name, dtype):
    tokens = tokens_of(40, 3, dtype=dtype)
    reduction = create(name, ratio=0.5).reduce(tokens)
    fine = torch.float64 if dtype == torch.float64 else torch.float32
    assert reduction.weight.dtype == fine or reduction.is_selection
    out = reduction.apply(tokens.hidden)
    assert out.dtype == dtype
    exact = reduction.dense().double() @ tokens.hidden.double()
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(out.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", BY_RATIO)
def test_the_same_tokens_give_the_same_map(name):
    one, two = (create(name, ratio=0.5).reduce(tokens_of(30, 7)) for _ in range(2))
    assert torch.equal(one.dense(), two.dense()) and torch.equal(one.slot, two.slot)


@pytest.mark.parametrize("name", BY_RATIO)
def test_two_events_equal_their_composition(name):
    tokens = tokens_of(48, 11, dtype=torch.float64)
    first = create(name, ratio=0.4).reduce(tokens)
    reduced = tokens_of(first.n_out, 12, dtype=torch.float64)
    reduced.hidden = first.apply(tokens.hidden)
    reduced.n_previous_compensation = int(first.compensation is not None)
    second = create(name, ratio=0.4).reduce(reduced)
    both = first.then(second)
    torch.testing.assert_close(both.apply(tokens.hidden), second.apply(reduced.hidden))


@pytest.mark.parametrize("name", EVERY)
def test_the_tokens_are_left_alone(name):
    tokens = tokens_of(24, 2)
    before = {k: v.clone() for k, v in vars(tokens).items() if isinstance(v, torch.Tensor)}
    create(name).reduce(tokens)
    for key, value in before.items():
        assert torch.equal(getattr(tokens, key), value), f"{key} has been changed"


@pytest.mark.parametrize("name", EVERY)
def test_a_missing_input_is_named(name):
    for need in create(name).needs:
        tokens = tokens_of(8, 1)
        setattr(tokens, need, None)
        with pytest.raises(InputError, match=f"needs `{need}`"):
            create(name).reduce(tokens)
        setattr(tokens, need, getattr(tokens_of(7, 1), need))
        with pytest.raises(InputError, match=f"`{need}` has 7 entries for 8 tokens"):
            create(name).reduce(tokens)


@pytest.mark.parametrize("name", BY_RATIO)
@pytest.mark.parametrize("ratio", [-0.1, 1.5, math.nan, math.inf, "half", True])
def test_bad_ratios_are_refused(name, ratio):
    with pytest.raises(InputError, match=r"ratio must be a number from 0\.0 to 1\.0"):
        create(name, ratio=ratio)


@pytest.mark.parametrize("name", BY_RATIO)
def test_a_count_beats_a_ratio(name):
    keep = 20 if name in HALF_AT_MOST else 9
    reduction = create(name, ratio=0.1, keep=keep).reduce(tokens_of(32, 4))
    assert reduction.n_out - (reduction.compensation is not None) == keep
    assert create(name, keep=100).reduce(tokens_of(32, 4)).n_out == 32


@pytest.mark.parametrize("name", [name for name in BY_RATIO if get(name).site == "decoder"])
def test_decoder_methods_say_after_which_layers(name):
    first = next(iter(get(name).presets.values()), {})
    assert first.get("layers"), "its first preset must have the `layers` of its paper, out of 32"
    assert "ratio" in {p.name for p in parameters(name)}
