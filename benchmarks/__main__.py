"""All benchmarks, the most telling first, until the time is up: `python -m benchmarks`.

A benchmark that runs out of time keeps the rows that it has, so that a machine which is there for
minutes alone leaves as much behind as it can.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from libra.cli import Parser, count

RUNS = {  # by the name of the file with its rows
    "prefill-7b": "prefill --models llava-1.5-7b --tokens 2304,8192 --methods fastv,libra,illava "
    "--words 2 --repeats 3",
    "reduction": "reduction --methods fastv,turbo,libra",
    "attention": "attention",
    "app": "app",
    "batch": "batch --batches 1,8",
    "prefill": "prefill --words 2 --repeats 3",  # the whole grid
}
GRACE = 60  # seconds to end in, for one that is stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: run one benchmark after the other; the exit code is 1 if one of them failed."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    end, failed = time.monotonic() + 60 * options.minutes, []
    for name, call in RUNS.items():
        left = end - time.monotonic()
        if left <= 0:
            print(f"\n== {name}: no time is left", flush=True)
            continue
        print(f"\n== {name}: python -m benchmarks.{call}\n", flush=True)
        if not _ran(call, options.out / f"{name}.json", left):
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _parser() -> argparse.ArgumentParser:
    options = Parser(description=__doc__.splitlines()[0])
    options.add_argument(
        "--out", type=Path, default=Path("runs/benchmarks"), help="folder of rows (%(default)s)"
    )
    options.add_argument("--minutes", type=count, default=60, help="in all (%(default)s)")
    return options


def _ran(call: str, file: Path, seconds: float) -> bool:
    """Run one benchmark for so long at most; whether it ended well, or was stopped by that."""
    command = [sys.executable, "-m", f"benchmarks.{call.split()[0]}", *call.split()[1:]]
    with subprocess.Popen([*command, "--json", str(file)]) as process:
        try:
            return process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            return _stopped(process)


def _stopped(process: subprocess.Popen) -> bool:
    """Wait for the end of one that was told to stop; whether it came in time."""
    try:
        process.wait(GRACE)
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        return False


if __name__ == "__main__":
    sys.exit(main())
