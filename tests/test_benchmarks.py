"""The benchmarks at tiny sizes: that they measure what they say, not how fast anything is."""

import json
from dataclasses import make_dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import QUESTION, make_image

import viz
from benchmarks import app, attention, batch, gpu_check, measure, models, prefill, reduction
from libra.architecture import ARCHITECTURES, Architecture, Stack
from libra.cost import token_counts
from libra.errors import InputError
from libra.media import Media
from libra.workload import Workload
from tests.micro_architectures import LLAVA, QWEN

CPU = torch.device("cpu")
MEASURED = Path(__file__).parents[1] / "benchmarks" / "measured"


@pytest.fixture(autouse=True)
def micro_models(monkeypatch):
    for architecture in (LLAVA, QWEN):
        monkeypatch.setitem(ARCHITECTURES, architecture.name, architecture)


def table(printed):
    """The rows of the table, without the setup and the header."""
    return printed.split("\n\n")[1].splitlines()[1:]


def test_rounds_are_interleaved_and_the_first_ones_do_not_count():
    order = []
    runs = {name: partial(lambda name: order.append(name) or len(order), name) for name in "abcd"}
    found = measure.rounds(runs, repeats=20, warmup=1, before=lambda: order.append("|"))
    first, *rest = "".join(order).split("|")[1:]
    assert {"".join(sorted(names)) for names in (first, *rest)} == {"abcd"}
    assert len(set(rest)) > 10, "every round has its own order"
    for name, values in found.items():
        assert values == [1 + 5 * (i + 1) + names.index(name) + 1 for i, names in enumerate(rest)]


def test_the_spread():
    assert measure.spread([4, 1, 2]) == 0.75
    assert measure.give_or_take(0.75) == " ±75%"
    assert measure.give_or_take(measure.spread([4])) == ""  # of one nobody knows


def test_a_stopwatch_tells_the_time_between_start_and_stop(monkeypatch):
    clock = iter((1.0, 1.5, 9.0))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    assert measure.milliseconds(lambda: None, CPU) == 500


def test_on_a_gpu_events_are_read_after_both_are_recorded(monkeypatch):
    log = []

    class Event:
        def __init__(self, enable_timing):
            self.number = sum(entry == "new" for entry in log)
            log.append("new")

        def record(self, stream):
            log.append(f"record {self.number}")

        def synchronize(self):
            log.append(f"wait {self.number}")

        def elapsed_time(self, other):
            return 10.0 * (other.number - self.number)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    device = torch.device("cuda")
    assert measure.milliseconds(lambda: log.append("run"), device) == 10
    assert log == ["new", "record 0", "run", "new", "record 1", "wait 1"]
    log.clear()
    assert measure.milliseconds(lambda: 0, device, before=lambda: log.append("busy")) == 10
    assert log[:3] == ["busy", "new", "record 0"]
    assert measure.milliseconds(lambda: 0, CPU, before=lambda: 1 / 0) >= 0


def test_what_is_not_said_depends_on_the_device():
    def repeats(*arguments):
        return measure._parsed(measure.parser("About."), arguments, {"repeats": 2}).repeats

    assert repeats("--device", "cpu") == 2 and repeats("--device", "cuda") == 5
    assert repeats("--device", "cpu", "--repeats", "9") == 9


@pytest.mark.parametrize(("end", "code"), [(KeyboardInterrupt(), 130), (InputError("no room"), 2)])
def test_a_run_that_ends_early_shows_and_keeps_what_was_measured(tmp_path, capsys, end, code):
    file, seen = tmp_path / "rows.json", []
    row = make_dataclass("Row", ["n"])

    def rows():
        for n in (1, 2):
            seen.append(json.loads(file.read_text())["rows"])
            yield row(n)
        raise end

    def measured(options):
        measure.report({"device": "a clock"}, rows(), lambda row: {"twice": 2 * row.n}, file)

    file.write_text("of an earlier run")
    assert measure.run(measured, measure.parser("About."), []) == code
    assert seen == [[], [{"n": 1}]]  # the file grows with the rows
    assert json.loads(file.read_text()) == {
        "setup": {"device": "a clock"},
        "rows": [{"n": 1}, {"n": 2}],
    }
    printed = capsys.readouterr()
    assert [line.split() for line in table(printed.out)] == [["2"], ["4"]]
    assert printed.err.count("\n") == 1 and [path.name for path in tmp_path.iterdir()] == [
        "rows.json"
    ]
    measure.report({"device": "a clock"}, [], lambda row: {}, file)
    assert json.loads(file.read_text())["rows"] == []
    assert "nothing could be measured" in capsys.readouterr().out


@pytest.mark.parametrize("benchmark", [prefill, attention, reduction, batch])
def test_long_benchmarks_are_shorter_on_a_cpu(benchmark, monkeypatch):
    chosen = []
    monkeypatch.setattr(benchmark, "_measure_all", lambda options: chosen.append(vars(options)))
    monkeypatch.setattr(measure, "_check", lambda options: None)  # a GPU need not be there
    benchmark.main(["--device", "cpu"])
    benchmark.main(["--device", "cuda"])
    small, full = chosen
    changed = {name for name in small if small[name] != full[name]} - {"device"}
    assert changed == set(benchmark.ON_CPU)


def test_scales_divide_widths_heads_and_depth():
    small = models.scaled("llava-1.5-7b", models.Scale(width=4, depth=8))
    assert small.decoder == Stack(4, 1024, 2752, 8, 1024)
    assert small.encoder.n_layers == 3 and small.connector == ((256, 1024), (1024, 1024))
    with pytest.raises(InputError, match="divided by 3"):
        models.scaled("llava-1.5-7b", models.Scale(width=3))
    with pytest.raises(InputError, match="no model 'llava'"):
        models.scaled("llava", models.Scale())
    with pytest.raises(InputError, match="random weights"):
        models.Model.of(ARCHITECTURES["llava-onevision-7b"], 729, CPU, torch.float32)


@pytest.mark.parametrize(("name", "n"), [("micro-llava", 37), ("micro-qwen", 24)])
def test_a_random_model_has_the_sizes_and_the_tokens_that_were_asked_for(name, n):
    model = models.Model.of(ARCHITECTURES[name], n, CPU, torch.float32)
    assert (model.n, len(model.lvlm.family.prepare(Media(model.pictures)).layout)) == (n, n)
    config = model.lvlm.family.model.config
    found = Architecture.of(name, config)
    assert replace(found, tokens=model.architecture.tokens) == model.architecture


def test_a_number_of_tokens_without_a_grid_becomes_the_closest_one():
    assert models.Model.of(QWEN, 23, CPU, torch.float32).n == 24


def test_the_prefill_benchmark_measures_every_setting(tmp_path, capsys):
    file = tmp_path / "rows.json"
    options = ["--models", "micro-llava,micro-qwen", "--tokens", "20", "--width", "1"]
    options += ["--depth", "1", "--ratios", "0.5,0.75", "--methods", "fastv,libra,illava,tome"]
    options += ["--repeats", "2", "--words", "2", "--json", str(file)]
    assert prefill.main(options) == 0
    written, printed = json.loads(file.read_text()), capsys.readouterr()
    rows = written["rows"]
    assert [(r["model"], r["method"], r["ratio"]) for r in rows[:5]] == [
        ("micro-llava", "vanilla", None),
        ("micro-llava", "fastv", 0.5),
        ("micro-llava", "fastv", 0.75),
        ("micro-llava", "libra", 0.5),
        ("micro-llava", "libra", 0.75),
    ]
    assert {r["model"] for r in rows} == {"micro-llava", "micro-qwen"}
    assert len(table(printed.out)) == len(rows) and "left out" in printed.err
    for row in rows:
        assert row["kv_bytes"] == row["kv_formula"] and row["peak_bytes"] is None
        assert min(row[part] for part in ("encoder", "prefill", "decode", "reached")) > 0
        assert row["share"] == row["reached"] / row["implied"]
        assert row["share_causal"] == row["reached"] / row["implied_causal"]
        assert row["answer"] > row["encoder"] + row["connector"] + row["prefill"]
        plain, ratios = row["method"] == "vanilla", (row["implied"], row["reached"], row["faster"])
        assert ratios == (1, 1, 1) if plain else row["implied"] > 1
    shared = {r["encoder"] for r in rows[:5]}  # the encoder ran once a round for all of these
    assert len(shared) == 1
    about = written["setup"]
    assert {"device", "dtype", "batch", "attention", "command", "scale"} <= set(about)
    assert (about["scale"], about["batch"]) == ("as published", 1)


def test_what_flops_imply_is_their_ratio(monkeypatch):
    model = models.Model.of(LLAVA, 16, CPU, torch.float32)
    plan = prefill.settings(["fastv"], [0.5])
    with model.lvlm:
        plain, fastv = prefill.measure(model, CPU, plan, n_words=2, repeats=1)
    n, text = 16, fastv.text
    d, m = LLAVA.decoder.d, LLAVA.decoder.m

    def flops(counts, pairs):
        layers = sum(
            2 * (n + text) * (4 * d * d + 3 * d * m) + 4 * pairs(n + text) * d for n in counts
        )
        return layers + 2 * d * LLAVA.vocabulary

    (layer,) = fastv.layers
    counts = [n] * (layer + 1) + [n // 2] * (LLAVA.decoder.n_layers - layer - 1)
    for implied, pairs in (
        (fastv.implied, lambda t: t * t),
        (fastv.implied_causal, lambda t: sum(range(1, t + 1))),
    ):
        assert implied == pytest.approx(flops([n] * 4, pairs) / flops(counts, pairs))
    assert plain.last == 16 and fastv.last == 8


def total(operations):
    return sum(operation.flops for operation in operations)


def test_stored_rows_imply_what_the_count_says_and_readme_tells_their_causal_shares():
    shares = {}
    for model in ("llava-1.5-7b", "llava-1.5-13b", "qwen2-vl-7b"):
        stored = json.loads((MEASURED / f"h100-prefill-{model}.json").read_text())["rows"]
        architecture = ARCHITECTURES[model]
        for row in (r for r in stored if r["method"] in ("fastv", "libra")):
            depth = architecture.decoder.n_layers
            counts = token_counts(row["tokens"], depth, row["layers"], row["ratio"])
            work = Workload(architecture, row["tokens"], counts, row["text"])
            implied, causal = (
                total(work.vanilla.prefill(x)) / total(work.prefill(x)) for x in (False, True)
            )
            # Libra-Merging has a compensation token more behind its first event.
            assert row["implied"] == pytest.approx(
                implied, 1e-9 if row["method"] == "fastv" else 2e-3
            )
            key = model, row["tokens"], row["method"]
            shares.setdefault(key, []).append(f"{100 * row['reached'] / causal:.0f}")
    said = [" / ".join(shares["llava-1.5-7b", 8192, method]) for method in ("fastv", "libra")]
    readme = " ".join((MEASURED.parents[1] / "README.md").read_text().split())
    assert f"{said[0]} % (FastV) and {said[1]} % (Libra-Merging)" in readme


def test_bad_names_are_one_line(capsys):
    assert prefill.main(["--methods", "fastvee"]) == 2
    for bad in (["--device", "nope"], ["--json", "/no/folder/x"], ["--ratios", "1.5"]):
        assert prefill.main(bad) == 2
    assert batch.main(["--device", "nope"]) == attention.main(["--device", "nope"]) == 2
    assert attention.main(["--models", "gpt"]) == 2
    assert batch.main(["--models", "gpt"]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 8 and printed.out == ""


@pytest.mark.parametrize("benchmark", [app, attention, batch, gpu_check, prefill, reduction])
def test_a_folder_that_is_missing_is_noticed_before_anything_is_measured(benchmark, capsys):
    assert benchmark.main(["--json", "nowhere/x.json"]) == 2
    printed = capsys.readouterr()
    assert printed.err == "There is no folder nowhere for the rows: make it first.\n"
    assert printed.out == ""


def test_the_batch_benchmark_compares_with_batch_1(tmp_path, capsys):
    file = tmp_path / "rows.json"
    options = ["--models", "micro-llava", "--tokens", "20", "--width", "1", "--depth", "1"]
    options += ["--batches", "3,2", "--methods", "vanilla,libra,illava", "--repeats", "2"]
    assert batch.main([*options, "--words", "2", "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    rows = written["rows"]
    methods = ("vanilla", "libra", "illava")
    assert [(r["method"], r["batch"]) for r in rows] == [(m, n) for m in methods for n in (1, 2, 3)]
    assert all(r["faster"] == 1 for r in rows if r["batch"] == 1)
    assert all(min(r[x] for x in ("answers", "encoder", "prefill", "decode")) > 0 for r in rows)
    assert written["setup"]["batch"] == [1, 2, 3]
    assert len(table(capsys.readouterr().out)) == len(rows)


def test_the_attention_benchmark_compares_all_ways(tmp_path, capsys):
    file = tmp_path / "rows.json"
    options = ["--models", "micro-llava", "--tokens", "9,20", "--width", "1", "--depth", "1"]
    assert attention.main([*options, "--repeats", "2", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    names = ["fused", "hybrid, events", "hybrid, all", "eager", "eager, outputs"]
    assert [(r["tokens"], r["way"]) for r in rows] == [(n, w) for n in (9, 20) for w in names]
    assert [r["overhead"] for r in rows if r["way"] == "fused"] == [0, 0]
    assert len(table(capsys.readouterr().out)) == len(rows)


def test_tapped_layers_hand_over_the_row_that_eager_attention_has():
    model = attention.decoder(LLAVA, CPU, torch.float32, "sdpa")
    hidden = torch.randn(1, 12, 64)
    with torch.no_grad(), attention.Taps(model.model.layers, (0, 2), "sdpa") as taps:
        model(inputs_embeds=hidden)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        matrices = model(inputs_embeds=hidden, output_attentions=True).attentions
    assert len(taps.rows) == 2
    for layer, row in zip((0, 2), taps.rows, strict=True):
        torch.testing.assert_close(row[0], matrices[layer][0, :, -1].mean(0))


@pytest.fixture
def asked(model_folder, tmp_path):
    make_image().save(tmp_path / "p.png")
    options = ["--model", str(model_folder), "--image", str(tmp_path / "p.png")]
    return [*options, "--question", QUESTION, "--repeats", "1", "--words", "2"]


def test_the_app_benchmark_measures_every_level_of_tracing(asked, tmp_path, capsys, monkeypatch):
    for name in set(viz.FIGURES) - {"staircase", "attention_per_word", "attention_heads"}:
        monkeypatch.delitem(viz.FIGURES, name)
    file = tmp_path / "rows.json"
    assert app.main([*asked, "--no-page", "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    off, summary, full = written["rows"]
    assert [row["tracing"] for row in (off, summary, full)] == ["off", "summary", "full"]
    assert off["memory"] < summary["memory"] < full["memory"]
    assert [row["n_figures"] for row in (off, summary, full)] == [1, 2, 3]
    for row in (off, summary, full):
        assert 0 < row["first_word"] <= row["answer"] and row["figures"] > 0 and row["file"] > 0
    assert written["setup"]["tokens"] == 16
    assert len(table(capsys.readouterr().out)) == 3


def test_the_page_is_loaded_without_a_browser_where_there_is_none(model_folder, monkeypatch):
    monkeypatch.setattr(app, "CHROMIUM", None)
    how, loads = app.page_loads(str(model_folder), repeats=1)
    assert "no browser" in how and len(loads) == 1 and loads[0] > 0
