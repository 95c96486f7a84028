"""Follow-up questions on the page: what they follow, what is used again, and how it shows."""

from dataclasses import replace

import pytest

from libra.conversation import Memory
from libra.errors import InputError
from page import again, engine, panels, plan, texts
from page.readouts import readouts
from page.shown import Added, Shown
from tests.conftest import N_VISUAL, QUESTION, make_image

EVIL = "\"'><script>alert(1)</script>"
SECOND = "how many cat ?"


pytestmark = pytest.mark.usefixtures("all_uploaded")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    make_image(seed=7).save(path)
    return str(path)


@pytest.fixture(scope="module")
def trace(model, picture):
    request = {"images": [picture], "question": QUESTION, "max_new_tokens": 3}
    return engine.load(model).answer(**request).trace


def asked(visit, shown, model, question, picture, method="libra"):
    """Ask as the page does; the steps, with the settings of the Ask tab."""
    c = visit.controls
    values = [{"path": picture}, question, model, method, 0.5, [1, 3], []]
    own = [plan.defaults(of, model)[name] for of, name in c.parameters]
    return list(visit.ask(shown, *values, *own))


@pytest.fixture
def reads(model):
    """How many tokens the decoder reads at once, call by call."""
    counts = []
    handle = (
        engine.load(model)
        .family.decoder_layers[0]
        .register_forward_pre_hook(lambda module, args: counts.append(args[0].shape[1]))
    )
    yield counts
    handle.remove()


def test_a_follow_up_goes_behind_the_answer_and_reads_only_what_is_new(
    visit, model, picture, reads
):
    shown = Shown(picture=picture)
    asked(visit, shown, model, QUESTION, picture)
    first = shown.trace
    assert first.history == [] and max(reads) > N_VISUAL
    visit.follow(shown, True)
    reads.clear()
    steps = asked(visit, shown, model, SECOND, picture)
    whole = shown.trace.cost.text + N_VISUAL
    assert max(reads) < whole - N_VISUAL  # the picture is in both caches
    assert shown.trace.history == [(QUESTION, first.answer)] == shown.vanilla.history
    assert QUESTION in steps[0][visit.tab.answer]  # it is seen while the answer grows
    assert shown.asked["libra"]["history"] == shown.trace.history
    assert "memory" not in shown.asked["libra"]


def test_a_follow_up_under_another_method_is_held_against_as_much_of_vanilla(
    visit, model, picture, reads
):
    shown = Shown(picture=picture)
    asked(visit, shown, model, QUESTION, picture)
    visit.follow(shown, True)
    for method, fresh in (("fastv", 2), ("fastv", 0)):
        reads.clear()
        asked(visit, shown, model, SECOND, picture, method)
        assert sum(count > N_VISUAL for count in reads) == fresh, method  # it, and vanilla
        assert shown.trace.follows == shown.vanilla.follows == (not fresh)
        assert shown.trace.timings.read == shown.vanilla.timings.read
        assert "earlier answer" not in readouts(shown.trace, shown.vanilla)
    asked(visit, shown, model, SECOND, picture)  # behind the first answer; vanilla said more since
    ours, theirs = shown.trace.timings, shown.vanilla.timings
    assert ours.read > theirs.read == 1
    assert "went behind an earlier answer" in readouts(shown.trace, shown.vanilla)
    assert f", {ours.read} tokens behind " in ours.where


def test_without_follow_up_every_question_begins_anew(visit, model, picture, reads):
    shown = Shown(picture=picture)
    for question in (QUESTION, SECOND):
        reads.clear()
        asked(visit, shown, model, question, picture)
        assert sum(count > N_VISUAL for count in reads) == 2  # compressed, and vanilla
        assert shown.trace.history == []


def test_the_same_question_again_does_not_follow_itself(trace):
    shown = Shown(picture="a", follow=True)
    shown.show(replace(trace, history=[("what ?", "yes")]))
    assert shown.history(trace.question) == [("what ?", "yes")]
    assert shown.history("another ?") == [("what ?", "yes"), (trace.question, trace.answer)]


def test_only_answers_about_the_same_media_can_be_followed(trace):
    shown = Shown(picture="a", follow=True)
    with pytest.raises(InputError, match="untick"):
        shown.history("what ?")
    shown.show(trace)
    assert shown.history("what ?")
    for picture, added in (("b", Added()), ("a", Added(("b",)))):
        other = replace(shown, picture=picture, added=added)
        with pytest.raises(InputError, match="untick"):
            other.history("what ?")
        assert replace(other, follow=False).history("what ?") == []


def test_an_opened_trace_can_be_followed(visit, model, trace, tmp_path):
    shown = Shown(follow=True)
    trace.save(tmp_path / "a.trace.zip")
    visit.open_trace(str(tmp_path / "a.trace.zip"), shown, model)
    assert shown.history("what ?") == [(trace.question, trace.answer)]


def test_a_comparison_is_about_the_same_conversation():
    own = {"images": ["a"], "question": "b", "history": [("c", "d")], "method": "libra"}
    requests = plan.comparison(own, ["vanilla", "fastv", "libra"], {})
    assert all(request["history"] == [("c", "d")] for request in requests)


def test_a_stored_follow_up_is_asked_again_with_its_history(trace):
    assert "history" not in again.request_of(trace)
    follow = replace(trace, history=[("what ?", "yes")])
    assert again.request_of(follow)["history"] == [("what ?", "yes")]


def test_earlier_turns_are_shown_as_text(trace):
    shown = panels.answer(replace(trace, history=[(EVIL, EVIL)]))
    assert "<script" not in shown and shown.count("&lt;script") == 2
    assert texts.EARLIER in shown and texts.EARLIER not in panels.answer(trace)
    assert "<script" not in panels.streaming("a", "b", "c", [(EVIL, EVIL)])


def test_only_the_latest_conversations_keep_their_caches():
    engine._forget()
    memories = [Memory() for _ in range(engine.REMEMBERED + 1)]
    for memory in memories:
        memory._kept["libra"] = object()
    for memory in memories[:-1] + memories[:1]:  # the first is used again
        engine._remember(memory)
    assert all(memories[:-1])
    engine._remember(memories[-1])
    assert [bool(memory) for memory in memories].count(False) == 1 and memories[0]
    engine._forget()
    assert not any(memories)


def test_a_new_model_finds_the_caches_of_conversations_freed(model, monkeypatch):
    memory = Memory()
    memory._kept["libra"] = object()
    engine._remember(memory)
    engine.shelf.clear()
    engine.load(model)
    assert not memory
