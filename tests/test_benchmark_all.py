"""All benchmarks in a row: their order, their files, and the end of the time."""

import json
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest

everything = import_module("benchmarks.__main__")

SMALL = "attention --models llava-1.5-7b --tokens 64 --width 16 --depth 32 --repeats 1"


def test_each_leaves_its_rows_in_a_file_of_its_name(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(everything, "RUNS", {"first": SMALL, "second": SMALL.replace("64", "96")})
    assert everything.main(["--out", str(tmp_path / "rows"), "--minutes", "5"]) == 0
    sizes = {
        file.stem: json.loads(file.read_text())["rows"][0]["tokens"]
        for file in (tmp_path / "rows").iterdir()
    }
    assert sizes == {"first": 64, "second": 96}
    assert capfd.readouterr().out.index("== first") < 20


def test_one_that_fails_is_named_and_the_others_run(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(everything, "RUNS", {"bad": "attention --models none", "good": SMALL})
    assert everything.main(["--out", str(tmp_path), "--minutes", "5"]) == 1
    assert "failed: bad" in capfd.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["good.json"]


def test_when_the_time_is_up_what_runs_is_stopped_and_nothing_begins(monkeypatch, tmp_path, capfd):
    clock = iter((0.0, 1.0, 61.0))
    monkeypatch.setattr(everything, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    waited = []
    monkeypatch.setattr(everything, "_ran", lambda call, file, left: waited.append(left) or True)
    monkeypatch.setattr(everything, "RUNS", {"first": SMALL, "second": SMALL})
    assert everything.main(["--out", str(tmp_path), "--minutes", "1"]) == 0
    assert waited == [59.0] and "second: no time is left" in capfd.readouterr().out


@pytest.mark.parametrize(("handles", "well"), [(True, True), (False, False)])
def test_one_that_is_stopped_gets_time_to_write(monkeypatch, handles, well):
    monkeypatch.setattr(everything, "GRACE", 1)
    code = "import signal, time\nsignal.signal(signal.SIGINT, signal.{})\nprint(flush=True)\n{}"
    how = "default_int_handler" if handles else "SIG_IGN"
    command = [sys.executable, "-c", code.format(how, "time.sleep(60)")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        process.send_signal(everything.signal.SIGINT)
        assert everything._stopped(process) is well


@pytest.mark.parametrize("call", everything.RUNS.values())
def test_every_run_is_a_call_that_its_benchmark_takes(call, capsys):
    name, *options = call.split()
    assert import_module(f"benchmarks.{name}").main([*options, "--device", "nowhere"]) == 2
    assert capsys.readouterr().err == "There is no device 'nowhere' here: choose cpu.\n"
