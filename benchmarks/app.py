"""What a visitor waits for: first word, figures, page load; and what a trace weighs.

    python -m benchmarks.app [--model tiny-llava] [--image FILE --question TEXT] [--json FILE]

One question with tracing off, in summary and in full, in interleaved rounds:

    first word   from the question to the first word, milliseconds
    answer       to the last word
    picture      to draw the picture that is shown first
    figures      to draw all figures that this trace allows, as files of the Figures tab
    memory       of the trace, pickled; file: as it is stored

Page load is from the request to the first picture on the page, in a Chromium without a cache;
without a Chromium, to the last byte of the page and its configuration.
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from benchmarks.measure import (
    give_or_take,
    parser,
    report,
    rounds,
    run,
    setup,
    spread,
)
from libra.cli import count
from libra.lvlm import LVLM, load
from libra.trace import Trace

LEVELS = {"off": False, "summary": True, "full": "full"}
CHROMIUM = shutil.which("chromium")


@dataclass(frozen=True)
class Row:
    """One level of tracing; medians, milliseconds and bytes."""

    tracing: str
    first_word: float
    first_word_spread: float | None
    answer: float
    picture: float
    figures: float
    n_figures: int
    memory: int
    file: int


@dataclass(frozen=True)
class Visit:
    """One question answered and drawn."""

    first_word: float
    answer: float
    picture: float
    figures: float
    n_figures: int
    trace: Trace


def visit(lvlm: LVLM, request: dict, level: object) -> Visit:
    """Ask, then draw, as the page does."""
    import viz
    from page import views
    from page.shown import Shown

    begin = time.perf_counter()
    steps = lvlm.stream(**request, tracing=level)
    next(steps)
    first = _since(begin)
    *_, last = steps
    answer, trace = _since(begin), last.trace
    shown = Shown()
    shown.show(trace)
    begin = time.perf_counter()
    views.save_png(views.picture(trace, shown.overlay, shown.stage), "picture")
    picture, begin = _since(begin), time.perf_counter()
    drawn = [spec for spec in viz.FIGURES.values() if not spec.missing(trace)]
    for spec in drawn:
        views.save_figure(spec.function(trace), spec.name)
    return Visit(first, answer, picture, _since(begin), len(drawn), trace)


def measure(lvlm: LVLM, request: dict, repeats: int) -> list[Row]:
    """Every level of tracing in every round."""
    runs = {name: lambda level=level: visit(lvlm, request, level) for name, level in LEVELS.items()}
    found, rows = rounds(runs, repeats), []
    for name, visits in found.items():
        medians = {
            part: median([getattr(v, part) for v in visits])
            for part in ("first_word", "answer", "picture", "figures")
        }
        trace = visits[0].trace
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "t.zip"
            trace.save(path)
            size = path.stat().st_size
        rows.append(
            Row(
                tracing=name,
                **medians,
                first_word_spread=spread([v.first_word for v in visits]),
                n_figures=visits[0].n_figures,
                memory=len(pickle.dumps(trace)),
                file=size,
            )
        )
    return rows


def page_loads(model: str, repeats: int) -> tuple[str, list[float]]:
    """How often the page was loaded how, and in how many milliseconds."""
    with served(model) as url:
        if CHROMIUM is None:
            return "page and configuration, no browser", [_fetch(url) for _ in range(repeats)]
        return "to the first picture, in Chromium", list(_browse(url, repeats))


@contextmanager
def served(model: str) -> Iterator[str]:
    """The address of the running page."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import app

    page = app.build(model)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH)
    try:
        yield url
    finally:
        page.close()


def _fetch(url: str) -> float:
    begin = time.perf_counter()
    for part in ("", "config"):
        with urllib.request.urlopen(url + part) as answer:
            answer.read()
    return _since(begin)


def _browse(url: str, repeats: int) -> Iterator[float]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        for i in range(1 + repeats):
            page = browser.new_context().new_page()
            begin = time.perf_counter()
            page.goto(url)
            page.locator("#hero img").wait_for(timeout=120_000)
            if i:  # the first visit warms up the server
                yield _since(begin)
            page.context.close()
        browser.close()


def _since(begin: float) -> float:
    """Milliseconds since then."""
    return 1e3 * (time.perf_counter() - begin)


def cells(row: Row) -> dict:
    """A row as it is printed."""
    return {
        "tracing": row.tracing,
        "first word ms": f"{row.first_word:.0f}{give_or_take(row.first_word_spread)}",
        "answer": f"{row.answer:.0f}",
        "picture": f"{row.picture:.0f}",
        "figures": f"{row.figures:.0f} ({row.n_figures})",
        "memory MiB": f"{row.memory / 2**20:.2f}",
        "file MiB": f"{row.file / 2**20:.2f}",
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; see the module's docstring."""
    options = parser(__doc__)
    options.add_argument("--model", default="tiny-llava")
    options.add_argument("--image", type=Path, help="default: the first example")
    options.add_argument("--question", help="default: that of the example")
    options.add_argument("--words", type=count, default=8, help="words of the answer, at most")
    options.add_argument("--no-page", action="store_true", help="do not load the page")
    return run(_measure_all, options, arguments)


def _measure_all(options: argparse.Namespace) -> None:
    from page import examples

    if options.image is None or options.question is None:
        example = examples.load(examples.FOLDER)[0]
        options.image = options.image or example.image
        options.question = options.question or example.question
    dtype = getattr(torch, options.dtype) if options.dtype else None
    with load(options.model, options.device, dtype) as lvlm:
        options.dtype = str(lvlm.family.model.dtype).removeprefix("torch.")
        request = {
            "images": [options.image],
            "question": options.question,
            "max_new_tokens": options.words,
        }
        about = setup(
            options,
            attention=lvlm.family.model.config.get_text_config()._attn_implementation,
            model=options.model,
            tokens=len(lvlm.answer(**request).trace.layout),
        )
        rows = measure(lvlm, request, options.repeats)
    if not options.no_page:
        how, loads = page_loads(options.model, options.repeats)
        about["page load"] = f"{median(loads):.0f} ms{give_or_take(spread(loads))} {how}"
    report(about, rows, cells, options.json)


if __name__ == "__main__":
    sys.exit(main())
