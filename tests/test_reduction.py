from dataclasses import replace

import numpy as np
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


AS_LISTS = dict(source=[0, 2, 1], target=[0, 0, 1], weight=[0.5, 0.25, 1.0], slot=[0, 1])


@pytest.mark.parametrize(
    "made_of",
    [
        list,
        tuple,
        np.array,
        torch.tensor,
        lambda x: torch.tensor(x).to(torch.int32 if isinstance(x[0], int) else torch.float16),
    ],
    ids=["lists", "tuples", "arrays", "tensors", "small numbers"],
)
def test_maps_may_be_written_as_lists_and_arrays(made_of):
    parts = {name: made_of(values) for name, values in AS_LISTS.items()}
    facts = {"importance": made_of([0.5, 0.25, 0.125])}
    reduction = Reduction(np.int64(3), **parts, evidence=facts)
    hidden = torch.tensor([[1.0, 2.0], [3.0, 5.0], [8.0, 4.0]])
    expected = torch.tensor([[0.5 + 2.0, 1.0 + 1.0], [3.0, 5.0]])
    assert torch.equal(reduction.apply(hidden), expected)
    assert torch.equal(reduction.then(Reduction.identity(2)).apply(hidden), expected)
    assert reduction.group().tolist() == [0, 1, 0]
    assert reduction.to("cpu").evidence["importance"].tolist() == [0.5, 0.25, 0.125]
    assert type(reduction.n_in) is int  # as a trace file needs it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(source=[0.0, 2.0, 1.0]), "source must hold whole numbers, not float32"),
        (dict(slot=[True, False]), "slot must hold whole numbers, not bool"),
        (dict(target=[[0], [0], [1]]), "target must have one dimension, not 2"),
        (dict(weight=1.0), "weight must have one dimension, not 0"),
        (dict(source="021"), "source must be a list or a tensor, not str"),
        (dict(slot={0, 1}), "slot must be a list or a tensor, not set"),
        (dict(n_in=3.0), "n_in must be a whole number from 0 on, not 3.0"),
        (dict(n_in=-1), "n_in must be a whole number from 0 on, not -1"),
    ],
)
def test_what_cannot_be_a_map_says_what_is_wrong(change, message):
    with pytest.raises(InputError, match=message):
        Reduction(**{"n_in": 3, **AS_LISTS, **change})


@pytest.mark.parametrize("made_of", [list, np.array, torch.tensor])
def test_tokens_are_selected_by_number_or_by_a_mask(made_of):
    hidden = torch.arange(8.0).view(4, 2)
    by_number = Reduction.select(made_of([3, 1]), 4)
    by_mask = Reduction.select(made_of([False, True, False, True]), 4)
    assert by_number.slot.tolist() == [3, 1] and by_mask.slot.tolist() == [1, 3]
    assert torch.equal(by_mask.apply(hidden), hidden[[1, 3]])
    assert Reduction.select(made_of([]), 4).apply(hidden).shape == (0, 2)
    assert Reduction.select(made_of([False] * 4), 4).n_out == 0


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([True, False, True], "the mask has 3 entries for 4 tokens"),
        ([0.0, 1.7], "indices must hold whole numbers, not float32"),
        ([[0, 1]], "indices must have one dimension, not 2"),
        (1, "indices must have one dimension, not 0"),
        ([4], "sources and slots"),
        ([-1], "sources and slots"),
    ],
)
def test_what_selects_no_tokens_says_what_is_wrong(chosen, message):
    with pytest.raises(InputError, match=message):
        Reduction.select(chosen, 4)


def test_the_number_of_tokens_must_fit():
    with pytest.raises(InputError, match="applied to 5"):
        merge().apply(torch.randn(5, 2))
    with pytest.raises(InputError, match=r"are \[..., N, D\], not \[6\]"):
        merge().apply(torch.randn(6))
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


# ----- several pictures -----


def with_extra(n_in, n_out, generator, extra=True):
    """A map that feeds all its outputs, the last of which is an extra token."""
    reduction = random_reduction(n_in, n_out, 2 * n_in, generator)
    slot = torch.randperm(n_in, generator=generator)[:n_out].sort().values
    weight = reduction.weight.clamp(min=0.01)  # a matrix does not tell an edge of none from no edge
    last = n_out - 1 if extra else None
    return replace(reduction, weight=weight, slot=slot, compensation=last)


def fate_by_loop(dense, slots, extras):
    """The fate of each input of a matrix [n_out, n_in], one input at a time."""
    owned = {slot for o, slot in enumerate(slots) if o not in extras}
    fates = []
    for i, column in enumerate(dense.T):
        heaviest = int(column.argmax())
        fate = Fate.COMPENSATED if heaviest in extras else Fate.MERGED
        fates.append(Fate.KEPT if i in owned else fate if column.any() else Fate.DROPPED)
    return fates


def check_against_the_matrix(reduction, dense, slots, extras):
    """A map against its matrix, its slots, and the outputs that sum up."""
    torch.testing.assert_close(reduction.dense(), dense)
    assert reduction.slot.tolist() == list(slots)
    assert sorted(reduction.extras) == sorted(extras)
    assert reduction.is_extra.nonzero().flatten().tolist() == sorted(extras)
    assert reduction.n_kept == len(slots) - len(extras)
    assert reduction.fate().tolist() == fate_by_loop(dense, slots, extras)


@pytest.fixture(params=["each", "some", "the last", "none"])
def two_events(request):
    """Two events of three pictures each, and which pictures have an extra token then."""
    generator = torch.Generator().manual_seed(3)
    has = {"each": (1, 1, 1), "some": (1, 0, 1), "the last": (0, 0, 1), "none": (0, 0, 0)}
    has = has[request.param]
    sizes = [(9, 5, 3), (12, 7, 4), (6, 4, 2)]
    first = [with_extra(n, m, generator, x) for (n, m, _), x in zip(sizes, has, strict=True)]
    second = [with_extra(m, k, generator, x) for (_, m, k), x in zip(sizes, has, strict=True)]
    return first, second


def extras_of(parts):
    """The extra tokens of pictures side by side, counted by hand."""
    found, before = [], 0
    for part in parts:
        found += [] if part.compensation is None else [before + part.compensation]
        before += len(part.slot)
    return found


def slots_of(parts):
    """The slots of pictures side by side."""
    found, before = [], 0
    for part in parts:
        found += [before + int(slot) for slot in part.slot]
        before += part.n_in
    return found


def test_pictures_side_by_side_keep_the_extra_token_of_each(two_events):
    parts, _ = two_events
    whole = Reduction.side_by_side(parts)
    dense = torch.block_diag(*(part.dense() for part in parts))
    check_against_the_matrix(whole, dense, slots_of(parts), extras_of(parts))
    alone = [fate for part in parts for fate in part.fate().tolist()]
    assert whole.fate().tolist() == alone
    assert whole.n_kept == sum(part.n_kept for part in parts)


def test_events_of_pictures_side_by_side_compose_as_those_of_each(two_events):
    first, second = two_events
    whole = Reduction.side_by_side(first).then(Reduction.side_by_side(second))
    each = [one.then(two) for one, two in zip(first, second, strict=True)]
    products = (two.dense() @ one.dense() for one, two in zip(first, second, strict=True))
    dense = torch.block_diag(*products)
    check_against_the_matrix(whole, dense, slots_of(each), extras_of(second))
    assert whole.fate().tolist() == [fate for one in each for fate in one.fate().tolist()]


def test_extra_tokens_that_are_left_in_place_stay_what_they_are(two_events):
    parts, _ = two_events
    whole = Reduction.side_by_side(parts)
    for gone in range(whole.n_out):
        kept = [o for o in range(whole.n_out) if o != gone][::-1]
        extras = [kept.index(o) for o in whole.extras if o != gone]
        slots = whole.slot[kept].tolist()
        left = whole.then(Reduction.select(kept, whole.n_out))
        check_against_the_matrix(left, whole.dense()[kept], slots, extras)


def test_other_names_other_orders_and_tokens_that_never_were(two_events):
    parts, _ = two_events
    whole, generator = Reduction.side_by_side(parts), torch.Generator().manual_seed(1)
    dense, slots, extras = whole.dense(), whole.slot, list(whole.extras)

    name = torch.randperm(whole.n_in, generator=generator)
    named = dense.new_zeros(dense.shape)
    named[:, name] = dense
    check_against_the_matrix(whole.renumbered(name), named, name[slots].tolist(), extras)

    order = torch.randperm(whole.n_out, generator=generator)
    moved = [order.tolist().index(extra) for extra in extras]
    other = whole.reordered(order)
    check_against_the_matrix(other, dense[order], slots[order].tolist(), moved)
    assert list(other.extras) == moved, "picture by picture"

    for target in range(whole.n_out):
        kept = [o for o in range(whole.n_out) if o != target]
        left = [kept.index(extra) for extra in extras if extra != target]
        less = whole.without(target=target)
        check_against_the_matrix(less, dense[kept], slots[kept].tolist(), left)
    assert whole.to("cpu").extras == whole.extras


@pytest.mark.parametrize(
    ("compensation", "further", "message"),
    [
        (0, (3,), "one of the outputs"),
        (0, (-1,), "one of the outputs"),
        (1, (1,), "others than the first"),
        (0, (2, 2), "others than the first"),
        (None, (1,), "others than the first"),
    ],
)
def test_further_extra_tokens_are_other_outputs(compensation, further, message):
    with pytest.raises(InputError, match=message):
        replace(merge(), compensation=compensation, further=further)


def test_none_of_several_extra_tokens_may_be_vacant():
    with pytest.raises(InputError, match="may be vacant"):
        replace(merge(), further=(0,), vacant=torch.tensor(False))


def test_chunks_are_means_the_last_one_too():
    x = torch.randn(7, 3)
    out = Reduction.chunks(7, 3).apply(x)
    torch.testing.assert_close(out, torch.stack([x[:3].mean(0), x[3:6].mean(0), x[6]]))
    assert Reduction.chunks(7, 3).slot.tolist() == [0, 3, 6]
