"""Short films: scenes in which one object moves and others come in, one after the other."""

from dataclasses import replace

import numpy as np

from tiny import scenes
from tiny.scenes import Labels, Scene

FRAMES = 8


def compose(rng: np.random.Generator) -> list[Scene]:
    """The `FRAMES` scenes of a film: one object moves across, each other stays once it is there."""
    things = scenes.compose(rng, most=4, signs=0, sizes=(0.14, 0.3)).things
    moving = int(rng.integers(len(things)))
    path = _path(rng, things[moving])
    others = [
        (0 if rng.random() < 0.4 else int(rng.integers(1, FRAMES)), i)
        for i in range(len(things))
        if i != moving
    ]
    others.sort()  # in the order of coming in, so that a frame begins as the one before it
    return [
        Scene([path[k], *(things[i] for since, i in others if since <= k)]) for k in range(FRAMES)
    ]


def _path(rng, thing):
    """The object in each frame: at rest, or on its way along one axis."""
    if rng.random() < 0.2:
        return [thing] * FRAMES
    axis, size = ("x", thing.width) if rng.random() < 0.5 else ("y", thing.height)
    distance = rng.uniform(0.35, max(0.36, 1 - size))
    start = rng.uniform(size / 2, max(size / 2 + 0.01, 1 - size / 2 - distance))
    way = start + distance * np.linspace(0, 1, FRAMES)
    way = way if rng.random() < 0.5 else 1 - way
    return [replace(thing, **{axis: float(at)}) for at in way]


def draw(film: list[Scene], rng: np.random.Generator, **options) -> list[tuple[np.ndarray, Labels]]:
    """Each frame's picture (uint8 `[SIDE, SIDE, 3]`) and labels; looks stay through the film.

    Every frame is drawn from the same random state, and begins with the same objects.
    """
    seed = int(rng.integers(2**32))
    return [scenes.draw(scene, np.random.default_rng(seed), **options) for scene in film]
