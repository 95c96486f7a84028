"""Questions about a scene in the exact forms that the embedded model knows, with their answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tiny.objects import NAMES, SHAPES, SIGN, article, plural
from tiny.scenes import Scene, Thing

KINDS = (
    "existence",
    "count",
    "left/right",
    "above/below",
    "corner",
    "next to",
    "colour",
    "sign",
    "caption",
)
SEQUENCES = ("images", "video")  # about several pictures, and about films
ORDINALS = ("first", "second", "third")
NUMBERS = ("zero", "one", "two", "three", "four", "five")
MOST = 5
_SIDES = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}
CLEAR = 0.06  # of the side: what is closer in x is neither left nor right of the other
NOTHING = "nothing"


@dataclass(frozen=True)
class Question:
    """A question with its answer."""

    kind: str
    text: str
    answer: str
    mentions: tuple[str, ...] = ()  # objects that it names
    places: tuple[float, ...] = ()  # of a caption, the x at which each of its parts is

    def accepts(self, said: str) -> bool:
        """Whether an answer is right.

        It is the expected one, word for word; of a caption, the same parts from left to right,
        where those at about the same x may come in any order.
        """
        if not self.places:
            return said == self.answer
        x = dict(zip(_parts(self.answer), self.places, strict=True))
        if sorted(_parts(said)) != sorted(x):
            return False
        order = [x[part] for part in _parts(said)]
        return all(b > a - CLEAR for i, a in enumerate(order) for b in order[i + 1 :])


def ask(scene: Scene, kind: str, rng: np.random.Generator) -> Question | None:
    """A question of that kind, or None where the scene has no clear answer to one."""
    return _ASK[kind](scene, rng)


def mixture(scene: Scene, n: int, rng: np.random.Generator, shares) -> list[Question]:
    """`n` questions, of the `KINDS` in proportion to their shares; unclear ones are redrawn."""
    weights, asked = np.array(shares) / sum(shares), []
    while len(asked) < n:
        for kind in rng.choice(len(KINDS), 2 * n, p=weights):
            question = ask(scene, KINDS[kind], rng)
            if question is not None:
                asked.append(question)
    return asked[:n]


def ask_images(album: Sequence[Scene], rng: np.random.Generator) -> Question | None:
    """Which of two or three pictures has an object; None where more than one has it."""
    name = _name(_any(rng, album), rng, 0.85)
    having = [i for i, scene in enumerate(album) if scene.count(name)]
    if len(having) > 1:
        return None
    answer = ORDINALS[having[0]] if having else "none"
    return Question("images", f"Which image has the {name}?", answer, (name,))


def ask_film(film: Sequence[Scene], rng: np.random.Generator) -> Question | None:
    """How an object moves, what comes in last, or how many of a kind appear."""
    first, last = film[0], film[-1]
    form = int(rng.integers(3))
    if form == 0:
        return _moves(first, last)
    if form == 1:
        came = last.things[-1]  # scenes list their objects in the order of coming in
        late = [scene.count(came.name) for scene in film]
        before = film[late.index(late[-1]) - 1] if late[0] < late[-1] else None
        if before is None or len(last.things) - len(before.things) != 1:
            return None
        return Question("video", "What appears last?", came.name)
    name = _name(last, rng, 0.85)
    if last.count(name) > MOST:
        return None
    return Question("video", f"How many {plural(name)} appear?", str(last.count(name)), (name,))


def _moves(first: Scene, last: Scene) -> Question | None:
    """Which way the only moving object goes."""
    before = {t.name: t for t in first.unique()}
    for after in last.unique():
        old = before.get(after.name)
        if old is None:
            continue
        dx, dy = after.x - old.x, after.y - old.y
        if max(abs(dx), abs(dy)) < 0.2:
            continue
        way = ("left", "right")[dx > 0] if abs(dx) > abs(dy) else ("up", "down")[dy > 0]
        text = f"Which way does the {after.name} move?"
        return Question("video", text, way, (after.name,))
    return None


def _any(rng, items):
    return items[int(rng.integers(len(items)))]


def _name(scene, rng, present: float) -> str:
    """The name of an object in the scene with probability `present`, else any name."""
    if scene.things and rng.random() < present:
        return _any(rng, scene.things).name
    return _any(rng, NAMES)


def _existence(scene, rng):
    name = _name(scene, rng, 0.5)
    return Question(
        "existence",
        f"Is there {article(name)} {name} in the image?",
        "yes" if scene.count(name) else "no",
        (name,),
    )


def _count(scene, rng):
    name = _name(scene, rng, 0.85)
    if rng.random() < 0.4:  # else nearly every answer is one
        name = max((t.name for t in scene.things), key=scene.count)
    if scene.count(name) > MOST:
        return None
    return Question("count", f"How many {plural(name)} are there?", str(scene.count(name)), (name,))


def _pair(scene, rng, axis) -> tuple[Thing, Thing] | None:
    unique = scene.unique()
    if len(unique) < 2:
        return None
    i, j = rng.choice(len(unique), 2, replace=False)
    a, b = unique[i], unique[j]
    return (a, b) if abs(getattr(a, axis) - getattr(b, axis)) > CLEAR else None


def _left_right(scene, rng):
    pair = _pair(scene, rng, "x")
    if pair is None:
        return None
    a, b = pair
    text = f"Is the {a.name} to the left or to the right of the {b.name}?"
    return Question("left/right", text, "left" if a.x < b.x else "right", (a.name, b.name))


def _above_below(scene, rng):
    pair = _pair(scene, rng, "y")
    if pair is None:
        return None
    a, b = pair
    text = f"Is the {a.name} above or below the {b.name}?"
    return Question("above/below", text, "above" if a.y < b.y else "below", (a.name, b.name))


def _corner(scene, rng):
    vertical, horizontal = _any(rng, ("top", "bottom")), _any(rng, ("left", "right"))
    cx, cy = float(horizontal == "right"), float(vertical == "bottom")
    near = sorted((max(abs(t.x - cx), abs(t.y - cy)), t.name) for t in scene.things)
    text = f"What is in the {vertical} {horizontal} corner?"
    if not near or near[0][0] > 0.54:
        return Question("corner", text, NOTHING) if rng.random() < 0.15 else None
    if near[0][0] > 0.42 or (len(near) > 1 and near[1][0] < 0.52):
        return None
    return Question("corner", text, near[0][1])


def _next_to(scene, rng):
    unique = scene.unique()
    if not unique:
        return None
    thing = _any(rng, unique)
    side = _any(rng, tuple(_SIDES))
    ux, uy = _SIDES[side]
    text = f"What is {f'to the {side} of' if ux else side} the {thing.name}?"
    ahead, unclear = [], False
    for other in scene.things:
        dx, dy = other.x - thing.x, other.y - thing.y
        along, across = dx * ux + dy * uy, abs(dx * uy) + abs(dy * ux)
        if along > 0.05 and across < 1.1 * along:
            ahead.append((along + across, other.name))
            unclear |= across > 0.9 * along
        elif along > 0 and across < 1.4 * along:
            unclear = True
    if unclear:
        return None
    ahead.sort()
    if not ahead:
        return Question("next to", text, NOTHING, (thing.name,)) if rng.random() < 0.1 else None
    if len(ahead) > 1 and ahead[1][1] != ahead[0][1] and ahead[1][0] < 1.25 * ahead[0][0]:
        return None
    return Question("next to", text, ahead[0][1], (thing.name,))


def _colour(scene, rng):
    shapes = [t for t in scene.unique() if t.name in SHAPES]
    if not shapes:
        return None
    shape = _any(rng, shapes)
    return Question("colour", f"What color is the {shape.name}?", shape.colour, (shape.name,))


def _sign(scene, rng):
    signs = [t for t in scene.things if t.name == SIGN]
    if not signs:
        return Question("sign", "What does the sign say?", NOTHING) if rng.random() < 0.02 else None
    return Question("sign", "What does the sign say?", " ".join(signs[0].text))


def _caption(scene, rng):
    """`a cat, two dogs and a car`: the kinds of objects from left to right."""
    first: dict[str, float] = {}
    for thing in sorted(scene.things, key=lambda t: t.x):
        first.setdefault(thing.name, thing.x)
    *most, last = [_counted(name, scene.count(name)) for name in first] or [NOTHING]
    text = " and ".join(filter(None, (", ".join(most), last)))
    return Question("caption", "Describe the image.", text, places=(*first.values(),))


def _counted(name: str, n: int) -> str:
    return f"{article(name)} {name}" if n == 1 else f"{NUMBERS[min(n, MOST)]} {plural(name)}"


def _parts(caption: str) -> list[str]:
    """What a caption lists."""
    return re.split(", | and ", caption)


_ASK = dict(
    zip(
        KINDS,
        (
            _existence,
            _count,
            _left_right,
            _above_below,
            _corner,
            _next_to,
            _colour,
            _sign,
            _caption,
        ),
        strict=True,
    )
)
