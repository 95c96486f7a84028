"""Libra-Merging against plain loops written from sections 3.2 and 3.3 of the paper."""

import math
from fractions import Fraction

import pytest
import torch

from libra.errors import InputError
from libra.methods import Tokens, create
from libra.reduction import Fate


def cosine(u, v):
    norm = math.sqrt(sum(x * x for x in u)) * math.sqrt(sum(x * x for x in v))
    return sum(x * y for x, y in zip(u, v, strict=True)) / norm if norm else 0.0


def softmax(values):
    peak = max(values)
    exponents = [math.exp(v - peak) for v in values]
    return [e / sum(exponents) for e in exponents]


def reference(
    hidden,
    alpha,
    ratio=0.5,
    tau=0.7,
    eta=None,
    identify="interval",
    merge="grouped",
    compensation="end",
    n_previous=0,
):
    """{target index: features}, features of v_c or None; indices and lists of floats."""
    hidden, alpha = hidden.double().tolist(), alpha.double().tolist()
    n_all = len(hidden)
    n = n_all - n_previous
    first = n_previous if compensation == "begin" else 0
    body = list(range(first, first + n))
    n_t = max(1, round(n * (1 - ratio)))
    if identify == "interval":
        targets = []
        for i in range(n_t):
            interval = body[
                math.floor(Fraction(i * n, n_t)) : math.floor(Fraction((i + 1) * n, n_t))
            ]
            targets.append(max(interval, key=lambda j: (alpha[j], -j)))
    else:
        targets = sorted(sorted(body, key=lambda j: (-alpha[j], j))[:n_t])
    eta = eta or sum(alpha[j] for j in body) / n or 1.0
    groups, negative = {t: [t] for t in targets}, [j for j in range(n_all) if j not in body]
    for j in body:
        if j in targets:
            continue
        similarity = [cosine(hidden[t], hidden[j]) for t in targets]
        best = max(range(n_t), key=lambda i: (similarity[i], -i))
        positive = {
            "grouped": similarity[best] > tau,
            "positive": True,
            "average": True,
            "negative": False,
            "prune": False,
        }[merge]
        if positive:
            groups[targets[best]].append(j)
        else:
            negative.append(j)

    def mean(members, uniform=False):
        weights = softmax([alpha[j] / eta for j in members])
        if uniform:
            weights = [1 / len(members)] * len(members)
        return [
            sum(w * hidden[j][d] for w, j in zip(weights, members, strict=True))
            for d in range(len(hidden[0]))
        ]

    outputs = {t: mean(members, merge == "average") for t, members in groups.items()}
    if merge == "prune" or compensation == "none" or not negative:
        return outputs, None
    return outputs, mean(negative)


def check(hidden, alpha, n_previous=0, atol=1e-9, **params):
    tokens = Tokens(hidden, alpha, n_previous_compensation=n_previous)
    reduction = create("libra", **params).reduce(tokens)
    outputs, fused = reference(hidden, alpha, n_previous=n_previous, **params)
    got = reduction.apply(hidden).double()
    place = reduction.compensation
    own = [i for i in range(reduction.n_out) if i != place]
    assert [reduction.slot[i].item() for i in own] == sorted(outputs)
    expected = torch.tensor([outputs[t] for t in sorted(outputs)], dtype=torch.float64)
    torch.testing.assert_close(got[own], expected, rtol=0, atol=atol)
    assert (place is None) == (fused is None)
    if fused is not None:
        begin = params.get("compensation") == "begin"
        assert place == (0 if begin else reduction.n_out - 1)
        assert reduction.slot[place] == (0 if begin else len(hidden) - 1)
        fused = torch.tensor(fused, dtype=torch.float64)
        torch.testing.assert_close(got[place], fused, rtol=0, atol=atol)
    total = reduction.dense().sum(1).double()
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-5)
    assert len(reduction.source.unique()) == len(reduction.source), "a token feeds two outputs"
    return reduction


def crowded(n, d, generator, spread=0.6):
    """Tokens around a few centres, so that some pairs are similar and others are not."""
    centre = torch.randn(4, d, generator=generator, dtype=torch.float64)
    pick = torch.randint(4, (n,), generator=generator)
    return centre[pick] + spread * torch.randn(n, d, generator=generator, dtype=torch.float64)


SETTINGS = [
    dict(),
    dict(tau=0.3),
    dict(tau=0.9),
    dict(tau=1.0),
    dict(tau=-1.0),
    dict(eta=1e-3),
    dict(eta=0.5),
    dict(identify="topk"),
    dict(merge="positive"),
    dict(merge="negative"),
    dict(merge="average"),
    dict(merge="prune"),
    dict(compensation="begin"),
    dict(compensation="none"),
    dict(identify="topk", merge="average"),
]


@pytest.mark.parametrize("params", SETTINGS, ids=str)
@pytest.mark.parametrize(("n", "ratio"), [(24, 0.5), (25, 2 / 3), (17, 0.8), (9, 0.3), (40, 0.97)])
def test_random_tokens(params, n, ratio):
    generator = torch.Generator().manual_seed(n)
    for _ in range(3):
        hidden = crowded(n, 6, generator)
        alpha = torch.rand(n, generator=generator, dtype=torch.float64) ** 4
        check(hidden, alpha, ratio=ratio, **params)


COMPENSATING = [s for s in SETTINGS if s not in (dict(merge="prune"), dict(compensation="none"))]


@pytest.mark.parametrize("params", COMPENSATING, ids=str)
def test_a_previous_compensation_token_joins_the_negative_set(params):
    generator = torch.Generator().manual_seed(5)
    hidden = crowded(21, 6, generator)
    alpha = torch.rand(21, generator=generator, dtype=torch.float64)
    alpha[-1] = alpha[0] = 5.0  # attended to most, and still never a target
    reduction = check(hidden, alpha, n_previous=1, ratio=0.6, **params)
    old = 0 if params.get("compensation") == "begin" else 20
    assert reduction.fate()[old] == Fate.COMPENSATED
    assert reduction.n_out == 8 + 1
    if params.get("identify") != "topk":
        interval = reduction.evidence["interval"].tolist()
        assert interval.pop(old) == -1
        bounds = [math.floor(Fraction(i * 20, 8)) for i in range(9)]
        assert interval == [sum(j >= b for b in bounds) - 1 for j in range(20)]


@pytest.mark.parametrize("compensation", ["end", "begin"])
def test_an_old_compensation_token_alone_stays_as_it_is(compensation):
    hidden, alpha = torch.randn(9, 4), torch.rand(9)
    tokens = Tokens(hidden, alpha, n_previous_compensation=1)
    libra = create("libra", ratio=0.5, tau=-1.0, compensation=compensation)
    reduction = libra.reduce(tokens)
    old = 0 if compensation == "begin" else 8
    assert torch.equal(reduction.apply(hidden)[reduction.compensation], hidden[old])
    unchanged = create("libra", keep=8, compensation=compensation).reduce(tokens)
    assert unchanged.is_selection and unchanged.compensation == old


def test_ties_go_to_the_first():
    hidden = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 0, 1, 2, 3]]
    alpha = torch.full((8,), 0.1, dtype=torch.float64)
    reduction = check(hidden, alpha, ratio=0.5)
    assert reduction.slot.tolist() == [0, 2, 4, 6, 7]
    assert reduction.evidence["interval"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_duplicates_all_equal_and_zero_importance():
    same = torch.ones(10, 3, dtype=torch.float64)
    for alpha in (torch.full((10,), 0.2), torch.zeros(10), torch.rand(10)):
        reduction = check(same, alpha.double(), ratio=0.7)
        assert reduction.compensation is None, "all are similar, so all merge"
        torch.testing.assert_close(reduction.apply(same), same[:3])


def test_zero_vectors_are_similar_to_nothing():
    hidden = torch.zeros(6, 3, dtype=torch.float64)
    assert check(hidden, torch.rand(6).double(), ratio=0.5).compensation == 3


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("ratio", [0.0, 0.4, 0.5, 0.9, 1.0])
def test_few_tokens(n, ratio):
    hidden, alpha = torch.randn(n, 4).double(), torch.rand(n).double()
    reduction = create("libra", ratio=ratio).reduce(Tokens(hidden, alpha))
    n_keep = max(1, round(n * (1 - ratio)))
    assert reduction.n_out in (n_keep, n_keep + 1)
    if n_keep < n:
        check(hidden, alpha, ratio=ratio)
    else:
        assert torch.equal(reduction.apply(hidden), hidden)


@pytest.mark.parametrize("n", [1, 7, 576])
def test_ratio_zero_is_the_identity(n):
    hidden = torch.randn(1, n, 3)
    reduction = create("libra", ratio=0.0).reduce(Tokens(hidden[0], torch.rand(n)))
    assert reduction.is_selection and torch.equal(reduction.apply(hidden), hidden)


def test_the_papers_counts():
    n, counts = 576, []
    for _ in range(3):
        libra = create("libra", ratio=2 / 3, compensation="none")
        n = libra.reduce(Tokens(torch.randn(n, 4), torch.rand(n))).n_out
        counts.append(n)
    assert counts == [192, 64, 21]


def test_sharp_and_flat_temperatures():
    hidden, alpha = torch.eye(3).double() + 1, torch.tensor([0.2, 0.5, 0.3]).double()
    sharp = create("libra", keep=1, tau=0.0, eta=1e-8).reduce(Tokens(hidden, alpha))
    flat = create("libra", keep=1, tau=0.0, eta=1e8).reduce(Tokens(hidden, alpha))
    torch.testing.assert_close(sharp.apply(hidden)[0], hidden[1])
    torch.testing.assert_close(flat.apply(hidden)[0], hidden.mean(0))


@pytest.mark.parametrize(("dtype", "atol"), [(torch.bfloat16, 4e-2), (torch.float16, 5e-3)])
def test_sixteen_bit_hidden_states(dtype, atol):
    generator = torch.Generator().manual_seed(3)
    hidden = crowded(48, 8, generator).to(dtype)
    alpha = torch.rand(48, generator=generator)
    reduction = check(hidden, alpha, ratio=0.5, atol=atol)
    assert reduction.weight.dtype == torch.float32
    assert reduction.apply(hidden).dtype == dtype


def test_large_hidden_states_do_not_overflow_in_sixteen_bits():
    hidden = torch.randn(12, 512).to(torch.float16) * 1000
    reduction = create("libra", ratio=0.5, tau=-1.0).reduce(Tokens(hidden, torch.rand(12)))
    assert reduction.evidence["similarity"].isfinite().all()
    assert reduction.apply(hidden).isfinite().all()


def test_evidence_explains_each_token():
    hidden = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, 0.9], [0, 0.9]]).double()
    alpha = torch.tensor([0.3, 0.1, 0.2, 0.4, 0.1, 0.2]).double()
    reduction = check(hidden, alpha, ratio=0.5)
    evidence = reduction.evidence
    assert evidence["interval"].tolist() == [0, 0, 1, 1, 2, 2]
    assert evidence["best_target"].tolist() == [0, 0, 5, 3, 5, 5]
    assert evidence["importance"].tolist() == alpha.tolist()
    assert evidence["similarity"][4].item() == pytest.approx(cosine([-1, 0.9], [0, 0.9]), abs=1e-6)
    assert evidence["similarity"][[0, 3, 5]].tolist() == [1, 1, 1]
    assert reduction.fate().tolist() == [
        Fate.KEPT, Fate.MERGED, Fate.MERGED, Fate.KEPT, Fate.COMPENSATED, Fate.KEPT,
    ]  # fmt: skip


def test_similar_means_strictly_more_than_tau():
    hidden = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()  # cosine exactly 0
    alpha = torch.tensor([0.6, 0.4]).double()
    assert check(hidden, alpha, ratio=0.5, tau=0.0).compensation == 1
    assert check(hidden, alpha, ratio=0.5, tau=-0.1).compensation is None


def test_several_stages_equal_their_composition():
    generator = torch.Generator().manual_seed(8)
    hidden = crowded(60, 6, generator)
    total, h, previous = None, hidden, 0
    for _ in range(3):
        alpha = torch.rand(len(h), generator=generator, dtype=torch.float64)
        step = check(h, alpha, n_previous=previous, ratio=0.5)
        total = step if total is None else total.then(step)
        h, previous = step.apply(h), int(step.compensation is not None)
    torch.testing.assert_close(total.apply(hidden), h, rtol=0, atol=1e-12)
    assert total.compensation == step.compensation


def test_missing_importance_is_named():
    with pytest.raises(InputError, match="needs `importance`"):
        create("libra").reduce(Tokens(torch.randn(4, 2)))
    with pytest.raises(InputError, match="`importance` has 3 entries for 4 tokens"):
        create("libra").reduce(Tokens(torch.randn(4, 2), torch.rand(3)))


def test_what_lengths_decide_can_be_trained_through_after_an_answer():
    """The tables are kept; those made in inference mode would refuse a gradient."""
    n, method = 37, create("libra", ratio=0.4)
    with torch.inference_mode():
        method.reduce(Tokens(torch.randn(n, 8), importance=torch.rand(n)))
    hidden = torch.randn(n, 8, requires_grad=True)
    importance = torch.rand(n, requires_grad=True)
    reduction = method.reduce(Tokens(hidden, importance=importance))
    reduction.apply(hidden).sum().backward()
    assert hidden.grad.abs().sum() > 0 and importance.grad is not None
