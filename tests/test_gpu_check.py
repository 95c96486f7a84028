"""The check of a GPU, at micro size on the CPU: that it finds what it looks for."""

import argparse
import json

import pytest
import torch

from benchmarks import gpu_check
from libra import methods
from libra.architecture import ARCHITECTURES
from libra.lvlm import LVLM
from tests.micro_architectures import LLAVA, QWEN

CPU = torch.device("cpu")


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main([]) == 2
    assert capsys.readouterr().err == (
        "There is no GPU here: gpu-check needs one that CUDA can use.\n"
    )


@pytest.mark.parametrize("architecture", [LLAVA, QWEN], ids=["llava", "qwen"])
def test_a_model_is_stored_loaded_and_asked_under_every_method(architecture, tmp_path):
    names = methods.names()
    rows = gpu_check.check(architecture, CPU, torch.float32, names, 1, tmp_path)
    assert [row.method for row in rows] == names
    assert not [row for row in rows if row.failed]
    able = [row for row in rows if not row.trouble]
    assert {"vanilla", "fastv", "libra"} <= {row.method for row in able}
    assert {row.tokens for row in able} <= {16, 64}  # inside Qwen's encoder, four patches a token
    assert all(row.prefill > 0 and row.decode > 0 for row in able)
    assert all((row.last == 16) == (row.method == "vanilla") for row in able)
    assert all(row.load > 0 for row in rows)
    assert list(tmp_path.iterdir()) == []


def test_whatever_goes_wrong_is_a_row_and_the_exit_code(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(ARCHITECTURES, LLAVA.name, LLAVA)
    real = LVLM.answer

    def answer(self, **request):
        if request["method"] == "fastv":
            raise RuntimeError("CUDA error")
        return real(self, **request)

    monkeypatch.setattr(LVLM, "answer", answer)
    options = argparse.Namespace(
        models=[LLAVA.name],
        methods=["vanilla", "fastv"],
        device="cpu",
        dtype=None,
        repeats=1,
        folder=tmp_path,
        json=tmp_path / "rows.json",
    )
    assert gpu_check._check_all(options, CPU) == 1
    printed = capsys.readouterr().out
    assert "failed: RuntimeError: CUDA error" in printed
    plain, failed = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert plain["trouble"] == "" and plain["tokens"] == 16
    assert failed["method"] == "fastv" and failed["trouble"].startswith("failed")


def test_answers_that_differ_or_were_not_compressed_are_found(monkeypatch):
    class Fake:
        answer, words, counts, layout, method = "a", [0] * 9, [16, 16], [0] * 16, "libra"

    other = type("Other", (Fake,), {"answer": "b"})
    short = type("Short", (Fake,), {"words": []})
    assert "differently" in gpu_check._wrong([Fake, other])
    assert "0 words" in gpu_check._wrong([short])
    assert "nothing was compressed" in gpu_check._wrong([Fake])
    assert gpu_check._wrong([type("Plain", (Fake,), {"method": "vanilla"})]) == ""
