"""What the benchmarks share: clocks, interleaved rounds, and all that a figure has to be read with.

Every figure is a median over rounds. In each round every variant runs once, one after the other, so
that ratios are between neighbours in time; the first rounds are not counted. Every round has an
order of its own: what a variant leaves behind, as a hot device, does not always meet the same one.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from statistics import median
from typing import TypeVar

import torch

from libra.cli import Parser, count
from libra.devices import name_of, runs_ahead
from libra.errors import InputError
from libra.report import aligned

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")

DTYPES = ("float32", "bfloat16", "float16")


class Stopwatch:
    """Milliseconds between two moments: of CUDA events on a GPU, else of the wall clock."""

    def __init__(self, device: torch.device):
        self.device = device

    def start(self) -> None:
        """Begin."""
        self._begin = self._now()

    def stop(self) -> Callable[[], float]:
        """End; what is returned tells the milliseconds, and waits for the device when called."""
        begin, end = self._begin, self._now()
        if self.device.type != "cuda":
            return lambda: 1e3 * (end - begin)

        def read() -> float:
            end.synchronize()
            return begin.elapsed_time(end)

        return read

    def _now(self):
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


def milliseconds(
    run: Callable[[], object], device: torch.device, before: Callable[[], object] | None = None
) -> float:
    """How long one run takes.

    Args:
        run: what is measured.
        device: where.
        before: work for a GPU to be busy with while the host gets ahead, as it does in a prefill;
            else it would wait for the host in between, and that time would be counted.
    """
    if before is not None and runs_ahead(device):
        before()
    watch = Stopwatch(device)
    watch.start()
    run()
    return watch.stop()()


def rounds(
    variants: Mapping[Key, Callable[[], Result]],
    repeats: int,
    warmup: int = 1,
    before: Callable[[], object] = lambda: None,
) -> dict[Key, list[Result]]:
    """What every variant returned in each round that counts.

    Args:
        variants: what runs once a round, in any order.
        repeats: rounds that count.
        warmup: rounds before them.
        before: what every round begins with.
    """
    found, shuffled = {key: [] for key in variants}, Random(0)
    for i in range(warmup + repeats):
        before()
        for key in shuffled.sample([*variants], len(variants)):
            result = variants[key]()
            if i >= warmup:
                found[key].append(result)
    return found


def spread(values: Sequence[float]) -> float | None:
    """Half the distance between the least and the greatest value, as a share of the median.

    None where there is but one value: nobody knows then.
    """
    return (max(values) - min(values)) / 2 / median(values) if len(values) > 1 else None


def give_or_take(spread: float | None) -> str:
    """A spread behind its median, as it is printed: "±4%", or nothing where it is not known."""
    return "" if spread is None else f" ±{spread:.0%}"


def peak_memory(run: Callable[[], Result], device: torch.device) -> tuple[Result, int | None]:
    """What a run returns, and the most bytes it held beyond what was there; None on a CPU."""
    if device.type != "cuda":
        return run(), None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = run()
    return result, torch.cuda.max_memory_allocated(device) - before


# -- options and reports ------------------------------------------------------------------------


def parser(about: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    options = Parser(description=about.splitlines()[0])
    options.add_argument("--repeats", type=count, default=5, help="rounds that count")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument(
        "--dtype", choices=DTYPES, help="default: float32 on a CPU, bfloat16 on a GPU"
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    return options


def scalable(options: argparse.ArgumentParser) -> None:
    """Let models be chosen smaller than published."""
    for name in ("width", "depth"):
        options.add_argument(f"--{name}", type=count, default=1, help=f"divisor of the {name}")


def run(
    measure: Callable[[argparse.Namespace], object],
    options: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    on_cpu: Mapping[str, object] | None = None,
) -> int:
    """Parse, check and measure; the exit code: 2, and one line, where that cannot be done;
    130 where it was stopped.

    Args:
        measure: gets the chosen options; what it returns is whether something failed.
        options: those that there are.
        arguments: of the command line; default: that of this process.
        on_cpu: the defaults of a run of minutes on a CPU.
    """
    chosen = _parsed(options, arguments, on_cpu or {})
    try:
        _check(chosen)
        return int(bool(measure(chosen)))
    except (InputError, ImportError) as error:
        print(str(error).splitlines()[0], file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: what is above is complete", file=sys.stderr)
        return 130


def _parsed(
    options: argparse.ArgumentParser, arguments: Sequence[str] | None, on_cpu: Mapping[str, object]
) -> argparse.Namespace:
    """The options that were chosen."""
    if options.parse_known_args(arguments)[0].device == "cpu":
        options.set_defaults(**on_cpu)
    return options.parse_args(arguments)


def _check(options: argparse.Namespace) -> None:
    """Raise InputError where there is no such device, or no folder for the file."""
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError):
        raise InputError(f"There is no device {options.device!r} here: choose cpu.") from None
    if options.json and not options.json.parent.is_dir():
        raise InputError(f"There is no folder {options.json.parent} for the rows: make it first.")


def dtype(options: argparse.Namespace) -> torch.dtype:
    """The type of the numbers that was chosen, or that suits the device."""
    return getattr(torch, options.dtype or DTYPES[options.device != "cpu"])


def counts(text: str) -> list[int]:
    """Numbers of tokens, each 2 or more, for argparse."""
    return [count(part, least=2) for part in text.split(",")]


def setup(options: argparse.Namespace, **more: object) -> dict:
    """All that the figures have to be read with."""
    device = torch.device(options.device)
    return {
        "device": name_of(device),
        "dtype": str(dtype(options)).removeprefix("torch."),
        "batch": 1,
        "repeats": options.repeats,
        "torch": torch.__version__,
        **({"threads": torch.get_num_threads()} if device.type == "cpu" else {}),
        **more,
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
    }


def report(
    about: dict,
    rows: Iterable[Result],
    cells: Callable[[Result], dict],
    file: Path | None,
    facts: Callable[[Result], dict] = asdict,
) -> None:
    """Print the setup and the table, and write both with all numbers to a file.

    Rows may come as they are measured: the file holds those that are there, and a run that is
    stopped, or fails, prints them.

    Args:
        about: see `setup`.
        rows: what was measured.
        cells: a row as it is printed, cell by cell.
        file: where to; None for nowhere.
        facts: a row as it is written, in plain values.
    """
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n", end="\n\n")
    measured, written = [], []
    _write(about, written, file)
    try:
        for row in rows:
            measured.append(row)
            written.append(facts(row))
            _write(about, written, file)
    finally:
        columns = [cells(row) for row in measured]
        print(aligned(columns) if columns else "nothing could be measured")


def _write(about: dict, rows: list[dict], file: Path | None) -> None:
    """All numbers as JSON; nobody ever finds them half written."""
    if file:
        unfinished = file.with_name(f"{file.name}.part")
        unfinished.write_text(json.dumps({"setup": about, "rows": rows}, indent=1))
        unfinished.replace(file)
