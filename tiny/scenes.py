"""Scenes: where the objects are, what every patch shows, and the drawn picture."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from tiny import objects, sprites

PATCH = 14
GRID = 24
SIDE = PATCH * GRID
_NAME = {name: i for i, name in enumerate(objects.NAMES)}
_COLOUR = {name: i for i, name in enumerate(objects.COLOURS)}
_CHARACTER = {c: i for i, c in enumerate(objects.CHARACTERS)}


@dataclass(frozen=True)
class Thing:
    """One object of a scene; centre and size are fractions of the side."""

    name: str
    x: float
    y: float
    width: float
    height: float
    colour: str | None = None
    text: str = ""


@dataclass
class Scene:
    """The objects of a picture in drawing order."""

    things: list[Thing] = field(default_factory=list)

    def count(self, name: str) -> int:
        """How many objects of that name there are."""
        return sum(t.name == name for t in self.things)

    def unique(self) -> list[Thing]:
        """The objects whose name occurs once."""
        counts = Counter(t.name for t in self.things)
        return [t for t in self.things if counts[t.name] == 1]


@dataclass
class Labels:
    """What each patch shows: indices into names, colours, characters; -1 is nothing."""

    name: np.ndarray  # [GRID, GRID]
    colour: np.ndarray  # [GRID, GRID]
    character: np.ndarray  # [GRID, GRID]
    centre: np.ndarray  # [GRID, GRID] share of an object's centre; sums to the number of objects


def compose(
    rng: np.random.Generator, most: int = 7, least: int = 1, signs: int = 1, sizes=(0.12, 0.33)
) -> Scene:
    """A random scene of `least` to `most` objects, often with one kind repeated.

    Up to `signs` signs come on top; the more are allowed, the more scenes have any.
    """
    n = int(rng.integers(least, most + 1))
    same = int(rng.integers(2, min(5, n) + 1)) if n > 1 and rng.random() < 0.6 else 1
    kinds = list(rng.choice(objects.NAMES[:-1], n - same + 1, replace=False))
    if rng.random() < 0.4:  # coloured shapes are one name in twenty: show more, several at once
        shapes = rng.choice(objects.SHAPES, min(len(kinds), int(rng.integers(1, 4))), replace=False)
        kinds[: len(shapes)] = shapes
    names = [kinds[0]] * (same - 1) + kinds
    if rng.random() < 0.4 * signs:
        names = [objects.SIGN] * int(rng.integers(1, signs + 1)) + names
    scene = Scene()
    scale = min(1.0, 2.4 / n**0.5)
    for name in dict.fromkeys(names):
        for _ in range(names.count(name)):
            thing = _place(rng, str(name), scene.things, sizes, scale)
            if thing is not None:
                scene.things.append(thing)
    return scene


def _place(rng, name, others, sizes, scale) -> Thing | None:
    text = ""
    if name == objects.SIGN:
        text = "".join(rng.choice(list(objects.CHARACTERS), int(rng.integers(1, 6))))
    for _ in range(20):
        height = width = float(rng.uniform(sizes[0], max(sizes[0] + 0.04, sizes[1] * scale)))
        if text:
            cell = float(rng.uniform(0.085, 0.115))
            width, height = cell * (len(text) + 0.8), cell * 1.7
        x, y = rng.uniform(width / 2, 1 - width / 2), rng.uniform(height / 2, 1 - height / 2)
        if all(
            abs(x - o.x) > 0.44 * (width + o.width) or abs(y - o.y) > 0.44 * (height + o.height)
            for o in others
        ):
            colour = str(rng.choice(list(objects.COLOURS))) if name in objects.SHAPES else None
            return Thing(name, float(x), float(y), width, height, colour, text)
    return None


def _centres(things, grid: int = GRID) -> np.ndarray:
    """Each object's centre, shared bilinearly among the four patches around it."""
    share = np.zeros((grid + 2, grid + 2), np.float32)
    for t in things:
        x, y = t.x * grid + 0.5, t.y * grid + 0.5
        i, j = int(y), int(x)
        dy, dx = y - i, x - j
        share[i : i + 2, j : j + 2] += np.outer((1 - dy, dy), (1 - dx, dx))
    return share[1:-1, 1:-1]


def _label(things, coverage) -> Labels:
    """Labels from each object's coverage `[GRID, GRID]`; later objects hide earlier ones."""
    shape = (GRID, GRID)
    name, colour, character = (np.full(shape, -1, np.int64) for _ in range(3))
    columns = (np.arange(GRID) + 0.5) / GRID
    for t, cover in zip(things, coverage, strict=True):
        inside = cover > 0.35
        name[inside] = _NAME[t.name]
        colour[inside] = _COLOUR[t.colour] if t.colour else -1
        character[inside] = -1
        if t.text:
            cell = t.width / (len(t.text) + 0.8)
            index = np.floor((columns - t.x) / cell + len(t.text) / 2).astype(int)
            known = np.array([_CHARACTER[c] for c in t.text])
            row = np.where(
                (index >= 0) & (index < len(known)), known[index.clip(0, len(known) - 1)], -1
            )
            character[inside] = np.broadcast_to(row, shape)[inside]
    return Labels(name, colour, character, _centres(things))


def symbols(scene: Scene) -> Labels:
    """The labels without drawing: objects as ellipses, signs as rectangles."""
    axis = (np.arange(GRID) + 0.5) / GRID
    coverage = []
    for t in scene.things:
        dx, dy = np.abs(axis - t.x) / (t.width / 2), np.abs(axis - t.y) / (t.height / 2)
        inside = np.maximum(dx[None], dy[:, None]) if t.text else dx[None] ** 2 + dy[:, None] ** 2
        coverage.append((inside < 1).astype(np.float32))
    return _label(scene.things, coverage)


def draw(
    scene: Scene,
    rng: np.random.Generator,
    styles: Sequence[str] = sprites.TRAINING_STYLES,
    plain: bool = False,
    backdrop: Image.Image | None = None,
) -> tuple[np.ndarray, Labels]:
    """The picture (uint8 `[SIDE, SIDE, 3]`) and its labels.

    `plain` turns the augmentation of objects and picture off; `backdrop` replaces the random one.
    """
    picture = backdrop.copy() if backdrop else background(rng)
    coverage = []
    for t in scene.things:
        width, height = max(8, round(t.width * SIDE)), max(8, round(t.height * SIDE))
        if t.text:
            layer = _sign(t.text, width, height, rng)
        elif t.colour:
            layer = _shape(t.name, t.colour, width, rng)
        else:
            layer = _object(t.name, width, rng, styles, plain)
        left, top = round(t.x * SIDE - layer.width / 2), round(t.y * SIDE - layer.height / 2)
        picture.paste(layer, (left, top), layer)
        mask = Image.new("L", (SIDE, SIDE))
        mask.paste(layer.getchannel("A"), (left, top))
        coverage.append(np.asarray(mask.reduce(PATCH), np.float32) / 255)
    if not plain and rng.random() < 0.15:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.2))))
    pixels = np.asarray(picture)
    if not plain and rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(2, 8), (SIDE, SIDE, 1))
        pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    return pixels, _label(scene.things, coverage)


def background(rng: np.random.Generator) -> Image.Image:
    """A gradient, a patchwork, a texture or a crop of a photo."""
    if rng.random() < 0.2:
        photo = sprites.photos()[int(rng.integers(len(sprites.photos())))]
        side = int(rng.integers(160, 512))
        left, top = rng.integers(0, 513 - side, 2)
        crop = photo.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
        return ImageEnhance.Brightness(crop).enhance(float(rng.uniform(0.6, 1.3)))
    n = int(rng.integers(1, 8))
    field_ = rng.random((n, n, 3)) * rng.uniform(0, 0.6) + rng.random(3) * 0.5
    small = Image.fromarray((field_.clip(0, 1) * 255).astype(np.uint8))
    smooth = Image.BICUBIC if rng.random() < 0.7 else Image.NEAREST
    picture = small.resize((SIDE, SIDE), smooth)
    kind = rng.random()
    if kind < 0.25:  # stripes or a checkerboard laid over the field
        step = int(rng.integers(6, 60))
        axis = (np.arange(SIDE) // step) % 2
        pattern = axis[None] ^ axis[:, None] if rng.random() < 0.5 else np.tile(axis, (SIDE, 1))
        pattern = pattern if rng.random() < 0.5 else pattern.T
        other = ImageEnhance.Brightness(picture).enhance(float(rng.uniform(0.75, 1.3)))
        picture.paste(other, mask=Image.fromarray((pattern * 255).astype(np.uint8)))
    elif kind < 0.5:  # fractal noise looks like walls, sand, clouds
        noise = sum(
            np.asarray(
                Image.fromarray(rng.random((k, k)).astype(np.float32)).resize(
                    (SIDE, SIDE), Image.BICUBIC
                )
            )
            / k**0.5
            for k in (4, 8, 16, 32, 64)
        )
        noise = (noise - noise.mean()) * rng.uniform(20, 90)
        picture = Image.fromarray(
            (np.asarray(picture) + noise[..., None]).clip(0, 255).astype(np.uint8)
        )
    return picture


def _object(name, width, rng, styles, plain) -> Image.Image:
    kinds = sprites.load()[str(rng.choice(styles))][name]
    layer = Image.fromarray(kinds[0 if rng.random() < 0.7 else int(rng.integers(len(kinds)))])
    layer = layer.resize((width, width), Image.BILINEAR)
    if rng.random() < 0.5:
        layer = layer.transpose(Image.FLIP_LEFT_RIGHT)
    return layer if plain else _augment(layer, rng)


def _augment(layer: Image.Image, rng) -> Image.Image:
    """Turned and stretched, colours changed, and now and then flat, grey or inked."""
    if rng.random() < 0.6:
        layer = _bent(layer, rng)
    alpha, colour = layer.getchannel("A"), layer.convert("RGB")
    if rng.random() < 0.4:
        hsv = np.asarray(colour.convert("HSV")).copy()
        hsv[..., 0] += np.uint8(rng.integers(-18, 19) % 256)
        colour = Image.fromarray(hsv, "HSV").convert("RGB")
    if rng.random() < 0.6:
        colour = ImageEnhance.Color(colour).enhance(float(rng.uniform(0.1, 1.7)))
        colour = ImageEnhance.Brightness(colour).enhance(float(rng.uniform(0.7, 1.3)))
        colour = ImageEnhance.Contrast(colour).enhance(float(rng.uniform(0.6, 1.5)))
    if rng.random() < 0.25:  # flat areas of one colour, as in some drawing styles ...
        smooth = colour.filter(ImageFilter.ModeFilter(5)) if rng.random() < 0.5 else colour
        colour = smooth.quantize(int(rng.integers(3, 9))).convert("RGB")
    if rng.random() < 0.25:  # ... of which others ink their contours
        colour = _inked(colour, alpha, rng)
    colour.putalpha(alpha)
    return colour


def _bent(layer: Image.Image, rng) -> Image.Image:
    """A picture turned by up to 15 degrees, sheared, and stretched along one axis."""
    turn, shear = rng.uniform(-0.26, 0.26), rng.uniform(-0.15, 0.15)
    stretch = np.exp(rng.uniform(-0.16, 0.16))
    back = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    back = back @ np.array([[stretch, shear], [0, 1 / stretch]])
    middle = np.array(layer.size) / 2
    shift = middle - back @ middle
    numbers = (*back[0], shift[0], *back[1], shift[1])
    return layer.transform(layer.size, Image.AFFINE, [float(x) for x in numbers], Image.BILINEAR)


def _inked(colour: Image.Image, alpha: Image.Image, rng) -> Image.Image:
    """Dark lines around the object and where its colours meet."""
    ink = Image.new("RGB", colour.size, (int(rng.integers(0, 40)),) * 3)
    threshold = int(rng.integers(40, 110))
    edges = (
        colour.convert("L").filter(ImageFilter.FIND_EDGES).point(lambda v: 255 * (v > threshold))
    )
    wide = rng.random() < 0.5
    if wide:
        edges = edges.filter(ImageFilter.MaxFilter(3))
    colour = colour.copy()
    colour.paste(ink, mask=edges)
    ink.paste(colour, mask=alpha.filter(ImageFilter.MinFilter(5 if wide else 3)))
    return ink


def _tint(colour: str, rng) -> tuple[int, ...]:
    return tuple(
        int(c) for c in np.clip(np.array(objects.COLOURS[colour]) + rng.normal(0, 8, 3), 0, 255)
    )


def _shape(name, colour, width, rng) -> Image.Image:
    n = 4 * width  # drawn large, then reduced: smooth edges
    layer = Image.new("RGBA", (n, n))
    pen = ImageDraw.Draw(layer)
    fill, edge = (*_tint(colour, rng), 255), ((40, 40, 40, 255) if rng.random() < 0.5 else None)
    line = max(4, n // 24) if edge else 0
    if name == "ball":
        pen.ellipse((2, 2, n - 3, n - 3), fill, edge, line)
        if rng.random() < 0.6:
            pen.ellipse((n * 0.25, n * 0.18, n * 0.45, n * 0.36), (255, 255, 255, 150))
    else:
        pen.polygon([(float(x) * n, float(y) * n) for x, y in _OUTLINES[name]], fill, edge, line)
    return layer.rotate(float(rng.uniform(-10, 10)), Image.BILINEAR).reduce(4)


def _outlines() -> dict[str, np.ndarray]:
    turn = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2, 0.22, 0.5)
    t = np.linspace(0, 2 * np.pi, 60)
    heart = np.stack(
        [
            16 * np.sin(t) ** 3,
            -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t),
        ],
        -1,
    )
    return {
        "star": np.stack([0.5 + radius * np.sin(turn), 0.52 - radius * np.cos(turn)], -1),
        "heart": 0.02 + 0.96 * (heart - heart.min(0)) / np.ptp(heart, axis=0),
        "square": np.array([(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)]),
        "triangle": np.array([(0.5, 0.03), (0.98, 0.95), (0.02, 0.95)]),
        "diamond": np.array([(0.5, 0.0), (0.88, 0.5), (0.5, 1.0), (0.12, 0.5)]),
    }


_OUTLINES = _outlines()


_BOARDS = (
    ("white", "black"),
    ((250, 205, 30), (20, 20, 20)),
    ((25, 95, 60), "white"),
    ((25, 70, 160), "white"),
)


def _sign(text, width, height, rng) -> Image.Image:
    board, ink = _BOARDS[int(rng.integers(len(_BOARDS)))]
    layer = Image.new("RGBA", (2 * width, 2 * height))
    pen = ImageDraw.Draw(layer)
    pen.rounded_rectangle((1, 1, 2 * width - 2, 2 * height - 2), 10, board, ink, 5)
    cell = 2 * width / (len(text) + 0.8)
    font = ImageFont.load_default(cell * float(rng.uniform(1.05, 1.25)))
    for i, character in enumerate(text.upper()):
        at = (width + (i + 0.5 - len(text) / 2) * cell, height)
        pen.text(at, character, fill=ink, font=font, anchor="mm")
    return layer.reduce(2)
