"""The embedded model as it is shipped: its folder, what it knows, and the stored examples."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import libra
from libra import methods
from libra.trace import Trace
from page import examples
from tiny import objects, questions, scenes
from viz.retention import shares_kept

ASSETS = Path(__file__).parents[1] / "assets"
FOLDER, EXAMPLES = ASSETS / "tiny-llava", ASSETS / "examples"
PREPARED = json.loads((EXAMPLES / "examples.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def lvlm():
    with libra.load("tiny-llava") as model:
        yield model


def test_the_folder_is_small_and_lists_its_objects():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 60 * 2**20
    assert json.loads((FOLDER / "objects.json").read_text("utf-8")) == objects.catalogue()


def test_its_name_may_be_a_path():
    with libra.load(Path("tiny-llava")) as model:
        assert model.name == "tiny-llava"


def test_it_has_the_geometry_of_llava(lvlm):
    assert lvlm.card["visual_tokens"] == 576
    assert lvlm.n_layers == 8
    assert lvlm.default_layers("libra") == (1, 3, 5)


@pytest.mark.parametrize("method", methods.names())
def test_what_is_left_is_the_same_under_all_methods(lvlm, method):
    """However many their events, each of which rounds."""
    image = EXAMPLES / "orchard.png"
    trace = lvlm.answer([image], "?", method=method, left=1 / 4, max_new_tokens=1).trace
    left = trace.lineage(len(trace.events))
    expected = 576 if method == "vanilla" else 576 / 4
    assert left.n_out - len(left.extras) == pytest.approx(expected, abs=2)


def shapes(rng: np.random.Generator) -> scenes.Scene:
    """Three shapes of different kinds at random places."""
    names = rng.choice(objects.SHAPES, 3, replace=False)
    places = rng.permutation([(0.25, 0.25), (0.75, 0.3), (0.3, 0.75), (0.72, 0.75)])[:3]
    colours = rng.choice(list(objects.COLOURS), 3)
    return scenes.Scene(
        [
            scenes.Thing(str(name), *map(float, place), 0.25, 0.25, str(colour))
            for name, place, colour in zip(names, places, colours, strict=True)
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["existence", "left/right", "above/below", "corner"])
def test_it_answers_questions_about_scenes_it_has_never_seen(lvlm, kind):
    """Drawn shapes alone: they need no emoji pictures. Chance is 50 % at best."""
    rng = np.random.default_rng(123)
    right = asked = 0
    while asked < 24:
        scene = shapes(rng)
        question = questions.ask(scene, kind, rng)
        if question is None:
            continue
        ground = Image.new("RGB", (scenes.SIDE, scenes.SIDE), tuple(rng.integers(90, 200, 3)))
        picture, _ = scenes.draw(scene, rng, plain=True, backdrop=ground)
        answer = lvlm.answer(images=[picture], question=question.text, method="vanilla")
        right += answer.text == question.answer
        asked += 1
    assert right >= 21


@pytest.mark.parametrize("example", PREPARED, ids=lambda e: e["title"])
def test_the_stored_answer_is_what_the_model_says(lvlm, example):
    picture = EXAMPLES / example["image"]
    if "video" in example:
        media = {"video": EXAMPLES / example["video"]}
    else:
        media = {"images": [picture, *(EXAMPLES / name for name in example.get("more", ()))]}
    for suffix, method in ((".trace.zip", "libra"), (".vanilla.trace.zip", "vanilla")):
        stored = Trace.load(picture.with_suffix(suffix))
        answer = lvlm.answer(**media, question=example["question"], method=method)
        assert stored.answer == answer.text
        assert stored.counts == answer.trace.counts
        assert stored.method == method


def test_the_examples_are_of_all_kinds_and_open_with_their_trace():
    prepared = {example.title: example for example in examples.load(EXAMPLES)}
    assert len(prepared) == len(PREPARED)
    album, film = prepared["Pets"], prepared["Crossing"]
    assert len(album.added().pictures) == 2 and len(album.trace().images) == 3
    assert film.trace().times == pytest.approx(film.added().clip.times)
    with Image.open(film.image) as first:
        seen = np.asarray(film.added().clip.frames[0], int)
        assert np.abs(np.asarray(first.convert("RGB"), int) - seen).mean() < 2
    licences = (EXAMPLES / "LICENSES.md").read_text("utf-8")
    for title, example in prepared.items():
        assert example.trace() and example.vanilla(), title
        assert example.image.stem in licences


@pytest.mark.slow
@pytest.mark.parametrize("method", methods.names())
def test_every_method_answers_and_leaves_a_trace(lvlm, method):
    example = PREPARED[0]
    request = {"images": [EXAMPLES / example["image"]], "question": example["question"]}
    answer = lvlm.answer(**request, method=method)
    assert answer.text
    # PruMerge+ spreads one token in three over the picture for each outlier in nine: here, all.
    assert (answer.trace.counts[-1] < 576) == (method not in ("vanilla", "prumerge+"))


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("prumerge", {}),
        ("prumerge+", {}),
        ("evit", {"encoder_layers": (2, 4)}),
        ("illava", {"encoder_layers": (2,), "follow": "paper"}),
    ],
)
def test_a_picture_given_twice_becomes_each_time_what_it_becomes_alone(lvlm, method, params):
    with Image.open(EXAMPLES / "pets.png") as picture:
        images = [picture.convert("RGB")] * 2
    asked = dict(question="Is there a cat?", method=method, max_new_tokens=1, **params)
    alone, twice = (lvlm.answer(images=images[:n], **asked).trace for n in (1, 2))
    assert twice.sums_up
    stages = [i for i, event in enumerate(alone.events, 1) if event.site != "decoder"]
    for stage in stages:
        once = alone.lineage(stage)
        assert twice.lineage(stage).fate().tolist() == 2 * once.fate().tolist()
        one, both = (trace.events[stage - 1].reduction for trace in (alone, twice))
        assert one.n_out - one.n_kept == 1 and both.n_out - both.n_kept == 2
        assert both.n_kept == 2 * one.n_kept
        shares = shares_kept(twice)[stage - 1].tolist()
        assert shares == 2 * shares_kept(alone)[stage - 1].tolist()
    assert twice.ratio == alone.ratio
