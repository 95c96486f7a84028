"""Answers of a model to held-out questions, by several processes that share no picture."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from tqdm import tqdm

import libra
from libra.reduction import Fate
from libra.trace import Trace
from tiny.held_out import Subject
from tiny.plans import Plan
from tiny.questions import SEQUENCES


@dataclass(frozen=True)
class Answered:
    """What became of one question under one plan."""

    style: str
    number: int  # of the subject
    question: str
    plan: str  # its key
    answer: str
    flops: float  # of the visual prefill, beside vanilla's
    left: float  # visual tokens after the last event, beside those of the pictures
    similarity: float | None  # mean over what the first event did not keep, to its closest target

    @property
    def key(self) -> tuple:
        """What it is the answer to."""
        return self.style, self.number, self.question, self.plan


@dataclass(frozen=True)
class Task:
    """Questions about one subject, each with the keys of the plans to ask it under."""

    model: str
    dtype: str
    subject: Subject
    asked: dict[str, list[str]]


class Store:
    """Answers of one model on disk, a line each: what is there is not computed again."""

    def __init__(self, folder: Path, lvlm: libra.LVLM):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{digest(lvlm)}.jsonl"
        self._known: dict[tuple, Answered] = {}
        for line in self.path.open(encoding="utf-8") if self.path.exists() else ():
            try:
                answered = Answered(**json.loads(line))
            except ValueError:  # empty, or cut off when the run was stopped
                continue
            self._known[answered.key] = answered

    def add(self, answers: Iterable[Answered]) -> None:
        """Keep answers, in memory and on disk."""
        with self.path.open("a", encoding="utf-8") as file:
            for answered in answers:
                self._known[answered.key] = answered
                file.write("\n" + json.dumps(asdict(answered)))

    def get(self, subject: Subject, question: str, plan: Plan) -> Answered | None:
        """An answer, if there is one."""
        return self._known.get((subject.style, subject.number, question, plan.key))


def digest(lvlm: libra.LVLM) -> str:
    """The weights of a model in twelve letters."""
    hashed = hashlib.sha256()
    for weight in lvlm.family.model.state_dict().values():
        hashed.update(weight.contiguous().cpu().view(torch.uint8).numpy())
    return hashed.hexdigest()[:12]


def check(lvlm: libra.LVLM, wanted: Iterable[tuple[Subject, Iterable[Plan]]]) -> None:
    """Raise InputError for a plan that the model cannot be asked under, before any computation.

    Of the scenes, albums and films, the first ones are checked.
    """
    first = {}
    for subject, plans in wanted:
        alone = [kind for kind in subject.kinds if kind in SEQUENCES]
        first.setdefault((subject.style, *alone), (subject, plans))
    for subject, plans in first.values():
        pictures, (question, *_) = subject.pictures(), subject.questions()
        for plan in plans:
            lvlm.stream(images=pictures, question=question.text, **json.loads(plan.key))


def measure(
    model: str,
    store: Store,
    wanted: Iterable[tuple[Subject, Iterable[Plan]]],
    workers: int = 1,
    dtype: str = "float32",
) -> None:
    """Ask every subject's questions under its plans, as far as the store lacks the answers."""
    tasks = []
    for subject, plans in wanted:
        asked = {
            q.text: [plan.key for plan in plans if store.get(subject, q.text, plan) is None]
            for q in subject.questions()
        }
        if any(asked.values()):
            tasks.append(Task(model, dtype, subject, asked))
    total = sum(len(keys) for task in tasks for keys in task.asked.values())
    with (
        _mapping(workers) as mapped,
        tqdm(total=total, unit="answer", mininterval=5, smoothing=0) as bar,
    ):
        for answers in mapped(answer, tasks):
            store.add(answers)
            bar.update(len(answers))


@contextmanager
def _mapping(workers: int) -> Iterator:
    """A `map` over this process, or over as many new ones."""
    if workers == 1:
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield pool.imap_unordered
        pool.close()
        pool.join()  # let them end in order, rather than be stopped


@cache
def _model(name: str, dtype: str) -> libra.LVLM:
    """The model of this process, which has one core to itself."""
    torch.set_num_threads(1)
    return libra.load(name, dtype=getattr(torch, dtype))


def answer(task: Task) -> list[Answered]:
    """Everything that a task asks; the pictures are drawn and encoded once."""
    lvlm, pictures = _model(task.model, task.dtype), task.subject.pictures()
    features = lvlm.encode(pictures)
    answers = []
    for question, plans in task.asked.items():
        for key in plans:
            trace = lvlm.answer(
                images=pictures,
                question=question,
                features=features,
                tracing=False,
                **json.loads(key),
            ).trace
            answers.append(_answered(task.subject, question, key, trace))
    return answers


def _answered(subject: Subject, question: str, plan: str, trace: Trace) -> Answered:
    left = trace.events[-1].reduction.n_out if trace.events else len(trace.layout)
    return Answered(
        style=subject.style,
        number=subject.number,
        question=question,
        plan=plan,
        answer=trace.answer,
        flops=trace.cost.flops / trace.cost.vanilla_flops,
        left=left / len(trace.layout),
        similarity=_similarity(trace),
    )


def _similarity(trace: Trace) -> float | None:
    for event in trace.events:
        if "similarity" in event.reduction.evidence:
            others = event.reduction.fate() != Fate.KEPT
            return float(event.reduction.evidence["similarity"][others].nanmean())
    return None
