"""Counted answers, and the Markdown tables made of them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from libra.statistics import wilson
from tiny.held_out import Subject
from tiny.measure import Answered, Store
from tiny.plans import Line, Plan, Table

CORE = ("existence", "count", "left/right", "above/below", "corner")
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"


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
    left: float = 0.0  # visual tokens in the end, as shares of all, summed
    similarity: float = 0.0  # of what was not kept to its closest target, summed
    tables: list[str] = field(default_factory=list)  # that its plan is a line of

    def count(self, answered: Answered, right: bool) -> None:
        """One more answer."""
        self.asked += 1
        self.right += right
        self.flops += answered.flops
        self.left += answered.left
        self.similarity += answered.similarity or 0.0


class Results:
    """The rows of every plan."""

    def __init__(self, store: Store, wanted: Iterable[tuple[Subject, Sequence[Plan]]]):
        self._rows: dict[tuple[str, str, str], Row] = {}  # by style, plan and kind
        for subject, plans in wanted:
            for question in subject.questions():
                for plan in plans:
                    answered = store.get(subject, question.text, plan)
                    row = self._row(subject.style, plan, question.kind)
                    row.count(answered, question.accepts(answered.answer))
                    if plan.ratio is None:
                        row.ratio = 1 - row.left / row.asked

    def _row(self, style: str, plan: Plan, kind: str) -> Row:
        layers = tuple(plan.request.get("layers", ()))
        new = Row(style, plan.method, plan.ratio or 0.0, plan.settings, layers, kind)
        return self._rows.setdefault((style, plan.key, kind), new)

    def of(self, line: Line, table: Table) -> dict[str, Row]:
        """The rows of a table's line, by the kinds of question that the table is about."""
        keys = {kind: (line.style, line.plan.key, kind) for kind in table.kinds}
        return {kind: self._rows[key] for kind, key in keys.items() if key in self._rows}

    def rows(self, tables: Iterable[Table]) -> list[Row]:
        """All rows of the tables, once each, with the names of their tables."""
        found = {}
        for table in tables:
            for line in table.lines:
                for row in self.of(line, table).values():
                    found[id(row)] = row
                    row.tables = [*dict.fromkeys([*row.tables, table.name])]
        return list(found.values())

    def markdown(self, table: Table) -> str:
        """A table with its heading: a line per plan, in percent, with 95 % intervals."""
        kinds = list(self.of(table.lines[0], table))
        core = [kind for kind in CORE if kind in kinds]
        head = ["", "R", "after layers", "tokens left", "FLOPs"]
        head += ["Sim"] * table.similarity + ["mean of five"] * (core == list(CORE))
        text = [f"### {table.title}", "", table.about, ""]
        text += _header([*head, "all kinds", *kinds])
        for line in table.lines:
            of, plan = self.of(line, table), line.plan
            cells = [line.label, _removed(plan), plan.where]
            cells += [_mean(of.values(), "left"), _mean(of.values(), "flops")]
            if table.similarity:
                cells.append(f"{_share(of.values(), 'similarity'):.3f}")
            if core == list(CORE):
                cells.append(f"**{_interval([of[kind] for kind in core])}**")
            cells += [_interval(of.values()), *(_mean([of[kind]], "right") for kind in kinds)]
            text.append(_cells(cells))
        return "\n".join(text)

    def overview(self, table: Table) -> str:
        """One line for each method: mean of five, and FLOPs, at each of its ratios."""
        at: dict[str, dict[str, str]] = defaultdict(dict)
        for line in table.lines:
            rows = [row for kind, row in self.of(line, table).items() if kind in CORE]
            at[line.label][_removed(line.plan)] = f"{_interval(rows)}, {_mean(rows, 'flops')}"
        ratios = list(dict.fromkeys(_removed(line.plan) for line in table.lines[1:]))
        plain = at.pop(table.lines[0].label)
        text = [
            f"Right answers, mean of {', '.join(CORE)}, with its 95 % interval; then the FLOPs.",
            f"Without compression: {plain['-']} FLOPs.",
            "",
        ]
        text += _header(["method", *(f"R = {ratio}" for ratio in ratios)])
        text += [_cells([label, *(of[ratio] for ratio in ratios)]) for label, of in at.items()]
        return "\n".join(text)


def _header(names: Sequence[str]) -> list[str]:
    return [_cells(names), "|" + " --- |" * len(names)]


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _removed(plan: Plan) -> str:
    return f"{plan.ratio:.0%}" if plan.ratio else "-"


def _share(rows: Iterable[Row], name: str) -> float:
    rows = list(rows)
    return sum(getattr(row, name) for row in rows) / sum(row.asked for row in rows)


def _mean(rows: Iterable[Row], name: str) -> str:
    return f"{_share(rows, name):.1%}"


def _interval(rows: Iterable[Row]) -> str:
    """`95.0% (92.7-96.6)`: a share and its Wilson interval."""
    rows = list(rows)
    right, asked = sum(row.right for row in rows), sum(row.asked for row in rows)
    low, high = wilson(right, asked)
    return f"{right / asked:.1%} ({100 * low:.1f}-{100 * high:.1f})"


def write_between_marks(path: Path, text: str) -> None:
    """Replace what stands between the two marks of a Markdown file."""
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
