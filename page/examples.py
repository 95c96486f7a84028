"""The prepared examples: pictures with a question, and the stored trace of its answer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from libra.trace import Trace
from page.shown import Shown
from page.views import data_url

FOLDER = Path(__file__).parents[1] / "assets" / "examples"
THUMBNAIL = 128  # pixels of a side


@dataclass(frozen=True)
class Example:
    """One prepared question about one picture."""

    image: Path
    question: str
    title: str
    alt: str
    credit: str

    def trace(self) -> Trace | None:
        """The stored trace of its answer, if there is one."""
        return _stored(self.image.with_suffix(".trace.zip"))

    def vanilla(self) -> Trace | None:
        """The same without compression, if it is stored."""
        return _stored(self.image.with_suffix(".vanilla.trace.zip"))

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
    shown, trace = Shown(picture=str(first.image)), first.trace()
    if trace is not None:
        shown.show(trace, first.vanilla())
        shown.stage = len(trace.events)
    return shown


def load(folder: Path) -> list[Example]:
    """The examples of `examples.json` whose picture is there; none without the file."""
    index = folder / "examples.json"
    if not index.exists():
        return []
    entries = json.loads(index.read_text("utf-8"))
    examples = [Example(**entry | {"image": folder / entry["image"]}) for entry in entries]
    return [example for example in examples if example.image.exists()]


def _stored(path: Path) -> Trace | None:
    return Trace.load(path) if path.exists() else None
