"""Accuracy of the embedded model under compression: `python -m tiny.evaluate`.

Asks held-out scenes one question after the other through the same engine as the page and counts
exact answers, per question kind, method and ratio. Every method sees the same questions.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

import libra
from libra import methods
from libra.cli import parameters
from libra.statistics import wilson
from tiny import questions, scenes, sprites

CORE = ("existence", "count", "left/right", "above/below", "corner")
STYLES = {"training": sprites.TRAINING_STYLES} | {s: (s,) for s in sprites.UNSEEN_STYLES}
HELD_OUT = 7_000_000  # seeds that training never draws


@dataclass
class Row:
    """Answers of one method with its settings to one kind of question."""

    style: str
    method: str
    ratio: float
    settings: str
    layers: tuple[int, ...]
    kind: str
    right: int = 0
    asked: int = 0
    flops: float = 0.0  # of the visual prefill, as shares of vanilla's, summed

    @property
    def accuracy(self) -> float:
        """Share of exact answers."""
        return self.right / self.asked


def held_out(
    n: int, style: str, seed: int = HELD_OUT
) -> Iterator[tuple[np.ndarray, list[questions.Question]]]:
    """Pictures with questions, until there are `n` of each kind."""
    rng = np.random.default_rng(seed)
    missing = dict.fromkeys(questions.KINDS, n)
    while any(missing.values()):
        scene = scenes.compose(rng)
        asked = []
        for kind in questions.KINDS:
            question = questions.ask(scene, kind, rng) if missing[kind] else None
            if question is not None:
                asked.append(question)
                missing[kind] -= 1
        if asked:
            yield scenes.draw(scene, rng, STYLES[style], plain=True)[0], asked


def plans(
    names: Iterable[str], ratios: Iterable[float], layers: tuple[int, ...] | None = None
) -> list[dict]:
    """Arguments of `LVLM.stream`: vanilla, then each method at each ratio.

    A name may carry settings: `libra:tau=0.6:merge=average`. With `layers`, all methods act after
    these; methods that act before the decoder are left as they are.
    """
    made: list[dict] = [{"method": "vanilla"}]
    for spec in names:
        name, *pairs = spec.split(":")
        own = parameters(name, pairs)
        if layers and methods.get(name).site == "decoder":
            own["layers"] = layers
        made += [{"method": name, "ratio": ratio, **own} for ratio in ratios]
    return made


def evaluate(lvlm: libra.LVLM, wanted: list[dict], n: int, style: str) -> list[Row]:
    """Ask `n` questions of each kind under each plan."""
    rows: dict[tuple[int, str], Row] = {}
    with tqdm(total=n * len(questions.KINDS), desc=style, mininterval=5) as bar:
        for picture, asked in held_out(n, style):
            features = lvlm.encode([picture])
            for question in asked:
                request = {"images": [picture], "question": question.text, "features": features}
                for i, plan in enumerate(wanted):
                    answer = lvlm.answer(**request, tracing=False, **plan)
                    row = rows.setdefault((i, question.kind), _row(style, plan, question, answer))
                    row.right += answer.text == question.answer
                    row.asked += 1
                    row.flops += answer.trace.cost.flops / answer.trace.cost.vanilla_flops
                bar.update()
    return [rows[key] for key in sorted(rows, key=lambda k: (k[0], questions.KINDS.index(k[1])))]


def _row(style: str, plan: dict, question: questions.Question, answer: libra.Answer) -> Row:
    own = {k: v for k, v in plan.items() if k not in ("method", "ratio", "layers")}
    settings = ", ".join(f"{key} {value}" for key, value in own.items())
    layers = tuple(answer.trace.layers)
    return Row(style, plan["method"], plan.get("ratio", 0.0), settings, layers, question.kind)


def table(rows: list[Row]) -> str:
    """The rows as one Markdown table: a line per style, method, settings and ratio, in percent."""
    lines = defaultdict(dict)
    for row in rows:
        lines[row.style, row.method, row.settings, row.ratio, row.layers][row.kind] = row
    head = ["style", "method", "removed", "after layers", "FLOPs", "mean of five", *questions.KINDS]
    text = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for (style, method, settings, ratio, layers), kinds in lines.items():
        core = [kinds[kind] for kind in CORE]
        flops = sum(r.flops for r in kinds.values()) / sum(r.asked for r in kinds.values())
        right, asked = sum(r.right for r in core), sum(r.asked for r in core)
        low, high = wilson(right, asked)
        cells = [
            style,
            f"{method} ({settings})" if settings else method,
            f"{ratio:.0%}",
            ", ".join(map(str, layers)) or "-",
            f"{flops:.0%}",
            f"**{right / asked:.1%}** ({low:.1%} to {high:.1%})",
            *(f"{kinds[kind].accuracy:.1%}" for kind in questions.KINDS),
        ]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def main() -> None:
    """Command line of the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny-llava", help="a name or folder (%(default)s)")
    parser.add_argument(
        "--methods",
        default="fastv,libra",
        help="beside vanilla, with settings as in libra:tau=0.6; or all (%(default)s)",
    )
    parser.add_argument("--ratios", default="0.5,0.67,0.8", help="removed (%(default)s)")
    parser.add_argument("--layers", help="the same decoder layers for all methods, as in 1,3,5")
    parser.add_argument("--styles", default="training,twemoji,openmoji", help="(%(default)s)")
    parser.add_argument("--questions", type=int, default=100, help="of each kind (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    parser.add_argument("--card", type=Path, help="write the table into this model card")
    options = parser.parse_args()

    lvlm = libra.load(options.model)
    names = methods.names() if options.methods == "all" else options.methods.split(",")
    ratios = [2 / 3 if r == "0.67" else float(r) for r in options.ratios.split(",")]
    layers = tuple(map(int, options.layers.split(","))) if options.layers else None
    wanted = plans((name for name in names if name != "vanilla"), ratios, layers)
    rows = []
    for style in options.styles.split(","):
        every = style == "training"  # the unseen styles say how vanilla generalises
        rows += evaluate(lvlm, wanted if every else wanted[:1], options.questions, style)
    print(table(rows))
    if options.out:
        data = [asdict(row) for row in rows]
        options.out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if options.card:
        _write_card(options.card, table(rows), "python -m tiny.evaluate " + " ".join(sys.argv[1:]))


def _write_card(card: Path, measured: str, command: str) -> None:
    """Replace what stands between the card's two marks."""
    begin, end = "<!-- measured -->", "<!-- /measured -->"
    before, rest = card.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    middle = f"{begin}\nMeasured by `{command}` on a CPU in float32:\n\n{measured}\n{end}"
    card.write_text(before + middle + after, encoding="utf-8")


if __name__ == "__main__":
    main()
