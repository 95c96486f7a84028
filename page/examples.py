"""The prepared examples: pictures with a question, and the stored trace of its answer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from libra.trace import Trace
from libra.video import load_video
from page import texts
from page.shown import Added, Shown
from page.views import data_url

FOLDER = Path(__file__).parents[1] / "assets" / "examples"
METHOD = "libra"  # of the answers that the examples open with
THUMBNAIL = 128  # pixels of a side


@dataclass(frozen=True)
class Example:
    """One prepared question about one or several pictures, or a video."""

    image: Path
    question: str
    title: str
    alt: str
    credit: str
    more: Sequence[Path] = ()  # further pictures
    video: Path | None = None  # of which `image` is a frame
    note: str = ""  # what to keep in mind with its answer

    def file(self, method: str = METHOD) -> Path:
        """Where the trace of its answer under a method is stored, if it is."""
        if method == METHOD:
            return self.image.with_suffix(".trace.zip")
        return self.lesson(method)

    def lesson(self, method: str) -> Path:
        """Where the trace that teaches a method is stored, if it is: under the method's name."""
        return self.image.with_suffix(f".{method}.trace.zip")

    def trace(self, method: str = METHOD) -> Trace | None:
        """The stored trace of its answer under a method, if there is one."""
        file = self.file(method)
        return Trace.load(file) if file.exists() else None

    def vanilla(self) -> Trace | None:
        """The same without compression, if it is stored."""
        return self.trace("vanilla")

    @property
    def badge(self) -> str:
        """What its thumbnail cannot show: that there are more pictures, or that they move."""
        return "▶" if self.video else f"{1 + len(self.more)}" if self.more else ""

    def files(self) -> list[Path]:
        """What has to be there."""
        return [self.image, *self.more, *([self.video] if self.video else ())]

    def added(self) -> Added:
        """What it is about besides the picture."""
        if self.video is None:
            return Added(tuple(map(str, self.more)))
        return Added(clip=load_video(self.video), video=str(self.video))

    def thumbnail(self) -> str:
        """A small square of the picture as a data URL: no request of its own."""
        with Image.open(self.image) as picture:
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            square = picture.convert("RGB").crop((left, top, left + side, top + side))
        return data_url(square.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS))


def first_shown(examples: Sequence[Example]) -> Shown:
    """What is on the page at the first visit: the last stage of the first example."""
    if not examples:
        return Shown()
    first = examples[0]
    shown, trace = Shown(picture=str(first.image), added=first.added()), first.trace()
    if trace is not None:
        shown.show(trace, first.vanilla())
        shown.stage, shown.status = len(trace.events), texts.FROM_EXAMPLE
    return shown


def load(folder: Path) -> list[Example]:
    """The examples of `examples.json` whose picture is there; none without the file."""
    index = folder / "examples.json"
    if not index.exists():
        return []
    entries = json.loads(index.read_text("utf-8"))
    examples = [_example(folder, **entry) for entry in entries]
    return [example for example in examples if all(path.exists() for path in example.files())]


def _example(
    folder: Path, image: str, more: Sequence[str] = (), video: str = "", **words
) -> Example:
    """One entry of `examples.json`, its files in the folder."""
    film = folder / video if video else None
    return Example(folder / image, more=tuple(folder / name for name in more), video=film, **words)
