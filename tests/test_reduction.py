import pytest
import torch

from libra.errors import InputError
from libra.reduction import Fate, Reduction


def merge(dtype=torch.float32):
    """Six tokens to three: 0 with half of 1 and of 3; 2 alone; 4 fused; 5 nowhere."""
    return Reduction(
        n_in=6,
        source=torch.tensor([4, 0, 1, 2, 3, 1]),
        target=torch.tensor([2, 0, 0, 1, 0, 1]),
        weight=torch.tensor([1.0, 0.25, 0.5, 1.0, 0.25, 0.125], dtype=dtype),
        slot=torch.tensor([0, 2, 5]),
        compensation=2,
    )


def random_reduction(n_in, n_out, n_edges, generator):
    """Any map that feeds all its outputs; edges may repeat, be unordered or weigh nothing."""
    pick = lambda high, size: torch.randint(high, (size,), generator=generator)  # noqa: E731
    weight = torch.rand(n_edges + n_out, generator=generator)
    weight[pick(len(weight), 2)] = 0.0
    return Reduction(
        n_in=n_in,
        source=pick(n_in, n_edges + n_out),
        target=torch.cat([pick(n_out, n_edges), torch.arange(n_out)]),
        weight=weight,
        slot=pick(n_in, n_out).sort().values,
        compensation=n_out - 1 if n_out % 2 else None,
    )


def apply_by_loop(reduction, hidden):
    """The definition, one edge at a time, in float64."""
    out = torch.zeros(reduction.n_out, hidden.shape[-1], dtype=torch.float64)
    for s, t, w in zip(reduction.source, reduction.target, reduction.weight, strict=True):
        out[t] += w.double() * hidden[s].double()
    return out


def test_apply_is_the_definition():
    generator = torch.Generator().manual_seed(0)
    for n_in, n_out, n_edges in [(1, 1, 0), (2, 1, 3), (7, 7, 0), (40, 13, 70), (13, 40, 5)]:
        reduction = random_reduction(n_in, n_out, n_edges, generator)
        hidden = torch.randn(n_in, 9, generator=generator)
        expected = apply_by_loop(reduction, hidden)
        torch.testing.assert_close(reduction.apply(hidden).double(), expected, rtol=0, atol=1e-5)
        dense = reduction.dense().double() @ hidden.double()
        torch.testing.assert_close(dense, expected, rtol=0, atol=1e-5)


def test_float64_stays_float64():
    hidden = torch.randn(6, 5, dtype=torch.float64)
    out = merge(torch.float64).apply(hidden)
    assert out.dtype == torch.float64
    assert (out - apply_by_loop(merge(torch.float64), hidden)).abs().max() < 1e-14


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_accumulated_in_fp32(dtype):
    hidden = torch.full((2049, 3), 1.0, dtype=dtype)
    mean = Reduction(
        n_in=2049,
        source=torch.arange(2049),
        target=torch.zeros(2049, dtype=torch.long),
        weight=torch.full((2049,), 1.0),
        slot=torch.tensor([0]),
    )
    # Summed in 16 bits, ones stop adding up at 256 (bf16) or 2048 (fp16).
    assert torch.equal(mean.apply(hidden), torch.full((1, 3), 2049.0).to(dtype))


def test_leading_dimensions_are_independent():
    hidden = torch.randn(2, 3, 6, 5)
    out = merge().apply(hidden)
    assert out.shape == (2, 3, 3, 5)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(out[i, j], merge().apply(hidden[i, j]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_selected_rows_are_bit_exact(dtype):
    hidden = torch.randn(1, 10, 4).to(dtype)
    hidden[0, 3, 0], hidden[0, 3, 1] = -0.0, torch.nan
    out = Reduction.select(torch.tensor([1, 3, 8]), 10).apply(hidden)
    bits = torch.int64 if dtype == torch.float64 else torch.int32
    bits = torch.int16 if dtype.itemsize == 2 else bits
    assert torch.equal(out.view(bits), hidden[:, [1, 3, 8]].view(bits))


def test_identity():
    hidden = torch.randn(5, 3)
    identity = Reduction.identity(5)
    assert identity.is_selection
    assert torch.equal(identity.apply(hidden), hidden)
    assert identity.fate().tolist() == [Fate.KEPT] * 5
    assert identity.group().tolist() == [0, 1, 2, 3, 4]


def test_what_is_a_selection():
    assert Reduction.select([4, 1], 5).is_selection
    assert not merge().is_selection
    halved = Reduction(
        2, torch.tensor([0]), torch.tensor([0]), torch.tensor([0.5]), torch.tensor([0])
    )
    assert not halved.is_selection
    swapped = Reduction(
        2, torch.tensor([0, 1]), torch.tensor([1, 0]), torch.ones(2), torch.tensor([0, 1])
    )
    assert not swapped.is_selection
    hidden = torch.randn(2, 3)
    assert torch.equal(swapped.apply(hidden), hidden.flip(0))


def test_group_is_the_output_of_greatest_weight():
    assert merge().group().tolist() == [0, 0, 1, 0, 2, -1]


def test_group_of_equal_weights_is_the_first_output():
    both = Reduction(
        1, torch.tensor([0, 0]), torch.tensor([1, 0]), torch.ones(2), torch.tensor([0, 0])
    )
    assert both.group().tolist() == [0]


def test_fate():
    expected = [Fate.KEPT, Fate.MERGED, Fate.KEPT, Fate.MERGED, Fate.COMPENSATED, Fate.DROPPED]
    assert merge().fate().tolist() == expected


def test_the_slot_of_the_compensation_token_does_not_keep_its_input():
    assert merge().slot[2] == 5
    assert merge().fate()[5] == Fate.DROPPED


def test_composition_is_one_after_the_other():
    generator = torch.Generator().manual_seed(1)
    for n, m, k in [(1, 1, 1), (9, 4, 2), (30, 17, 6), (5, 9, 3)]:
        first = random_reduction(n, m, 2 * n, generator)
        second = random_reduction(m, k, 2 * m, generator)
        both = first.then(second)
        hidden = torch.randn(n, 4, generator=generator)
        torch.testing.assert_close(
            both.dense(), second.dense() @ first.dense(), rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(
            both.apply(hidden), second.apply(first.apply(hidden)), rtol=1e-4, atol=1e-4
        )
        assert both.slot.tolist() == [first.slot[s] for s in second.slot]
        edges = set(zip(both.source.tolist(), both.target.tolist(), strict=True))
        assert len(edges) == len(both.source), "an edge appears twice"


def test_composition_with_the_identity():
    for both in (merge().then(Reduction.identity(3)), Reduction.identity(6).then(merge())):
        assert torch.equal(both.dense(), merge().dense())
        assert both.compensation == 2
        assert both.fate().tolist() == merge().fate().tolist()


def test_a_compensation_token_that_is_kept_stays_one_and_can_be_dropped():
    kept, dropped = Reduction.select([0, 2], 3), Reduction.select([0, 1], 3)
    assert merge().then(kept).compensation == 1
    assert merge().then(kept).fate()[4] == Fate.COMPENSATED
    assert merge().then(dropped).compensation is None
    assert merge().then(dropped).fate()[4] == Fate.DROPPED


def test_everything_dropped():
    nothing = Reduction.select(torch.tensor([], dtype=torch.long), 4)
    assert nothing.apply(torch.randn(2, 4, 3)).shape == (2, 0, 3)
    assert nothing.fate().tolist() == [Fate.DROPPED] * 4
    assert nothing.group().tolist() == [-1] * 4


def test_to_device():
    moved = merge().to(torch.device("cpu"))
    assert torch.equal(moved.dense(), merge().dense())
    assert moved.compensation == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(source=[6], target=[0], weight=[1.0]), "sources and slots"),
        (dict(source=[-1], target=[0], weight=[1.0]), "sources and slots"),
        (dict(source=[0], target=[1], weight=[1.0]), "targets must lie"),
        (dict(source=[0], target=[0], weight=[1.0], slot=[6]), "sources and slots"),
        (dict(source=[], target=[], weight=[]), "every output"),
        (dict(source=[0, 1], target=[0], weight=[1.0]), "one entry per edge"),
        (dict(source=[0], target=[0], weight=[1.0], compensation=1), "compensation token"),
        (dict(source=[0], target=[0], weight=[1.0], evidence={"a": [0.0]}), "evidence"),
    ],
)
def test_maps_that_are_none(change, message):
    integer = lambda x: torch.tensor(x, dtype=torch.long)  # noqa: E731
    with pytest.raises(InputError, match=message):
        Reduction(
            n_in=6,
            source=integer(change["source"]),
            target=integer(change["target"]),
            weight=torch.tensor(change["weight"]),
            slot=integer(change.get("slot", [0])),
            compensation=change.get("compensation"),
            evidence={k: torch.tensor(v) for k, v in change.get("evidence", {}).items()},
        )


def test_the_number_of_tokens_must_fit():
    with pytest.raises(InputError, match="applied to 5"):
        merge().apply(torch.randn(5, 2))
    with pytest.raises(InputError, match="cannot be followed"):
        merge().then(Reduction.identity(6))


def test_parallel_edges_weigh_together():
    source, target = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    weight = torch.tensor([0.4, 0.4, 0.5, 1.0])
    both = Reduction(2, source, target, weight, slot=torch.tensor([0, 1]))
    assert both.group().tolist() == both.dense().argmax(0).tolist() == [0, 1]


def test_weights_are_never_in_half_precision():
    ids = torch.arange(2)
    assert Reduction(2, ids, ids, torch.ones(2).half(), ids).weight.dtype == torch.float32
    assert Reduction(2, ids, ids, torch.ones(2).double(), ids).weight.dtype == torch.float64
