"""The numbers behind the figures, held against the trace itself."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from make_trace import HEADS, make_trace, photo

from libra.detail import SEGMENTS, from_log_codes
from libra.errors import InputError
from libra.reduction import Fate
from libra.report import as_csv
from viz import FIGURES
from viz.accuracy import ASSETS
from viz.numbers import NUMBERS, decisions, patches


@pytest.fixture(scope="module")
def libra():
    return make_trace("libra", grid=(6, 6))


@pytest.fixture(scope="module")
def full():
    return make_trace("libra", grid=(6, 6), full=True)


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
            if token == "extra token":
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
    assert spare["token"] == "extra token" and spare["best_target"] == ""
    standing = libra.lineage(1).slot
    targets = [r["best_target"] for r in later if r["best_target"]]
    assert {int(t) for t in targets} <= set(standing.tolist())


def test_attention_stands_where_its_token_does(libra):
    rows = NUMBERS["attention_through_layers"](libra)
    for layer in (0, 7):
        shares = torch.tensor([float(row[f"layer {layer}"] or 0) for row in rows])
        assert shares.sum() == pytest.approx(float(libra.importance[layer].sum()), rel=1e-5)
        assert (shares > 0).sum() == libra.counts[layer]


def test_every_head_has_a_column(full):
    rows = read(NUMBERS["attention_heads"](full))
    for head in range(HEADS):
        shares = [float(row[f"layer 1 head {head}"]) for row in rows if row["patch"].isdecimal()]
        assert shares == pytest.approx(full.detail.heads[1][head].tolist())


def test_the_encoder_has_a_column_per_layer_and_no_number_where_a_patch_is_gone():
    trace = make_trace("illava", grid=(8, 8), full=True)
    rows = read(NUMBERS["encoder_attention"](trace))
    for layer, received in trace.detail.encoder.items():
        shown = [float(row[f"encoder layer {layer}"] or "nan") for row in rows]
        assert shown == pytest.approx(received.tolist(), nan_ok=True)
    assert any(row["encoder layer 5"] == "" for row in rows)


def test_bins_of_the_matrix_are_named_by_segment_and_first_token(full):
    rows = read(NUMBERS["attention_matrix"](full))
    for layer, matrix in full.detail.matrices.items():
        starts = matrix.starts.tolist()
        found = np.zeros((len(starts), len(starts)))
        for row in rows:
            if row["layer"] == str(layer):
                place = starts.index(int(row["token"])), starts.index(int(row["to token"]))
                found[place] = float(row["attention"])
                for token, segment in (("token", "segment"), ("to token", "to segment")):
                    before = np.cumsum([0, *matrix.segments])[SEGMENTS.index(row[segment])]
                    length = matrix.segments[SEGMENTS.index(row[segment])]
                    assert before <= int(row[token]) < before + length
        np.testing.assert_allclose(found, np.tril(matrix.pooled.numpy()), rtol=1e-6)


def test_the_raw_matrix_has_a_row_and_a_column_per_token(full):
    rows = read(NUMBERS["attention_matrix_raw"](full))
    for layer, matrix in full.detail.matrices.items():
        shares = from_log_codes(matrix.raw).numpy()
        own = [row for row in rows if row["layer"] == str(layer)]
        found = [[float(row[f"to {i}"] or 0) for i in range(len(shares))] for row in own]
        np.testing.assert_allclose(found, np.tril(shares), rtol=6e-3)


def test_the_compensation_token_has_its_weights_and_its_attention(full):
    rows = read(NUMBERS["compensation_lens"](full))
    lineage = full.lineage(3)
    weights = lineage.dense()[lineage.compensation].tolist()
    assert [float(row["weight"] or 0) for row in rows[:36]] == pytest.approx(weights)
    for row in rows[36:]:
        layer = int(row["layer"])
        place = full.lineage(sum(layer > event.layer for event in full.events)).compensation
        mean = float(torch.stack([word[layer][place] for word in full.attention]).mean())
        assert float(row["extra token"]) == pytest.approx(mean)
    assert [int(row["layer"]) for row in rows[36:]] == [2, 3, 4, 5, 6, 7]


def test_a_compensation_token_after_the_last_layer_has_weights_alone():
    trace = make_trace("libra", grid=(6, 6), layers=(7,))
    rows = read(NUMBERS["compensation_lens"](trace))
    assert len(rows) == 36 and any(row["weight"] for row in rows)
    FIGURES["compensation_lens"].function(trace)


def test_samples_of_every_picture_are_ones_and_zeros():
    trace = make_trace("fastv", grid=(6, 6), layers=(1,), pictures=[photo(90, 90), photo(99, 50)])
    rows = read(NUMBERS["sampling_panel"](trace))
    kept = (trace.lineage(1).fate() == Fate.KEPT).int().tolist()
    assert [int(row["fastv"]) for row in rows] == kept
    for image in "01":
        own = [row for row in rows if row["picture"] == image]
        count = sum(int(row["fastv"]) for row in own)
        assert [int(row["in sequence"]) for row in own] == [1] * count + [0] * (36 - count)
        assert sum(int(row["4 x 4 grid: 16"]) for row in own) == 16


def test_the_accuracy_of_the_embedded_model_is_that_of_its_evaluation(libra):
    rows = read(NUMBERS["accuracy"](replace(libra, model="tiny-llava")))
    stored = json.loads((ASSETS / "tiny-llava" / "evaluation.json").read_text())
    for row in rows:
        own = [
            r
            for r in stored
            if (r["method"], str(r["ratio"])) == (row["method"], row["ratio"])
            and r["style"] == "training"
            and "own" in r["tables"]
        ]
        assert int(row["right"]) == sum(r["right"] for r in own) > 0
        assert float(row["low"]) < float(row["accuracy"]) < float(row["high"])
    assert {row["method"] for row in rows} >= {"vanilla", "libra", "fastv", "prumerge", "illava"}


def test_every_figure_has_its_numbers():
    assert set(FIGURES) - set(NUMBERS) == set(), "say in viz/numbers.py what it shows"
    assert set(NUMBERS) <= set(FIGURES)


@pytest.mark.parametrize("method", ["vanilla", "libra", "prumerge", "tome", "illava"])
def test_every_table_of_every_method_is_a_file(method):
    trace = replace(make_trace(method, grid=(6, 6), full=True), model="tiny-llava")
    for name, table in NUMBERS.items():
        if not FIGURES[name].missing(trace):
            assert read(table(trace)), name


def lacking():
    """Traces that lack what some figures need, by what they lack."""
    libra, plain = make_trace("libra", grid=(6, 6)), make_trace("vanilla", grid=(6, 6))
    full = make_trace("libra", grid=(6, 6), full=True)
    rows = {"importance": [], "attention": [], "cls_attention": None}
    long = {layer: replace(m, raw=None) for layer, m in full.detail.matrices.items()}
    return {
        "events": plain,
        "full tracing": libra,
        "rows": replace(libra, **rows),
        "events and rows": replace(plain, **rows),
        "words": replace(full, words=[], attention=[], answer=""),
        "single cells": replace(full, detail=replace(full.detail, matrices=long)),
        "an encoder": replace(full, detail=replace(full.detail, encoder={})),
        "a known model and method": replace(libra, model="another", method="another"),
    }


@pytest.mark.parametrize("what", lacking())
def test_what_a_trace_lacks_is_said_by_figures_and_numbers(what):
    """None of them fails in any other way, also where nobody asks `missing` first."""
    trace, refused = lacking()[what], 0
    for name, spec in FIGURES.items():
        for made in (spec.function, NUMBERS[name]):
            try:
                made(trace)
            except InputError:
                refused += 1
                assert spec.missing(trace), name
    assert refused
