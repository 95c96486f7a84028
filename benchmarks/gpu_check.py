"""Whether models of published size work on this GPU: they are stored, loaded, and asked.

    make gpu-check
    python -m benchmarks.gpu_check [--models llava-1.5-7b,qwen2-vl-7b] [--methods libra,fastv]
        [--folder /scratch] [--json FILE]

Weights are random and of half precision: a model of seven billion parameters takes 17 GB of GPU
memory, and 15 GB in a folder that is removed afterwards. Each model is built, stored in shards, and
read again the way that a downloaded one is. Then it answers under every method. Peaks are of all
that was allocated on the GPU, weights included; times are medians over the rounds.

Exit codes: 0 all is well, 1 something failed, 2 there is no GPU or a request cannot be used.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

import libra
from benchmarks.measure import dtype, parser, report, run, setup
from benchmarks.models import QUESTION, Model, Scale, scaled
from libra import methods
from libra.architecture import Architecture
from libra.cli import words
from libra.errors import InputError
from libra.lvlm import LVLM
from libra.models.room import release

MODELS = "llava-1.5-7b,qwen2-vl-7b"
WORDS = 8
TOKENS = 576


@dataclass(frozen=True)
class Row:
    """One method on one model; times in milliseconds."""

    model: str
    method: str
    tokens: int  # visual, before compression
    last: int  # and in the last layer
    load: float  # seconds that the model took from its folder
    peak_bytes: int | None
    encoder: float
    prefill: float
    decode: float
    trouble: str = ""  # why there is no answer

    @property
    def failed(self) -> bool:
        """Whether this ought to have worked."""
        return self.trouble.startswith(FAILED)


FAILED = "failed: "


def store(model: Model, folder: Path) -> list:
    """Write a model as the hub would have it, and give back what it is to be asked about."""
    family = model.lvlm.family
    family.model.save_pretrained(folder, max_shard_size="5GB")
    family.tokenizer.save_pretrained(folder)
    family.image_processor.save_pretrained(folder)
    settings = json.dumps(family.image_processor.to_dict(), default=str)
    (folder / "video_preprocessor_config.json").write_text(settings)
    return model.pictures


def check(
    architecture: Architecture,
    device: torch.device,
    precision: torch.dtype,
    names: Sequence[str],
    repeats: int,
    scratch: Path | None = None,
) -> list[Row]:
    """Build, store, load and ask one model."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / architecture.name
        model = Model.of(architecture, min(TOKENS, architecture.tokens), device, precision)
        with model.lvlm:
            pictures = store(model, path)
        del model
        release()
        begin = time.perf_counter()
        with libra.load(str(path), device=str(device), dtype=precision) as lvlm:
            spent = time.perf_counter() - begin
            return [ask(lvlm, name, pictures, device, repeats, spent) for name in names]


def ask(
    lvlm: LVLM, method: str, pictures: list, device: torch.device, repeats: int, load: float
) -> Row:
    """Answer under one method, once to warm up and then `repeats` times."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    request = {"images": pictures, "question": QUESTION, "method": method, "tracing": False}
    try:
        traces = [
            lvlm.answer(**request, max_new_tokens=WORDS + 1).trace for _ in range(1 + repeats)
        ][1:]
        trouble = _wrong(traces)
    except InputError as error:
        return Row(lvlm.name, method, 0, 0, load, None, 0, 0, 0, str(error))
    except Exception as error:  # whatever goes wrong is what this is for
        trouble = f"{FAILED}{type(error).__name__}: {error}"
        return Row(lvlm.name, method, 0, 0, load, None, 0, 0, 0, trouble)
    times = [trace.timings for trace in traces]
    return Row(
        model=lvlm.name,
        method=method,
        tokens=traces[0].cost.visual,
        last=traces[0].counts[-1],
        load=load,
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        encoder=1e3 * median([t.encoder for t in times]),
        prefill=1e3 * median([t.prefill for t in times]),
        decode=1e3 * median([median(t.decode) for t in times]),
        trouble=trouble,
    )


def _wrong(traces: list[libra.Trace]) -> str:
    """What is wrong with answers that came; empty if nothing."""
    trace = traces[0]
    if len({t.answer for t in traces}) > 1:
        return f"{FAILED}the same question was answered differently"
    if len(trace.words) != WORDS + 1:
        return f"{FAILED}{len(trace.words)} words instead of {WORDS + 1}"
    if methods.get(trace.method).kind != "none" and trace.counts[-1] >= len(trace.layout):
        return f"{FAILED}nothing was compressed"
    return ""


def cells(row: Row) -> dict:
    """A row as it is printed."""
    peak = "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**30:.2f}"
    return {
        "model": row.model,
        "method": row.method,
        "tokens": row.tokens,
        "last": row.last,
        "peak GiB": peak,
        "encoder ms": f"{row.encoder:.2f}",
        "prefill": f"{row.prefill:.2f}",
        "decode": f"{row.decode:.2f}",
        "": row.trouble,
    }


def main(arguments: list[str] | None = None) -> int:
    """Check and print; see the module's docstring."""
    options = parser(__doc__)
    options.add_argument("--models", type=words, default=MODELS, help=f"default: {MODELS}")
    options.add_argument("--methods", type=words, default="all", help="names, or all")
    options.add_argument("--folder", type=Path, help="where to store models meanwhile")
    return run(_check_gpu, options, arguments)


def _check_gpu(options: argparse.Namespace) -> bool:
    device = torch.device(options.device)
    if device.type != "cuda":
        raise InputError("There is no GPU here: gpu-check needs one that CUDA can use.")
    return _check_all(options, device)


def _check_all(options: argparse.Namespace, device: torch.device) -> bool:
    """Print all rows; whether one of them failed."""
    names, rows = methods.chosen(options.methods), []
    for name in options.models:
        architecture = scaled(name, Scale())
        rows += check(architecture, device, dtype(options), names, options.repeats, options.folder)
        release()
    report(setup(options, words=WORDS), rows, cells, options.json)
    return any(row.failed for row in rows)


if __name__ == "__main__":
    sys.exit(main())
