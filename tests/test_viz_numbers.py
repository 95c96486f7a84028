"""The numbers behind the figures, held against the trace itself."""

import csv
import io

import pytest
import torch
from make_trace import make_trace

from libra.reduction import Fate
from libra.report import as_csv
from viz import FIGURES
from viz.numbers import NUMBERS, decisions, patches


@pytest.fixture(scope="module")
def libra():
    return make_trace("libra", grid=(6, 6))


def read(rows):
    return list(csv.DictReader(io.StringIO(as_csv(rows))))


def test_every_patch_names_its_token_at_every_stage(libra):
    rows = read(patches(libra))
    assert [int(row["patch"]) for row in rows] == list(range(36))
    assert [(int(r["row"]), int(r["column"])) for r in rows] == [divmod(p, 6) for p in range(36)]
    for stage, name in enumerate(libra.stages[1:], 1):
        dense = libra.lineage(stage).dense()
        lineage = libra.lineage(stage)
        for patch, row in enumerate(rows):
            fate = Fate[row[f"fate {name}"].upper()]
            token = row[f"token {name}"]
            if token == "compensation token":
                assert fate == Fate.COMPENSATED and dense[lineage.compensation, patch] > 0
            elif token == "gone":
                assert fate == Fate.DROPPED and not dense[:, patch].any()
            else:
                output = lineage.slot.tolist().index(int(token))
                assert dense[output, patch] == dense[:, patch].max() > 0
                assert (fate == Fate.KEPT) == (int(token) == patch)


def test_decisions_carry_what_the_method_knew(libra):
    rows = read(decisions(libra))
    first = [row for row in rows if row["event"] == libra.events[0].name]
    evidence = libra.events[0].reduction.evidence
    assert [float(r["importance"]) for r in first] == evidence["importance"].tolist()
    assert [int(r["best_target"]) for r in first] == evidence["best_target"].tolist()
    later = [row for row in rows if row["event"] == libra.events[1].name]
    spare = later[libra.events[0].reduction.compensation]
    assert spare["token"] == "compensation token" and spare["best_target"] == ""
    standing = libra.lineage(1).slot
    targets = [r["best_target"] for r in later if r["best_target"]]
    assert {int(t) for t in targets} <= set(standing.tolist())


def test_attention_stands_where_its_token_does(libra):
    rows = NUMBERS["attention_through_layers"](libra)
    for layer in (0, 7):
        shares = torch.tensor([float(row[f"layer {layer}"] or 0) for row in rows])
        assert shares.sum() == pytest.approx(float(libra.importance[layer].sum()), rel=1e-5)
        assert (shares > 0).sum() == libra.counts[layer]


@pytest.mark.parametrize("method", ["vanilla", "libra", "prumerge", "tome"])
def test_every_table_of_every_method_is_a_file(method):
    trace = make_trace(method, grid=(6, 6))
    for name, table in NUMBERS.items():
        assert name in FIGURES
        if not FIGURES[name].missing(trace):
            assert read(table(trace)), name
