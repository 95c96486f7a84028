"""Qwen-VL: ids, pixels, grids and positions, against the models' own processors and equations."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_image
from micro_qwen import (
    FAMILIES,
    IMAGE_ID,
    PATCH,
    QUESTION,
    VIDEO_ID,
    make_family,
    make_film,
    make_tokenizer,
    mrope_by_hand,
)
from PIL import Image
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.video_utils import VideoMetadata

from libra import InputError
from libra.media import Media

PROCESSORS = {
    "qwen2_vl": Qwen2VLProcessor,
    "qwen2_5_vl": Qwen2_5_VLProcessor,
    "qwen3_vl": Qwen3VLProcessor,
}
SIZES = [(150, 100), (60, 130), (500, 40), (20, 20), (84, 84)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return make_family(request.param)


def processor_of(family):
    """The model's own processor, without the video processor that wants torchvision."""
    processor = object.__new__(PROCESSORS[family.name])
    processor.image_processor = family.image_processor
    processor.video_processor = SimpleNamespace(merge_size=2, temporal_patch_size=2)
    processor.image_token, processor.video_token = "<|image_pad|>", "<|video_pad|>"
    processor.vision_start_token, processor.vision_end_token = "<|vision_start|>", "<|vision_end|>"
    return processor


def official_ids(family, media, grids):
    """Token ids as the model's own processor makes them."""
    processor = processor_of(family)
    kind = "video" if media.is_video else "image"
    content = [{"type": kind}] * (1 if media.is_video else len(media.pictures))
    tokenizer = make_tokenizer(family.name)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": [*content, {"type": "text", "text": QUESTION}]}],
        add_generation_prompt=True,
        tokenize=False,
    )
    if media.is_video:
        n = len(media.pictures)
        metadata = VideoMetadata(n, fps=2, frames_indices=list(range(n)))
        inputs = {"video_grid_thw": grids, "video_metadata": [metadata]}
        replacements = {"videos_replacements": [processor.replace_video_token(inputs, 0)]}
    else:
        inputs = {"image_grid_thw": grids}
        places = [processor.replace_image_token(inputs, i) for i in range(len(grids))]
        replacements = {"images_replacements": places}
    (text,), _ = processor.get_text_with_replacements([text], **replacements)
    return tokenizer(text).input_ids


@pytest.mark.parametrize("size", SIZES)
def test_pictures_have_the_processors_ids_pixels_and_grids(family, size):
    media = Media([make_image(0, *size), make_image(1, 90, 100)])
    prepared = family.prepare(media)
    official = family.image_processor(media.pictures, return_tensors="pt")
    assert torch.equal(family.pixels(prepared), official.pixel_values)
    assert torch.equal(family.grids(prepared), official.image_grid_thw)
    prompt = family.prompt(QUESTION, prepared)
    assert prompt.ids.tolist() == official_ids(family, media, official.image_grid_thw)
    assert prompt.ids[prompt.visual].tolist() == [IMAGE_ID] * len(prepared.layout)
    assert len(prepared.layout) == int(official.image_grid_thw.prod(-1).sum()) // 4


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_a_video_has_the_processors_ids_and_grid(family, n):
    media = make_film(n)
    prepared = family.prepare(media)
    grids = family.grids(prepared)
    assert len(grids) == -(-n // 2)
    grid = torch.tensor([[len(grids), *grids[0, 1:].tolist()]])
    prompt = family.prompt(QUESTION, prepared)
    assert prompt.ids.tolist() == official_ids(family, media, grid)
    assert prompt.ids[prompt.visual].tolist() == [VIDEO_ID] * len(prepared.layout)
    assert prepared.layout.frame.tolist() == prepared.layout.image.tolist()
    assert prepared.times == media.times[::2]
    assert [view.tobytes() for view in prepared.views] == [
        frame.tobytes() for frame in media.pictures[::2]
    ]


def test_a_videos_times_stand_before_its_slots():
    family = make_family("qwen3_vl")
    prompt = family.prompt(QUESTION, family.prepare(make_film(5, seconds=1.5)))
    text = family.tokenizer.decode(prompt.ids).replace(" ", "")
    for moment in ("<0.8seconds>", "<3.8seconds>", "<6.0seconds>"):  # 0.75, 3.75, 6 and 6 again
        assert f"{moment}<|vision_start|><|video_pad|>" in text


@pytest.mark.parametrize("n", [1, 2, 5])
def test_frames_are_cut_and_paired_as_by_the_video_processor(family, n):
    """On frames that need no scaling, which torchvision would do a little differently."""
    patch = PATCH[family.name]
    height, width = family.frame_size(make_film(n).pictures)
    media = make_film(n, width, height)
    assert family.frame_size(media.pictures) == (height, width)
    frames = np.stack([np.asarray(frame) for frame in media.pictures]).transpose(0, 3, 1, 2)
    settings = family.image_processor
    mean, std = (np.array(x)[:, None, None] for x in (settings.image_mean, settings.image_std))
    video = torch.tensor((frames / 255 - mean) / std, dtype=torch.float32)[None]
    patches, *grid = Qwen3VLVideoProcessor.patchify(None, video, patch, 2, 2)
    assert grid == [-(-n // 2), height // patch, width // patch]
    torch.testing.assert_close(family.pixels(family.prepare(media)), patches[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(320, 180), (180, 320), (64, 64), (2000, 200)])
def test_a_frame_is_scaled_to_the_limits_of_the_video(family, size):
    media = make_film(4, *size)
    height, width = family.frame_size(media.pictures)
    side = 2 * PATCH[family.name]
    frames = 4 if family.name == "qwen3_vl" else 1  # whose pixels the limits count
    assert height % side == width % side == 0
    smallest, largest = family.video_size.shortest_edge, family.video_size.longest_edge
    assert smallest <= frames * height * width <= largest
    stretched = (width / height) / (size[0] / size[1])
    assert 0.5 < stretched < 2


def test_positions_of_pictures(family):
    prepared = family.prepare(Media([make_image(0, 150, 100), make_image(1, 60, 130)]))
    prompt = family.prompt(QUESTION, prepared)
    grids = [(1, *prepared.layout.grid(i)) for i in range(2)]
    assert torch.equal(prompt.positions, mrope_by_hand(prompt.ids, grids, IMAGE_ID))
    assert (
        family.next_inputs(3, prompt, 2)["position_ids"].flatten().tolist()
        == [int(prompt.positions.max()) + 2] * 3
    )


@pytest.mark.parametrize("seconds", [0.5, 1.0, 3.0])
def test_positions_of_a_video(family, seconds):
    prepared = family.prepare(make_film(6, seconds=seconds))
    prompt = family.prompt(QUESTION, prepared)
    rows, columns = prepared.layout.grid(0)
    if family.name == "qwen3_vl":  # every slot stands alone
        grids, apart = [(1, rows, columns)] * 3, None
    else:
        grids = [(3, rows, columns)]
        apart = 2 * 2 * seconds if family.name == "qwen2_5_vl" else None  # two a second
    assert torch.equal(prompt.positions, mrope_by_hand(prompt.ids, grids, VIDEO_ID, apart))


def test_the_layout_is_a_grid_over_the_whole_picture(family):
    layout = family.prepare(Media([make_image(0, 150, 100)])).layout
    rows, columns = layout.grid()
    assert rows < columns and len(layout) == rows * columns
    assert layout.box[0].tolist() == pytest.approx([0, 0, 1 / columns, 1 / rows])
    assert layout.box[-1].tolist() == pytest.approx([1 - 1 / columns, 1 - 1 / rows, 1, 1])
    areas = (layout.box[:, 2:] - layout.box[:, :2]).prod(-1)
    assert float(areas.sum()) == pytest.approx(1)


@torch.no_grad()
def brightest(family, media, dark):
    """The layout of the visual token that changes most between two media."""
    prepared = family.prepare(media)
    bright, plain = (
        family.connect(family.tokens(family.encode(p), p)) for p in (prepared, family.prepare(dark))
    )
    return prepared.layout.select((bright - plain).norm(dim=1).argmax()[None])


@pytest.mark.parametrize("cell", [(0, 0), (1, 3), (2, 1)])
def test_one_bright_patch_lands_where_it_is(family, cell):
    """In the second of two pictures, which is not square."""
    side = 2 * PATCH[family.name]
    row, column = cell
    pictures = [make_image(0, 90, 60), Image.new("RGB", (5 * side, 3 * side))]
    dark = Media([*pictures])
    light = pictures[1].copy()
    light.paste("white", (column * side, row * side, (column + 1) * side, (row + 1) * side))
    found = brightest(family, Media([pictures[0], light]), dark)
    assert (int(found.image), int(found.row), int(found.column)) == (1, row, column)
    expected = [column / 5, row / 3, (column + 1) / 5, (row + 1) / 3]
    assert found.box[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("frame", [0, 3, 4])
def test_one_bright_patch_of_a_video_lands_in_its_slot(family, frame):
    side = 2 * PATCH[family.name]
    frames = [Image.new("RGB", (3 * side, 2 * side)) for _ in range(5)]
    times = [float(i) for i in range(5)]
    dark = Media(list(frames), times)
    frames[frame] = frames[frame].copy()
    frames[frame].paste("white", (2 * side, side, 3 * side, 2 * side))
    found = brightest(family, Media(frames, times), dark)
    assert int(found.image) == int(found.frame) == frame // 2
    assert (int(found.row), int(found.column)) == (1, 2)


def test_a_strip_of_a_video_is_refused(family):
    with pytest.raises(InputError, match="more than 100 times"):
        family.prepare(make_film(2, 1010, 10))


def test_a_word_for_pictures_in_the_question_is_refused(family):
    prepared = family.prepare(Media([make_image()]))
    with pytest.raises(InputError, match="control word"):
        family.prompt("is there <|video_pad|> in it ?", prepared)
