"""Prefills that are measured in turns."""

import pytest

import libra
from libra import prefills
from libra.conversation import Memory
from libra.errors import ShortageError
from libra.trace import Trace
from tests.conftest import QUESTION, make_image


@pytest.fixture
def clock(lvlm, monkeypatch):
    """Makes the prefills of coming answers take these seconds; says who had them."""

    def made(*seconds):
        left, took, answer = iter(seconds), [], lvlm.answer

        def timed(**request):
            result = answer(**request)
            result.trace.timings.prefill = next(left)
            took.append((request["method"], request["tracing"], request["max_new_tokens"]))
            return result

        monkeypatch.setattr(lvlm, "answer", timed)
        return took

    return made


REQUEST = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 3}


def test_a_comparison_takes_the_medians_of_three_turns(lvlm, clock):
    # The answers themselves, on a machine that was held up; then a turn of both, three times.
    took = clock(0.9, 0.2, *(0.3, 0.1), *(0.1, 0.2), *(0.2, 0.9))
    answers = libra.compare(lvlm, ["vanilla", "fastv"], **REQUEST)
    assert [answer.trace.timings.prefill for answer in answers] == [0.2, 0.2]
    assert [answer.trace.timings.turns for answer in answers] == [3, 3]
    assert took[:2] == [("vanilla", True, 3), ("fastv", True, 3)]
    assert took[2:] == [("vanilla", False, 1), ("fastv", False, 1)] * 3


def test_nothing_but_the_prefill_is_measured_again(lvlm):
    alone = lvlm.answer(**REQUEST, method="libra").trace
    _, measured = (a.trace for a in libra.compare(lvlm, ["vanilla", "libra"], **REQUEST))
    assert measured.answer == alone.answer and measured.counts == alone.counts
    assert len(measured.attention) == len(alone.attention) > 0
    assert len(measured.timings.decode) == len(alone.timings.decode)


def test_what_is_stopped_leaves_all_as_they_were(lvlm, clock):
    clock(0.9, 0.2, *[0.1] * 6)
    requests = [REQUEST | {"method": name, "tracing": True} for name in ("vanilla", "fastv")]
    runs = [(request, lvlm.answer(**request).trace) for request in requests]
    steps = prefills.measure_in_turns(lvlm, runs)
    for _ in range(2 * prefills.TURNS):
        next(steps)
    assert [trace.timings.prefill for _, trace in runs] == [0.9, 0.2]
    assert [trace.timings.turns for _, trace in runs] == [1, 1]


def test_a_lack_of_memory_leaves_the_answers(lvlm, clock, monkeypatch):
    clock(0.9, 0.2, 0.3)

    def short(lvlm, request, prefill=prefills.prefill):
        if request["method"] == "fastv":
            raise ShortageError("too little memory")
        return prefill(lvlm, request)

    monkeypatch.setattr(prefills, "prefill", short)
    answers = libra.compare(lvlm, ["vanilla", "fastv"], **REQUEST)
    assert [answer.trace.timings.prefill for answer in answers] == [0.9, 0.2]


def test_slow_prefills_are_measured_once(lvlm, clock):
    took = clock(prefills.QUICK, 2 * prefills.QUICK)
    answers = libra.compare(lvlm, ["vanilla", "fastv"], **REQUEST)
    assert [answer.trace.timings.turns for answer in answers] == [1, 1] and len(took) == 2


def test_one_answer_alone_is_measured_once(lvlm, clock):
    took = clock(0.1)
    (answer,) = libra.compare(lvlm, "fastv", **REQUEST)
    assert answer.trace.timings.turns == 1 and len(took) == 1


def test_what_went_behind_an_earlier_answer_is_measured_once(lvlm):
    runs = []
    for name in ("vanilla", "fastv"):
        request = REQUEST | {"method": name, "memory": Memory()}
        first = lvlm.answer(**request)
        request |= {"question": "what ?", "history": [(QUESTION, first.text)]}
        runs.append((request, lvlm.answer(**request).trace))
        assert runs[-1][1].follows
    assert list(prefills.measure_in_turns(lvlm, runs)) == []


def test_measuring_leaves_a_conversation_alone(lvlm):
    requests = [REQUEST | {"method": name, "memory": Memory()} for name in ("vanilla", "fastv")]
    runs = [(request, lvlm.answer(**request).trace) for request in requests]
    assert len(list(prefills.measure_in_turns(lvlm, runs))) == 2 * (prefills.TURNS + 1)
    assert all(request["memory"] for request in requests)


def test_a_trace_says_how_often_it_was_measured(lvlm, tmp_path):
    trace = libra.compare(lvlm, ["vanilla", "fastv"], **REQUEST)[1].trace
    trace.save(tmp_path / "trace.zip")
    assert Trace.load(tmp_path / "trace.zip").timings == trace.timings
