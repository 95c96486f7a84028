"""The command line: `python -m libra answer | compare | sweep | figures | flops`.

Answers and tables go to standard output, progress to standard error. Bad input is one line on
standard error and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from libra import methods
from libra.errors import InputError, MediaWarning
from libra.methods import Method
from libra.report import aligned, as_csv, facts, readout, sweep_table, table
from libra.tables import paper_flops
from libra.trace import Trace
from libra.video import FRAMES, load_video


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with _notes():
            options.run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.strerror or error}: {error.filename or ''}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


@contextmanager
def _notes() -> Iterator[None]:
    """Say what is to be known of pictures and videos in one line each, and once."""
    said: set[str] = set()

    def show(message, category, *where, **more) -> None:
        if not issubclass(category, MediaWarning):
            usual(message, category, *where, **more)
        elif str(message) not in said:
            said.add(str(message))
            print(f"note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        usual, warnings.showwarning = warnings.showwarning, show
        yield


_FIRST_RUN = "note     first runs are slow: compare, sweep and the benchmarks measure later ones"
_IN_TURNS = (
    "note: each prefill is held against one of vanilla's right beside it. A share is the median of "
    "such\n      turns (least-greatest), not the quotient of two times of this table."
)
# Parameters of methods that have options of their own.
_OPTIONS = {"ratio": "--ratio", "keep": "--tokens for a count, --keep for patches"}


# -- commands -----------------------------------------------------------------------------------


def _answer(options: argparse.Namespace) -> None:
    """Answer one question."""
    chosen = parameters(options.method, options.param)
    _check_budget(options)
    method = methods.create(options.method, **chosen)
    _check_layers(method, options.layers, "decoder", "--layers")
    _check_layers(method, options.encoder_layers, "encoder", "--encoder-layers")
    _check_figures(options.only)
    if options.only and not options.figures:
        raise InputError("--only chooses figures: say with --figures where to draw them.")
    if options.trace and not options.trace.parent.is_dir():
        raise InputError(
            f"{options.trace} cannot be written: there is no such folder. Make it first."
        )
    with _load(options) as lvlm:
        steps = lvlm.stream(
            **_request(options),
            method=options.method,
            keep=options.keep if options.tokens is None else options.tokens,
            drop=options.drop,
            **chosen,
        )
        for step in tqdm(
            steps, "answering", options.max_new_tokens, unit="token", leave=False, disable=None
        ):
            last = step
    trace = last.trace
    if options.json:
        print(json.dumps(facts(trace), indent=2))
    else:
        print(trace.answer, readout(trace, lvlm.architecture), sep="\n\n")
        print(_FIRST_RUN, flush=True)
    if options.trace:
        trace.save(options.trace)
    if options.figures:
        _save_figures(trace, options.figures, options.only, options.format)


def _compare(options: argparse.Namespace) -> None:
    """Ask the same question under several methods."""
    from libra.lvlm import compare

    chosen = methods.chosen(options.methods)
    refused: dict[str, InputError] = {}
    request = _request(options)
    with _load(options) as lvlm:
        # First runs are slow: this one is not measured.
        lvlm.answer(**request | {"method": "vanilla", "max_new_tokens": 1, "tracing": False})
        answers = compare(
            lvlm,
            tqdm(chosen, "comparing", unit="method", leave=False, disable=None),
            refused=refused.__setitem__,
            **request,
        )
    if not answers:
        raise next(iter(refused.values()))
    for name, error in refused.items():
        print(f"{name} left out: {error}", file=sys.stderr)
    rows = [facts(answer.trace) for answer in answers]
    if options.json:
        print(json.dumps(rows, indent=2))
    elif options.csv:
        print(as_csv(rows), end="")
    else:
        print(table(rows))


def _sweep(options: argparse.Namespace) -> None:
    """Ask the same under one method at many ratios and layers, beside vanilla."""
    from libra.sweep import settings, sweep

    _check_layers(methods.create(options.method), options.layers, "decoder", "--layers")
    with _load(options) as lvlm:
        first = lvlm.family.first_layer
        chosen = settings(
            options.method, lvlm.n_layers, options.ratios, options.layers or (), first
        )
        request = {name: getattr(options, name) for name in _INPUTS} | _media(options)
        runs = sweep(lvlm, options.method, chosen, **request)
        progress = tqdm(runs, "sweeping", len(chosen), unit="setting", leave=False, disable=None)
        rows = [row.facts() for row, _ in progress]
    if options.json:
        print(json.dumps(rows, indent=2))
    elif options.csv:
        print(as_csv(rows), end="")
    else:
        print(sweep_table(rows), _IN_TURNS, sep="\n")


def _figures(options: argparse.Namespace) -> None:
    """Draw the figures of a stored trace."""
    trace = Trace.load(options.trace)
    for path in _save_figures(trace, options.out, options.only, options.format):
        print(path)


def _flops(options: argparse.Namespace) -> None:
    """Reproduce the FLOPs tables of the papers."""
    rows = [
        {
            "model": model,
            "setting": setting,
            "after layers": ",".join(map(str, layers)) or "-",
            "TFLOPs": f"{tera:.4f}".removesuffix("0"),
        }
        for model, setting, layers, tera in paper_flops()
    ]
    print(as_csv(rows), end="") if options.csv else print(aligned(rows))


# -- options ------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m libra",
        description="Ask a vision-language model about pictures with its visual tokens compressed, "
        "and see where every token went.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    answer = _command(commands, "answer", _answer, "answer one question", _methods_help())
    _add_request(answer)
    answer.add_argument("--method", default="libra", help="compression method (default: libra)")
    answer.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the method, for example tau=0.6; repeatable, listed below",
    )
    kept = answer.add_mutually_exclusive_group()
    kept.add_argument(
        "--tokens",
        type=int,
        metavar="N",
        help="exact number of visual tokens that each compression keeps, instead of --ratio or "
        "--left",
    )
    kept.add_argument(
        "--keep", type=integers, metavar="I,J,...", help="patches that may not be removed"
    )
    answer.add_argument(
        "--drop", type=integers, metavar="I,J,...", help="patches that must be removed"
    )
    answer.add_argument("--trace", type=Path, metavar="FILE", help="store the trace (zip)")
    answer.add_argument("--figures", type=Path, metavar="DIR", help="draw all figures into DIR")
    _add_figures(answer)
    answer.add_argument("--json", action="store_true", help="print the result as JSON")

    compare = _command(
        commands, "compare", _compare, "ask the same under several methods", _methods_help()
    )
    _add_request(compare)
    compare.add_argument(
        "--methods",
        type=words,
        default=["all"],
        metavar="A,B,...",
        help="methods to compare, or all (default: all)",
    )
    _add_table(compare)

    sweep = _command(commands, "sweep", _sweep, "ask the same at many ratios and layers")
    _add_inputs(sweep)
    sweep.add_argument("--method", default="libra", help="compression method (default: libra)")
    sweep.add_argument(
        "--ratios",
        type=numbers,
        default=(0.25, 0.5, 0.75, 0.9),
        metavar="A,B,...",
        help="shares of the visual tokens to remove, such as 0.5,2/3 (default: 0.25,0.5,0.75,0.9)",
    )
    sweep.add_argument(
        "--layers",
        type=integers,
        metavar="I,J,...",
        help="decoder layers after which to compress, each alone (default: four over the depth)",
    )
    _add_table(sweep)

    figures = _command(commands, "figures", _figures, "draw the figures of a stored trace")
    figures.add_argument("--trace", type=Path, required=True, metavar="FILE", help="the trace")
    figures.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to")
    _add_figures(figures)

    flops = _command(commands, "flops", _flops, "reproduce the FLOPs tables of the papers")
    flops.add_argument("--csv", action="store_true", help="print the table as CSV")
    return parser


def _command(commands, name: str, run, summary: str, epilog: str = "") -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{run.__doc__}",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _add_table(command: argparse.ArgumentParser) -> None:
    output = command.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the table as JSON")
    output.add_argument("--csv", action="store_true", help="print the table as CSV")


def _add_inputs(command: argparse.ArgumentParser) -> None:
    media = command.add_mutually_exclusive_group(required=True)
    media.add_argument("--image", action="append", metavar="FILE", help="a picture; repeatable")
    media.add_argument("--video", metavar="FILE", help="a video instead: MP4, WebM, MOV, AVI, GIF")
    command.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help="how many frames of the video to look at, equally far apart (default: as many as "
        "the model is used to)",
    )
    command.add_argument(
        "--fps",
        type=float,
        metavar="X",
        help="look at X frames a second instead, as long as N are enough for that",
    )
    command.add_argument("--question", required=True, help="what to ask")
    command.add_argument("--max-new-tokens", type=int, default=32, help="(default: 32)")
    command.add_argument("--seed", type=int, default=0, help="of random methods (default: 0)")
    command.add_argument(
        "--model",
        default="tiny-llava",
        help="tiny-llava, a hub id or a local folder (default: tiny-llava)",
    )
    command.add_argument("--device", help="cpu, cuda ... (default: a GPU where there is one)")
    command.add_argument(
        "--attention",
        help="sdpa, eager or flash_attention_2 (default: flash-attn where it goes, else sdpa)",
    )


def _add_request(command: argparse.ArgumentParser) -> None:
    _add_inputs(command)
    amount = command.add_mutually_exclusive_group()
    amount.add_argument(
        "--ratio",
        type=_share,
        metavar="R",
        help="share of the visual tokens that each compression removes, such as 0.5 or 2/3 "
        "(default: the method's own, one half for most)",
    )
    amount.add_argument(
        "--left",
        type=_share,
        metavar="S",
        help="share of the visual tokens that is left in the end, such as 1/4, however many times "
        "a method removes some",
    )
    command.add_argument(
        "--layers",
        type=integers,
        metavar="I,J,...",
        help="decoder layers after which to compress, counted from 0 up to the last one, where "
        "nothing is left to save (default: as in the paper, scaled to the model's depth)",
    )
    command.add_argument(
        "--encoder-layers",
        type=integers,
        metavar="I,J,...",
        help="encoder layers inside which to compress, for methods that act there",
    )
    command.add_argument(
        "--tracing",
        choices=_TRACING,
        default="summary",
        help="what to keep of the attention: nothing, the rows behind each word, or also heads, "
        "matrices, the encoder's and how alike the tokens were (default: summary)",
    )


def _add_figures(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--only",
        type=words,
        metavar="A,B,...",
        help="names of the figures to draw (default: all that the trace allows)",
    )
    command.add_argument(
        "--format",
        type=_formats,
        default=("png",),
        metavar="A,B,...",
        help="of png, svg, pdf and csv, the numbers behind a figure (default: png)",
    )


def words(text: str) -> list[str]:
    """The parts between commas, at least one, for argparse."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise argparse.ArgumentTypeError("there is nothing in it")
    return parts


def _number(text: str) -> float:
    """A number, written as 0.5 or 2/3."""
    return float(Fraction(text))


def _share(text: str) -> float:
    try:
        return _number(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 0.5 or 2/3") from None


def count(text: str, least: int = 1) -> int:
    """A whole number that is not too small, for argparse."""
    if not text.strip().isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def integers(text: str) -> tuple[int, ...]:
    """Whole numbers between commas, for argparse."""
    try:
        return tuple(map(int, words(text)))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of whole numbers such as 1,3,5"
        ) from None


def numbers(text: str) -> tuple[float, ...]:
    """Numbers between commas, which may be fractions, for argparse."""
    try:
        return tuple(map(_number, words(text)))
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of numbers such as 0.5,2/3"
        ) from None


def _formats(text: str) -> tuple[str, ...]:
    formats = tuple(map(str.lower, words(text)))
    if not set(formats) <= {"png", "svg", "pdf", "csv"}:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list out of png, svg, pdf and csv")
    return tuple(dict.fromkeys(formats))


def _methods_help() -> str:
    """The methods and their parameters, for the end of --help."""
    lines = ["methods and their parameters:"]
    for name in methods.names():
        lines += _wrapped(f"{name}: {methods.get(name).summary}", indent=2)
        for p in methods.parameters(name):
            if p.name not in _OPTIONS:
                choices = f" ({', '.join(p.choices)})" if p.choices else ""
                default = "" if p.default is None else p.default
                lines += _wrapped(f"{p.name}={default}{choices}: {p.help}", indent=6)
    return "\n".join(lines)


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text, 79, initial_indent=" " * indent, subsequent_indent=" " * (indent + 4)
    )


def parameters(method: str, pairs: Sequence[str]) -> dict[str, object]:
    """`["tau=0.6"]` -> `{"tau": 0.6}`, by the types of the method's parameters."""
    types = {p.name: p.type for p in methods.parameters(method) if p.name not in _OPTIONS}
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"--param {pair}: write it as NAME=VALUE, for example tau=0.6.")
        if name in _OPTIONS:
            raise InputError(f"--param {pair}: use {_OPTIONS[name]} instead.")
        if name not in types:
            has = f"it has {', '.join(types)}" if types else "it has none"
            raise InputError(f"--param {pair}: {method} has no parameter {name!r}; {has}.")
        try:
            values[name] = types[name](text)
        except ValueError:
            raise InputError(f"--param {pair}: {text!r} is not a number.") from None
    return values


def _check_budget(options: argparse.Namespace) -> None:
    """Raise InputError for a token count beside a share, or for a method that takes none."""
    if options.tokens is None:
        return
    for name in ("ratio", "left"):
        if getattr(options, name) is not None:
            raise InputError(f"--tokens and --{name} both say how much stays: give one of them.")
    if not methods.takes(options.method, "keep"):
        raise InputError(f"{options.method} takes no number of tokens: leave out --tokens.")


def _check_layers(method: Method, layers: object, site: str, option: str) -> None:
    """Raise InputError for layers of a part of the model in which a method does nothing."""
    if layers and site not in method.sites():
        raise InputError(f"{method.name} removes no tokens in the {site}: leave out {option}.")


_INPUTS = ("question", "max_new_tokens", "seed")
_TRACING = {"off": False, "summary": True, "full": "full"}


def _request(options: argparse.Namespace) -> dict:
    names = (*_INPUTS, "ratio", "left", "layers", "encoder_layers")
    values = {name: getattr(options, name) for name in names}
    return _media(options) | values | {"tracing": _TRACING[options.tracing]}


def _media(options: argparse.Namespace) -> dict:
    """The pictures, or the video; its frames where it is said how many."""
    sampled = options.frames is not None or options.fps is not None
    if options.video is not None and sampled:
        frames = FRAMES if options.frames is None else options.frames
        return {"video": load_video(options.video, frames, options.fps)}
    if options.video is not None:
        return {"video": options.video}
    if sampled:
        raise InputError("--frames and --fps are about a video: give one with --video.")
    return {"images": options.image}


def _load(options: argparse.Namespace):
    """The model; imported here so that traces and tables need no transformers."""
    from transformers.utils.logging import disable_progress_bar

    from libra.lvlm import load

    if not sys.stderr.isatty():
        disable_progress_bar()
    return load(options.model, device=options.device, attention=options.attention)


# -- figures ------------------------------------------------------------------------------------


def _save_figures(
    trace: Trace, folder: Path, only: Sequence[str] | None, formats: Sequence[str]
) -> list[Path]:
    """Draw the figures that the trace allows; a figure asked for by name has to be possible."""
    import viz

    _check_figures(only)
    for name in only or ():
        if missing := viz.FIGURES[name].missing(trace):
            raise InputError(f"{name}: {missing}")
    specs = [viz.FIGURES[name] for name in only or viz.FIGURES]
    specs = [spec for spec in specs if not spec.missing(trace)]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for spec in tqdm(specs, "drawing", unit="figure", leave=False, disable=None):
        figure = None
        for suffix in formats:
            paths.append(folder / f"{spec.name}.{suffix}")
            if suffix == "csv":
                paths[-1].write_text(as_csv(viz.NUMBERS[spec.name](trace)), "utf-8")
            else:
                figure = figure or spec.function(trace)
                viz.save(figure, paths[-1])
    return paths


def _check_figures(only: Sequence[str] | None) -> None:
    """Raise InputError for a figure that does not exist."""
    if not only:
        return
    import viz  # draws with matplotlib, which answers do without

    for name in only:
        if name not in viz.FIGURES:
            raise InputError(f"There is no figure {name!r}. Choose of {', '.join(viz.FIGURES)}.")
