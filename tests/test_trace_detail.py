"""Detail in trace files: what comes back, older files, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from make_trace import make_trace, photo
from test_trace import npy, refused, rewrite, rewrite_header

from libra import Trace


@pytest.fixture(scope="module")
def trace():
    return make_trace("libra", grid=(6, 6), full=True)


@pytest.fixture
def path(trace, tmp_path):
    trace.save(tmp_path / "t.zip")
    return tmp_path / "t.zip"


def test_detail_comes_back(trace, path):
    stored, detail = Trace.load(path).detail, trace.detail
    close = {"rtol": 1e-3, "atol": 1e-8, "equal_nan": True}
    assert list(stored.encoder) == list(detail.encoder)
    for layer, row in detail.encoder.items():
        torch.testing.assert_close(stored.encoder[layer], row, **close)
    for a, b in zip(stored.heads, detail.heads, strict=True):
        torch.testing.assert_close(a, b, **close)
    assert list(stored.matrices) == list(detail.matrices)
    for layer, matrix in detail.matrices.items():
        assert stored.matrices[layer].segments == matrix.segments
        torch.testing.assert_close(stored.matrices[layer].pooled, matrix.pooled, **close)
        assert torch.equal(stored.matrices[layer].raw, matrix.raw)
    assert list(stored.similarity) == list(detail.similarity) == [0, 1, 2]
    for event, similarity in detail.similarity.items():
        assert torch.equal(stored.similarity[event].matrix(), similarity.matrix())


@pytest.mark.parametrize("method", ["vanilla", "illava"])
def test_detail_of_other_methods_comes_back(tmp_path, method):
    trace = make_trace(method, grid=(5, 5), full=True)
    trace.save(tmp_path / "t.zip")
    stored = Trace.load(tmp_path / "t.zip").detail
    assert stored.similarity == {}
    for layer, row in trace.detail.encoder.items():
        assert torch.equal(stored.encoder[layer].isnan(), row.isnan())
    assert any(row.isnan().any() for row in stored.encoder.values()) == (method == "illava")


def test_the_times_of_a_video_come_back(tmp_path):
    frames = [photo(120, 80)] * 3
    trace = replace(make_trace("fastv", pictures=frames, grid=(2, 2)), times=[0.0, 0.5, 1.25])
    trace.save(tmp_path / "t.zip")
    assert Trace.load(tmp_path / "t.zip").times == [0.0, 0.5, 1.25]
    for times in ([0.0, 0.5], [0.0, 0.5, "1"], [0.0, 0.5, -1.0], "0.5", 7):
        rewrite_header(tmp_path / "t.zip", times=times)
        refused(tmp_path / "t.zip", "damaged")


def test_files_of_the_first_version_open(tmp_path):
    make_trace("libra", grid=(4, 4)).save(tmp_path / "t.zip")

    def downgrade(members):
        header = json.loads(members["trace.json"])
        for name in ("times", "detail"):
            del header[name]
        return members | {"trace.json": json.dumps(header | {"version": 1}).encode()}

    rewrite(tmp_path / "t.zip", downgrade)
    loaded = Trace.load(tmp_path / "t.zip")
    assert loaded.detail is None and loaded.times is None and len(loaded.events) == 3


def change(value, *place):
    """A function that sets one entry of a header's detail."""

    def changed(detail):
        inner = detail
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value

    return changed


FORGED = {
    "no heads": change(0, "heads"),
    "fractional heads": change(1.5, "heads"),
    "other heads": change(2, "heads"),
    "encoder layer twice": change([0, 0], "encoder"),
    "encoder layer": change(["0"], "encoder"),
    "matrix layer": change(99, "matrices", 0, "layer"),
    "matrix path": change("../0", "matrices", 0, "layer"),
    "segments": change([5, 36, 9], "matrices", 0, "segments"),
    "fractional segments": change([5.0, 36, 9, 3], "matrices", 0, "segments"),
    "negative segments": change([-5, 46, 9, 3], "matrices", 0, "segments"),
    "fewer visual tokens": change([6, 35, 9, 3], "matrices", 0, "segments"),
    "huge segments": change([5, 10**9, 9, 3], "matrices", 0, "segments"),
    "event": change(3, "similarity", 0, "event"),
    "event is true": change(True, "similarity", 1, "event"),
    "tokens": change(35, "similarity", 0, "n"),
    "fractional tokens": change(36.0, "similarity", 0, "n"),
    "low": change("0", "similarity", 0, "low"),
    "high below low": change(-1.0, "similarity", 0, "high"),
    "high": change(float("nan"), "similarity", 0, "high"),
    "beyond one": change(2.0, "similarity", 0, "high"),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_detail(path, case):
    def forge(members):
        header = json.loads(members["trace.json"])
        FORGED[case](header["detail"])
        return members | {"trace.json": json.dumps(header).encode()}

    rewrite(path, forge)
    refused(path, "damaged")


ARRAYS = {
    "encoder0": [np.zeros(35, np.float16), np.full(36, -1, np.float16), np.zeros(36, np.int64)],
    "heads": [np.zeros(3, np.float16), np.zeros(0, np.float16)],
    "matrix0.pooled": [np.zeros((3, 3), np.float16)],
    "matrix0.raw": [np.zeros((53, 53), np.float16), np.zeros((52, 53), np.uint8)],
    "similarity0": [np.zeros(630, np.int64), np.zeros(629, np.uint8), np.zeros((630, 1), np.uint8)],
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_do_not_fit(path, name):
    original = path.read_bytes()
    with_nan = [np.full_like(a, np.nan) for a in ARRAYS[name][:1] if a.dtype.kind == "f"]
    for array in ARRAYS[name] + with_nan:
        path.write_bytes(original)
        member = f"arrays/detail.{name}.npy"
        rewrite(path, lambda members, m=member, a=array: members | {m: npy(a)})
        refused(path, "damaged")


def test_detail_needs_rows_and_a_missing_member_is_noticed(path):
    original = path.read_bytes()
    rewrite(path, lambda m: {k: v for k, v in m.items() if "similarity1" not in k})
    refused(path, "damaged")
    path.write_bytes(original)
    rewrite_header(path, rows=[])
    rewrite(path, lambda m: m | {"arrays/attention.npy": npy(np.zeros((0, 0), np.float16))})
    refused(path, "damaged")
