"""The evaluation: plans, held-out questions, stored answers, counts and tables."""

import json
from dataclasses import replace
from types import SimpleNamespace as Record

import numpy as np
import pytest
import torch
from conftest import QUESTION, make_image

from libra import InputError, methods
from libra.methods import create
from libra.statistics import wilson
from tiny import evaluate, measure, questions, results, suites
from tiny.held_out import Subject, subjects
from tiny.plans import VANILLA, Line, Table, once, own_plan, plan

# -- plans --------------------------------------------------------------------------------------


def test_chosen_methods_read_settings_and_leave_other_sites_their_layers(lvlm):
    table = evaluate.chosen(lvlm, ["libra:tau=0.6", "prumerge", "random:site=encoder"], [0.5], (2,))
    assert [line.plan.arguments for line in table.lines] == [
        {"method": "vanilla"},
        {"method": "libra", "ratio": 0.5, "tau": 0.6, "layers": (2,)},
        {"method": "prumerge", "ratio": 0.5},
        {"method": "random", "ratio": 0.5, "site": "encoder"},
    ]
    assert table.lines[1].label == "Libra-Merging, tau 0.6"


def test_equal_plans_have_equal_keys_and_others_do_not(lvlm):
    usual = plan(lvlm, "libra", 0.5, ratio=0.5)
    assert usual.key == plan(lvlm, "libra", 0.9, ratio=0.5, tau=0.7, layers=(1, 3, 5)).key
    assert usual.key != plan(lvlm, "libra", 0.5, ratio=0.5, tau=0.6).key
    assert usual.key != plan(lvlm, "libra", 0.5, ratio=0.5, layers=(1,)).key
    assert (usual.settings, plan(lvlm, "libra", 0.5, tau=0.6).settings) == ("", "tau 0.6")


def test_every_plan_of_the_papers_is_a_valid_request(lvlm):
    own, *others = suites.papers(lvlm)
    tables = [own, *others, suites.albums(own), suites.films(own)]
    tables += [suites.in_style(own, "twemoji"), suites.styles(["training"])]
    assert len({table.name for table in tables}) == len(tables)
    plans = {line.plan.key: line.plan for table in tables for line in table.lines}
    for made in plans.values():
        lvlm.stream(images=[make_image()], question=QUESTION, **json.loads(made.key))
    assert len(plans) < sum(len(table.lines) for table in tables)  # tables share plans


def test_every_method_is_there_at_every_ratio(lvlm):
    own, early, late = suites.papers(lvlm, (0.5, 0.8))[:3]
    asked = {(line.plan.method, line.plan.ratio) for line in own.lines[1:]}
    assert asked == {(n, r) for n in methods.names() for r in (0.5, 0.8) if n != "vanilla"}
    for table in (early, late):
        (layers,) = {line.plan.request["layers"] for line in table.lines[1:]}
        assert layers == lvlm.default_layers("fastv" if table is early else "libra")[-1:]
        once_only = {line.plan.method for line in table.lines[1:]}
        assert once_only >= {"fastv", "libra", "turbo", "sparsevlm", "illava", "kmeans", "random"}
        assert not once_only & {"vanilla", "pyramiddrop", "tome", "visionzip"}


@pytest.mark.parametrize("ratio", suites.RATIOS)
@pytest.mark.parametrize("name", ["tome", "evit", "illava"])
def test_methods_inside_the_encoder_remove_their_share_in_all(lvlm, name, ratio):
    request = dict(own_plan(lvlm, name, ratio).request)
    inside, layers = request.pop("encoder_layers"), request.pop("layers", ())
    method, n = create(name), 576
    method = replace(method, **method.leaving(request["left"], len(inside), len(layers)))
    for _ in inside:
        step = method.encoder_step(n, 576, len(inside))
        n = step.keep or max(1, round(n * (1 - step.ratio)))
    n = round(n * (1 - method.ratio)) if layers else n
    assert n / 576 == pytest.approx(1 - ratio, abs=0.01)


def test_single_events_leave_the_same_number_of_tokens(lvlm):
    answers = [
        lvlm.answer(images=[make_image()], question=QUESTION, max_new_tokens=1, **made.arguments)
        for made in (once(lvlm, name, 3, 0.5) for name in suites.ONCE)
    ]
    for answer in answers:
        last = answer.trace.events[-1]
        assert (last.site, last.layer) == ("decoder", 3)
        assert last.reduction.n_out - (last.reduction.compensation is not None) == 8
        assert answer.trace.counts[:4] == [16] * 4


# -- held-out questions -------------------------------------------------------------------------


def test_there_are_as_many_questions_of_each_kind_as_asked_for():
    kinds = [*questions.KINDS, *questions.SEQUENCES]
    posed = [q for s in subjects(3, "training", kinds) for q in s.questions()]
    assert {kind: sum(q.kind == kind for q in posed) for kind in kinds} == dict.fromkeys(kinds, 3)
    some = [q.kind for s in subjects(4, "training", ["count", "sign"]) for q in s.questions()]
    assert sorted(some) == ["count"] * 4 + ["sign"] * 4


@pytest.mark.parametrize("kinds", [("existence", "caption"), ("images",), ("video",)])
def test_subjects_are_the_same_at_every_call(drawn, kinds):
    (subject, *_), (again, *_) = (list(subjects(2, "training", kinds)) for _ in range(2))
    assert subject == again and subject.questions() == again.questions()
    pictures = subject.pictures()
    assert len(pictures) in {"existence": (1,), "images": (2, 3), "video": (8,)}[kinds[0]]
    assert all(np.array_equal(a, b) for a, b in zip(pictures, again.pictures(), strict=True))
    other = replace(subject, number=subject.number + 1).pictures()
    assert not np.array_equal(pictures[0], other[0])


# -- measuring ----------------------------------------------------------------------------------

COSTS = {"vanilla": 1.0, "fastv": 0.6, "libra": 0.4}


INSIDE = ("tome", "evit", "illava")


class Oracle:
    """Answers right under vanilla, and to questions that start with "Is" under any method."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []
        self.card = {"device": "cpu", "dtype": "float32"}
        weight = torch.ones(3, dtype=torch.float16)
        model = Record(state_dict=lambda: {"weight": weight})
        self.family, self.n_layers = Record(model=model), 8

    def encode(self, images):
        return images

    def stream(self, images, question, method, **_):
        if len(images) == 8:
            raise InputError("too many pictures")

    def answer(self, images, question, method, **_):
        self.asked.append((question, method))
        right = method == "vanilla" or question.startswith("Is")
        cost = Record(flops=COSTS[method], vanilla_flops=1.0)
        text = self.answers[images[0].tobytes(), question] if right else "wrong"
        return Record(trace=Record(answer=text, events=[], layout=range(4), cost=cost))


@pytest.fixture
def oracle(drawn, monkeypatch):
    oracle = Oracle(
        {
            (subject.pictures()[0].tobytes(), question.text): question.answer
            for subject in subjects(3, "training", evaluate.EVERY_KIND)
            for question in subject.questions()
        }
    )
    monkeypatch.setattr(measure, "_model", lambda name, dtype: oracle)
    monkeypatch.setattr(evaluate.libra, "load", lambda name, dtype: oracle)
    return oracle


def pairs_of(oracle, n=3, kinds=questions.KINDS):
    tables = [evaluate.chosen(oracle, ["libra"], [0.5])]
    return tables, evaluate.wanted(tables, n, kinds)


def test_exact_answers_of_every_plan_are_counted(oracle, tmp_path):
    tables, pairs = pairs_of(oracle)
    store = measure.Store(tmp_path, oracle)
    measure.measure("oracle", store, pairs)
    rows = results.Results(store, pairs).rows(tables)
    assert len(rows) == 2 * len(questions.KINDS)
    for row in rows:
        known = row.method == "vanilla" or row.kind in ("existence", "left/right", "above/below")
        assert (row.right, row.asked) == (3 if known else 0, 3)
        assert row.flops == pytest.approx(3 * COSTS[row.method])
        assert (row.left, row.tables) == (3, ["chosen"])


def test_a_run_goes_on_where_it_was_stopped(oracle, tmp_path):
    _, pairs = pairs_of(oracle)
    measure.measure("oracle", measure.Store(tmp_path, oracle), pairs[:2])
    first, path = len(oracle.asked), next(tmp_path.iterdir())
    path.write_text(path.read_text()[:-20])  # the last line is cut off
    store = measure.Store(tmp_path, oracle)
    measure.measure("oracle", store, pairs)
    every = sum(len(subject.questions()) * len(plans) for subject, plans in pairs)
    assert len(oracle.asked) == every + 1 and first > 1
    measure.measure("oracle", measure.Store(tmp_path, oracle), pairs)
    assert len(oracle.asked) == every + 1
    oracle.family.model.state_dict()["weight"][0] = 2  # another model
    assert measure.Store(tmp_path, oracle).path != store.path


def test_what_the_model_cannot_be_asked_is_refused_at_once(oracle, tmp_path, capsys):
    arguments = ["--questions", "1", "--suite", "papers", "--runs", str(tmp_path)]
    oracle.default_layers = lambda name: {"libra": (1, 3, 5)}.get(name, (1,))
    oracle.default_encoder_layers = lambda name: (1, 2) if name in INSIDE else ()
    oracle.family.last_encoder_layer = 4
    assert evaluate.main(arguments) == 2
    assert "too many pictures" in capsys.readouterr().err and not oracle.asked


def test_answers_belong_to_the_exact_question(oracle, tmp_path):
    store = measure.Store(tmp_path, oracle)
    subject, plans = pairs_of(oracle)[1][0]
    measure.measure("oracle", store, [(subject, plans)])
    text = subject.questions()[0].text
    assert store.get(subject, text, plans[0]).answer == subject.questions()[0].answer
    assert store.get(subject, text + " ", plans[0]) is None
    assert store.get(replace(subject, number=999), text, plans[0]) is None
    assert store.get(replace(subject, style="twemoji"), text, plans[0]) is None


def test_several_processes_map_like_one():
    with measure._mapping(1) as one, measure._mapping(2) as two:
        assert sorted(two(abs, range(-5, 0))) == sorted(one(abs, range(-5, 0)))


def test_cost_and_similarity_are_those_of_the_trace(lvlm):
    image, settings = make_image(), {"method": "libra", "ratio": 0.5, "layers": [2, 4]}
    request = {"images": [image], "question": QUESTION, "max_new_tokens": 1}
    trace = lvlm.answer(**request, **settings, tracing=False).trace
    answered = measure._answered(Subject("training", 0, ("count",)), QUESTION, "key", trace)
    assert answered.left == trace.events[-1].reduction.n_out / 16
    assert answered.flops == trace.cost.flops / trace.cost.vanilla_flops < 1
    first = trace.events[0].reduction
    targets = set(first.slot.tolist()[: 16 // 2])
    others = [first.evidence["similarity"][j].item() for j in range(16) if j not in targets]
    assert answered.similarity == pytest.approx(sum(others) / len(others))
    plain = lvlm.answer(**request, method="fastv").trace
    assert measure._similarity(plain) is None


# -- tables -------------------------------------------------------------------------------------


def test_tables_say_what_was_counted(oracle, tmp_path):
    tables, pairs = pairs_of(oracle)
    store = measure.Store(tmp_path, oracle)
    measure.measure("oracle", store, pairs)
    found = results.Results(store, pairs)
    header, _, vanilla, libra = found.markdown(tables[0]).split("\n\n")[2].splitlines()
    names, plain, merged = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in (header, vanilla, libra)
    )
    assert names[-len(questions.KINDS) :] == list(questions.KINDS)
    of = dict(zip(names, merged, strict=True))
    assert (of["R"], of["after layers"], of["tokens left"], of["FLOPs"]) == (
        *("50%", "1, 3, 5", "100.0%", "40.0%"),
    )
    low, high = wilson(9, 15)  # right: three kinds of the five
    assert of["mean of five"] == f"**60.0% ({100 * low:.1f}-{100 * high:.1f})**"
    low, high = wilson(9, 27)
    assert of["all kinds"] == f"33.3% ({100 * low:.1f}-{100 * high:.1f})"
    assert (of["existence"], of["count"]) == ("100.0%", "0.0%")
    assert plain[:3] == ["no compression", "-", "-"]
    low, high = wilson(9, 15)
    overview = found.overview(tables[0])
    assert f"| Libra-Merging | 60.0% ({100 * low:.1f}-{100 * high:.1f}), 40.0% |" in overview
    assert "Without compression: 100.0% (79.6-100.0), 100.0% FLOPs." in overview


def test_tables_about_sequences_and_similarity_have_their_own_columns(oracle, tmp_path):
    lines = [VANILLA, Line("merging", plan(oracle, "libra", 0.5, ratio=0.5))]
    tables = [
        Table("films", "Films", "A sentence.", lines, kinds=("video",)),
        Table("alike", "Alike", "A sentence.", lines, similarity=True),
    ]
    pairs = evaluate.wanted(tables, 2, ["count", "video"])
    store = measure.Store(tmp_path, oracle)
    measure.measure("oracle", store, pairs)
    found = results.Results(store, pairs)
    films, alike = (found.markdown(table).splitlines()[4] for table in tables)
    assert "| video |" in films and "count" not in films and "Sim" not in films
    assert "| Sim |" in alike and "| count |" in alike and "mean of five" not in alike
    by_kind = {row.kind: row.tables for row in found.rows(tables)}
    assert by_kind == {"count": ["alike"], "video": ["films"]}


def test_the_command_writes_json_card_and_readme(oracle, tmp_path, capsys):
    import viz

    card, readme, out = (tmp_path / name for name in ("card.md", "readme.md", "rows.json"))
    for path in (card, readme):
        path.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    arguments = ["--methods", "fastv,libra:tau=0.6", "--ratios", "0.5,2/3", "--questions", "2"]
    arguments += ["--styles", "training", "--kinds", ",".join(questions.KINDS)]
    arguments += ["--runs", str(tmp_path / "runs"), "--out", str(out)]
    assert evaluate.main([*arguments, "--card", str(card), "--readme", str(readme)]) == 0
    for path in (card, readme):
        text = path.read_text()
        assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
        assert "`python -m tiny.evaluate --methods fastv,libra:tau=0.6" in text
        assert "on a CPU in float32" in text
    assert "### Drawing styles" in card.read_text() and "| 67% | 1 |" in card.read_text()
    assert "R = 50%" in readme.read_text() and "Libra-Merging, tau 0.6" in readme.read_text()
    rows = json.loads(out.read_text())
    assert {row["kind"] for row in rows} == set(questions.KINDS)
    (ax,) = viz.accuracy_against_flops(rows, table="chosen").axes
    assert len(ax.containers) == 2
    assert capsys.readouterr().out.count("### ") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kinds", "smell"], "no kind of question 'smell'. Choose of: existence"),
        (["--styles", "oil"], "no drawing style 'oil'. Choose of: training"),
        (["--kinds", "sign", "--readme", "x"], "--readme is about existence, count"),
        (["--methods", "magic"], "no method 'magic'"),
        (["--methods", "libra:speed=3"], "no parameter 'speed'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(oracle, tmp_path, capsys, arguments, message):
    assert evaluate.main([*arguments, "--runs", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--questions", "0"], ["--ratios", "x"], ["--layers", "a"]])
def test_options_are_checked(arguments):
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(arguments)
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--questions", "0"), "'0' is not a whole number of at least 1"),
        (("--ratios", "x"), "'x' is not a list of numbers"),
        (("--layers", "1.5"), "'1.5' is not a list of whole numbers"),
    ],
)
def test_a_bad_option_is_said_in_words(option, words, capsys):
    with pytest.raises(SystemExit):
        evaluate.main(option)
    assert words in capsys.readouterr().err
