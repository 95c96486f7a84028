"""What the stages that start from pictures learn from, drawn and asked beforehand.

Drawing is work for CPUs: on a GPU, worker processes do it ahead of the training step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tiny import films, questions, scenes, sight, sprites
from tiny import model as tiny
from tiny.packing import Packed, pack
from tiny.run import Settings

FILM_EVERY = 2  # steps; the others have an album
DRAWN_EVERY = 8  # steps; the films of the others are written as patch codes
WORKERS = len(os.sched_getaffinity(0)) - 1 if torch.cuda.is_available() else 0
AHEAD = {"prefetch_factor": 4} if WORKERS else {}  # lessons that each of them has ready


@dataclass
class Asked:
    """Questions about scenes, or series of them, of which the decoder sees some patches."""

    labels: dict[str, Tensor]  # [B, 576] or [B, F, 576] each; none in an album
    where: Tensor  # [B, n] or [B, F, n] the patches that it sees
    packed: Packed

    def to(self, device: torch.device) -> Asked:
        """The same on a device."""
        labels = {name: label.to(device) for name, label in self.labels.items()}
        return Asked(labels, self.where.to(device), self.packed.to(device))


@dataclass
class Lesson:
    """All that one training step is about."""

    pixels: Tensor  # uint8 [B, SIDE, SIDE, 3]
    single: Asked  # about each of these pictures
    album: Asked | None = None  # about several of them at once ...
    chosen: Tensor | None = None  # ... [G, F] which these are
    film: Asked | None = None
    frames: Tensor | None = None  # uint8 [G, F, SIDE, SIDE, 3]; a film without is patch codes
    crowd: Asked | None = None  # about scenes written as patch codes

    def to(self, device: torch.device) -> Lesson:
        """The same on a device."""
        there = {name: part.to(device) for name, part in vars(self).items() if part is not None}
        return Lesson(**there)


def compose(settings: Settings, step: int, rng: np.random.Generator) -> Lesson:
    """The lesson of a step: pictures, and what else the stage asks about."""
    n = settings.patches(step)
    batch = [_scene(rng, crowded=bool(settings.crowds)) for _ in range(settings.batch)]
    drawn = [scenes.draw(scene, rng) for scene in batch]
    labels = tiny.stack([label for _, label in drawn])
    asked = [questions.mixture(scene, settings.asked, rng, settings.mixture) for scene in batch]
    if settings.distinct:
        asked = [list(dict.fromkeys(own)) for own in asked]
    single = Asked(labels, sight.visible(labels, n, rng), pack(asked, settings.budget))
    lesson = Lesson(_stacked([picture for picture, _ in drawn]), single)
    if settings.sequences and step % FILM_EVERY:
        lesson.album, lesson.chosen = _album(batch, labels, n // 3, rng)
    elif settings.sequences:
        lesson.film, lesson.frames = _film(settings.batch, n // 6, rng, step % DRAWN_EVERY == 0)
    if settings.crowds:
        lesson.crowd = _crowd(settings, n, rng)
    return lesson


def _scene(rng, crowded: bool) -> scenes.Scene:
    """A scene to ask about; if `crowded`, every other has four objects or more."""
    if not crowded:
        return scenes.compose(rng, most=int(rng.integers(5, 10)))
    return scenes.compose(rng, 9, 4) if rng.random() < 0.5 else scenes.compose(rng)


def _stacked(pictures: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(pictures))


def _album(batch, labels, n: int, rng) -> tuple[Asked, Tensor]:
    """Two or three of a batch's pictures one after the other, `n` patches of each."""
    n_pictures = min(len(batch), int(rng.integers(2, 4)))
    groups = range(max(1, len(batch) // 8))
    chosen = np.stack([rng.permutation(len(batch))[:n_pictures] for _ in groups])
    own = {name: label[chosen.ravel()] for name, label in labels.items()}
    where = sight.visible(own, n, rng).unflatten(0, chosen.shape)
    asked = [
        [q for _ in range(12) if (q := questions.ask_images([batch[i] for i in group], rng))]
        for group in chosen
    ]
    return Asked({}, where, pack(asked, 128)), torch.from_numpy(chosen)


def _film(batch: int, n: int, rng, drawn: bool) -> tuple[Asked, Tensor | None]:
    """Films, a few of them drawn or more as patch codes; `n` patches of each frame."""
    shot = [films.compose(rng) for _ in range(max(1, batch // 32) if drawn else max(4, batch // 4))]
    asked = [[q for _ in range(10) if (q := questions.ask_film(take, rng))] for take in shot]
    frames = None
    if drawn:
        shown = [frame for take in shot for frame in films.draw(take, rng)]
        labels = tiny.stack([label for _, label in shown])
        frames = _stacked([picture for picture, _ in shown]).unflatten(0, (len(shot), -1))
    else:
        labels = tiny.stack([scenes.symbols(scene) for take in shot for scene in take])
    where = sight.visible(labels, n, rng).unflatten(0, (len(shot), -1))
    labels = {name: label.unflatten(0, (len(shot), -1)) for name, label in labels.items()}
    return Asked(labels, where, pack(asked, 96)), frames


def _crowd(settings: Settings, n: int, rng) -> Asked:
    """Crowded scenes, `n` patches of each."""
    batch = [scenes.compose(rng, 9, 4) for _ in range(max(8, settings.batch // 2))]
    labels = tiny.stack([scenes.symbols(scene) for scene in batch])
    asked = [questions.mixture(scene, 10, rng, settings.crowds) for scene in batch]
    return Asked(labels, sight.visible(labels, n, rng), pack(asked, 96))


class _Lessons(IterableDataset):
    """The lessons from some step on, each worker's its own."""

    def __init__(self, settings: Settings, seed: list[int], start: int):
        self.settings, self.seed, self.start = settings, seed, start

    def __iter__(self) -> Iterator[Lesson]:
        info = get_worker_info()
        own, stride = (info.id, info.num_workers) if info else (0, 1)
        rng = np.random.default_rng([*self.seed, self.start, own])
        for step in range(self.start + own, self.settings.steps, stride):
            yield compose(self.settings, step, rng)


def supply(settings: Settings, seed: list[int], start: int) -> DataLoader:
    """The lessons of a stage in order, from a step on."""
    sprites.load(), sprites.photos()  # before there are workers, which then share them
    lessons = _Lessons(settings, seed, start)
    return DataLoader(lessons, batch_size=None, num_workers=WORKERS, **AHEAD)
