"""What is left open on the way through the decoder comes out as if it had been asked at once."""

from itertools import pairwise

import pytest
import torch
from conftest import QUESTION, make_image, make_lvlm, make_model
from test_batch import METHODS, alike, alone, caches_made, calls_of, close, requests_of
from test_compression import decode, generate, prompt_of, recompute
from test_family_all import BUILD
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from libra import InputError, vacancy
from libra.conversation import Memory
from libra.methods import Tokens, create
from libra.reduction import Reduction

LAYERS = (1, 3, 5)
GATHERING = ("grouped", "negative")  # ways of merging, where no two tokens are alike
REQUEST = {
    "images": [make_image(1)],
    "question": QUESTION,
    "method": "libra",
    "layers": LAYERS,
    "max_new_tokens": 6,
    "tracing": True,
}


@pytest.fixture
def left_open(monkeypatch):
    """Has the question left open on a CPU, too, or asked again."""

    def choose(open_):
        monkeypatch.setattr(vacancy, "runs_ahead", lambda device: open_)

    return choose


def both(lvlm, left_open, **request):
    """The same answer, once with every question asked and once with all left open."""
    answers = []
    for open_ in (False, True):
        left_open(open_)
        answers.append(lvlm.answer(**(REQUEST | request)))
    return answers


def pattern(answer):
    """Which of the events had a compensation token."""
    return [event.reduction.compensation is not None for event in answer.trace.events]


def between(lvlm, **request):
    """Values of tau between which the pattern changes: the least similarities of events."""
    trace = lvlm.answer(**(REQUEST | request | {"tau": -1.0})).trace
    least = sorted(float(event.reduction.evidence["similarity"].min()) for event in trace.events)
    edges = [-1.0, *least, 1.0]
    return [(a + b) / 2 for a, b in pairwise(edges)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("compensation", ["end", "begin"])
@pytest.mark.parametrize("layers", [LAYERS, (2,), (0, 1, 2, 7), (7,)])
def test_all_that_can_turn_out(left_open, attention, compensation, layers):
    patterns = set()
    with make_lvlm(attention) as lvlm:
        request = {"layers": layers, "compensation": compensation}
        left_open(False)
        for tau in between(lvlm, **request):
            asked, opened = both(lvlm, left_open, tau=tau, **request)
            alike(asked, opened)
            assert all(event.reduction.vacant is None for event in opened.trace.events)
            for a, b in zip(asked.trace.events, opened.trace.events, strict=True):
                for name, fact in a.reduction.evidence.items():
                    torch.testing.assert_close(
                        b.reduction.evidence[name], fact, atol=1e-6, rtol=1e-5, equal_nan=True
                    )
            patterns.add(tuple(pattern(asked)))
    assert {len(layers) * (False,), len(layers) * (True,)} <= patterns
    assert len(layers) != 3 or len(patterns) > 2, "a vacant token before one that is not"


@pytest.mark.parametrize("tau", [-1.0, 0.95])
def test_logits_and_cache_are_the_same(lvlm, left_open, monkeypatch, tau):
    caches = caches_made(monkeypatch)
    with calls_of(lvlm.family.model.lm_head) as outputs:
        both(lvlm, left_open, tau=tau, tracing=False)
    half = len(outputs) // 2
    for ours, theirs in zip(outputs[:half], outputs[half:], strict=True):
        torch.testing.assert_close(ours[:, -1], theirs[:, -1], atol=1e-9, rtol=1e-9)
    for ours, theirs in zip(caches[0].layers, caches[1].layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(ours.values, theirs.values, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("tau", [-1.0, 0.3, 0.95])
@pytest.mark.parametrize("compensation", ["end", "begin"])
@pytest.mark.parametrize("layers", [LAYERS, (0, 2, 7)])
def test_what_was_left_open_equals_recomputation(any_lvlm, left_open, tau, compensation, layers):
    """From scratch at every step, on a model without hooks and without a cache."""
    prompt = prompt_of(any_lvlm)
    method = create("libra", ratio=0.5, tau=tau, compensation=compensation)
    left_open(True)
    tokens, logits, _ = decode(any_lvlm, prompt, method, layers)
    plain = make_model(any_lvlm.family.model.config._attn_implementation)
    expected, reference = recompute(plain, prompt, method, layers)
    assert tokens == expected
    torch.testing.assert_close(logits, reference, atol=1e-5, rtol=0)  # eager is fp32 inside


@pytest.mark.parametrize("tau", [-1.0, 0.95])
def test_generate_of_transformers(lvlm, left_open, tau):
    prompt, method = prompt_of(lvlm), create("libra", ratio=0.5, tau=tau)
    tokens, _, _ = decode(lvlm, prompt, method, LAYERS)
    left_open(True)
    assert generate(lvlm, prompt, method, LAYERS) == tokens


@pytest.mark.parametrize("name", BUILD)
def test_every_family(left_open, name):
    with BUILD[name]() as lvlm:
        request = {"layers": None, "images": [make_image(1), make_image(2)]}
        left_open(False)
        for tau in between(lvlm, **request):
            alike(*both(lvlm, left_open, tau=tau, **request))


@pytest.mark.parametrize("tracing", [False, "full"])
def test_every_way_of_tracing(any_lvlm, left_open, tracing):
    for tau in (-1.0, 0.95):
        alike(*both(any_lvlm, left_open, tau=tau, tracing=tracing))


@pytest.mark.parametrize("tau", [-1.0, 0.95])
def test_events_that_remove_nothing(lvlm, left_open, tau):
    asked, opened = both(lvlm, left_open, tau=tau, ratio=None, keep=5)
    alike(asked, opened)
    assert opened.trace.events[1].reduction.is_selection


def test_a_forced_patch(lvlm, left_open):
    for tau in (-1.0, 0.95):
        alike(*both(lvlm, left_open, tau=tau, keep=[3], drop=[0, 5]))


@pytest.mark.parametrize("tau", [-1.0, 0.95])
def test_several_requests_at_once(lvlm, left_open, tau):
    requests = requests_of(*METHODS, "libra", tracing=True)
    for request in requests:
        if request["method"] == "libra":
            request["tau"] = tau
    left_open(False)
    asked = alone(lvlm, requests)
    left_open(True)
    for one, other in zip(lvlm.answer_batch(requests), asked, strict=True):
        alike(one, other)


@pytest.mark.parametrize("tau", [-1.0, 0.95])
def test_a_follow_up_question(lvlm, left_open, tau):
    answers = []
    for open_ in (False, True):
        left_open(open_)
        memory = Memory()
        first = lvlm.answer(**REQUEST, tau=tau, memory=memory)
        more = REQUEST | {"question": "how many cat", "history": [(QUESTION, first.text)]}
        answers.append(lvlm.answer(**more, tau=tau, memory=memory))
    alike(*answers)


def test_nothing_is_left_open_where_it_costs_nothing_or_a_window_forgets(lvlm):
    config = lvlm.family.model.config
    plain, sliding = DynamicCache(config=config), DynamicCache(config=config)
    sliding.layers[1] = DynamicSlidingWindowLayer(sliding_window=8)
    cpu, gpu = torch.device("cpu"), torch.device("meta")
    assert vacancy.stays_open(gpu, plain)
    assert not vacancy.stays_open(cpu, plain) and not vacancy.stays_open(gpu, sliding)


@pytest.mark.parametrize("merge", ["grouped", "positive", "average", "negative", "prune"])
def test_what_a_single_event_leaves_open(merge):
    hidden, alpha = torch.eye(6), torch.rand(6)
    libra = create("libra", merge=merge)
    asked, opened = (libra.reduce(Tokens(hidden, alpha, may_wait=wait)) for wait in (True, False))
    assert asked.vacant is None and (opened.vacant is None) == (merge == "prune")
    if opened.vacant is not None:
        assert bool(opened.vacant) == (asked.compensation is None) == (merge not in GATHERING)
        opened = opened.without(target=opened.compensation if opened.vacant else None)
    close(opened.dense(), asked.dense())
    assert opened.slot.equal(asked.slot)


@pytest.mark.parametrize("compensation", ["end", "begin"])
def test_a_vacant_token_weighs_nothing(compensation):
    hidden = torch.eye(4).repeat(2, 1).double()
    alpha = torch.rand(8).double()
    vacant = create("libra", tau=-1.0, compensation=compensation).reduce(
        Tokens(hidden, alpha, may_wait=False)
    )
    assert vacant.vacant and vacant.n_out == 5
    for tau in (-1.0, 1.0):  # alone in its group, and with others
        libra = create("libra", tau=tau, keep=2, compensation=compensation)
        now = vacant.apply(hidden)
        tokens = Tokens(
            now, torch.rand(5).double(), n_previous_compensation=1, vacant=vacant.vacant,
            may_wait=False,
        )  # fmt: skip
        opened = libra.reduce(tokens)
        own = 0 if compensation == "begin" else 4
        assert opened.weight[opened.source == own].tolist() == [0]
        keep = torch.arange(5) != own
        asked = libra.reduce(Tokens(now[keep], tokens.importance[keep]))
        gone = opened.compensation if opened.vacant else None
        settled = opened.without(own, gone)
        torch.testing.assert_close(settled.dense(), asked.dense())
        assert settled.slot.equal(asked.slot) and settled.compensation == asked.compensation


def test_only_a_compensation_token_may_be_vacant():
    one, vacant = torch.zeros(1, dtype=torch.long), torch.tensor(True)
    with pytest.raises(InputError, match="may be vacant"):
        Reduction(1, one, one, torch.ones(1), one, vacant=vacant)
    slot = torch.zeros(2, dtype=torch.long)
    assert Reduction(1, one, one, torch.ones(1), slot, 1, vacant=vacant).n_out == 2
    with pytest.raises(InputError, match="must be fed"):
        Reduction(1, one, one, torch.ones(1), slot, 1)


def test_a_map_without_one_of_its_tokens():
    reduction = Reduction(
        n_in=4,
        source=torch.tensor([0, 1, 2, 3]),
        target=torch.tensor([0, 0, 1, 2]),
        weight=torch.tensor([0.25, 0.75, 1, 1]),
        slot=torch.tensor([1, 2, 3]),
        compensation=2,
        evidence={"best_target": torch.tensor([1, -1, 2, 3]), "fact": torch.arange(4)},
    )
    less = reduction.without(source=0)
    close(less.dense(), torch.tensor([[0.75, 0, 0], [0, 1, 0], [0, 0, 1]]))
    assert less.slot.tolist() == [0, 1, 2] and less.compensation == 2
    assert less.evidence["best_target"].tolist() == [-1, 1, 2]
    assert less.evidence["fact"].tolist() == [1, 2, 3]
    less = reduction.without(source=3, target=2)
    close(less.dense(), torch.tensor([[0.25, 0.75, 0], [0, 0, 1]]))
    assert less.n_in == 3 and less.compensation is None
    same = reduction.without()
    close(same.dense(), reduction.dense())
    assert same.compensation == 2
