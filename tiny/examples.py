"""Draw the example pictures of the page and answer their questions: `python -m tiny.examples`."""

import argparse
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

import libra
from libra import methods
from tiny import scenes, sprites
from tiny.scenes import Scene, Thing

FOLDER = Path("assets/examples")
METHOD = {"method": "libra", "ratio": 0.5}
LESSON = "orchard"  # the example that all other methods answer as well
LESSON_SETTINGS = {
    "prumerge+": {"ratio": 0.5}
}  # left to itself, it keeps all of so plain a picture
_EMOJI = {
    "fluent-3d": "Composed of Fluent Emoji 3D, Microsoft, MIT",
    "noto": "Composed of Noto Emoji, Google, OFL 1.1",
}


def _row(name: str, places: list[tuple[float, float]], size: float, **more) -> list[Thing]:
    return [Thing(name, x, y, size, size, **more) for x, y in places]


COMPOSED = {
    "orchard": (
        "fluent-3d",
        ((232, 245, 226), (183, 222, 190)),
        _row("apple", [(0.2, 0.25)], 0.26)
        + _row("pear", [(0.72, 0.2), (0.45, 0.55), (0.83, 0.62)], 0.22)
        + _row("banana", [(0.2, 0.78)], 0.27)
        + _row("strawberry", [(0.6, 0.84)], 0.18),
        "How many pears are there?",
        "Fruit on a pale green ground: an apple, a banana, a strawberry and three pears.",
    ),
    "harbour": (
        "fluent-3d",
        ((214, 236, 250), (120, 178, 219)),
        _row("whale", [(0.24, 0.24)], 0.32)
        + _row("boat", [(0.7, 0.3)], 0.3)
        + _row("octopus", [(0.3, 0.75)], 0.26)
        + _row("crab", [(0.8, 0.8)], 0.22),
        "What is in the bottom right corner?",
        "Blue water with a whale, a boat, an octopus and, in the bottom right corner, a crab.",
    ),
    "street": (
        "noto",
        ((250, 240, 226), (206, 197, 190)),
        _row("house", [(0.22, 0.25)], 0.32)
        + _row("tree", [(0.78, 0.25)], 0.3)
        + _row("bus", [(0.28, 0.72)], 0.3)
        + _row("car", [(0.75, 0.76)], 0.26),
        "Is the car to the left or to the right of the bus?",
        "A house and a tree above, a bus and, to its right, a car below.",
    ),
    "shapes": (
        "noto",
        ((245, 243, 248), (216, 212, 228)),
        _row("ball", [(0.22, 0.25)], 0.27, colour="red")
        + _row("star", [(0.72, 0.24)], 0.3, colour="blue")
        + _row("heart", [(0.28, 0.74)], 0.27, colour="green")
        + _row("square", [(0.76, 0.74)], 0.22, colour="orange"),
        "What color is the star?",
        "A red ball, a blue star, a green heart and an orange square on a light ground.",
    ),
    "signpost": (
        "fluent-3d",
        ((250, 244, 230), (226, 206, 172)),
        [
            Thing("sign", 0.5, 0.24, 0.34, 0.16, text="a7"),
            Thing("teddy", 0.26, 0.68, 0.33, 0.33),
            Thing("cup", 0.74, 0.7, 0.26, 0.26),
        ],
        "What does the sign say?",
        "A sign reading A7 above a teddy bear and a cup.",
    ),
    "party": (
        "fluent-3d",
        ((252, 234, 240), (236, 196, 212)),
        _row("balloon", [(0.15, 0.22), (0.4, 0.18), (0.85, 0.2)], 0.22)
        + _row("cake", [(0.5, 0.6)], 0.3)
        + _row("gift", [(0.17, 0.75), (0.83, 0.76)], 0.24),
        "How many gifts are there?",
        "Three balloons above a cake with a gift on either side.",
    ),
    "night": (
        "noto",
        ((44, 52, 92), (16, 20, 44)),
        _row("moon", [(0.2, 0.2)], 0.24)
        + _row("rocket", [(0.75, 0.26)], 0.28)
        + _row("alien", [(0.26, 0.74)], 0.26)
        + _row("robot", [(0.76, 0.75)], 0.26),
        "What is to the right of the alien?",
        "A dark sky with a moon, a rocket, an alien and a robot.",
    ),
}
PHOTOS = {
    "cat": ("chelsea.png", "Is there a cat in the image?", "A photo of a tabby cat's face.",
            "Stefan van der Walt, CC0 1.0"),
    "coffee": ("coffee.png", "Is there a cup in the image?",
               "A photo of a cup of coffee with a spoon on a saucer.", "Rachel Michetti, CC0 1.0"),
}  # fmt: skip


def pictures() -> dict[str, tuple[Image.Image, str, str, str]]:
    """Name -> picture, question, description, credit."""
    ready = {}
    for name, (style, colours, things, question, alt) in COMPOSED.items():
        slope = np.linspace(0, 1, scenes.SIDE)[:, None, None]
        field = (1 - slope) * np.array(colours[0]) + slope * np.array(colours[1])
        backdrop = Image.fromarray(np.tile(field, (1, scenes.SIDE, 1)).astype(np.uint8))
        rng = np.random.default_rng(len(name))
        pixels, _ = scenes.draw(Scene(things), rng, (style,), plain=True, backdrop=backdrop)
        ready[name] = (Image.fromarray(pixels), question, alt, _EMOJI[style])
    sprites.photos()  # fetches the package that the photos are in
    with zipfile.ZipFile(next(Path("runs/sprites").glob("scikit_image-*.whl"))) as wheel:
        for name, (member, question, alt, credit) in PHOTOS.items():
            photo = Image.open(io.BytesIO(wheel.read(f"skimage/data/{member}"))).convert("RGB")
            photo.thumbnail((672, 672))
            ready[name] = (photo, question, alt, f"Photo: {credit}")
    return ready


def _answer_lessons(lvlm: libra.LVLM, name: str, picture: Image.Image, question: str) -> None:
    """Store the answers of the methods that are not stored for every example."""
    for method in methods.names():
        if method not in ("vanilla", METHOD["method"]):
            settings = {"method": method} | LESSON_SETTINGS.get(method, {})
            answer = lvlm.answer(images=[picture], question=question, **settings)
            answer.trace.save(FOLDER / f"{name}.{method}.trace.zip")


def main() -> None:
    """Command line: draw every example, answer it, and store pictures, index and traces."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny-llava", help="a name or folder (%(default)s)")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    lvlm, index = libra.load(options.model), []
    drawn = pictures()
    lvlm.answer(images=[drawn["cat"][0]], question="warm up", **METHOD)  # or the first looks slow
    for name, (picture, question, alt, credit) in tqdm(drawn.items(), desc="examples"):
        suffix = "jpg" if name in PHOTOS else "png"
        picture.save(FOLDER / f"{name}.{suffix}", quality=90, optimize=True)
        plain, compressed = libra.compare(
            lvlm,
            [{"method": "vanilla", "tracing": True}, METHOD],
            images=[picture],
            question=question,
            tracing="full",
        )
        compressed.trace.save(FOLDER / f"{name}.trace.zip")
        plain.trace.save(FOLDER / f"{name}.vanilla.trace.zip")
        if name == LESSON:
            _answer_lessons(lvlm, name, picture, question)
        tqdm.write(f"{name}: {question} vanilla: {plain.text!r}, libra: {compressed.text!r}")
        index.append(
            {
                "image": f"{name}.{suffix}",
                "title": name.capitalize(),
                "question": question,
                "alt": alt,
                "credit": credit,
            }
        )
    text = json.dumps(index, indent=1, ensure_ascii=False)
    (FOLDER / "examples.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
