"""The families after LLaVA-1.5: input preparation, layout and answers, against transformers."""

import json

import pytest
import torch
from conftest import QUESTION, make_image, make_lvlm
from micro_llava import (
    FAMILIES,
    VIDEO_FAMILIES,
    clip_of,
    lvlm_of,
    model_of,
    processors_of,
    save,
    side_of,
    tokenizer_of,
)
from PIL import Image, ImageDraw
from transformers import (
    LlavaNextProcessor,
    LlavaNextVideoProcessor,
    LlavaOnevisionProcessor,
    VideoLlavaProcessor,
)

import libra
from libra import InputError
from libra.media import Media
from libra.models import FAMILIES as BY_TYPE
from libra.models import catalog
from libra.models.anyres import Tiling
from libra.models.prepared import Prompt
from libra.video import Clip
from tests import clips

STILLS = {
    "one": [make_image(0)],
    "tall": [make_image(0, 40, 90)],
    "wide": [make_image(0, 210, 50)],
    "large": [make_image(0, 400, 300)],
    "strip": [make_image(0, 600, 8)],
    "two": [make_image(0, 40, 90), make_image(1, 150, 50)],
}
ASKED = [
    *((name, media) for name in FAMILIES for media in STILLS),
    *((name, "video") for name in VIDEO_FAMILIES),
]
PROCESSORS = {
    "llava-next": LlavaNextProcessor,
    "llava-onevision": LlavaOnevisionProcessor,
    "llava-next-video": LlavaNextVideoProcessor,
    "video-llava": VideoLlavaProcessor,
}


def media_of(kind):
    """The pictures or the video of a case."""
    clip = clip_of()
    return Media(clip.frames, clip.times) if kind == "video" else Media(STILLS[kind])


def request_of(kind):
    """The same as arguments of `LVLM.stream`."""
    return {"video": clip_of()} if kind == "video" else {"images": STILLS[kind]}


@pytest.fixture(scope="module")
def lvlms():
    models = {name: lvlm_of(name) for name in FAMILIES}
    yield models
    for model in models.values():
        model.close()


def official_inputs(name, family, kind):
    """The model's own arguments for the media, from its own processors of pictures."""
    media = media_of(kind)
    stills, *frames = processors_of(name)
    if kind == "video":
        pixels = frames[0](media.pictures, return_tensors="pt").pixel_values[None]
        return {"pixel_values_videos": pixels.double()}
    if name == "video-llava":
        pixels = stills(media.pictures, return_tensors="pt", return_legacy_image_output=False)
        return {"pixel_values": pixels.pixel_values.double()}
    several = name == "llava-onevision" and len(media.pictures) > 1
    inputs = stills([media.pictures] if several else media.pictures, return_tensors="pt")
    return {**inputs, "pixel_values": inputs.pixel_values.double()}


# -- input preparation ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STILLS)
def test_llava_next_prepares_as_the_official_processor(lvlms, kind):
    family, tokenizer = lvlms["llava-next"].family, tokenizer_of("llava-next")
    processor = LlavaNextProcessor(
        *processors_of("llava-next"),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    content = [{"type": "image"}] * len(STILLS[kind]) + [{"type": "text", "text": QUESTION}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    official = processor(
        text=text, images=STILLS[kind], add_special_tokens=False, return_tensors="pt"
    )
    prepared = family.prepare(Media(STILLS[kind]))
    assert torch.equal(family.prompt(QUESTION, prepared).ids, official.input_ids[0])
    units = torch.cat([x[x.flatten(1).any(1)] for x in official.pixel_values])  # padding is zero
    assert torch.equal(family.pixels(prepared), units)


@pytest.mark.parametrize(("name", "kind"), ASKED)
def test_placeholders_as_the_official_processor_counts_them(lvlms, name, kind):
    """Video processors need torchvision, so of these the counting alone can be asked."""
    family, side = lvlms[name].family, side_of(name)
    official = object.__new__(PROCESSORS[name])
    official.image_token, official.video_token = "i", "v"
    official.image_processor = processors_of(name)[0]
    official.patch_size, official.num_additional_image_tokens = 14, 1
    official.num_image_tokens = (side // 14) ** 2
    official.vision_aspect_ratio = "anyres_max_4"
    official.vision_feature_select_strategy = "full" if name == "llava-onevision" else "default"
    inputs = official_inputs(name, family, kind)
    if kind == "video":
        counts = [len(official.replace_video_token(inputs, 0))]
    else:
        n = len(STILLS[kind])
        counts = [len(official.replace_image_token(inputs, i)) for i in range(n)]
    assert [len(span) for span in family.prepare(media_of(kind)).spans] == counts


@torch.no_grad()
@pytest.mark.parametrize(("name", "kind"), ASKED)
def test_vanilla_answers_as_the_model_itself(lvlms, name, kind):
    lvlm, model = lvlms[name], model_of(name)
    trace = lvlm.answer(
        **request_of(kind), question=QUESTION, method="vanilla", max_new_tokens=4
    ).trace
    ids = lvlm.family.prompt(QUESTION, lvlm.family.prepare(media_of(kind))).ids
    generated = model.generate(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids[None]),
        **official_inputs(name, lvlm.family, kind),
        max_new_tokens=4,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    expected = [float(x.softmax(-1).max()) for x in generated.logits]
    assert [w.probability for w in trace.words] == pytest.approx(
        expected[: len(trace.words)], abs=1e-9
    )
    assert len(trace.words) >= min(2, len(expected) - 1)
    layout, views = trace.layout, len(trace.images)
    assert len(layout) == trace.counts[0] and int(layout.image.max()) < views
    times = None if kind != "video" else [0.0, 0.5, 1.0]
    assert trace.times == times
    assert layout.frame.tolist() == (layout.image if times else 0 * layout.image).tolist()


# -- layout -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), ASKED)
def test_a_bright_patch_lands_where_it_should(lvlms, name, kind):
    """The brightest of what the encoder sees is the token whose box was painted white."""
    family, media = lvlms[name].family, media_of(kind)
    blank = [Image.new("RGB", (4 * p.width, 4 * p.height)) for p in media.pictures]
    plain = family.prepare(Media(blank, media.times))
    before = seen_by(family, plain)
    for token in torch.linspace(0, len(plain.layout) - 1, 7).long().unique().tolist():
        view = int(plain.layout.image[token])
        number, width, height = view * len(blank) // len(plain.views), *plain.views[view].size
        margin = [(width - blank[number].width) // 2, (height - blank[number].height) // 2] * 2
        box = plain.layout.box[token] * torch.tensor([width, height] * 2) - torch.tensor(margin)
        pictures = [picture.copy() for picture in blank]
        ImageDraw.Draw(pictures[number]).rectangle(box.tolist(), fill="white")
        change = seen_by(family, family.prepare(Media(pictures, media.times))) - before
        change[plain.layout.image != view] = 0  # the other view of the picture shows it, too
        if change.any():  # else a token of the margin, which has no part of the picture
            assert int(change.argmax()) == token
        else:
            assert plain.views[view].size != blank[number].size


def seen_by(family, prepared):
    """[N] mean brightness that the encoder sees of each visual token."""
    pixels = family.pixels(prepared).double().mean(1)
    patches = pixels.unfold(1, 14, 14).unfold(2, 14, 14).mean((-1, -2)).flatten(1)
    return family.pack([x[:, None] for x in patches], prepared)[:, 0]


def test_boxes_of_details_are_those_of_the_patches(lvlms):
    """The grid over the detailed view is where the tiles' own patches lie, cut at the edge."""
    family = lvlms["llava-next"].family
    for width, height in ((80, 60), (40, 90), (113, 61), (210, 50)):
        picture = Image.new("RGB", (width, height))
        prepared = family.prepare(Media([picture]))
        detail = prepared.unit > 0
        boxes = family.tiling(picture).boxes(family.grid)
        expected = boxes[prepared.unit[detail] - 1, prepared.patch[detail]].clamp(0, 1)
        torch.testing.assert_close(prepared.layout.box[detail], expected, atol=1e-6, rtol=0)
        areas = (prepared.layout.box[:, 2:] - prepared.layout.box[:, :2]).prod(1)
        whole, details = (float(areas[prepared.layout.image == view].sum()) for view in (0, 1))
        assert whole == pytest.approx(1, abs=1e-5)
        assert 0.6 < details < 1 + 1e-5  # rows that are mostly margin are taken off
        rows, columns = prepared.layout.grid(1)
        assert rows * columns == int(detail.sum()) and (~prepared.spans[0]).sum() == rows


def test_tiling_with_the_sizes_of_the_published_models():
    """640 x 480 in LLaVA-NeXT: 2 x 2 tiles, 576 + 48 x 36 patches and 36 newlines."""
    tiles = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    tiling = Tiling.of(Image.new("RGB", (640, 480)), tiles, 336)
    assert (tiling.rows, tiling.columns) == (2, 2)
    assert (tiling.size * 336).tolist() == [672, 504] and (tiling.margin * 336).tolist() == [0, 84]


PUBLISHED = {  # pixels of a unit, tiles, and what media become: visual tokens, other tokens
    "llava-next": (336, ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))),
    "llava-onevision": (384, [(i, j) for i in range(1, 7) for j in range(1, 7)]),
    "video-llava": (224, ()),
    "llava-next-video": (336, ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))),
}


@pytest.mark.parametrize(
    ("name", "size", "n", "visual", "others"),
    [
        ("llava-next", (672, 672), 1, 5 * 576, 48),
        ("llava-next", (640, 480), 1, 576 + 36 * 48, 36),
        ("llava-next", (336, 1008), 1, 576 + 3 * 576, 72),
        ("llava-onevision", (384, 384), 1, 2 * 729, 27),
        ("llava-onevision", (2304, 2304), 1, 729 + 81 * 81, 81),  # 162 x 162 scaled to 9 x 729
        ("llava-onevision", (500, 300), 3, 3 * 729, 3),
        ("llava-onevision", (500, 300), 32, 32 * 196, 1),
        ("video-llava", (500, 300), 8, 8 * 256, 8),
        ("llava-next-video", (500, 300), 8, 8 * 144, 0),
    ],
)
def test_token_counts_of_the_published_models(name, size, n, visual, others):
    side, tiles = PUBLISHED[name]
    model = model_of(name, side=side)
    model.config.image_grid_pinpoints = [[rows * side, columns * side] for rows, columns in tiles]
    model.config.vision_aspect_ratio = "anyres_max_9"
    family = FAMILIES[name](model, tokenizer_of(name), *processors_of(name))
    media = Media([Image.new("RGB", size)] * n, list(range(n)) if n > 3 else None)
    prepared = family.prepare(media)
    assert len(prepared.layout) == len(prepared.unit) == len(prepared.patch) == visual
    assert sum(len(span) for span in prepared.spans) == visual + others


def test_lines_end_at_newlines_and_at_pictures(lvlms):
    prepared = lvlms["llava-next"].family.prepare(Media([make_image(0), make_image(1)]))
    line = prepared.line
    assert (line.diff() >= 0).all()
    for first in (0, len(line) // 2):
        own = line[first : first + len(line) // 2] - line[first]
        assert own.tolist() == [0] * 16 + [i // 8 for i in range(48)]
    assert line[len(line) // 2 - 1] < line[len(line) // 2]


def test_a_shorter_prompt_keeps_text_and_newlines():
    """x<vv n v n>y with visual tokens 0 and 2 left: both newlines stay where they were."""
    ids = torch.tensor([1, 4, 4, 5, 4, 5, 2])
    prompt = Prompt(ids, torch.tensor([1, 2, 4]), torch.tensor([3, 5]), torch.arange(7)[None])
    short = prompt.reduced(torch.tensor([1]))
    assert short.ids.tolist() == [1, 4, 5, 5, 2]
    assert short.visual.tolist() == [1] and short.special.tolist() == [2, 3]
    assert short.positions.tolist() == [[0, 2, 3, 5, 6]]
    assert (prompt.n_trailing, short.n_trailing) == (1, 2)
    same = prompt.reduced(torch.arange(3))
    assert torch.equal(same.ids, ids) and torch.equal(same.visual, prompt.visual)


# -- frames as pictures -----------------------------------------------------------------------


def test_a_model_for_pictures_gets_the_frames_of_a_video():
    clip = clip_of(4)
    with make_lvlm() as lvlm:
        request = {"question": QUESTION, "method": "libra", "max_new_tokens": 3}
        film = lvlm.answer(video=clip, **request).trace
        stills = lvlm.answer(images=clip.frames, **request).trace
        (shared,) = libra.compare(lvlm, ["libra"], question=QUESTION, video=clip, max_new_tokens=3)
    assert [w.probability for w in film.words] == [w.probability for w in stills.words]
    assert [w.probability for w in shared.trace.words] == [w.probability for w in film.words]
    assert film.times == [0.0, 0.5, 1.0, 1.5] and stills.times is None
    assert film.layout.frame.tolist() == film.layout.image.tolist()
    assert not stills.layout.frame.any()


def test_more_views_than_a_trace_holds_are_refused(lvlms, monkeypatch):
    lvlm = lvlms["llava-next"]
    monkeypatch.setattr(lvlm.family, "max_positions", 10**6)
    with pytest.raises(InputError, match="66 views, and at most 64"):
        lvlm.answer(images=[make_image(0, 9, 9)] * 33, question=QUESTION)


@pytest.mark.parametrize("name", VIDEO_FAMILIES)
def test_as_many_frames_as_the_checkpoint_is_used_to(lvlms, name, tmp_path):
    path = clips.write(tmp_path / "clip.mp4", [*map(clips.numbered, range(20))])
    folder = save(name, tmp_path / "model")
    noted = folder / "video_preprocessor_config.json"
    noted.write_text(json.dumps(json.loads(noted.read_text()) | {"num_frames": 5}))
    request = {"video": path, "question": QUESTION, "method": "fastv", "max_new_tokens": 1}
    with libra.load(folder) as loaded:
        for method in ("fastv", "vanilla"):
            assert len(loaded.answer(**request | {"method": method}).trace.images) == 5
        (shared,) = libra.compare(loaded, ["fastv"], question=QUESTION, video=path)
        assert len(shared.trace.images) == 5
    assert len(lvlms[name].answer(**request).trace.images) == 8


@pytest.mark.parametrize(("positions", "frames"), [(256, 8), (136, 7), (40, 2), (10, 1)])
def test_a_model_for_pictures_gets_as_many_frames_as_fit(monkeypatch, positions, frames):
    """Of 16 tokens each, in seven eighths of the context."""
    with make_lvlm() as lvlm:
        monkeypatch.setattr(lvlm.family, "max_positions", positions)
        assert lvlm.family.frames == frames


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", ["frames", "pictures"])
def test_what_exceeds_the_context_says_how_much_fits(lvlms, monkeypatch, name, kind):
    lvlm, clip = lvlms[name], clip_of(10)
    media = {"video": clip} if kind == "frames" else {"images": clip.frames}
    request = {"question": QUESTION, "method": "vanilla", "max_new_tokens": 2}
    prepared = lvlm.family.prepare(Media(clip.frames, clip.times if kind == "frames" else None))
    half = len(lvlm.family.prompt(QUESTION, prepared).ids) // 2 + 20
    monkeypatch.setattr(lvlm.family, "max_positions", half)
    with pytest.raises(InputError, match=rf"use at most \d {kind}\.$") as error:
        lvlm.answer(**media, **request)
    n = int(str(error.value).split()[-2])

    def some(n):
        part = Clip(clip.frames[:n], clip.times[:n], clip.duration, clip.name)
        return {"video": part} if kind == "frames" else {"images": part.frames}

    assert lvlm.answer(**some(n), **request).text is not None
    with pytest.raises(InputError, match=f"use at most {n} {kind}"):
        lvlm.answer(**some(n + 1), **request)


# -- folders ----------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_in_half_precision_and_several_files(lvlms, name, tmp_path):
    folder = save(name, tmp_path / "model")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    kind = "video" if name in VIDEO_FAMILIES else "two"
    request = {"question": QUESTION, "method": "fastv", "max_new_tokens": 3, **request_of(kind)}
    with libra.load(folder) as loaded:
        assert loaded.card["family"] == name and loaded.family.model.dtype == torch.float32
        words = loaded.answer(**request).trace.words
        for media in ("two", kind):
            prepared = loaded.family.prepare(media_of(media))
            expected = lvlms[name].family.pixels(prepared)
            assert torch.equal(loaded.family.pixels(prepared), expected)
    with lvlm_of(name, dtype=torch.float32) as fresh:
        for parameter in fresh.family.model.parameters():
            parameter.copy_(parameter.half())
        expected = fresh.answer(**request).trace.words
    assert [w.probability for w in words] == pytest.approx([w.probability for w in expected])


def test_features_of_another_kind_are_refused(tmp_path):
    folder = save("llava-next", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"vision_feature_select_strategy": "full"})
    )
    with pytest.raises(InputError, match="'full' features"):
        libra.load(folder)


def test_the_catalogue_names_models_of_these_families():
    listed = {entry.family for entry in catalog()}
    assert set(FAMILIES) <= {BY_TYPE[t].name for t in BY_TYPE}
    for name in ("llava-next", "llava-onevision", "llava-next-video", "video-llava"):
        assert name in listed
    by_name = {entry.name: entry for entry in catalog()}
    assert by_name["llava-next-34b"].parameters == pytest.approx(34.75e9, rel=0.01)
    memory = [by_name[f"llava-next-{size}"].memory for size in ("8b", "13b", "34b")]
    assert memory == sorted(memory) and memory[0] > 16e9
