"""Comparisons: what runs, what is shared, what is held against what; without a browser."""

import csv
from dataclasses import replace

import pytest
from PIL import Image

from libra import methods
from libra.errors import InputError
from libra.models.llava import Llava
from libra.prefills import TURNS
from page import compare, comparison, engine, panels, plan, readouts, texts, views
from page.shown import Result, Shown
from page.visit import Visit
from tests.conftest import N_VISUAL, QUESTION, make_image
from tests.serve_page import unserved
from viz.panel import LINE

METHODS = ["vanilla", "fastv", "sparsevlm", "libra", "prumerge", "illava", "tome"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """What the Ask tab asks: Libra-Merging with settings of its own."""
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    make_image(seed=5).save(path)
    return plan.request(str(path), QUESTION, "libra", {"tau": 0.2, "max_new_tokens": 4})


@pytest.fixture(scope="module")
def results(model, own):
    """Complete results by method."""
    requests = plan.comparison(own, METHODS, {"max_new_tokens": 4})
    return {r.method: r for r in engine.compare(model, requests) if r.complete}


@pytest.fixture(scope="module")
def traces(results):
    return [result.trace for result in results.values()]


def test_requests_come_in_the_order_of_the_page_with_the_settings_of_the_ask_tab(own):
    requests = plan.comparison(own, ["tome", "libra", "vanilla", "fastv"], {})
    assert [r["method"] for r in requests] == ["vanilla", "fastv", "libra", "tome"]
    assert [r.get("tau") for r in requests] == [None, None, 0.2, None]
    assert all(r["question"] == QUESTION and r["images"] == own["images"] for r in requests)


def test_one_ratio_replaces_all(own):
    requests = plan.comparison(own | {"ratio": 0.9}, ["fastv", "libra"], {"ratio": 0.5})
    assert [r["ratio"] for r in requests] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("method", "counts"),
    [
        ("libra", {"keep": 3}),
        ("visionzip", {"dominant": 2, "contextual": 1}),
        ("spatial", {"rows": 1, "columns": 3}),
    ],
)
def test_one_ratio_takes_the_place_of_counts(method, counts):
    own = {"images": ["a"], "question": "?", "method": method, **counts}
    (alone,) = plan.comparison(own, [method], {})
    assert alone == own
    (shared,) = plan.comparison(own, [method], {"ratio": 0.25})
    assert shared == {"images": ["a"], "question": "?", "method": method, "ratio": 0.25}
    created = methods.create(method, ratio=0.25)
    assert created.by_ratio and created.count(16) == 12
    assert not methods.create(method, **counts).by_ratio


def test_what_is_left_takes_the_place_of_a_ratio_and_of_counts():
    own = {"images": ["a"], "question": "?", "method": "visionzip", "ratio": 0.9}
    requests = plan.comparison(own | {"keep": 3}, ["fastv", "visionzip"], {"left": 0.25})
    inputs = {"images": ["a"], "question": "?"}
    assert requests == [inputs | {"method": m, "left": 0.25} for m in ("fastv", "visionzip")]


@pytest.mark.parametrize("ratio", ["own", 0.5, None, ["¼ left"]])
def test_a_ratio_that_the_page_does_not_offer_is_refused(ratio):
    assert compare.settings_of("¼ left") == {"left": 0.25}
    with pytest.raises(InputError, match=r"no ratio .* on this page"):
        compare.settings_of(ratio)


def test_nothing_chosen_is_explained(own):
    with pytest.raises(InputError, match="choose at least one"):
        plan.comparison(own, [], {})


def test_results_are_those_of_the_engine(model, own, results):
    lvlm = engine.load(model)
    for request in plan.comparison(own, METHODS, {"max_new_tokens": 4}):
        alone = lvlm.answer(**request)
        trace = results[request["method"]].trace
        assert trace.answer == results[request["method"]].text == alone.text
        assert trace.counts == alone.trace.counts
        assert trace.params == alone.trace.params


def test_the_plain_encoder_runs_once_for_all_that_leave_it_alone(model, own, monkeypatch):
    runs = []
    encode = Llava.encode

    def counted(self, images, reducers=None):
        runs.append(reducers is not None)
        return encode(self, images, reducers)

    monkeypatch.setattr(Llava, "encode", counted)
    list(engine.compare(model, plan.comparison(own, ["vanilla", "libra", "prumerge"], {})))
    assert runs == [False]
    list(engine.compare(model, plan.comparison(own, ["vanilla", "tome"], {})))
    assert runs == [False, False] + [True] * (1 + TURNS)  # in there, every turn needs its own


def test_prefills_are_measured_in_turns_and_the_table_says_so(model, own, results):
    requests = plan.comparison(own, ["vanilla", "fastv"], {"max_new_tokens": 2})
    complete = [r.method for r in engine.compare(model, requests) if r.complete]
    assert complete == ["vanilla", "fastv"] * (1 + TURNS + 1)
    assert {r.trace.timings.turns for r in results.values()} == {TURNS}
    said = texts.MEASURED_IN_TURNS.format("", TURNS)
    assert said in readouts.comparison(list(results.values()))
    alone = Result("vanilla", trace=engine.load(model).answer(**requests[0]).trace)
    assert texts.MEASURED_ONCE in readouts.comparison([alone])
    but = texts.BUT_FOR.format(methods.title("vanilla"))
    mixed = readouts.comparison([alone, results["fastv"]])
    assert texts.MEASURED_IN_TURNS.format(but, TURNS) in mixed


def test_what_one_method_cannot_do_stands_in_its_place(model, own, caplog, monkeypatch):
    requests = plan.comparison(own, ["vanilla", "fastv", "libra", "turbo"], {})
    requests[1]["layers"] = (99,)

    def broken(self, tokens, n_keep):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("libra.methods.turbo.Turbo.decide", broken)
    done = {r.method: r for r in engine.compare(model, requests) if r.complete}
    assert list(done) == ["vanilla", "fastv", "libra", "turbo"]
    assert "must lie in 0.." in done["fastv"].error
    assert done["turbo"].error == texts.FAILED and "out of memory" in caplog.text
    assert done["vanilla"].trace and done["libra"].trace
    table = readouts.comparison(list(done.values()))
    assert table.count("<tr>") == 5 and "must lie in 0.." in table
    assert "must lie in 0.." in panels.card(done["fastv"])


@pytest.mark.parametrize("question", ["", "a" * 3000])
def test_what_no_method_could_answer_is_said_once(model, own, question):
    requests = plan.comparison(own | {"question": question}, METHODS, {})
    with pytest.raises(InputError, match="question"):
        next(engine.compare(model, requests))


@pytest.mark.parametrize(
    ("ours", "theirs", "place"),
    [
        ("a red cat", "a red cat", None),
        ("a red  cat", "a red cat", None),
        ("a red cat", "a blue cat", 1),
        ("a red", "a red cat", 2),
        ("a red cat", "a red", 2),
        ("", "", None),
        ("", "yes", 0),
    ],
)
def test_the_first_word_that_differs(ours, theirs, place):
    assert panels.first_difference(ours.split(), theirs.split()) == place


def answered(trace, method, answer):
    return Result(method, answer, replace(trace, method=method, answer=answer))


def test_only_the_first_word_that_differs_is_marked(traces):
    plain = answered(traces[0], "vanilla", "a cat and a dog")
    other = answered(traces[0], "fastv", "a cat or one dog")
    card = panels.card(other, plain.trace)
    assert card.count("<mark>") == 1 and "a cat <mark>or</mark> one dog" in card
    assert texts.DIFFERS.format("Vanilla", 3) in card
    assert texts.REFERENCE in panels.card(plain, plain.trace)
    short = panels.card(answered(traces[0], "fastv", "a cat"), plain.trace)
    assert f"<mark>{texts.ENDS}</mark>" in short
    same = panels.card(answered(traces[0], "fastv", "a cat and a dog"), plain.trace)
    assert "<mark>" not in same and "The same as" in same


def test_answers_are_held_against_vanilla_or_the_first(results):
    assert comparison.reference(list(results.values())).method == "vanilla"
    others = [results["tome"], results["libra"], Result("fastv", error="no")]
    assert comparison.reference(others).method == "tome"
    assert comparison.reference([Result("fastv")]) is None


def test_stages_move_in_step_and_end_together(traces):
    steps = {t.method: len(t.events) for t in traces}
    assert max(steps.values()) == 3 and steps["vanilla"] == 0 and steps["fastv"] == 1
    assert comparison.positions(traces) == [
        ("Before", 0),
        ("Step 1", 1),
        ("Step 2", 2),
        ("Last", comparison.LAST),
    ]
    for trace in traces:
        stages = [comparison.stage_of(trace, p, traces) for p in (0, 1, 2, comparison.LAST)]
        assert stages[0] == 0 and stages[-1] == len(trace.events)
        assert stages == sorted(stages)
        if len(trace.events) == 3:
            assert stages == [0, 1, 2, 3]
    alone = [trace for trace in traces if trace.method == "vanilla"]
    assert comparison.positions(alone) == [("Before", 0), ("Last", comparison.LAST)]
    assert comparison.stage_of(alone[0], comparison.LAST, alone) == 0


@pytest.mark.parametrize("overlay", [key for _, key in compare.OVERLAYS])
def test_pictures_are_of_one_size_and_move_with_the_position(traces, overlay):
    before = comparison.View.of(traces, overlay, 0).pictures
    view = comparison.View.of(traces, overlay, comparison.LAST)
    assert len({p.size for p in before + view.pictures}) == 1 and "legend" in view.legend
    moved = [a.tobytes() != b.tobytes() for a, b in zip(before, view.pictures, strict=True)]
    libra = [trace.method for trace in traces].index("libra")
    assert moved[libra]


def test_heat_maps_share_layer_and_scale(traces):
    libra = next(trace for trace in traces if trace.method == "libra")
    louder = replace(libra, importance=[4 * row for row in libra.importance], attention=[])
    alone = comparison.View.of([libra], "importance", comparison.LAST)
    beside = comparison.View.of([libra, louder, louder], "importance", comparison.LAST)
    assert (
        beside.pictures[0].tobytes() != alone.pictures[0].tobytes()
    )  # darker: the scale is that of the others
    assert f"layer {len(libra.counts) - 1}" in beside.legend


def test_heat_maps_of_a_comparison_say_what_is_gone_in_them(traces):
    merged, pruned = (next(t for t in traces if t.method == m) for m in ("libra", "fastv"))
    for chosen in ([merged], [pruned], [merged, pruned]):
        legend = comparison.View.of(chosen, "importance", comparison.LAST).legend
        assert ("no token here any more" in legend) == (pruned in chosen)
        assert ("extra token" in legend) == (merged in chosen)


def test_heat_maps_name_the_stage_whose_tokens_their_layer_sees(traces):
    """At step 1 the leader shows layer 3, where FastV has pruned already."""
    pair = [t for t in traces if t.method in ("fastv", "libra")]
    heat, groups = (comparison.View.of(pair, o, 1).captions for o in ("importance", "groups"))
    assert heat == ["After layer 1 · 8", "After layer 1 · 8"]
    assert groups == [f"Before · {N_VISUAL}", "After layer 1 · 8"]


def test_the_table_has_a_row_per_method_and_the_file_its_numbers(results, traces):
    table = readouts.comparison(list(results.values()))
    assert table.count("<tr>") == 1 + len(METHODS)
    for trace in traces:
        assert readouts.staircase(trace) in table
        assert readouts.percent(trace.cost.flops / trace.cost.vanilla_flops) in table
    with open(views.save_table(traces), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == [trace.method for trace in traces]
    assert [float(row["prefill_s"]) for row in rows] == [t.timings.prefill for t in traces]
    assert [row["answer"] for row in rows] == [trace.answer for trace in traces]


def test_all_pictures_are_one_png(traces):
    view = comparison.View.of(traces, "groups", comparison.LAST)
    with Image.open(view.sheet(traces)) as sheet:
        assert sheet.format == "PNG"
        width, height = view.pictures[0].size
        assert sheet.width >= 4 * width and sheet.height >= 2 * height


def test_the_file_says_what_was_asked_and_answered(traces):
    def size(*traces):
        view = comparison.View.of(traces, "importance", comparison.LAST)
        with Image.open(view.sheet(traces)) as sheet:
            return sheet.size

    width, height = size(traces[0])
    longer = replace(traces[0], question=f"{traces[0].question} " * 12, answer="one word " * 40)
    assert size(longer)[0] == width and size(longer)[1] > height + 3 * LINE
    assert height - comparison.View.of(traces[:1], "importance", 0).pictures[0].height > LINE * 2


def test_a_stopped_comparison_keeps_what_is_complete_or_what_was_there(results):
    shown = Shown()
    shown.show(results["libra"].trace, results["vanilla"].trace)
    assert list(shown.compared) == ["vanilla", "libra"]
    running = {name: Result(name) for name in ("fastv", "tome", "libra")}
    shown.begin(running)
    shown.settle()
    assert list(shown.compared) == ["vanilla", "libra"]
    shown.begin(running)
    running["fastv"] = results["fastv"]
    running["tome"] = Result("tome", "half an ans")
    shown.settle()
    assert list(shown.compared) == ["fastv"]
    running["tome"] = results["tome"]  # a step that was under way comes too late
    assert list(shown.compared) == ["fastv"]


def test_one_new_answer_is_compared_with_vanilla(results):
    shown = Shown()
    shown.show(results["libra"].trace)
    assert [t.method for t in shown.traces] == ["libra"]
    shown.measure(results["vanilla"].trace)
    assert [t.method for t in shown.traces] == ["vanilla", "libra"]
    shown.show(results["vanilla"].trace, results["vanilla"].trace)
    assert [t.method for t in shown.traces] == ["vanilla"]


def test_the_method_of_the_ask_tab_is_compared_with_vanilla_as_it_is_set_there():
    assert compare.with_vanilla("turbo")[1:] == (["vanilla", "turbo"], compare.OWN)
    assert compare.with_vanilla("vanilla")[1:] == (["vanilla", "libra"], compare.OWN)


def test_before_the_first_comparison_the_page_says_what_to_do():
    assert texts.NOTHING_COMPARED in panels.below("", "groups")


def test_what_is_opened_meanwhile_ends_a_comparison(model, traces, tmp_path, monkeypatch):
    """Its results do not come up on the cards of the other."""
    visit, (first, second, *_) = unserved(model, tmp_path), traces
    results = [Result(t.method, t.answer, t) for t in (first, second)]
    monkeypatch.setattr(engine, "compare", lambda *_: iter(results))
    asked = {"method": "libra", "question": QUESTION, "images": ["a.png"]}
    monkeypatch.setattr(Visit, "_request", lambda *_: (model, asked))
    shown = Shown()
    steps = visit.compare(shown, [first.method, second.method], compare.OWN, "fate", 0)
    for _ in range(3):  # waiting, a place for each, the first answer
        next(steps)
    shown.show(first)
    assert list(steps) == [] and not shown.ran
    done = visit.compared(shown, "fate", 0)
    assert done[visit.several.status] == panels.note(texts.LAST_ANSWER)


def test_what_is_stopped_while_prefills_are_measured_has_all_answers(
    model, traces, tmp_path, monkeypatch
):
    visit, (first, second, *_) = unserved(model, tmp_path), traces
    results = [Result(t.method, t.answer, t) for t in (first, second)]
    monkeypatch.setattr(engine, "compare", lambda *_: iter([*results, *results]))
    asked = {"method": "libra", "question": QUESTION, "images": ["a.png"]}
    monkeypatch.setattr(Visit, "_request", lambda *_: (model, asked))
    shown = Shown()
    shown.again = "asked again"
    steps = visit.compare(shown, [first.method, second.method], compare.OWN, "fate", 0)
    for _ in range(5):  # waiting, a place for each, both answers, the first in turns
        step = next(steps)
    assert step == {visit.several.status: panels.note(texts.IN_TURNS)}
    done = visit.settle(shown, "fate", 0)
    assert done[visit.several.status] == panels.note(texts.STOPPED.format(2, 2))
    assert shown.traces == [first, second] and shown.again is None
    assert list(steps) == []


def test_a_comparison_that_never_began_takes_nothing_away(model, traces, tmp_path):
    visit, shown = unserved(model, tmp_path), Shown()
    shown.show(traces[0])
    shown.again = "asked again"
    visit.settle(shown, "fate", 0)
    assert shown.again == "asked again"
