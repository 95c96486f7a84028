"""Merging methods against plain loops over random and adversarial tokens."""

import itertools
import math

import pytest
import torch

from libra.errors import InputError
from libra.methods import Tokens, create
from libra.reduction import Fate


def cosine(u, v):
    norm = math.sqrt(sum(x * x for x in u)) * math.sqrt(sum(x * x for x in v))
    return sum(x * y for x, y in zip(u, v, strict=True)) / norm if norm else 0.0


def mean(members, hidden, size=None):
    size = size or [1.0] * len(hidden)
    total = sum(size[j] for j in members)
    return [sum(size[j] * hidden[j][d] for j in members) / total for d in range(len(hidden[0]))]


def compare(reduction, hidden, outputs, atol=1e-9):
    """`outputs`: {slot: features} of every output that is not the fused one."""
    got = reduction.apply(hidden).double()
    own = [i for i in range(reduction.n_out) if i != reduction.compensation]
    assert [reduction.slot[i].item() for i in own] == sorted(outputs)
    expected = torch.tensor([outputs[s] for s in sorted(outputs)], dtype=torch.float64)
    expected = expected.view(len(own), hidden.shape[1])
    torch.testing.assert_close(got[own], expected, rtol=0, atol=atol)


def keep(n, ratio):
    return max(1, round(n * (1 - ratio)))


def random_case(n, d=5, seed=0):
    generator = torch.Generator().manual_seed(100 * n + seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    alpha = torch.rand(n, generator=generator, dtype=torch.float64) / n
    size = torch.randint(1, 5, (n,), generator=generator).double()
    return draw(n, d), alpha, draw(n, 4), size


def tied_case(n, seed=0):
    """Tokens of four kinds only, with two scores: nearly everything is a tie, and exactly so."""
    generator = torch.Generator().manual_seed(100 * n + seed)
    draw = lambda k: torch.randint(k, (n,), generator=generator)  # noqa: E731
    kinds = torch.eye(4, dtype=torch.float64)
    return kinds[draw(4)], (1.0 + draw(2)) / n, kinds[draw(4)], torch.ones(n, dtype=torch.float64)


CASES = list(itertools.product([2, 3, 7, 20, 33], [0.2, 0.5, 2 / 3, 0.9]))


def turbo_reference(hidden, alpha, n_keep, weight):
    n = len(hidden)
    similarity = [[cosine(u, v) for v in hidden] for u in hidden]
    degree = [
        max(similarity[i][j] for j in range(n) if j != i) - weight * alpha[i] for i in range(n)
    ]
    ranked = sorted(range(n), key=lambda i: (-degree[i], i))
    targets = sorted(ranked[n - n_keep :])
    groups = {t: [t] for t in targets}
    for i in ranked[: n - n_keep]:
        groups[max(targets, key=lambda t: (similarity[i][t], -t))].append(i)
    return {t: mean(members, hidden) for t, members in groups.items()}


@pytest.mark.parametrize(("n", "ratio"), CASES)
@pytest.mark.parametrize("weight", [0.01, 6.0, 1000.0])
def test_turbo_greedy(n, ratio, weight):
    hidden, alpha, _, size = random_case(n)
    turbo = create("turbo", ratio=ratio, weight=weight)
    reduction = turbo.reduce(Tokens(hidden, alpha, size=size))
    expected = turbo_reference(hidden.tolist(), alpha.tolist(), keep(n, ratio), weight)
    compare(reduction, hidden, expected)


def test_turbo_with_much_weight_is_fastv_that_merges():
    hidden, alpha, _, _ = random_case(30)
    turbo = create("turbo", ratio=0.5, weight=1e6).reduce(Tokens(hidden, alpha))
    fastv = create("fastv", ratio=0.5).reduce(Tokens(hidden, alpha))
    assert turbo.slot.tolist() == fastv.slot.tolist()
    assert (turbo.fate() != Fate.DROPPED).all()


def bipartite_reference(hidden, metric, r, size, reluctance):
    n = len(hidden)
    even, odd = range(0, n, 2), range(1, n, 2)
    partner, score = {}, {}
    for i in even:
        similarity = [cosine(metric[i], metric[j]) for j in odd]
        best = max(range(len(odd)), key=lambda k: (similarity[k], -k))
        partner[i], score[i] = odd[best], similarity[best] - reluctance[i]
    merged = sorted(even, key=lambda i: (-score[i], i))[:r]
    groups = {j: [j] for j in range(n) if j not in merged}
    for i in merged:
        groups[partner[i]].append(i)
    return {j: mean(members, hidden, size) for j, members in groups.items()}


@pytest.mark.parametrize(("n", "ratio"), [c for c in CASES if c[1] <= 0.5])
def test_turbo_bipartite_and_tome(n, ratio):
    hidden, alpha, keys, size = random_case(n)
    tokens = Tokens(hidden, alpha, keys=keys, size=size)
    r, plain = n - keep(n, ratio), [0.0] * n
    loops = [hidden.tolist(), keys.tolist(), r, size.tolist()]
    compare(create("tome", ratio=ratio).reduce(tokens), hidden, bipartite_reference(*loops, plain))
    turbo = create("turbo", ratio=ratio, matching="bipartite", weight=30.0).reduce(tokens)
    reluctance = (30 * alpha).tolist()
    compare(turbo, hidden, bipartite_reference(*loops, reluctance))


def test_turbo_bipartite_compares_hidden_states_where_there_are_no_keys():
    hidden, alpha, _, _ = random_case(12)
    turbo = create("turbo", matching="bipartite")
    with_keys = turbo.reduce(Tokens(hidden, alpha, keys=hidden))
    assert torch.equal(turbo.reduce(Tokens(hidden, alpha)).dense(), with_keys.dense())


def test_bipartite_matching_merges_half_at_most():
    for n, ratio in ((10, 0.6), (9, 0.7), (4, 1.0)):
        tokens = Tokens(*random_case(n)[:3])
        with pytest.raises(
            InputError, match=r"ToMe can merge at most half .* ratio of at most 0.5"
        ):
            create("tome", ratio=ratio).reduce(tokens)
        with pytest.raises(InputError, match="Turbo can merge at most half"):
            create("turbo", ratio=ratio, matching="bipartite").reduce(tokens)


def test_ties_among_partners_go_to_the_first():
    hidden = torch.ones(6, 2, dtype=torch.float64)
    tome = create("tome", ratio=0.5).reduce(Tokens(hidden, keys=hidden))
    assert tome.group().tolist() == [0, 0, 0, 1, 0, 2]


def greedy_reference(hidden, n_keep, size):
    """Merge pairs of lists of members; similarity of their weighted means."""
    groups = [[i] for i in range(len(hidden))]
    while len(groups) > n_keep:
        centres = [mean(g, hidden, size) for g in groups]
        pairs = itertools.combinations(range(len(groups)), 2)
        i, j = max(pairs, key=lambda p: (cosine(centres[p[0]], centres[p[1]]), -p[0], -p[1]))
        groups[i] += groups.pop(j)
    return {g[0]: mean(g, hidden, size) for g in groups}


@pytest.mark.parametrize(("n", "ratio"), CASES)
def test_greedy(n, ratio):
    hidden, _, _, size = random_case(n)
    reduction = create("greedy", ratio=ratio).reduce(Tokens(hidden, size=size))
    compare(reduction, hidden, greedy_reference(hidden.tolist(), keep(n, ratio), size.tolist()))


def test_greedy_joins_what_is_alike_first():
    hidden = torch.tensor([[1.0, 0], [0, 1], [1, 0.01], [0.01, 1], [-1, -1]])
    reduction = create("greedy", keep=3).reduce(Tokens(hidden))
    assert reduction.group().tolist() == [0, 1, 0, 1, 2]


def kmeans_reference(hidden, n_keep, iterations):
    """Lloyd's algorithm as long as no cluster runs empty; None otherwise."""
    n = len(hidden)
    centres = [hidden[int((i + 0.5) * n / n_keep)] for i in range(n_keep)]
    for _ in range(iterations):
        clusters = [[] for _ in centres]
        for j, x in enumerate(hidden):
            to_centres = [math.dist(x, c) for c in centres]
            clusters[to_centres.index(min(to_centres))].append(j)
        if not all(clusters):
            return None
        centres = [mean(c, hidden) for c in clusters]
    return {c[0]: centre for c, centre in zip(clusters, centres, strict=True)}


@pytest.mark.parametrize(("n", "ratio"), [c for c in CASES if c[0] > 3])
@pytest.mark.parametrize("iterations", [1, 5])
def test_kmeans(n, ratio, iterations):
    for seed in range(20):
        hidden = random_case(n, seed=seed)[0]
        expected = kmeans_reference(hidden.tolist(), keep(n, ratio), iterations)
        if expected is not None:
            break
    kmeans = create("kmeans", ratio=ratio, iterations=iterations)
    compare(kmeans.reduce(Tokens(hidden)), hidden, expected)


def test_kmeans_fills_clusters_that_run_empty():
    hidden = torch.tensor([[0.0], [0], [0], [0], [1], [9]]).double()
    reduction = create("kmeans", keep=3).reduce(Tokens(hidden))
    assert sorted(reduction.apply(hidden).flatten().tolist()) == [0, 1, 9]
    same = torch.ones(8, 3, dtype=torch.float64)
    torch.testing.assert_close(create("kmeans", keep=5).reduce(Tokens(same)).apply(same), same[:5])


@pytest.mark.parametrize(("n", "ratio"), CASES)
def test_evit(n, ratio):
    hidden, alpha, _, _ = random_case(n)
    reduction = create("evit", ratio=ratio).reduce(Tokens(hidden, alpha))
    kept = sorted(sorted(range(n), key=lambda j: (-alpha[j].item(), j))[: keep(n, ratio)])
    compare(reduction, hidden, {j: hidden[j].tolist() for j in kept})
    if len(kept) == n:
        assert reduction.compensation is None
        return
    rest = [j for j in range(n) if j not in kept]
    fused = sum(alpha[j] * hidden[j] for j in rest)
    torch.testing.assert_close(reduction.apply(hidden)[-1], fused)
    assert reduction.compensation == reduction.n_out - 1
    assert reduction.slot[-1] == n - 1
    assert [reduction.fate()[j] for j in rest] == [Fate.COMPENSATED] * len(rest)


def illava_reference(hidden, score, n_keep):
    n = len(hidden)
    r = n - n_keep
    lowest = sorted(range(n), key=lambda j: (score[j], j))[: r + 1]
    total = (r + 1) * (r + 2) / 2
    merged = [
        sum((r + 1 - i) / total * hidden[j][d] for i, j in enumerate(lowest))
        for d in range(len(hidden[0]))
    ]
    return lowest, merged


@pytest.mark.parametrize(("n", "ratio"), CASES)
def test_illava_as_the_code_does_it(n, ratio):
    hidden, alpha, _, _ = random_case(n)
    reduction = create("illava", ratio=ratio).reduce(Tokens(hidden, alpha))
    lowest, merged = illava_reference(hidden.tolist(), alpha.tolist(), keep(n, ratio))
    outputs = {j: hidden[j].tolist() for j in range(n) if j not in lowest}
    compare(reduction, hidden, outputs | {lowest[-1]: merged})
    assert reduction.compensation is None
    assert reduction.fate()[lowest[-1]] == Fate.KEPT


@pytest.mark.parametrize(("n", "ratio"), CASES)
def test_illava_as_the_paper_does_it(n, ratio):
    hidden, alpha, _, _ = random_case(n)
    received = alpha.flip(0)
    illava = create("illava", ratio=ratio, follow="paper")
    reduction = illava.reduce(Tokens(hidden, alpha, received=received))
    lowest, merged = illava_reference(hidden.tolist(), received.tolist(), keep(n, ratio))
    assert reduction.n_out == keep(n, ratio)
    if keep(n, ratio) == n:
        assert reduction.is_selection
        return
    compare(reduction, hidden, {j: hidden[j].tolist() for j in range(n) if j not in lowest})
    last = torch.tensor(merged, dtype=torch.float64)
    torch.testing.assert_close(reduction.apply(hidden)[-1], last)
    assert reduction.compensation == reduction.n_out - 1 == reduction.n_kept


@pytest.mark.parametrize("follow", ["code", "paper"])
def test_illava_counts_the_merged_token_as_the_paper_does(follow):
    """Of 729 tokens 361 are left after four encoder layers, and 253 of them after the decoder's."""
    tokens = Tokens(torch.randn(729, 2), *[torch.rand(729)] * 2, received=torch.rand(729))
    steps = create("illava", follow=follow), create("illava", keep=10, follow=follow)
    left = [steps[0].encoder_step(729 - 92 * i, 729, 4).count(729 - 92 * i) for i in range(4)]
    assert [*left, steps[0].count(361)] == [637, 545, 453, 361, 253]
    reduction = steps[1].reduce(tokens)
    assert reduction.n_out == 10 and reduction.n_kept == 10 - (follow == "paper")


@pytest.mark.parametrize(("n", "ratio"), CASES)
@pytest.mark.parametrize("follow", ["code", "paper"])
def test_illava_without_merging_drops_the_least_attended(n, ratio, follow):
    for hidden, alpha, _, _ in (random_case(n), tied_case(n)):
        illava = create("illava", ratio=ratio, follow=follow, merge="none")
        reduction = illava.reduce(Tokens(hidden, alpha, received=alpha))
        dropped = sorted(range(n), key=lambda j: (alpha[j], j))[: n - keep(n, ratio)]
        assert reduction.is_selection
        assert reduction.slot.tolist() == [j for j in range(n) if j not in dropped]


@pytest.mark.parametrize(("n", "ratio"), [(12, 0.4), (13, 0.5), (33, 0.5), (33, 0.2)])
@pytest.mark.parametrize("seed", range(3))
def test_ties_are_settled_as_by_the_references(n, ratio, seed):
    """Of equals the first, everywhere: so a map does not depend on the machine."""
    hidden, alpha, keys, size = tied_case(n, seed)
    tokens, n_keep = Tokens(hidden, alpha, keys=keys, size=size), keep(n, ratio)
    h, a, k, s = hidden.tolist(), alpha.tolist(), keys.tolist(), size.tolist()
    compare(create("turbo", ratio=ratio).reduce(tokens), hidden, turbo_reference(h, a, n_keep, 6.0))
    compare(create("greedy", ratio=ratio).reduce(tokens), hidden, greedy_reference(h, n_keep, s))
    if n - n_keep <= (n + 1) // 2:
        merged = bipartite_reference(h, k, n - n_keep, s, [0.0] * n)
        compare(create("tome", ratio=ratio).reduce(tokens), hidden, merged)
    lowest, fused = illava_reference(h, a, n_keep)
    others = {j: h[j] for j in range(n) if j not in lowest}
    compare(create("illava", ratio=ratio).reduce(tokens), hidden, others | {lowest[-1]: fused})
    kept = sorted(sorted(range(n), key=lambda j: (-a[j], j))[:n_keep])
    compare(create("evit", ratio=ratio).reduce(tokens), hidden, {j: h[j] for j in kept})


def test_illava_with_equal_scores_takes_the_first():
    hidden = torch.eye(4, dtype=torch.float64)
    reduction = create("illava", keep=2).reduce(Tokens(hidden, torch.ones(4)))
    assert reduction.slot.tolist() == [2, 3]
    torch.testing.assert_close(reduction.apply(hidden)[0], torch.tensor([3, 2, 1, 0]).double() / 6)


def test_illava_says_what_it_ranks_by():
    hidden, alpha, _, _ = random_case(5)
    with pytest.raises(InputError, match="needs `importance`"):
        create("illava").reduce(Tokens(hidden, received=alpha))
    with pytest.raises(InputError, match="needs `received`"):
        create("illava", follow="paper").reduce(Tokens(hidden, alpha))
