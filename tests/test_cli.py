"""The command line, as a user calls it."""

import csv
import io
import json
import subprocess
import sys

import pytest
from conftest import N_LAYERS, N_VISUAL, QUESTION, make_image

from libra import Trace, cli, methods
from libra.report import aligned


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "scene.png"
    make_image().save(path)
    return str(path)


@pytest.fixture
def run(capsys, picture, model_folder):
    """Run a command on the micro model; returns (exit code, standard output, standard error)."""

    def run(command, *arguments, image=picture, question=QUESTION):
        words = [command, *arguments]
        if command in ("answer", "compare", "sweep"):
            words += ["--image", image, "--question", question, "--model", str(model_folder)]
            words += ["--max-new-tokens", "4"]
        try:
            code = cli.main(words)
        except SystemExit as exit_:  # argparse
            code = exit_.code
        return code, *capsys.readouterr()

    return run


def test_answer_prints_the_answer_and_its_cost(run):
    code, out, err = run("answer", "--layers", "1,3")
    assert (code, err) == (0, "")
    answer, _, readout = out.partition("\n\n")
    assert answer
    assert "libra, ratio 0.5 after layers 1, 3" in readout
    assert "tokens   16 16 " in readout


def test_answer_as_json_with_trace_and_figures(run, tmp_path):
    code, out, _ = run(
        "answer",
        *("--method", "libra", "--ratio", "0.5", "--layers", "3,5", "--param", "tau=0.6"),
        *("--param", "merge=positive", "--trace", str(tmp_path / "t.zip"), "--json"),
        *("--figures", str(tmp_path / "figures"), "--only", "fate_map,staircase"),
    )
    assert code == 0
    facts, trace = json.loads(out), Trace.load(tmp_path / "t.zip")
    assert facts["answer"] == trace.answer
    assert facts["layers"] == [3, 5] and facts["tokens"] == trace.counts
    assert trace.params["tau"] == 0.6 and trace.params["merge"] == "positive"
    assert facts["flops"] == trace.cost.flops
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["fate_map.png", "staircase.png"]


def test_answer_takes_counterfactuals(run, tmp_path):
    code, _, _ = run("answer", "--keep", "0,1", "--drop", "7", "--trace", str(tmp_path / "t.zip"))
    assert code == 0
    slots = Trace.load(tmp_path / "t.zip").events[0].reduction.slot.tolist()
    assert slots[:2] == [0, 1] and 7 not in slots


def test_answer_takes_a_number_of_tokens(run):
    code, out, _ = run(
        "answer", *("--method", "fastv", "--layers", "1,7"), "--tokens", "5", "--json"
    )
    assert code == 0
    facts = json.loads(out)
    assert facts["tokens"] == [N_VISUAL] * 2 + [5] * 6 and facts["layers"] == [1, 7]
    assert facts["ratio"] == 1 - 5 / N_VISUAL


def test_figures_of_a_stored_trace(run, tmp_path, lvlm):
    trace = lvlm.answer(images=[make_image()], question=QUESTION, max_new_tokens=2).trace
    trace.save(tmp_path / "t.zip")
    code, out, _ = run(
        *("figures", "--trace", str(tmp_path / "t.zip"), "--out", str(tmp_path / "out")),
        *("--only", "staircase,fate_map", "--format", "svg,PNG"),
    )
    assert code == 0
    names = ["staircase.svg", "staircase.png", "fate_map.svg", "fate_map.png"]
    assert out.split() == [str(tmp_path / "out" / name) for name in names]
    assert "<svg" in (tmp_path / "out" / "staircase.svg").read_text()


def test_the_numbers_behind_figures_are_saved_as_csv(run, tmp_path, lvlm):
    trace = lvlm.answer(images=[make_image()], question=QUESTION, max_new_tokens=2).trace
    trace.save(tmp_path / "t.zip")
    code, out, _ = run(
        *("figures", "--trace", str(tmp_path / "t.zip"), "--out", str(tmp_path / "out")),
        *("--only", "staircase", "--format", "csv"),
    )
    assert (code, out.split()) == (0, [str(tmp_path / "out" / "staircase.csv")])
    rows = csv.DictReader((tmp_path / "out" / "staircase.csv").open())
    assert [int(row["visual tokens"]) for row in rows] == trace.counts


@pytest.mark.parametrize(("tracing", "rows", "detail"), [("off", 0, False), ("full", 8, True)])
def test_answer_traces_as_much_as_is_asked_for(run, tmp_path, tracing, rows, detail):
    code, _, _ = run("answer", "--tracing", tracing, "--trace", str(tmp_path / "t.zip"))
    trace = Trace.load(tmp_path / "t.zip")
    assert code == 0
    assert len(trace.importance) == rows and (trace.detail is not None) == detail


def test_figures_leaves_out_what_a_trace_cannot_give(run, tmp_path, lvlm):
    request = {"images": [make_image()], "question": QUESTION, "max_new_tokens": 2}
    lvlm.answer(**request, method="vanilla", tracing=False).trace.save(tmp_path / "t.zip")
    arguments = ("figures", "--trace", str(tmp_path / "t.zip"), "--out", str(tmp_path))
    code, out, _ = run(*arguments)
    assert code == 0 and "fate_map.png" in out and "cls_distribution.png" not in out
    code, _, err = run(*arguments, "--only", "cls_distribution")
    assert code == 2 and "CLS" in err


def test_compare_as_text_json_and_csv(run):
    code, out, _ = run("compare", "--methods", "vanilla,fastv,libra")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["method", "vanilla", "fastv", "libra"]
    rows = json.loads(run("compare", "--methods", "vanilla,fastv", "--json")[1])
    assert [row["method"] for row in rows] == ["vanilla", "fastv"]
    assert [row["where"] for row in rows] == ["", "after layer 1"]
    assert rows[0]["tokens"] == [N_VISUAL] * N_LAYERS and rows[1]["tokens"][-1] == N_VISUAL // 2
    table = list(csv.DictReader(io.StringIO(run("compare", "--methods", "fastv", "--csv")[1])))
    assert table[0]["tokens"] == " ".join(map(str, rows[1]["tokens"]))
    assert table[0]["answer"] == rows[1]["answer"]


def test_lists_may_have_spaces_and_ratios_be_fractions(run):
    options = ("--methods", "vanilla, fastv", "--ratio", "3/4", "--layers", "1")
    rows = json.loads(run("compare", *options, "--json")[1])
    assert [row["tokens"][-1] for row in rows] == [N_VISUAL, N_VISUAL // 4]


def test_what_is_left_can_be_given_instead_of_a_ratio(run):
    chosen = ("--methods", "fastv,pyramiddrop")
    rows = json.loads(run("compare", *chosen, "--left", "1/4", "--json")[1])
    assert [row["tokens"][-1] for row in rows] == [N_VISUAL // 4] * 2
    assert [row["ratio"] for row in rows] == [0.75, pytest.approx(1 - 0.25 ** (1 / 3))]
    code, _, err = run("compare", *chosen, "--left", "1/4", "--ratio", "0.5")
    assert code == 2 and "--ratio: not allowed with argument --left" in err


def test_an_answer_of_several_lines_stays_in_its_row():
    rows = [{"method": "vanilla", "answer": "A cat.\n\nA dog."}]
    assert aligned(rows).splitlines() == ["method   answer", "vanilla  A cat. A dog."]


def test_compare_leaves_out_what_cannot_be_done(run):
    code, out, err = run("compare", "--methods", "tome,vanilla", "--ratio", "0.8", "--json")
    assert code == 0 and [row["method"] for row in json.loads(out)] == ["vanilla"]
    assert err.startswith("tome left out: ToMe can merge at most half") and err.count("\n") == 1
    code, out, err = run("compare", "--methods", "tome", "--ratio", "0.8")
    assert (code, out) == (2, "") and err.startswith("error: ToMe") and err.count("\n") == 1


def test_compare_runs_all_methods_by_default(run):
    rows = json.loads(run("compare", "--json")[1])
    assert [row["method"] for row in rows] == methods.names()


def test_flops_prints_the_papers_tables(run):
    code, out, _ = run("flops", "--csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    printed = "3.817 2.128 1.777 1.4055 1.187 7.444 4.064 3.471 2.744 17.17 9.36 7.86 6.24".split()
    for row, digits in zip(rows, [*printed, "23.963", "8.202"], strict=True):
        assert f"{float(row['TFLOPs']):.{len(digits.split('.')[1])}f}" == digits
    assert "\n\n" not in out
    assert run("flops")[1].startswith("model ")


@pytest.mark.parametrize("command", ["", "answer", "compare", "sweep", "figures", "flops"])
def test_help_is_complete(run, command):
    code, out, _ = run(*([command] if command else []), "--help")
    assert code == 0
    assert all(len(line) < 100 for line in out.splitlines())
    if command in ("answer", "compare"):
        for name in methods.names():
            assert f"  {name}: " in out
            for parameter in methods.parameters(name):
                assert parameter.name in ("ratio", "keep") or f"{parameter.name}=" in out


REFUSED = {
    "missing picture": (["answer"], {"image": "nowhere.png"}, "nowhere.png"),
    "empty question": (["answer"], {"question": " "}, "no question"),
    "long question": (["answer"], {"question": "a" * 10_000}, "10,000 characters"),
    "unknown method": (["answer", "--method", "magic"], {}, "no method 'magic'"),
    "unknown methods": (["compare", "--methods", "fastv,magic"], {}, "no method 'magic'"),
    "ratio": (["answer", "--ratio", "nan"], {}, "ratio"),
    "ratio text": (["answer", "--ratio", "half"], {}, "'half' is not a number such as 0.5 or 2/3"),
    "ratio fraction": (["answer", "--ratio", "1/0"], {}, "--ratio"),
    "no methods": (["compare", "--methods", ","], {}, "there is nothing in it"),
    "layers": (["answer", "--layers", "5,3"], {}, "ascend"),
    "layers text": (["answer", "--layers", "a,b"], {}, "whole numbers such as 1,3,5"),
    "layer range": (["answer", "--layers", "1,99"], {}, "0..7"),
    "parameter": (["answer", "--param", "speed=9"], {}, "no parameter 'speed'"),
    "parameter form": (["answer", "--param", "tau"], {}, "NAME=VALUE"),
    "parameter text": (["answer", "--param", "tau=high"], {}, "'high' is not a number"),
    "parameter range": (["answer", "--param", "tau=7"], {}, "tau must be"),
    "parameter ratio": (["answer", "--param", "ratio=0.5"], {}, "use --ratio"),
    "parameter keep": (["answer", "--param", "keep=5"], {}, "use --tokens"),
    "parameter seed": (["answer", "--param", "seed=5"], {}, "no parameter 'seed'; it has tau"),
    "parameter layers": (["answer", "--param", "layers=1"], {}, "no parameter 'layers'"),
    "parameter features": (["answer", "--param", "features=x"], {}, "no parameter 'features'"),
    "parameter of vanilla": (["answer", "--method", "vanilla", "--param", "tracing=x"], {}, "none"),
    "device": (["answer", "--device", "foo"], {}, "no device 'foo' here. Choose cpu"),
    "device without memory": (["answer", "--device", "meta"], {}, "no device 'meta'"),
    "tokens": (["answer", "--tokens", "0"], {}, "keep must be a whole number of at least 1"),
    "tokens of vanilla": (["answer", "--method", "vanilla", "--tokens", "5"], {}, "--tokens"),
    "tokens and ratio": (["answer", "--tokens", "5", "--ratio", "0.5"], {}, "--ratio"),
    "tokens and left": (["answer", "--tokens", "5", "--left", "0.5"], {}, "--left"),
    "tokens and patches": (["answer", "--tokens", "5", "--keep", "1"], {}, "--tokens"),
    "layers of no use": (["answer", "--method", "tome", "--layers", "1"], {}, "leave out --layers"),
    "encoder layers of no use": (["answer", "--encoder-layers", "1"], {}, "--encoder-layers"),
    "figures without a folder": (["answer", "--only", "staircase"], {}, "--figures"),
    "figure": (["answer", "--only", "mona_lisa"], {}, "mona_lisa"),
    "format": (["answer", "--format", "png,gif"], {}, "'png,gif' is not a list out of png, svg"),
    "tracing": (["answer", "--tracing", "half"], {}, "'off', 'summary', 'full'"),
    "trace": (["figures", "--trace", "nowhere.zip", "--out", "x"], {}, "nowhere.zip"),
    "unwritable": (["answer", "--trace", "/nowhere/t.zip"], {}, "/nowhere/t.zip"),
    "no command": ([""], {}, "COMMAND"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_and_exit_code_2(run, case):
    arguments, changes, message = REFUSED[case]
    code, out, err = run(*arguments, **changes)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: ") and err.count("\n") == 1


def test_unknown_model(capsys, picture):
    code = cli.main(["answer", "--image", picture, "--question", "hi", "--model", "magic"])
    assert code == 2
    assert "tiny-llava" in capsys.readouterr().err


@pytest.mark.slow
def test_the_module_runs_and_tables_need_no_transformers(tmp_path):
    script = (
        "import sys; from libra.cli import main; main(['flops']); "
        "assert 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "libra", "figures", "--trace", "x", "--out", "y"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "error: There is no trace file x.\n"


def test_a_sweep_prints_a_row_per_setting(run):
    options = ("--method", "fastv", "--ratios", "0.5,0.75", "--layers", "1,5")
    code, out, err = run("sweep", *options)
    assert (code, err) == (0, "")
    lines, note = out.split("note: ")
    assert "right beside it" in note
    assert [line.split()[:3] for line in lines.splitlines()[1:]] == [
        ["vanilla", "-", "16"],
        ["50%", "1", "8"],
        ["75%", "1", "4"],
        ["50%", "5", "8"],
        ["75%", "5", "4"],
    ]
    table = list(csv.DictReader(io.StringIO(run("sweep", *options, "--csv")[1])))
    assert [(row["ratio"], row["layer"]) for row in table[:2]] == [("0.0", ""), ("0.5", "1")]
    assert [row["tokens"] for row in table] == ["16", "8", "4", "8", "4"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ratios", "half"), "not a list of numbers"),
        (("--ratios", "0.5,2"), "ratio must be"),
        (("--method", "vanilla"), "no ratio to sweep over"),
        (("--method", "spatial", "--layers", "1"), "leave out --layers"),
    ],
)
def test_a_bad_sweep_is_one_line(run, options, words):
    code, out, err = run("sweep", *options)
    assert (code, out, err.count("\n")) == (2, "", 1) and words in err
