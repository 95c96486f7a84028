"""The Efficiency tab without a browser: what it counts, draws, refuses and saves."""

import csv
import re
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest
from conftest import N_LAYERS, make_image
from make_trace import make_trace

from libra import methods
from libra.architecture import ARCHITECTURES
from libra.errors import InputError
from libra.roofline import DEVICES, Device
from libra.statistics import percent
from libra.sweep import Row, Setting
from page import charts, costing, efficiency, engine, figures, readouts, sweeps, texts
from page.shown import Result, Shown

MACHINE = Device("this machine", 1e11, 1e10)


@pytest.fixture(autouse=True)
def measured_machine(monkeypatch):
    monkeypatch.setattr(costing, "machine", lambda again=False: MACHINE)


def shown(*names, model="tiny-llava", asked=True):
    """A comparison of these methods, the last of them asked for on the Ask tab."""
    traces = [replace(make_trace(name), model=model) for name in names]
    found = Shown()
    found.show(traces[-1], requests=[{"method": names[-1]}] if asked else ())
    found.compared = {t.method: Result(t.method, t.answer, t) for t in traces}
    return found


@pytest.fixture(scope="module")
def pair():
    return shown("vanilla", "libra")


def test_what_is_asked_here_is_counted_for_the_model_itself(pair):
    found = costing.Costing.of(pair)
    work = found.works["Libra-Merging"]
    assert (found.focus, found.device, found.measured) == ("Libra-Merging", MACHINE, True)
    assert work.architecture == ARCHITECTURES["tiny-llava"]
    assert work.counts == pair.trace.counts and found.vanilla is pair.traces[0]
    assert "of the prefill" in found.verdict and "this machine" in found.verdict


def test_stored_answers_and_other_devices_were_not_measured_here(pair):
    assert not costing.Costing.of(shown("vanilla", "fastv", asked=False)).measured
    for where in (("llava-1.5-7b", costing.HERE), (costing.OWN, "A100"), (costing.OWN, "H100", 99)):
        found = costing.Costing.of(pair, *where)
        assert not found.measured and all(p.reached is None for p in found.points())


def test_rates_are_measured_again_where_an_answer_outruns_them(pair, monkeypatch):
    slow, fast, mixed = (Device("this machine", *rates) for rates in ((1, 9), (1e15, 1e15), (5, 2)))
    runs = iter([slow, mixed, fast])
    monkeypatch.undo()  # of `measured_machine`
    monkeypatch.setattr(costing, "_rates", {})
    monkeypatch.setattr(costing.roofline, "measure", lambda device: next(runs))
    assert costing.machine() == costing.machine() == slow
    still = costing.Costing.of(pair)
    assert still.device == Device("this machine", 5, 9) and still.outrun
    assert texts.OUTRUN in charts.table(still)
    found = costing.Costing.of(pair)
    assert found.device == fast and not found.outrun
    assert texts.OUTRUN not in charts.table(found)


def test_the_same_staircase_in_another_model(pair):
    found = costing.Costing.of(pair, "llava-1.5-7b", "A100")
    work = found.works["Libra-Merging"]
    assert (work.n, len(work.counts), work.itemsize) == (576, 32, 2)
    assert found.device is DEVICES["A100"]
    assert found.subject == "llava-1.5-7b on A100, 576 visual tokens"
    longer = costing.Costing.of(pair, "llava-1.5-7b", "A100", 1152).works["Libra-Merging"]
    assert longer.counts == [2 * n for n in work.counts] or longer.counts[0] == 1152
    own = costing.Costing.of(pair, n=288).works["Libra-Merging"]
    assert own.counts[0] == 288 and own.architecture.name == "tiny-llava"


def test_numbers_are_of_the_precision_of_the_rates_that_they_are_held_against(pair, monkeypatch):
    monkeypatch.setattr(
        costing, "machine", lambda again=False: Device("this machine", 1e11, 1e10, 4)
    )
    for model, device, itemsize in (
        (costing.OWN, costing.HERE, 2),  # that of the traces
        ("llava-1.5-7b", costing.HERE, 4),
        (costing.OWN, "A100", 2),
    ):
        works = costing.Costing.of(pair, model, device).works.values()
        assert {work.itemsize for work in works} == {itemsize}


@pytest.mark.parametrize("n", [0, -3, 1.5, 10**6])
def test_numbers_of_tokens_that_are_none_are_refused(pair, n):
    with pytest.raises(InputError, match="whole number from 1"):
        costing.Costing.of(pair, n=n)


def test_a_model_of_unknown_sizes_says_so_but_can_be_carried_over():
    unknown = shown("vanilla", "fastv", model="my-model")
    found = costing.Costing.of(unknown)
    assert found.works == {} and "my-model are not known" in found.verdict
    assert charts.table(found) == ""
    missing = {spec.name: spec.missing(found) for spec in (*charts.MEASURED, *charts.ELSEWHERE)}
    assert [name for name, why in missing.items() if why] == ["theory", "roofline", "estimates"]
    found = costing.Costing.of(unknown, "qwen2-vl-7b", "H200")
    assert found.works["FastV"].n == 1024
    assert set(found.estimates()) == {"Vanilla (no compression)", "FastV"}


def test_the_sizes_of_a_model_are_known_once_it_is_loaded(model):
    engine.shape(model)
    called = engine.title(model)
    found = costing.Costing.of(shown("vanilla", "fastv", model=called))
    assert found.works["FastV"].architecture.decoder.n_layers == N_LAYERS
    assert called in found.subject


def test_without_vanilla_there_is_nothing_to_hold_a_time_against():
    found = costing.Costing.of(shown("fastv"))
    (theory,) = (spec for spec in charts.MEASURED if spec.name == "theory")
    assert "needs vanilla" in theory.missing(found)


def test_the_speed_up_is_held_against_vanillas_clock(pair):
    found = costing.Costing.of(pair).speed_ups()["Libra-Merging"]
    vanilla, libra = pair.traces
    assert found.measured == vanilla.timings.prefill / libra.timings.prefill
    assert found.implied > 1


@pytest.mark.parametrize("spec", [*charts.MEASURED, *charts.ELSEWHERE], ids=lambda s: s.name)
def test_every_figure_has_numbers_of_every_method(pair, spec):
    rows = spec.numbers(costing.Costing.of(pair))
    titles = {methods.title("vanilla"), methods.title("libra")}
    assert {row["method"] for row in rows} in (titles, {"vanilla", "libra"})
    assert len({tuple(row) for row in rows}) == 1  # one header
    assert spec.draw(costing.Costing.of(pair)).axes


def test_all_methods_at_once_fit_on_the_charts():
    many, trace = Shown(), replace(make_trace("libra"), model="tiny-llava")
    many.compared = {n: Result(n, "", replace(trace, method=n)) for n in methods.names()}
    found = costing.Costing.of(many)
    assert len(found.works) == len(methods.names())
    for spec in (*charts.MEASURED, *charts.ELSEWHERE):
        figure = spec.draw(found)
        figure.draw_without_rendering()
        assert figure.get_tightbbox().x0 > -0.05


def test_words_of_a_trace_cannot_inject_markup():
    evil = "<img src=x>"
    found = costing.Costing.of(shown("vanilla", "fastv", model=evil))
    assert "<img" not in efficiency.verdict(found)


@pytest.fixture(scope="module")
def tab():
    import gradio as gr

    with gr.Blocks():
        return efficiency.build(SimpleNamespace(request=lambda *values: values))


WHERE = (costing.OWN, costing.HERE, None)


def test_drawing_fills_only_what_belongs_to_the_tab(tab, pair):
    filled = {}
    for update in tab.draw(pair, *WHERE):
        filled |= update
    assert set(filled) == set(tab.outputs)
    assert list(tab.draw(Shown(), *WHERE)) == []


def test_figures_are_saved_in_every_format(tab, pair, tmp_path):
    for kind in figures.KINDS:
        event = SimpleNamespace(figure="estimates", kind=kind)
        path = tab.save(pair, event, *WHERE)
        assert path.endswith(f"estimates.{kind}")
    with open(path) as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["Vanilla (no compression)", "Libra-Merging"]


def test_why_a_card_is_empty_is_text():
    with gr.Blocks():
        card = figures.card("name", "Title", "Explanation.", missing="of <b> alone")
    assert "of &lt;b&gt; alone" in card.note.value
    empty, drawn = card.fill("1 < 2"), card.fill(path="figure.png")
    assert "1 &lt; 2" in empty[card.note].value and empty[card.note].visible
    assert not empty[card.picture].visible and not empty[card.saves].visible
    assert not drawn[card.note].visible and drawn[card.picture].visible
    assert list(empty) == list(drawn) == card.parts


def test_theory_is_that_of_the_answers_whatever_is_chosen_elsewhere(tab, pair):
    """The clock was that of their own model."""

    def saved(*where):
        event = SimpleNamespace(figure="theory", kind="csv")
        with open(tab.save(pair, event, *where)) as file:
            return file.read()

    assert saved("llava-1.5-7b", "A100", "99") == saved(*WHERE)


def test_times_that_are_not_known_are_held_against_nothing(pair):
    plain, trace = pair.traces
    untimed = replace(trace, timings=replace(trace.timings, prefill=0.0))
    found = Shown()
    found.show(untimed)
    found.compared = {t.method: Result(t.method, t.answer, t) for t in (plain, untimed)}
    (theory,) = (spec for spec in charts.MEASURED if spec.name == "theory")
    assert theory.missing(costing.Costing.of(found)) == texts.NO_TIMES


def test_an_answer_behind_the_cache_of_another_is_not_held_against_a_whole_one(pair):
    plain, trace = pair.traces
    timings = replace(trace.timings, encoder=0.0, read=5)
    follower = replace(trace, history=[("What is it?", "a cat")], timings=timings)
    found = Shown()
    found.show(follower, requests=[{"method": follower.method}])
    found.compared = {t.method: Result(t.method, t.answer, t) for t in (plain, follower)}
    (theory,) = (spec for spec in charts.MEASURED if spec.name == "theory")
    seen = costing.Costing.of(found)
    assert theory.missing(seen) == texts.FOLLOWS
    assert all(point.reached is None for point in seen.points())
    whole = replace(follower, timings=trace.timings)  # the same asked as a whole
    found.compared[whole.method] = Result(whole.method, whole.answer, whole)
    assert theory.missing(costing.Costing.of(found)) is None


def test_estimates_say_what_each_method_saves_beside_vanilla(pair):
    found = costing.Costing.of(pair, "llava-1.5-7b", "A100")
    plain, ours = charts.table(found).split("<tr>")[2:]
    assert "<small>" not in plain
    saved = re.findall(r"<small>([^<]+)</small>", ours)
    work = found.works["Libra-Merging"]
    cache = 1 - sum(work.kv_bytes()) / sum(work.vanilla.kv_bytes())
    assert len(saved) == 5 and saved[3] == f"−{percent(cache)}"
    assert [charts._saved(*amounts) for amounts in ((6, 5), (5, 5), (0, 0))] == [
        "<small>+20 %</small>",
        "<small>±0 %</small>",
        "",
    ]


@pytest.mark.parametrize("asked", [True, False])
def test_times_of_stored_answers_are_not_said_to_be_of_this_machine(tab, asked):
    found = shown("vanilla", "libra", asked=asked)
    for trace in found.traces:
        trace.timings.where = "CPU (<of> somebody), float32, sdpa, batch 1, 9 tokens"
    said = next(tab.draw(found, *WHERE))[tab.clock]
    table = readouts.comparison(list(found.compared.values()), found.stored)
    for text in (said, table):
        assert ("measured here" in text) == asked
        assert ("stored, measured on CPU (&lt;of&gt; somebody), float32, sdpa" in text) != asked
    found.traces[0].timings.where = found.traces[1].timings.where = ""
    assert readouts.clock(found.traces, True) == "stored, measured on another machine"


def test_a_column_of_the_estimates_has_one_unit(pair):
    """Whatever the methods cost."""
    few = replace(pair.trace, method="fastv", counts=[1] * len(pair.trace.counts))
    found = Shown()
    found.show(pair.trace)
    found.compared = {t.method: Result(t.method, t.answer, t) for t in (*pair.traces, few)}
    table = charts.table(costing.Costing.of(found, "llava-1.5-7b", "A100"))
    rows = [re.findall(r"<td>[^ ]+ (\w+)<", row) for row in table.split("<tr>")[2:]]
    assert len(rows) == 3 and rows[0] == rows[1] == rows[2]


def test_a_sweep_goes_on_setting_by_setting(tab, monkeypatch):
    plain = Row(Setting(0.0, None), "no", True, 16, 1.0, 1.0, 0.2, 1.0, 0.3)
    rows = [plain, replace(plain, setting=Setting(0.5, 1), flops_share=0.6, prefill_share=0.7)]
    asked = []

    def run(model, request, ratios, layers):
        asked.append((model, request, ratios, layers))
        yield from (([None] * 2, row) for row in rows)

    monkeypatch.setattr(sweeps, "run", run)
    request = {"method": "fastv", "images": ["p.png"]}
    updates = list(tab.run(Shown(), [0.5], "1, 3", "tiny-llava", request))
    assert asked == [("tiny-llava", request, [0.5], (1, 3))]
    assert [f'value="{i}"' in updates[i][tab.status] for i in (1, 2)] == [True, True]
    assert updates[-1][tab.swept] == rows and set(updates[-1]) == set(tab.sweep_outputs)
    saved = tab.save_sweep(rows, SimpleNamespace(kind="csv"))
    with open(saved) as file:
        assert [row["ratio"] for row in csv.DictReader(file)] == ["0.0", "0.5"]


@pytest.mark.parametrize(
    ("method", "inside"),
    [("libra", True), ("illava", True), ("evit", False), ("fastervlm", False), ("vanilla", False)],
)
def test_a_sweep_has_layers_only_where_the_method_has(tab, method, inside):
    layers = tab.show_method(method)
    assert layers.interactive == inside
    assert layers.info == (texts.SWEEP_LAYERS_HELP if inside else texts.NO_LAYERS)


def test_the_engine_sweeps_with_the_settings_of_the_ask_tab(lvlm, monkeypatch):
    from contextlib import nullcontext

    monkeypatch.setattr(sweeps.engine.shelf, "use", lambda name: nullcontext(lvlm))
    request = {"method": "libra", "tau": 0.5, "ratio": 0.9, "layers": (3,), "max_new_tokens": 1}
    request |= {"images": [make_image()], "question": "is there a cat ?"}
    found = list(sweeps.run("micro", request, [0.5], [1]))
    assert [row.setting for _, row in found] == [Setting(0.0, None), Setting(0.5, 1)]
    assert found[0][0] == [row.setting for _, row in found]
