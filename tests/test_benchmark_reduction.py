import json

import pytest

from benchmarks import reduction
from libra.methods import METHODS


@pytest.fixture
def small_layer(monkeypatch):
    """The same layer, small enough for a test."""
    for name, value in (("HIDDEN", 32), ("HEADS", 4), ("INTERMEDIATE", 48), ("KEYS", 8)):
        monkeypatch.setattr(reduction, name, value)


def test_every_method_is_measured_beside_the_layer(small_layer, tmp_path, capsys):
    file = tmp_path / "rows.json"
    assert reduction.main(["--sizes", "12,31", "--repeats", "1", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    assert [(row["method"], row["n"]) for row in rows] == [
        (m, n) for n in (12, 31) for m in METHODS
    ]
    for row in rows:
        total = row["reduce_ms"] + row["apply_ms"]
        assert total > 0 and row["layer_ms"] > 0
        assert row["percent"] == pytest.approx(100 * total / row["layer_ms"])
        assert row["n_out"] in ((row["n"],) if row["method"] == "vanilla" else (6, 7, 15, 16, 17))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 + len(rows)


def test_a_wrong_name_is_one_line(small_layer, capsys):
    assert reduction.main(["--methods", "fastvee"]) == 2
    assert capsys.readouterr().err.startswith("There is no method 'fastvee'.")
