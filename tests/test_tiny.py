"""The embedded model's data and training code, against recomputation by other means."""

import json
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

import libra
from libra.request import scale_layers
from tiny import compress, films, objects, packing, questions, scenes, sight, train, vocabulary
from tiny import model as tiny
from tiny.losses import CodeLoss
from tiny.muon import Muon
from tiny.run import Settings
from tiny.scenes import Scene, Thing
from tiny.stages import STAGES

rng = np.random.default_rng
MIX = STAGES["symbols"].settings.mixture


def _film() -> list[Scene]:
    """A cat walks to the right, a dog lies still, a ball comes in."""
    dog, ball = Thing("dog", 0.8, 0.75, 0.2, 0.2), Thing("ball", 0.2, 0.8, 0.2, 0.2, "blue")
    cats = [Thing("cat", x, 0.2, 0.2, 0.2) for x in np.linspace(0.2, 0.8, films.FRAMES).tolist()]
    return [Scene([cat, dog, *([ball] if k > 4 else [])]) for k, cat in enumerate(cats)]


FILM = _film()


def test_there_are_at_least_a_hundred_objects_with_one_token_each():
    assert len(objects.EMOJI) >= 100
    plurals = [objects.plural(name) for name in objects.NAMES]
    assert len(set(plurals) | set(objects.NAMES)) == 2 * len(objects.NAMES)
    assert all(name in vocabulary.ID for name in (*objects.NAMES, *plurals))


def test_articles_and_plurals():
    assert [objects.article(w) for w in ("apple", "unicorn", "umbrella", "cat")] == [
        "an", "a", "an", "a",
    ]  # fmt: skip
    assert objects.plural("bus") == "buses" and objects.plural("butterfly") == "butterflies"


def scene() -> Scene:
    """Two cats on the left, a dog top right, a red ball bottom right, a sign in the middle."""
    return Scene(
        [
            Thing("cat", 0.1, 0.3, 0.15, 0.15),
            Thing("cat", 0.1, 0.62, 0.15, 0.15),
            Thing("dog", 0.85, 0.15, 0.2, 0.2),
            Thing("ball", 0.85, 0.85, 0.2, 0.2, colour="red"),
            Thing("sign", 0.42, 0.42, 0.2, 0.1, text="k7"),
        ]
    )


@pytest.mark.parametrize(
    ("kind", "text", "answer"),
    [
        ("count", "How many cats are there?", "2"),
        ("left/right", "Is the dog to the left or to the right of the sign?", "right"),
        ("above/below", "Is the dog above or below the ball?", "above"),
        ("corner", "What is in the top right corner?", "dog"),
        ("next to", "What is below the dog?", "ball"),
        ("colour", "What color is the ball?", "red"),
        ("sign", "What does the sign say?", "k 7"),
        ("caption", "Describe the image.", "two cats, a sign, a dog and a ball"),
    ],
)
def test_each_kind_of_question_has_its_form_and_answer(kind, text, answer):
    random = rng(0)
    asked = [questions.ask(scene(), kind, random) for _ in range(300)]
    answers = {q.text: q.answer for q in asked if q is not None}
    assert answers[text] == answer


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("two cats, a sign, a dog and a ball", True),
        ("two cats, a sign, a ball and a dog", True),  # one stands above the other
        ("two cats, a dog, a sign and a ball", False),
        ("a cat, a sign, a dog and a ball", False),
        ("two cats, a sign and a dog", False),
        ("two cats, a sign, a dog, a ball and a ball", False),
        ("", False),
    ],
)
def test_the_order_of_a_caption_is_free_where_nothing_is_left_of_the_other(said, right):
    assert questions.ask(scene(), "caption", rng(0)).accepts(said) == right


def test_other_answers_are_right_word_for_word():
    question = questions.ask(scene(), "count", rng(0))
    assert question.accepts(question.answer) and not question.accepts(f"{question.answer} ")
    empty = questions.ask(Scene(), "caption", rng(0))
    assert empty.accepts("nothing") and not empty.accepts("a cat")


def test_existence_agrees_with_the_scene_and_is_balanced():
    random = rng(1)
    asked = [questions.ask(scene(), "existence", random) for _ in range(600)]
    names = {t.name for t in scene().things}
    assert all((q.mentions[0] in names) == (q.answer == "yes") for q in asked)
    assert 0.4 < np.mean([q.answer == "yes" for q in asked]) < 0.7


def test_every_question_uses_known_words_only():
    random = rng(2)
    for _ in range(40):
        for q in questions.mixture(scenes.compose(random), 10, random, MIX):
            ids = vocabulary.encode(f"{q.text} {q.answer}")
            assert vocabulary.ID[vocabulary.UNKNOWN] not in ids, q


def test_tokenizer_agrees_with_the_training_encoder_and_decodes_back():
    tokenizer = vocabulary.tokenizer()
    for text in ("What does the sign say?", "a cat, two dogs and a car", "Is there an umbrella?"):
        assert tokenizer(text, add_special_tokens=False).input_ids == vocabulary.encode(text)
    ids = vocabulary.encode("a cat, two dogs and a car")
    assert tokenizer.decode(ids) == "a cat, two dogs and a car"


def prompt(n_pictures: int) -> str:
    """What the chat template writes before a question about so many pictures."""
    content = [{"type": "image"}] * n_pictures + [{"type": "text", "text": "?"}]
    text = vocabulary.tokenizer().apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    before, after = text.split("?")
    assert after == "<assistant>"
    return before


def test_chat_template_numbers_several_pictures():
    assert prompt(1) == "<s><user><image>"
    assert prompt(3) == "<s><user>1<image>2<image>3<image>"


def test_labels_lie_on_the_objects(drawn):
    picture, labels = scenes.draw(scene(), rng(3), plain=True)
    assert picture.shape == (336, 336, 3)
    assert labels.centre.sum() == pytest.approx(len(scene().things), abs=1e-5)
    for thing in (scene().things[0], scene().things[2]):
        row, column = int(thing.y * 24), int(thing.x * 24)
        assert objects.NAMES[labels.name[row, column]] == thing.name
    assert list(objects.COLOURS)[labels.colour[20, 20]] == "red"
    middle = labels.character[10, 7:13]
    assert "".join(objects.CHARACTERS[i] for i in middle if i >= 0).strip("k7") == ""
    symbolic = scenes.symbols(scene())
    assert (symbolic.name == labels.name).mean() > 0.9


def test_growing_keeps_the_function():
    small = tiny.build(2).double().eval()
    grown = tiny.grow(small).double().eval()
    ids = torch.randint(7, 200, (1, 12))
    assert len(grown.model.language_model.layers) == 4
    torch.testing.assert_close(grown(input_ids=ids).logits, small(input_ids=ids).logits)


@pytest.mark.parametrize("n_pictures", [1, 2])
def test_packed_questions_equal_one_plain_forward_each(drawn, n_pictures):
    """The block mask and the restarted positions against the untouched model, one question.

    The plain model reads what its own chat template writes.
    """
    model = tiny.build(2).double().eval()
    batch = [scene(), films.compose(rng(6))[-1]][:n_pictures]
    packed = packing.pack([questions.mixture(batch[0], 5, rng(4), MIX)], 100)
    pixels = sight.normalise([scenes.draw(s, rng(5))[0] for s in batch]).double()
    with torch.no_grad():
        features, _ = sight.tower(model, pixels)
        projected = model.model.multi_modal_projector(features)
        where = torch.arange(576).expand(n_pictures, -1)
        if n_pictures == 1:
            seen = packing.alone(projected, where)
        else:
            seen = packing.in_order(model, projected[None], where[None])
        hidden = packing.decode(model, seen, packed)
        for block in packed.block.unique().tolist()[1:]:
            mine = packed.block[0] == block
            head = vocabulary.tokenizer()(prompt(n_pictures), add_special_tokens=False).input_ids
            image = vocabulary.ID["<image>"]
            head = [i for token in head for i in ([image] * 576 if token == image else [token])]
            ids = torch.tensor([[*head, *packed.ids[0][mine].tolist()]])
            plain = model.model(input_ids=ids, pixel_values=pixels).last_hidden_state
            torch.testing.assert_close(plain[0, len(head) :], hidden[0][mine])


def test_a_film_is_drawn_alike_from_frame_to_frame(drawn):
    frames = films.draw(FILM, rng(7), plain=True)
    pictures = np.stack([picture for picture, _ in frames]).astype(int)
    assert len(frames) == films.FRAMES
    dog = np.s_[:, 200:300, 220:320]  # still, and in every frame
    assert np.abs(pictures[1:][dog] - pictures[:-1][dog]).max() == 0
    assert (pictures[0] != pictures[-1]).any()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Which way does the cat move?", "right"),
        ("What appears last?", "ball"),
        ("How many dogs appear?", "1"),
    ],
)
def test_each_question_about_a_film_has_its_form_and_answer(text, answer):
    random = rng(0)
    asked = [questions.ask_film(FILM, random) for _ in range(300)]
    assert {q.text: q.answer for q in asked if q}[text] == answer


def test_composed_films_move_one_object_and_keep_the_others():
    for seed in range(30):
        film = films.compose(rng(seed))
        assert len(film) == films.FRAMES
        for earlier, later in pairwise(film):
            assert later.things[1 : len(earlier.things)] == earlier.things[1:]
            assert all(0 <= t.x <= 1 and 0 <= t.y <= 1 for t in later.things)


def test_questions_about_several_pictures_name_the_one_that_has_it():
    album = [FILM[0], scene(), scenes.Scene([scenes.Thing("ball", 0.5, 0.5, 0.2, 0.2, "red")])]
    random, answers = rng(3), {}
    for _ in range(400):
        question = questions.ask_images(album, random)
        if question is not None:
            answers[question.mentions[0]] = question.answer
    assert answers["sign"] == "second"
    assert "dog" not in answers and "ball" not in answers and "cat" not in answers
    assert set(answers.values()) == {"second", "none"}


def test_saved_folder_loads_with_transformers(tmp_path):
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    model = tiny.build(2)
    tiny.save(model, tmp_path)
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    name = "model.multi_modal_projector.linear_1.weight"
    expected = model.state_dict()[name].half().float()
    torch.testing.assert_close(loaded.state_dict()[name], expected, rtol=0, atol=0)
    assert AutoTokenizer.from_pretrained(tmp_path).encode("cat", add_special_tokens=False) == [
        vocabulary.ID["cat"]
    ]
    assert len(json.loads((tmp_path / "objects.json").read_text())) == len(objects.NAMES)


def test_muon_moves_all_matrices_as_torch_moves_each():
    torch.manual_seed(0)
    shapes = [(6, 4), (4, 6), (6, 4), (5, 5)]
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    one = Muon(ours, lr=0.1, weight_decay=0.02)
    other = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape)
            b.grad = a.grad.clone()
        ours[2].grad = theirs[2].grad = None  # what no question needed stays
        one.step(), other.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0.02)
    assert (ours[2] == 1).all() and (ours[0] != 1).all()


def test_training_compresses_like_the_engine(drawn):
    """One question, layer by layer the same merges: the same first word, as probable."""
    with libra.load("tiny-llava") as lvlm:
        model, (asked, *_) = lvlm.family.model, questions.mixture(scene(), 5, rng(4), MIX)
        pixels = scenes.draw(scene(), rng(5), plain=True)[0]
        layers = scale_layers(compress.LAYERS, lvlm.n_layers)
        trace = lvlm.answer(
            images=[Image.fromarray(pixels)],
            question=asked.text,
            method="libra",
            ratio=0.3,
            layers=layers,
            compensation="none",
        ).trace
        packed = packing.pack([[asked]], 60)
        with torch.no_grad():
            features, _ = sight.tower(model, sight.normalise([pixels]))
            seen = packing.alone(
                model.model.multi_modal_projector(features), torch.arange(576)[None]
            )
            hidden = packing.decode(model, seen, packed, 0.3)
            first = int((packed.target[0] >= 0).nonzero()[0])
            words = model.lm_head(hidden[0, first]).softmax(-1)
    assert trace.counts[-1] < 0.7**3 * 576
    assert float(words.max()) == pytest.approx(trace.words[0].probability, abs=1e-4)
    assert vocabulary.tokenizer().decode(words.argmax()).strip() == trace.words[0].text.strip()


def test_compression_fades_at_the_end_as_in_the_paper():
    shares = [compress.share(0.3, step, 5500) for step in (0, 4500, 5000, 5499)]
    assert shares == pytest.approx([0.3, 0.3, 0.15, 0.0003])


def test_gradients_reach_what_was_merged(drawn):
    model = tiny.build(4)
    packed = packing.pack([questions.mixture(scene(), 5, rng(4), MIX)] * 2, 100)
    visual = torch.randn(2, 64, model.config.text_config.hidden_size, requires_grad=True)
    seen = packing.alone(visual, torch.arange(64).expand(2, -1))
    hidden = packing.decode(model, seen, packed, 0.5)
    assert hidden.shape[:2] == packed.ids.shape
    packing.answer_loss(model, hidden, packed)[0].backward()
    assert (visual.grad.abs().sum(-1) > 0).all()
    assert not any(layer._forward_pre_hooks for layer in model.model.language_model.layers)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["symbols", "pixels"])
def test_training_logs_and_resumes(tmp_path, drawn, stage):
    settings = Settings(steps=1, batch=2, rate=1e-3, asked=3, budget=60, visible=(32,))
    train.train(stage, tmp_path, settings)
    first = torch.load(tmp_path / f"{stage}.pt", weights_only=True)
    train.train(stage, tmp_path, replace(settings, steps=2))
    second = torch.load(tmp_path / f"{stage}.pt", weights_only=True)
    assert (first["step"], second["step"]) == (1, 2)
    changed = [k for k in first["model"] if not torch.equal(first["model"][k], second["model"][k])]
    assert changed


@pytest.mark.slow
def test_the_joint_stages_see_pictures_albums_films_and_crowds(tmp_path, drawn, monkeypatch):
    shallow = partial(tiny.build, 4)
    monkeypatch.setattr(train.tiny, "build", shallow)
    monkeypatch.setattr(train, "_assembled", lambda folder: shallow())
    short = {"batch": 2, "asked": 4, "budget": 60, "visible": (32,)}
    code = CodeLoss(tiny.PatchCode(), tiny.config().vision_config.hidden_size).state_dict()
    torch.save({"criterion": code}, tmp_path / "pictures.pt")
    for stage in list(STAGES)[list(STAGES).index("joint") :]:  # each goes on from these
        short["compressed"] = 0.3 * (stage == "joint")
        short["steps"] = 1 + (stage == "crowds")  # a film comes first, an album second
        train.train(stage, tmp_path, replace(STAGES[stage].settings, **short))
        assert torch.load(tmp_path / f"{stage}.pt", weights_only=True)["step"] == short["steps"]
    for before, after, still, learning in (
        ("finish", "sharpen", "language_model", "vision_tower"),
        ("sharpen", "reread", "vision_tower", "language_model"),
        ("reread", "hone", "language_model", "vision_tower"),
        ("hone", "recite", "vision_tower", "language_model"),
    ):
        old, new = (
            torch.load(tmp_path / f"{stage}.pt", weights_only=True)["model"]
            for stage in (before, after)
        )
        changed = [name for name in old if not torch.equal(old[name], new[name])]
        assert any(learning in name for name in changed)
        assert not any(still in name for name in changed)
