"""Selecting methods, and those between encoder and projector, against plain loops."""

import math
import statistics

import pytest
import torch

from libra.errors import InputError
from libra.layout import TokenLayout
from libra.methods import Tokens, create, divprune, prumerge_plus
from libra.reduction import Fate


def random_case(n, d=5, seed=0):
    """Hidden states, skewed CLS attention with some outliers, keys."""
    generator = torch.Generator().manual_seed(100 * n + seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return draw(n, d), draw(n).exp().pow(2) / n, draw(n, 4)


def tied_case(n, seed=0):
    """Tokens of four kinds only, with two scores: nearly everything is a tie, and exactly so."""
    generator = torch.Generator().manual_seed(100 * n + seed)
    draw = lambda k: torch.randint(k, (n,), generator=generator)  # noqa: E731
    kinds = torch.eye(4, dtype=torch.float64)
    return kinds[draw(4)], (1.0 + draw(2)) / n, kinds[draw(4)]


def keep(n, ratio):
    return max(1, round(n * (1 - ratio)))


def ranked(alpha):
    return sorted(range(len(alpha)), key=lambda j: (-alpha[j], j))


def cosine(u, v):
    return torch.nn.functional.cosine_similarity(u, v, dim=0).item()


def dense_of(n, rows):
    """The matrix with rows {column: weight}."""
    matrix = torch.zeros(len(rows), n, dtype=torch.float64)
    for i, row in enumerate(rows):
        for j, w in row.items():
            matrix[i, j] += w
    return matrix


# --- PruMerge


def outliers(alpha):
    q1, _, q3 = statistics.quantiles(alpha.tolist(), n=4, method="inclusive")
    return sum(a > q3 + 1.5 * (q3 - q1) for a in alpha.tolist())


def prumerge_reference(alpha, keys, idx, follow="code", neighbours=32):
    n, rows = len(alpha), []
    for i in idx:
        others = [j for j in range(n) if j != i]
        like = (lambda j: cosine(keys[i], keys[j])) if follow == "code" else None  # noqa: B023
        like = like or (lambda j: float(keys[i] @ keys[j]))  # noqa: B023
        nearest = sorted(others, key=lambda j: -like(j))[:neighbours]
        row = {j: alpha[j].item() for j in nearest}
        if follow == "code":
            row[i] = 1.0
        rows.append(row)
    rest = [j for j in range(n) if j not in idx]
    if follow == "code" and rest:
        rows.append({j: alpha[j].item() for j in rest})
    return dense_of(n, rows)


@pytest.mark.parametrize("n", [20, 60, 121])
@pytest.mark.parametrize("follow", ["code", "paper"])
@pytest.mark.parametrize("neighbours", [3, 32, 500])
def test_prumerge_keeps_the_outliers(n, follow, neighbours):
    hidden, alpha, keys = random_case(n)
    prumerge = create("prumerge", follow=follow, neighbours=neighbours)
    reduction = prumerge.reduce(Tokens(hidden, alpha, keys))
    idx = ranked(alpha)[: outliers(alpha)]
    assert len(idx) > 1, "a case without outliers shows nothing"
    assert reduction.slot.tolist()[: len(idx)] == idx
    expected = prumerge_reference(alpha, keys, idx, follow, neighbours)
    torch.testing.assert_close(reduction.dense(), expected)
    assert (reduction.compensation is None) == (follow == "paper")


@pytest.mark.parametrize("n", [20, 60, 121, 300])
def test_prumerge_plus_adds_even_steps(n):
    hidden, alpha, keys = random_case(n)
    reduction = create("prumerge+").reduce(Tokens(hidden, alpha, keys))
    m = outliers(alpha)
    idx = ranked(alpha)[:m]
    step = max(1, int(int(n / m) / 3))
    idx += [x for x in range(0, n - 1, step) if x not in idx]
    assert reduction.slot.tolist()[: len(idx)] == idx
    torch.testing.assert_close(reduction.dense(), prumerge_reference(alpha, keys, idx))


def test_prumerge_plus_of_the_paper_doubles_the_outliers():
    hidden, alpha, keys = random_case(121)
    reduction = create("prumerge+", follow="paper").reduce(Tokens(hidden, alpha, keys))
    m = outliers(alpha)
    assert reduction.n_out == 2 * m == len(reduction.slot.unique())
    assert reduction.slot.tolist()[:m] == ranked(alpha)[:m]
    added = reduction.slot[m:]
    assert added.diff().max() <= 2 * 121 / m, "the added tokens leave a gap"


@pytest.mark.parametrize("name", ["prumerge", "prumerge+"])
@pytest.mark.parametrize("follow", ["code", "paper"])
@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_prumerge_without_outliers_and_with_few_tokens(name, follow, n):
    hidden = torch.randn(n, 3)
    reduction = create(name, follow=follow).reduce(
        Tokens(hidden, torch.full((n,), 0.1), hidden.clone())
    )
    assert reduction.n_out >= 1
    assert reduction.apply(hidden).isfinite().all()


@pytest.mark.parametrize("name", ["prumerge", "prumerge+"])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9, 1.0])
def test_prumerge_with_a_ratio_keeps_that_many_and_the_extra_token(name, ratio):
    hidden, alpha, keys = random_case(50)
    reduction = create(name, ratio=ratio).reduce(Tokens(hidden, alpha, keys))
    n_keep = keep(50, ratio)
    idx = reduction.slot.tolist()[:n_keep]
    assert reduction.n_out == n_keep + 1 and len(set(idx)) == n_keep
    by_attention = n_keep if name == "prumerge" else math.ceil(n_keep / 4)
    assert idx[:by_attention] == ranked(alpha)[:by_attention]
    torch.testing.assert_close(reduction.dense(), prumerge_reference(alpha, keys, idx))


@pytest.mark.parametrize("n", [1, 2, 9, 30, 31])
@pytest.mark.parametrize("share", [0.34, 0.5, 0.9, 1.0])
def test_prumerge_plus_with_more_than_a_third_of_outliers_keeps_everything(monkeypatch, n, share):
    """The published step between the added tokens is 0 then."""
    m = max(1, int(share * n))
    monkeypatch.setattr(prumerge_plus, "count_outliers", lambda alpha: m)
    hidden, alpha, keys = random_case(n)
    reduction = create("prumerge+").reduce(Tokens(hidden, alpha, keys))
    idx = ranked(alpha)[:m]
    idx += [x for x in range(n - 1) if x not in idx]
    assert reduction.slot.tolist()[: len(idx)] == idx
    torch.testing.assert_close(reduction.dense(), prumerge_reference(alpha, keys, idx))
    paper = create("prumerge+", follow="paper").reduce(Tokens(hidden, alpha, keys))
    assert paper.n_out == min(2 * m, n) == len(paper.slot.unique())


@pytest.mark.parametrize("name", ["prumerge", "prumerge+"])
@pytest.mark.parametrize("follow", ["code", "paper"])
@pytest.mark.parametrize("n", [5, 20, 61])
def test_prumerge_settles_ties_as_the_reference_does(name, follow, n):
    hidden, alpha, keys = tied_case(n)
    prumerge = create(name, keep=max(1, n // 4), follow=follow, neighbours=5)
    reduction = prumerge.reduce(Tokens(hidden, alpha, keys))
    idx = reduction.slot.tolist()[: max(1, n // 4)]
    expected = prumerge_reference(alpha, keys, idx, follow, 5)
    torch.testing.assert_close(reduction.dense(), expected)
    assert name == "prumerge+" or idx == ranked(alpha)[: max(1, n // 4)]


def test_prumerge_without_merging_selects():
    hidden, alpha, keys = random_case(40)
    reduction = create("prumerge", keep=7, merge="none").reduce(Tokens(hidden, alpha, keys))
    assert reduction.is_selection
    assert reduction.slot.tolist() == ranked(alpha)[:7]


def test_a_kept_token_may_feed_others_and_still_counts_as_kept():
    hidden, alpha, keys = random_case(30)
    reduction = create("prumerge", keep=10).reduce(Tokens(hidden, alpha, keys))
    assert (reduction.fate()[reduction.slot[:10]] == Fate.KEPT).all()
    assert (reduction.source == reduction.slot[0]).sum() > 1


# --- VisionZip


def visionzip_reference(alpha, keys, dominant, contextual):
    n = len(alpha)
    kept = sorted(ranked(alpha)[:dominant])
    rest = [j for j in range(n) if j not in kept]
    step = max(1, len(rest) // contextual) if contextual else 1
    context = [rest[i * step] for i in range(contextual)]
    joined = {c: [] for c in context}
    for j in rest:
        if j not in context and context:
            joined[max(context, key=lambda c: cosine(keys[j], keys[c]))].append(j)
    rows = [{j: 1.0} for j in kept]
    rows += [{c: 1.0} | {j: 1 / len(js) for j in js} for c, js in joined.items()]
    return kept + context, dense_of(n, rows)


@pytest.mark.parametrize(("dominant", "contextual"), [(6, 4), (1, 1), (9, 0), (2, 20), (30, 9)])
def test_visionzip(dominant, contextual):
    hidden, alpha, keys = random_case(40)
    visionzip = create("visionzip", dominant=dominant, contextual=contextual)
    reduction = visionzip.reduce(Tokens(hidden, alpha, keys))
    slot, expected = visionzip_reference(alpha, keys, dominant, contextual)
    assert reduction.slot.tolist() == slot
    torch.testing.assert_close(reduction.dense().double(), expected)


def test_visionzip_divides_a_count_as_the_paper_does():
    hidden, alpha, keys = random_case(200)
    by_count = create("visionzip", keep=64).reduce(Tokens(hidden, alpha, keys))
    by_parts = create("visionzip", dominant=54, contextual=10).reduce(Tokens(hidden, alpha, keys))
    assert torch.equal(by_count.dense(), by_parts.dense())


def test_visionzip_of_few_tokens_changes_nothing():
    hidden, alpha, keys = random_case(20)
    visionzip = create("visionzip", dominant=18, contextual=10)
    assert torch.equal(visionzip.reduce(Tokens(hidden, alpha, keys)).apply(hidden), hidden)


@pytest.mark.parametrize("params", [dict(dominant=4), dict(contextual=4)])
def test_visionzip_needs_both_numbers(params):
    with pytest.raises(InputError, match="both dominant and contextual"):
        create("visionzip", **params)


# --- DivPrune


def divprune_reference(hidden, n_keep):
    n = len(hidden)
    gap = [[1 - cosine(u, v) for v in hidden] for u in hidden]
    nearest = [min((gap[i][j] for j in range(n) if j != i), default=0.0) for i in range(n)]
    chosen = [max(range(n), key=lambda i: (nearest[i], -i))]
    while len(chosen) < n_keep:
        rest = [i for i in range(n) if i not in chosen]
        chosen.append(max(rest, key=lambda i: (min(gap[i][j] for j in chosen), -i)))
    return sorted(chosen)


@pytest.mark.parametrize("n", [2, 3, 12, 25])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.9])
def test_divprune(n, ratio):
    hidden = random_case(n)[0]
    reduction = create("divprune", ratio=ratio).reduce(Tokens(hidden))
    assert reduction.slot.tolist() == divprune_reference(hidden, keep(n, ratio))


def test_divprune_does_not_leave_a_tie_to_rounding(monkeypatch):
    """Two tokens that are each other's nearest are equally far, and the first is taken."""
    hidden = torch.tensor([[1.0, 0.0], [0.9, 0.4], [-1.0, 0.1], [-0.3, 1.0]])
    cosines, lower = divprune.cosines, torch.ones(4, 4).tril() * 1e-6
    for rounding in (lower, lower.T):
        monkeypatch.setattr(divprune, "cosines", lambda a, b, off=rounding: cosines(a, b) - off)
        first = create("divprune", keep=1).reduce(Tokens(hidden)).slot.tolist()
        assert first == divprune_reference(hidden, 1) == [2]


def test_divprune_never_takes_a_token_twice():
    same = torch.ones(9, 4)
    reduction = create("divprune", keep=5).reduce(Tokens(same))
    assert len(reduction.slot.unique()) == 5


@pytest.mark.parametrize("n", [6, 21])
def test_selections_settle_ties_as_their_references_do(n):
    hidden, alpha, keys = tied_case(n)
    tokens, n_keep = Tokens(hidden, alpha, keys), keep(n, 0.5)
    chosen = create("divprune", ratio=0.5).reduce(tokens).slot.tolist()
    assert chosen == divprune_reference(hidden, n_keep)
    slot, expected = visionzip_reference(alpha, keys, 2, 3)
    reduction = create("visionzip", dominant=2, contextual=3).reduce(tokens)
    assert reduction.slot.tolist() == slot
    torch.testing.assert_close(reduction.dense().double(), expected)


# --- SparseVLM


def sparsevlm_reference(similarity, attention, n_keep):
    n, words = len(similarity), len(similarity[0])
    relevance = [0.0] * words
    for row in similarity:
        total = sum(math.exp(x) for x in row)
        for word, x in enumerate(row):
            relevance[word] += math.exp(x) / total / n
    raters = [word for word in range(words) if relevance[word] >= sum(relevance) / words]
    score = [sum(row[word] for word in raters) / len(raters) for row in attention]
    return sorted(ranked(score)[:n_keep])


@pytest.mark.parametrize(("n", "words"), [(2, 1), (9, 4), (40, 13)])
@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_sparsevlm(n, words, ratio, dtype):
    generator = torch.Generator().manual_seed(n)
    similarity = 3 * torch.randn(n, words, generator=generator)
    attention = torch.rand(n, words, generator=generator)
    reduction = create("sparsevlm", ratio=ratio).reduce(
        Tokens(torch.zeros(n, 2, dtype=dtype), text_similarity=similarity, text_attention=attention)
    )
    expected = sparsevlm_reference(similarity.tolist(), attention.tolist(), keep(n, ratio))
    assert reduction.slot.tolist() == expected


def test_sparsevlm_lets_only_the_raters_vote():
    hidden = torch.zeros(4, 2)
    similarity = torch.tensor([[5.0, 0.0, 5.0]] * 4)  # the second word has nothing to do with it
    attention = torch.tensor([[0.1, 0.9, 0.1], [0.3, 0.0, 0.1], [0.0, 0.0, 0.2], [0.0, 0.0, 0.5]])
    reduction = create("sparsevlm", keep=2).reduce(
        Tokens(hidden, text_similarity=similarity, text_attention=attention)
    )
    assert reduction.slot.tolist() == [1, 3]


@pytest.mark.parametrize("words", [1, 3, 7])
def test_sparsevlm_has_a_rater_even_if_all_words_are_alike(words):
    attention = torch.rand(6, words)
    reduction = create("sparsevlm", keep=2).reduce(
        Tokens(
            torch.zeros(6, 2), text_similarity=torch.full((6, words), 0.3), text_attention=attention
        )
    )
    assert reduction.slot.tolist() == sorted(ranked(attention.mean(1).tolist())[:2])


# --- by attention alone


@pytest.mark.parametrize("name", ["fastervlm", "pyramiddrop"])
def test_selections_by_attention_are_those_of_fastv(name):
    hidden, alpha, _ = random_case(31)
    for ratio in (0.0, 0.5, 0.9):
        ours = create(name, ratio=ratio).reduce(Tokens(hidden, alpha))
        fastv = create("fastv", ratio=ratio).reduce(Tokens(hidden, alpha))
        assert ours.slot.tolist() == fastv.slot.tolist()


# --- sampling


def test_sequential_takes_the_first():
    reduction = create("sequential", keep=4).reduce(Tokens(torch.randn(9, 2)))
    assert reduction.slot.tolist() == [0, 1, 2, 3]


def test_random_is_seeded_and_covers_everything():
    hidden = torch.randn(30, 2)
    draw = lambda seed: create("random", keep=10).reduce(  # noqa: E731
        Tokens(hidden, generator=torch.Generator().manual_seed(seed))
    )
    assert torch.equal(draw(1).slot, draw(1).slot)
    assert len({tuple(draw(s).slot.tolist()) for s in range(20)}) == 20
    hits = torch.zeros(30)
    for seed in range(300):
        hits[draw(seed).slot] += 1
    assert hits.min() > 60 and hits.max() < 140, "100 of 300 are expected"
    default = create("random", keep=10)
    assert torch.equal(default.reduce(Tokens(hidden)).slot, default.reduce(Tokens(hidden)).slot)


def grid_tokens(rows, columns, pictures=1):
    square = [TokenLayout.square_crop(9, 9, (rows, columns), i) for i in range(pictures)]
    layout = TokenLayout.cat(square)
    return Tokens(torch.randn(len(layout), 2), layout=layout)


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (5, 8), (8, 5), (5, 7), (7, 5), (4, 4)])
def test_spatial_grids_of_the_paper(rows, columns):
    tokens = grid_tokens(24, 24)
    kept = create("spatial", rows=rows, columns=columns).reduce(tokens).slot
    y = [int((i + 0.5) * 24 / rows) for i in range(rows)]
    x = [int((i + 0.5) * 24 / columns) for i in range(columns)]
    assert kept.tolist() == [24 * r + c for r in y for c in x]


@pytest.mark.parametrize(("rows", "columns", "pictures"), [(24, 24, 1), (9, 16, 1), (3, 40, 2)])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.67, 0.9, 0.99, 1.0])
def test_spatial_keeps_the_exact_count_evenly(rows, columns, pictures, ratio):
    tokens = grid_tokens(rows, columns, pictures)
    n = len(tokens)
    kept = create("spatial", ratio=ratio).reduce(tokens).slot
    assert len(kept) == keep(n, ratio) == len(kept.unique())
    per_row = (kept // columns).bincount()
    per_row = per_row[per_row > 0]
    assert per_row.max() - per_row.min() <= 1


def test_spatial_refuses_what_does_not_fit():
    with pytest.raises(InputError, match="30 x 5 does not fit into a grid of 24 x 24"):
        create("spatial", rows=30, columns=5).reduce(grid_tokens(24, 24))
    with pytest.raises(InputError, match="both rows and columns"):
        create("spatial", rows=5)
    tokens = grid_tokens(4, 4)
    holes = torch.tensor([0, 1, 3, 4, 5, 8])
    with_holes = Tokens(tokens.hidden[holes], layout=tokens.layout.select(holes))
    with pytest.raises(InputError, match="full grid of patches"):
        create("spatial", rows=2, columns=2).reduce(with_holes)
    assert create("spatial").reduce(with_holes).slot.tolist() == [1, 3, 5]
