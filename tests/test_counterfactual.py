"""Patches forced in or out, at the level of one event and of a whole answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import N_VISUAL, QUESTION, make_image, make_model
from prompts import prepare

from libra import InputError
from libra.counterfactual import check_budget, reduce_forced
from libra.methods import Tokens, create
from libra.reduction import Fate

METHODS = [
    create("vanilla"),
    create("fastv", ratio=0.5),
    create("libra", ratio=0.5),
    create("libra", ratio=0.5, tau=1.0),
    create("libra", ratio=0.5, tau=1.0, compensation="begin"),
]


def tokens_of(n=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Tokens(
        hidden=torch.randn(n, 6, generator=generator),
        importance=torch.rand(n, generator=generator),
    )


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name}-{getattr(m, 'tau', '')}")
@pytest.mark.parametrize(("keep", "drop"), [([3, 17], []), ([], [0, 5, 23]), ([1, 20], [2, 3])])
def test_kept_patches_stay_as_they_are_and_dropped_ones_are_gone(method, keep, drop):
    tokens = tokens_of()
    forced = reduce_forced(method, tokens, keep, drop)
    matrix = forced.dense()
    for patch in keep:
        row = forced.slot.tolist().index(patch)
        assert torch.equal(matrix[row], torch.eye(24)[patch])
        assert torch.equal(matrix[:, patch], torch.eye(forced.n_out)[row])
    assert not matrix[:, drop].any()
    assert (forced.fate()[drop] == Fate.DROPPED).all()
    own = [k for k in range(forced.n_out) if k != forced.compensation]
    slots = forced.slot[own].tolist()
    assert slots == sorted(slots)
    if forced.compensation is not None:
        at_begin = getattr(method, "compensation", "end") == "begin"
        assert forced.compensation == (0 if at_begin else forced.n_out - 1)
    if method.name != "vanilla":
        assert len(own) == method.count(24)


@pytest.mark.parametrize("method", METHODS[1:4], ids=lambda m: f"{m.name}-{getattr(m, 'tau', '')}")
def test_the_rest_is_what_the_method_makes_of_the_others_alone(method):
    tokens, keep, drop = tokens_of(), [3, 17], [4, 9, 10]
    rest = [i for i in range(24) if i not in keep + drop]
    alone = replace(method, keep=10).reduce(
        Tokens(hidden=tokens.hidden[rest], importance=tokens.importance[rest])
    )
    forced = reduce_forced(method, tokens, keep, drop)
    rows = [k for k, slot in enumerate(forced.slot.tolist()) if slot not in keep]
    torch.testing.assert_close(forced.dense()[rows][:, rest], alone.dense())
    assert torch.equal(forced.evidence["importance"][rest], alone.evidence["importance"])
    assert forced.evidence["importance"][keep + drop].isnan().all()
    if method.name == "libra":
        best = [rest[i] for i in alone.evidence["best_target"].tolist()]
        assert forced.evidence["best_target"][rest].tolist() == best


def test_only_the_kept_ones_remain_when_all_others_are_dropped():
    drop = [i for i in range(24) if i not in (5, 2)]
    forced = reduce_forced(create("libra"), tokens_of(), [5, 2], drop)
    assert forced.slot.tolist() == [2, 5] and forced.is_selection


def test_more_than_the_budget_cannot_be_kept():
    with pytest.raises(InputError, match=r"12 patches .* keeps 12 of these 24"):
        check_budget(create("fastv", ratio=0.5), 12, 24)
    check_budget(create("fastv", ratio=0.5), 11, 24)


def test_the_budget_is_that_of_each_picture(lvlm):
    """Where a method decides about each alone; so it is the same with patches that are kept."""
    request = {"images": [make_image(0), make_image(1)], "question": QUESTION, "max_new_tokens": 1}
    for method, ratio in (("fastervlm", 0.75), ("visionzip", 0.5), ("tome", 0.25)):
        free = lvlm.answer(**request, method=method, ratio=ratio).trace
        held = lvlm.answer(**request, method=method, ratio=ratio, keep=[0, 1, 20]).trace
        assert held.counts == free.counts, method
    with pytest.raises(InputError, match=r"6 patches .* keeps 4 of these 16"):
        lvlm.answer(**request, method="fastervlm", ratio=0.75, keep=range(6))


def test_presets_of_two_kinds_of_tokens_keep_their_budget(lvlm):
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 1}
    for keep in ([], [1, 2, 3, 4]):
        plan = {"method": "visionzip", "dominant": 5, "contextual": 2, "keep": keep}
        assert lvlm.answer(**request, **plan).trace.counts[0] == 7


@pytest.mark.parametrize("method", ["illava", "tome", "evit", "kmeans", "fastervlm", "libra"])
def test_a_whole_picture_can_be_dropped(lvlm, method):
    site = {"site": "encoder", "encoder_layers": (0, 1)} if method == "kmeans" else {}
    images = [make_image(0), make_image(1)]
    request = {"images": images, "question": QUESTION, "method": method, "max_new_tokens": 1}
    trace = lvlm.answer(**request, **site, drop=range(N_VISUAL), tracing="full").trace
    assert (trace.lineage(1).fate()[:N_VISUAL] == Fate.DROPPED).all()
    assert trace.counts[-1] > 0


def test_patches_may_be_an_array(lvlm):
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 1}
    listed = lvlm.answer(**request, drop=[1, 2]).trace
    assert lvlm.answer(**request, drop=np.array([1, 2])).trace.counts == listed.counts
    kept = lvlm.answer(**request, method="fastv", keep=np.int64(4)).trace
    assert kept.counts[-1] == 4


def test_an_answer_follows_the_intervention(lvlm):
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 6}
    plain = lvlm.answer(**request).trace
    first = plain.events[0].reduction
    lost = [i for i in range(N_VISUAL) if first.fate()[i] != Fate.KEPT][:2]
    held = [i for i in range(N_VISUAL) if first.fate()[i] == Fate.KEPT][:3]
    forced = lvlm.answer(**request, keep=lost, drop=held).trace
    fate = forced.events[0].reduction.fate()
    assert (fate[lost] == Fate.KEPT).all() and (fate[held] == Fate.DROPPED).all()
    assert forced.lineage(3).dense()[:, held].abs().max() == 0
    n_own = [
        len(t.events[0].reduction.slot) - (t.events[0].reduction.compensation is not None)
        for t in (plain, forced)
    ]
    assert n_own[0] == n_own[1]
    probabilities = [[w.probability for w in t.words] for t in (plain, forced)]
    assert probabilities[0] != probabilities[1]


def test_vanilla_does_without_dropped_patches(lvlm):
    """As if the encoder had not given them: the plain model on a shorter prompt."""
    request = {"images": [make_image()], "question": QUESTION, "method": "vanilla"}
    trace = lvlm.answer(**request, drop=[0, 9], max_new_tokens=4).trace
    assert trace.counts[0] == N_VISUAL - 2 and trace.stages == ["before", "after the encoder"]
    rest = [i for i in range(N_VISUAL) if i not in (0, 9)]
    assert trace.lineage(1).slot.tolist() == rest
    with torch.no_grad():
        tokens = lvlm.family.connect(lvlm.encode([make_image()]).hidden[0])[rest]
        _, prompt = prepare(lvlm, [make_image()], QUESTION, rest)
        embedded = lvlm.family.inputs(prompt, tokens)["inputs_embeds"]
        logits = make_model()(inputs_embeds=embedded).logits[0, -1]
    assert trace.words[0].probability == pytest.approx(float(logits.softmax(-1).max()), abs=1e-6)
    assert not lvlm.answer(**request, keep=[3], max_new_tokens=1).trace.events


def test_forced_patches_of_one_of_two_pictures_leave_each_its_extra_token(lvlm):
    images = [make_image(0), make_image(1)]
    asked = dict(question=QUESTION, method="evit", ratio=0.5, max_new_tokens=1)
    trace = lvlm.answer(images=images, keep=[3], drop=[17, 18], **asked).trace
    reduction, fate = trace.events[0].reduction, trace.lineage(1).fate()
    summed = trace.layout.image[fate == Fate.COMPENSATED].bincount().tolist()
    assert len(reduction.extras) == 2 and summed == [8, 6]
    assert fate[3] == Fate.KEPT and fate[17] == fate[18] == Fate.DROPPED
    assert reduction.n_kept == 16 == int((fate == Fate.KEPT).sum())
