import json

import pytest
import torch

from benchmarks import reduction
from libra.methods import METHODS

CPU = torch.device("cpu")


@pytest.fixture
def small_layer(monkeypatch):
    """The same layer, small enough for a test."""
    for name, value in (("HIDDEN", 32), ("HEADS", 4), ("INTERMEDIATE", 48), ("KEYS", 8)):
        monkeypatch.setattr(reduction, name, value)


def table(printed):
    """The lines of the table, without the setup and the header."""
    return printed.split("\n\n")[1].splitlines()[1:]


def test_every_method_is_measured_beside_the_layer(small_layer, tmp_path, capsys):
    file = tmp_path / "rows.json"
    assert reduction.main(["--sizes", "12,31", "--repeats", "1", "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    rows = written["rows"]
    assert written["setup"]["dtype"] == "float32" and "command" in written["setup"]
    assert [(row["method"], row["n"]) for row in rows] == [
        (m, n) for n in (12, 31) for m in METHODS
    ]
    for row in rows:
        total = row["reduce_ms"] + row["apply_ms"]
        assert total > 0 and row["layer_ms"] > 0
        assert row["percent"] == pytest.approx(100 * total / row["layer_ms"])
        assert row["n_out"] in ((row["n"],) if row["method"] == "vanilla" else (6, 7, 15, 16, 17))
    assert len(table(capsys.readouterr().out)) == len(rows)


def test_one_that_is_stopped_leaves_the_sizes_that_it_has(
    small_layer, tmp_path, capsys, monkeypatch
):
    made, file = reduction.random_tokens, tmp_path / "rows.json"

    def tokens(n, *about):
        if n == 31:
            raise KeyboardInterrupt
        return made(n, *about)

    monkeypatch.setattr(reduction, "random_tokens", tokens)
    options = ["--methods", "fastv", "--sizes", "12,31", "--repeats", "1", "--json", str(file)]
    assert reduction.main(options) == 130
    assert [row["n"] for row in json.loads(file.read_text())["rows"]] == [12]
    assert len(table(capsys.readouterr().out)) == 1


def test_a_wrong_name_is_one_line(small_layer, capsys):
    assert reduction.main(["--methods", "fastvee"]) == 2
    assert capsys.readouterr().err.startswith("There is no method 'fastvee'.")


@pytest.mark.parametrize(
    "option", [("--sizes", "abc"), ("--sizes", "0"), ("--repeats", "0"), ("--repeats", "many")]
)
def test_bad_options_are_refused(small_layer, capsys, option):
    with pytest.raises(SystemExit) as end:
        reduction.main(option)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: argument {option[0]}: {option[1]!r} is not a whole number of")
    assert said.count("\n") == 1


def test_a_ratio_beyond_a_method_leaves_out_that_method_alone(small_layer, capsys):
    assert reduction.main(["--sizes", "12", "--repeats", "1", "--ratio", "0.7"]) == 0
    done = capsys.readouterr()
    assert done.err.startswith("tome left out: ToMe can merge at most half")
    assert done.err.count("\n") == 1
    assert len(table(done.out)) == len(METHODS) - 1
    assert reduction.main(["--ratio", "nan"]) == 2


def test_the_layer_has_the_same_weights_each_time(small_layer):
    tokens = reduction.random_tokens(8, CPU, torch.float32).hidden
    first, second = (reduction.decoder_layer(CPU, torch.float32)(tokens) for _ in range(2))
    assert torch.equal(first, second)
