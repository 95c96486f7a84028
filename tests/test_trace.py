"""Traces on disk: what comes back, and every file that is refused."""

import io
import json
import zipfile
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from conftest import QUESTION, make_image
from make_trace import make_trace
from PIL import Image

from libra import InputError, Trace
from libra.layout import TokenLayout
from viz.registry import FIGURES


@pytest.fixture(scope="module")
def trace(lvlm):
    """A real trace of three events over two pictures."""
    images = [make_image(0), make_image(1, 40, 90)]
    return lvlm.answer(images=images, question=QUESTION, max_new_tokens=5).trace


@pytest.fixture
def path(trace, tmp_path):
    """The trace as a file."""
    trace.save(tmp_path / "trace.zip")
    return tmp_path / "trace.zip"


def rewrite(path, change):
    """Rewrite the members of a trace file: `change` maps {name: bytes} to {name: bytes}."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members = change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


def rewrite_header(path, **changes):
    def change(members):
        header = json.loads(members["trace.json"]) | changes
        return members | {"trace.json": json.dumps(header).encode()}

    rewrite(path, change)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_a_trace_comes_back_whole(trace, path):
    loaded = Trace.load(path)
    for name in (
        *("model", "family", "method", "params", "ratio", "layers", "question", "answer"),
        *("words", "counts", "timings", "cost", "stages"),
    ):
        assert getattr(loaded, name) == getattr(trace, name), name
    for f in fields(TokenLayout):
        assert torch.equal(getattr(loaded.layout, f.name), getattr(trace.layout, f.name))
    for a, b in zip(loaded.images, trace.images, strict=True):
        assert np.array_equal(a, b)
    for a, b in zip(loaded.events, trace.events, strict=True):
        assert (a.site, a.layer, a.reduction.n_in) == (b.site, b.layer, b.reduction.n_in)
        assert a.reduction.compensation == b.reduction.compensation
        for name in ("source", "target", "weight", "slot"):
            assert torch.equal(getattr(a.reduction, name), getattr(b.reduction, name))
        for name, fact in b.reduction.evidence.items():
            torch.testing.assert_close(
                a.reduction.evidence[name], fact, atol=0, rtol=0, equal_nan=True
            )
    for a, b in zip(loaded.importance, trace.importance, strict=True):
        assert torch.equal(a, b)
    for word, other in zip(loaded.attention, trace.attention, strict=True):
        for a, b in zip(word, other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-3)
    assert torch.equal(loaded.cls_attention, trace.cls_attention)


def test_small_attention_keeps_its_digits(trace, tmp_path):
    """Rows of thousands of tokens hold values that plain half precision would flush to zero."""
    tiny = [[row * 1e-6 for row in word] for word in trace.attention]
    tiny[0] = trace.importance
    replace(trace, attention=tiny).save(tmp_path / "tiny.zip")
    loaded = Trace.load(tmp_path / "tiny.zip")
    for a, b in zip(loaded.attention[1], tiny[1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-2)


@pytest.mark.parametrize("request_", [{"method": "vanilla"}, {"tracing": False}])
def test_traces_without_events_or_rows_come_back(lvlm, tmp_path, request_):
    answer = lvlm.answer(images=[make_image()], question=QUESTION, max_new_tokens=2, **request_)
    answer.trace.save(tmp_path / "t.zip")
    loaded = Trace.load(tmp_path / "t.zip")
    assert loaded.stages == answer.trace.stages
    assert len(loaded.importance) == len(answer.trace.importance)
    assert loaded.counts == answer.trace.counts


def test_an_answer_without_words_comes_back(lvlm, tmp_path, monkeypatch):
    monkeypatch.setattr(lvlm.family, "eos", set(range(100)))
    trace = lvlm.answer(images=[make_image()], question=QUESTION).trace
    assert trace.words == [] and trace.answer == "" and trace.importance
    trace.save(tmp_path / "t.zip")
    assert Trace.load(tmp_path / "t.zip").words == []


def test_lineage_is_the_product_of_the_events(trace):
    dense = torch.eye(len(trace.layout), dtype=torch.float64)
    for upto in range(len(trace.events) + 1):
        torch.testing.assert_close(
            trace.lineage(upto).dense().double(), dense, atol=1e-6, rtol=1e-5
        )
        if upto < len(trace.events):
            dense = trace.events[upto].reduction.dense().double() @ dense
    for wrong in (-1, len(trace.events) + 1, 0.5, "1", None):
        with pytest.raises(InputError, match=f"Stage {wrong!r} does not exist: choose 0 to"):
            trace.lineage(wrong)


# -- bad files --------------------------------------------------------------------------------


def refused(path, message):
    with pytest.raises(InputError, match=message) as error:
        Trace.load(path)
    assert "\n" not in str(error.value)
    return error.value.__cause__


def test_open_files_are_read_as_they_are_written(trace, tmp_path):
    buffer = io.BytesIO()
    trace.save(buffer)
    trace.save(tmp_path / "trace.zip")
    with open(tmp_path / "trace.zip", "rb") as file:
        assert file.read() == buffer.getvalue()
        assert Trace.load(file).answer == Trace.load(buffer).answer == trace.answer
    refused(io.BytesIO(b"hello"), r"\(unnamed\) is not a trace file")


def test_files_that_are_no_traces(tmp_path):
    refused(tmp_path / "nothing.zip", "no trace file")
    refused(tmp_path, "not a trace file")
    for name, content in (("empty.zip", b""), ("text.zip", b"hello"), ("half.zip", b"PK\3\4abc")):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, f"{name} is not a trace file")
    Image.new("RGB", (4, 4)).save(tmp_path / "picture.png")
    refused(tmp_path / "picture.png", "not a trace file")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("readme.txt", "hello")
    refused(tmp_path / "other.zip", "other.zip is not a trace file")
    with zipfile.ZipFile(tmp_path / "json.zip", "w") as file:
        file.writestr("trace.json", "[1, 2]")
    refused(tmp_path / "json.zip", "json.zip is not a trace file")


def test_a_trace_of_a_newer_version(path):
    for version in (3, "1.5"):
        rewrite_header(path, version=version)
        refused(path, rf"trace version {version}, .* newer version. Update")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_truncated_trace(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "not a trace file|damaged")


def test_a_flipped_byte_is_noticed(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    refused(path, "damaged")


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": [1, 2, 3]},
        {"words": [{"text": "a"}]},
        {"words": 5},
        {"events": [{}]},
        {"words": []},
        {"rows": [10**9]},
        {"pictures": 1},
        {"pictures": 10**9},
        {"timings": {"warp": 9}},
        {"cost": None},
        {"model": 5},
        {"question": None},
        {"question": "What \ud83d?"},
        {"answer": "a" * 200_000},
        {"params": [1]},
        {"params": {"tau": "<b>"}},
        {"params": {"merge": "magic"}},
        {"params": {"eta": float("inf")}},
        {"params": {"../tau": 1}},
        {"params": {"own": {"a": 1}}},
        {"ratio": "half"},
        {"ratio": float("nan")},
        {"ratio": 1.5},
        {"layers": "abc"},
        {"layers": [True]},
        {"layers": None},
        {"counts": "12345678"},
        {"counts": [32.0] * 8},
        {"counts": []},
        {"rows": []},
        {"pictures": 65},
        {"pictures": "2"},
    ],
)
def test_a_header_that_does_not_fit(path, changes):
    rewrite_header(path, **changes)
    refused(path, "damaged")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("words", 0, "text"), None),
        (("words", 0, "probability"), "0.9"),
        (("words", 0, "probability"), float("inf")),
        (("words", 0, "top", 0), [1, 0.5]),
        (("words", 0, "top", 0), ["a", True]),
        (("timings", "prefill"), "soon"),
        (("timings", "encoder"), -1),
        (("timings", "decode"), 3),
        (("timings", "decode"), ["1"]),
        (("cost", "flops"), "1"),
        (("cost", "vanilla_flops"), 0),
        (("cost", "kv_bytes"), float("nan")),
        (("events", 0, "site"), "../decoder"),
        (("events", 0, "site"), "encoder"),  # then every layer would have fewer tokens
        (("events", 0, "layer"), "/tmp/1"),
        (("events", 0, "layer"), True),
        (("events", 0, "layer"), 8),
        (("events", 0, "layer"), -2),
        (("events", 0, "n_in"), 32.0),
        (("events", 0, "compensation"), True),
        (("events", 0, "compensation"), 0.0),
        (("events", 0, "further"), [True]),
        (("events", 0, "further"), [1.0]),
        (("events", 0, "further"), [10**9]),
        (("events", 0, "further"), "12"),
        (("events", 0, "further"), 5),
        (("events", 0, "evidence"), ["importance", "importance"]),
    ],
)
def test_a_forged_value(path, place, value):
    with zipfile.ZipFile(path) as file:
        header = json.loads(file.read("trace.json"))
    inner = header
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    rewrite_header(path, **header)
    refused(path, "damaged")


@pytest.mark.parametrize("method", ["/tmp/x", "../../examples/orchard", "", None, ["libra"], {}])
def test_a_method_that_is_none(path, method):
    """Names of files are made from it."""
    rewrite_header(path, method=method)
    refused(path, "method that this program does not know")


def test_a_trace_without_rows_may_not_lie_about_counts(lvlm, tmp_path):
    path = tmp_path / "t.zip"
    answer = lvlm.answer(images=[make_image()], question=QUESTION, tracing=False)
    for counts in ([16] * 8, answer.trace.counts[::-1]):
        answer.trace.save(path)
        rewrite_header(path, counts=counts)
        refused(path, "damaged")
    answer.trace.save(path)
    rewrite(path, lambda m: m | {"arrays/attention.npy": npy(np.zeros((5, 0), np.float16))})
    refused(path, "damaged")


def test_arrays_that_do_not_fit(trace, path):
    original = path.read_bytes()
    edges, n_rows = len(trace.events[0].reduction.source), sum(trace.counts)
    huge = npy(np.zeros(3, np.float32)).replace(b"(3,)", b"(9" + b"9" * 11 + b",)")
    for name, content in (
        ("arrays/importance.npy", npy(np.zeros(3, np.float32))),
        ("arrays/importance.npy", huge),
        ("arrays/importance.npy", npy(np.array([{"a": 1}], dtype=object))),
        ("arrays/event0.source.npy", npy(np.full(40, 10**6))),
        ("arrays/cls_attention.npy", npy(np.zeros(3, np.float32))),
        ("arrays/event0.weight.npy", npy(np.full(edges, np.nan, np.float32))),
        ("arrays/event0.weight.npy", npy(np.ones((edges, 2), np.float32))),
        ("arrays/event0.target.npy", npy(np.zeros(edges, np.float64))),
        ("arrays/event0.slot.npy", npy(np.zeros(0, np.int64))),
        ("arrays/event0.evidence.importance.npy", npy(np.zeros((32, 2), np.float32))),
        ("arrays/event0.evidence.best_target.npy", npy(np.full(32, 10**9))),
        ("arrays/event0.evidence.best_target.npy", npy(np.zeros(32, np.float32))),
        ("arrays/importance.npy", npy(np.full(n_rows, np.nan, np.float32))),
        ("arrays/importance.npy", npy(np.zeros(n_rows, np.int64))),
        ("arrays/attention.npy", npy(np.full((5, n_rows), np.inf, np.float16))),
        ("arrays/cls_attention.npy", npy(np.zeros((32, 1), np.float32))),
        ("arrays/layout.image.npy", npy(np.full(32, 7))),
        ("arrays/layout.image.npy", npy(np.zeros(32, np.float32))),
        ("arrays/layout.row.npy", npy(np.full(32, 10**9))),
        ("arrays/layout.row.npy", npy(np.full(32, -2))),
        ("arrays/layout.column.npy", npy(np.zeros(31, np.int64))),
        ("arrays/layout.frame.npy", npy(np.full(32, 10**9))),
        ("arrays/layout.box.npy", npy(np.zeros((32, 2), np.float32))),
        ("arrays/layout.box.npy", npy(np.full((32, 4), np.nan, np.float32))),
        ("images/0.png", b"no picture"),
    ):
        path.write_bytes(original)
        rewrite(path, lambda members, n=name, c=content: members | {n: c})
        refused(path, "damaged")


def test_a_missing_member(path):
    rewrite(path, lambda m: {k: v for k, v in m.items() if k != "arrays/layout.box.npy"})
    refused(path, "damaged")


def test_a_picture_larger_than_any_trace_holds(path):
    buffer = io.BytesIO()
    Image.new("RGB", (5000, 10)).save(buffer, "PNG")
    rewrite(path, lambda members: members | {"images/0.png": buffer.getvalue()})
    refused(path, "damaged")


def test_pictures_that_would_fill_the_memory(path):
    """A thousand plain pictures fit into a small file."""
    buffer = io.BytesIO()
    Image.new("RGB", (672, 672)).save(buffer, "PNG")
    rewrite_header(path, pictures=1000)
    rewrite(path, lambda m: m | {f"images/{i}.png": buffer.getvalue() for i in range(1000)})
    assert path.stat().st_size < 2**20
    refused(path, "damaged")


def test_a_header_that_would_fill_the_memory(path):
    rewrite(path, lambda m: m | {"trace.json": m["trace.json"] + b" " * 2**23})
    refused(path, "too large")


def test_events_that_would_fill_the_memory_when_composed(trace, path):
    """All tokens into one and out again, in many parallel edges: their product explodes."""
    n, n_edges = len(trace.layout), 400_000
    zeros, weight = np.zeros(n_edges, np.int64), np.ones(n_edges, np.float32)
    slot = np.zeros(1, np.int64)
    arrays = {
        f"arrays/event{i}.{name}.npy": npy(array)
        for i, source in enumerate((np.arange(n_edges) % n, zeros))
        for name, array in zip(
            ("source", "target", "weight", "slot"), (source, zeros, weight, slot), strict=True
        )
    }
    events = [
        {"site": "decoder", "layer": i, "n_in": n_in, "compensation": None, "evidence": []}
        for i, n_in in enumerate((n, 1))
    ]
    rewrite_header(path, events=events, counts=[n] + [1] * 7, rows=[])
    arrays["arrays/attention.npy"] = npy(np.zeros((0, 0), np.float16))
    rewrite(path, lambda members: members | arrays)
    assert "composed" in str(refused(path, "damaged"))


def test_a_zip_bomb_is_not_unpacked(path):
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file, file.open("bomb", "w") as bomb:
        for _ in range(520):
            bomb.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    refused(path, "too large")


def test_what_could_not_be_opened_is_not_saved(trace, tmp_path, monkeypatch):
    monkeypatch.setattr("libra.trace.MAX_BYTES", 10_000)
    with pytest.raises(InputError, match="too large for a file"):
        trace.save(tmp_path / "t.zip")
    assert not (tmp_path / "t.zip").exists()


@pytest.mark.parametrize("identify", ["interval", "topk"])
@pytest.mark.parametrize("merge", ["grouped", "positive", "negative", "average", "prune"])
def test_every_way_of_libra_comes_back_and_can_be_drawn(tmp_path, identify, merge):
    path = tmp_path / "t.zip"
    make_trace("libra", identify=identify, merge=merge).save(path)
    trace = Trace.load(path)
    drawn = {s.name for s in FIGURES.values() if not s.missing(trace) and s.draw(trace, image=0)}
    assert ("interval_strip" in drawn) == (identify == "interval")
    assert ("similarity_histogram" in drawn) == (merge not in ("negative", "prune"))


@pytest.mark.parametrize(
    "forged",
    [
        {"importance": None},
        {"interval": torch.full((32,), -1)},
        {"importance": torch.full((32,), torch.nan)},
    ],
)
def test_intervals_without_tokens_or_winners_are_refused(trace, path, forged):
    event = trace.events[0]
    facts = {k: v for k, v in (event.reduction.evidence | forged).items() if v is not None}
    reduction = replace(event.reduction, evidence=facts)
    replace(trace, events=[replace(event, reduction=reduction), *trace.events[1:]]).save(path)
    refused(path, "damaged")


@pytest.mark.parametrize(
    "wrong",
    [
        {"visual": 0},
        {"visual": 10**6},
        {"visual": 1.5},
        {"units": []},
        {"units": [0]},
        {"units": 4},
    ],
)
def test_counts_of_a_forged_trace_are_refused(trace, path, wrong):
    assert trace.cost.units == [16, 16] and trace.cost.visual == 32
    rewrite_header(path, cost=asdict(replace(trace.cost, **wrong)))
    with pytest.raises(InputError, match="damaged"):
        Trace.load(path)


@pytest.fixture(scope="module")
def of_pictures(lvlm):
    """A trace of two pictures with an extra token each."""
    images = [make_image(0), make_image(1, 40, 90)]
    asked = dict(question=QUESTION, max_new_tokens=2)
    return lvlm.answer(images=images, method="prumerge", keep=3, **asked).trace


def test_the_extra_token_of_every_picture_comes_back(of_pictures, tmp_path):
    of_pictures.save(tmp_path / "trace.zip")
    loaded = Trace.load(tmp_path / "trace.zip")
    assert loaded.events[0].reduction.extras == of_pictures.events[0].reduction.extras == (3, 7)
    assert loaded.lineage(1).fate().equal(of_pictures.lineage(1).fate())
    assert loaded.ratio == 1 - 6 / 32


def test_files_that_know_one_extra_token_or_none_are_read(of_pictures, tmp_path):
    def forget(members):
        header = json.loads(members["trace.json"])
        (event,) = header["events"]
        del event["further"]
        event["compensation"] = None
        return members | {"trace.json": json.dumps(header).encode()}

    of_pictures.save(tmp_path / "trace.zip")
    rewrite(tmp_path / "trace.zip", forget)
    older = Trace.load(tmp_path / "trace.zip")
    assert older.events[0].reduction.extras == () and not older.sums_up
    assert older.lineage(1).dense().equal(of_pictures.lineage(1).dense())
