"""Accuracy of the embedded model under compression: `python -m tiny.evaluate`.

Asks held-out questions through the same engine as the page and counts right answers, word for
word but for the order of a caption (`Question.accepts`), per kind of question, method and ratio.
Every method sees the same questions. What has been answered is kept under `runs/evaluation`, so
that a run that was stopped goes on, and tables cost nothing again.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

import libra
from libra import methods
from libra.cli import count, integers, numbers, parameters, words
from libra.errors import InputError
from tiny import questions, suites
from tiny.held_out import STYLES, Subject, subjects
from tiny.measure import Store, check, measure
from tiny.plans import VANILLA, Line, Plan, Table, plan
from tiny.results import CORE, Results, write_between_marks

EVERY_KIND = (*questions.KINDS, *questions.SEQUENCES)


def chosen(
    lvlm: libra.LVLM,
    names: Iterable[str],
    ratios: Iterable[float],
    layers: tuple[int, ...] | None = None,
) -> Table:
    """Vanilla, then each method at each ratio.

    A name may carry settings: `libra:tau=0.6:merge=average`. With `layers`, all methods act after
    these; methods that act before the decoder are left as they are.
    """
    plans = []
    for spec in names:
        name, *pairs = spec.split(":")
        own = parameters(name, pairs)
        if layers and methods.create(name, **own).site == "decoder":
            own["layers"] = layers
        plans += [plan(lvlm, name, ratio, ratio=ratio, **own) for ratio in ratios]
    lines = [Line(f"{p.title}, {p.settings}" if p.settings else p.title, p) for p in plans]
    about = "R is the share that each event removes."
    return Table("chosen", "The chosen methods", about, [VANILLA, *lines])


def wanted(
    tables: Sequence[Table], n: int, kinds: Sequence[str]
) -> list[tuple[Subject, list[Plan]]]:
    """What to ask for the tables, `n` questions of each kind: subjects with their plans, once."""
    pairs = []
    for style in STYLES:
        for asked in dict.fromkeys(tuple(table.kinds) for table in tables):
            lines = [x for t in tables if tuple(t.kinds) == asked for x in t.lines]
            plans = {x.plan.key: x.plan for x in lines if x.style == style}
            of = [kind for kind in kinds if kind in asked]
            if plans and of:
                pairs += [(subject, [*plans.values()]) for subject in subjects(n, style, of)]
    return pairs


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the evaluation; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _run(options, sys.argv[1:] if arguments is None else arguments)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny-llava", help="a name or folder (%(default)s)")
    parser.add_argument(
        "--suite",
        choices=("papers",),
        help="every method at its own layers, all at the same ones, and the papers' tables",
    )
    parser.add_argument(
        "--methods",
        type=words,
        default="all",
        help="beside vanilla, with settings as in libra:tau=0.6; all is the suite (%(default)s)",
    )
    parser.add_argument(
        "--ratios", type=numbers, default="0.5,2/3,0.8", help="removed (%(default)s)"
    )
    parser.add_argument(
        "--layers", type=integers, help="the same decoder layers for all methods, as in 1,3,5"
    )
    parser.add_argument(
        "--styles", type=words, default="training,twemoji,openmoji", help="(%(default)s)"
    )
    parser.add_argument("--kinds", type=words, help="of question (default: all)")
    parser.add_argument("--questions", type=count, default=100, help="of each kind (%(default)s)")
    parser.add_argument("--workers", type=count, default=1, help="processes (%(default)s)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16 is quicker on CPUs that multiply in it (%(default)s)",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs/evaluation"),
        help="where answers are kept; remove it after changing a method (%(default)s)",
    )
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    parser.add_argument("--card", type=Path, help="write the tables into this model card")
    parser.add_argument("--readme", type=Path, help="write the main table into this README")
    return parser


def _run(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    kinds = _known("kind of question", options.kinds or EVERY_KIND, EVERY_KIND)
    styles = _known("drawing style", options.styles, STYLES)
    if options.readme and not set(CORE) <= set(kinds):
        raise InputError(f"--readme is about {', '.join(CORE)}: ask all of them.")
    lvlm = libra.load(options.model, dtype=getattr(torch, options.dtype))
    tables = _tables(options, lvlm, styles)
    tables = [table for table in tables if set(kinds).intersection(table.kinds)]

    pairs = wanted(tables, options.questions, kinds)
    n_plans = len({plan.key for _, plans in pairs for plan in plans})
    print(f"{n_plans} plans, {options.questions} questions of each of {len(kinds)} kinds")
    check(lvlm, pairs)
    store = Store(options.runs, lvlm)
    measure(options.model, store, pairs, options.workers, options.dtype)

    results = Results(store, pairs)
    made_by = f"Measured by `python -m tiny.evaluate {' '.join(arguments)}` on {_machine(lvlm)}"
    text = "\n\n".join(results.markdown(table) for table in tables)
    print(text)
    if options.out:
        rows = [asdict(row) for row in results.rows(tables)]
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if options.card:
        write_between_marks(options.card, f"{made_by}.\n\n{text}")
    if options.readme:
        write_between_marks(options.readme, f"{made_by}.\n\n{results.overview(tables[0])}")


def _tables(options: argparse.Namespace, lvlm: libra.LVLM, styles: Sequence[str]) -> list[Table]:
    """What to compare: methods in the styles of the training, and in those never seen."""
    every = options.methods == ["all"]
    if options.suite or (every and not options.layers):
        own, *others = suites.papers(lvlm, options.ratios)
        others = [suites.albums(own), suites.films(own), *others]
    else:
        names = methods.names() if every else options.methods
        names = [name for name in names if name != "vanilla"]
        own, others = chosen(lvlm, names, options.ratios, options.layers), []
    unseen = [suites.in_style(own, style) for style in styles if style != "training"]
    seen = [own, *unseen, *others] if "training" in styles else unseen
    return [*seen, suites.styles(styles)]


def _known(what: str, names: Sequence[str], known: Iterable[str]) -> Sequence[str]:
    """The names, if all of them exist."""
    for name in names:
        if name not in known:
            raise InputError(f"There is no {what} {name!r}. Choose of: {', '.join(known)}.")
    return names


def _machine(lvlm: libra.LVLM) -> str:
    """Where and how precisely the model computes."""
    device = "a CPU" if lvlm.card["device"] == "cpu" else lvlm.card["device"]
    return f"{device} in {lvlm.card['dtype']}"


if __name__ == "__main__":
    sys.exit(main())
