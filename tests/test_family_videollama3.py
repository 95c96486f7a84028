"""VideoLLaMA 3: ids, pixels, thinning and layout, against transformers' own."""

import itertools
import json
import sys
from importlib import import_module
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from conftest import make_image
from micro_videollama import (
    QUESTION,
    VIDEO_3,
    make_clip,
    make_image_processor_3,
    make_lvlm_3,
    make_model_3,
    make_tokenizer_3,
    save_3,
)
from PIL import Image
from transformers.models.video_llama_3.processing_video_llama_3 import VideoLlama3Processor

import libra
from libra.compression import Compression
from libra.detail import spread_layers
from libra.media import Media
from libra.methods import Tokens, create
from libra.video import Clip

SIZES = [(150, 100), (60, 130), (300, 30), (20, 20), (84, 84)]
CELL = 28  # pixels of a token of a video, each way


@pytest.fixture(scope="module")
def lvlm():
    with make_lvlm_3() as model:
        yield model


@pytest.fixture(scope="module")
def family(lvlm):
    return lvlm.family


@pytest.fixture(scope="module")
def video_processor():
    """The model's own video processor as a class: its module wants torchvision, its sums do not."""
    wanted = ("torchvision", "torchvision.transforms", "torchvision.transforms.v2")
    lacking = [name for name in (*wanted, f"{wanted[-1]}.functional") if name not in sys.modules]
    sys.modules.update({name: MagicMock() for name in lacking})
    try:
        module = import_module("transformers.models.video_llama_3.video_processing_video_llama_3")
    finally:
        for name in lacking:
            del sys.modules[name]
    return module.VideoLlama3VideoProcessor


def film(n=4, still=(), width=90, height=60, seed=0):
    """Frames of noise, a frame apart in time; those in `still` repeat the one before."""
    noise = np.random.default_rng(seed).integers(0, 255, (n, height, width, 3), dtype=np.uint8)
    for i in still:
        noise[i] = noise[i - 1]
    return Media([Image.fromarray(frame) for frame in noise], [1.5 * i for i in range(n)])


def processor_of(family):
    """The model's own processor, without the video processor that wants torchvision."""
    processor = object.__new__(VideoLlama3Processor)
    processor.image_processor = family.image_processor
    processor.image_token, processor.video_token = "<|image_pad|>", "<|video_pad|>"
    return processor


def ids_of(text):
    return make_tokenizer_3()(text).input_ids


def prompt_text(media, places):
    """The chat with what the model's processor puts at the places of the media."""
    body = "".join(f"{place}\n" for place in places)
    return f"<|im_start|>user\n{body}{QUESTION}<|im_end|>\n<|im_start|>assistant\n"


def test_pictures_have_the_processors_ids_and_pixels(family):
    for size in SIZES:
        media = Media([make_image(0, *size), make_image(1, 90, 100)])
        prepared = family.prepare(media)
        inputs = make_image_processor_3()(media.pictures, return_tensors="pt")
        torch.testing.assert_close(prepared.pixels, inputs.pixel_values)
        assert torch.equal(prepared.grids, inputs.image_grid_thw) and prepared.merge == 1
        places = [processor_of(family).replace_image_token(inputs, i) for i in range(2)]
        prompt = family.prompt(QUESTION, prepared)
        assert prompt.ids.tolist() == ids_of(prompt_text(media, places))
        assert len(prompt.visual) == len(prepared.layout)


@pytest.mark.parametrize("still", [(), (1,), (2, 3), (1, 2, 3)])
def test_a_video_has_the_processors_ids(family, still):
    media = film(still=still)
    prepared = family.prepare(media)
    counts = prepared.layout.image.bincount()
    _, rows, columns = prepared.grids[0].tolist()
    mask = torch.zeros(4, rows * columns // 4, dtype=torch.bool)
    mask[prepared.unit, prepared.patch] = True
    inputs = {
        "video_grid_thw": torch.tensor([[4, rows, columns]]),
        "video_merge_sizes": torch.tensor([2]),
        "video_compression_mask": mask.flatten(),
        "video_metadata": [SimpleNamespace(fps=1, timestamps=media.times)],
    }
    # `split` by tensors of counts, as the processor has it, wants whole numbers.
    inputs["video_compression_mask"].split = (
        None if False else inputs["video_compression_mask"].split
    )
    place = processor_of(family).replace_video_token(inputs, 0)
    prompt = family.prompt(QUESTION, prepared)
    assert prompt.ids.tolist() == ids_of(prompt_text(media, [place]))
    text = family.tokenizer.decode(prompt.ids).replace(" ", "")
    assert "Time0.0s:<|video_pad|>" in text and ",Time4.5s:<|video_pad|>" in text
    assert [int(n) == 1 for n in counts] == [i in still for i in range(4)]


@pytest.mark.parametrize("seed", range(3))
def test_tokens_that_repeat_the_frame_before_are_none(family, video_processor, seed):
    media = film(n=5, width=84, height=84, seed=seed)
    generator = np.random.default_rng(seed)
    frames = [np.asarray(frame).copy() for frame in media.pictures]
    for before, frame in itertools.pairwise(frames):
        for row, column in np.argwhere(generator.random((3, 3)) < 0.6):  # cells that stand still
            cell = np.s_[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
            frame[cell] = before[cell]
    media = Media([Image.fromarray(frame) for frame in frames], media.times)
    prepared = family.prepare(media)
    _, rows, columns = prepared.grids[0].tolist()
    mask = video_processor._get_compression_mask(
        None, prepared.pixels, torch.tensor([[5, rows, columns]]), torch.tensor([2])
    )
    own = torch.zeros(5, rows * columns // 4, dtype=torch.bool)
    own[prepared.unit, prepared.patch] = True
    assert torch.equal(own.flatten(), mask)
    assert 5 <= len(prepared.layout) < mask.numel()


def test_thinning_can_be_off(family, monkeypatch):
    monkeypatch.setattr(family, "thins", False)
    prepared = family.prepare(film(still=(1, 2, 3)))
    assert len(prepared.layout.image.bincount().unique()) == 1


def test_frames_are_cut_as_by_the_video_processor(family, video_processor):
    """On frames that need no scaling, which torchvision would do a little differently."""
    media = film(n=3, width=84, height=56)
    frames = np.stack([np.asarray(frame) for frame in media.pictures]).transpose(0, 3, 1, 2)
    settings = family.image_processor
    mean, std = (np.array(x)[:, None, None] for x in (settings.image_mean, settings.image_std))
    video = torch.tensor((frames / 255 - mean) / std, dtype=torch.float32)[None]
    patches, *grid = video_processor.patchify(None, video, 14, 2, 1)
    prepared = family.prepare(media)
    assert grid == [3, *prepared.grids[0, 1:].tolist()]
    torch.testing.assert_close(prepared.pixels, patches[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("n", [1, 2, 6])
def test_the_frames_share_the_pixels_of_a_video(family, n):
    prepared = family.prepare(film(n, width=300, height=200))
    pixels = prepared.grids.prod(1) * 14**2
    limits = VIDEO_3["size"]
    assert int(pixels.sum()) <= limits["longest_edge"]
    assert (prepared.grids[:, 1:] % 2 == 0).all()


@torch.no_grad()
@pytest.mark.parametrize("still", [(), (1, 3)])
def test_a_video_is_answered_as_by_generate(family, lvlm, still):
    media = film(still=still)
    prepared = family.prepare(media)
    _, rows, columns = prepared.grids[0].tolist()
    mask = torch.zeros(4, rows * columns // 4, dtype=torch.bool)
    mask[prepared.unit, prepared.patch] = True
    prompt = family.prompt(QUESTION, prepared)
    generated = make_model_3().generate(
        input_ids=prompt.ids[None],
        attention_mask=torch.ones(1, len(prompt.ids)),
        pixel_values_videos=prepared.pixels.double(),
        video_grid_thw=torch.tensor([[4, rows, columns]]),
        video_merge_sizes=torch.tensor([2]),
        video_compression_mask=mask.flatten(),
        max_new_tokens=5,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    clip = libra.video.Clip(media.pictures, media.times, 6.0, "noise")
    trace = lvlm.answer(video=clip, question=QUESTION, method="vanilla", max_new_tokens=5).trace
    assert trace.words
    for word, logits in zip(trace.words, generated.logits, strict=False):
        expected = logits[0].softmax(-1).topk(5).values.tolist()
        assert [p for _, p in word.top] == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_pictures_are_answered_as_by_generate(family, lvlm):
    pictures = [make_image(0, 150, 100), make_image(1, 60, 90)]
    prepared = family.prepare(Media(pictures))
    prompt = family.prompt(QUESTION, prepared)
    generated = make_model_3().generate(
        input_ids=prompt.ids[None],
        attention_mask=torch.ones(1, len(prompt.ids)),
        pixel_values=prepared.pixels.double(),
        image_grid_thw=prepared.grids,
        image_merge_sizes=torch.tensor([1, 1]),
        max_new_tokens=5,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    trace = lvlm.answer(
        images=pictures, question=QUESTION, method="vanilla", max_new_tokens=5
    ).trace
    assert trace.words
    for word, logits in zip(trace.words, generated.logits, strict=False):
        expected = logits[0].softmax(-1).topk(5).values.tolist()
        assert [p for _, p in word.top] == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_the_encoders_attention_is_that_of_its_last_layer(family):
    """Received by each patch, against the matrices of eager attention."""
    media = film()
    prepared = family.prepare(media)
    features = family.encode(prepared)
    tower = make_model_3("eager").model.vision_model
    out = tower(
        prepared.pixels.double(),
        grid_thw=prepared.grids,
        merge_sizes=torch.full((4,), 2),
        output_attentions=True,
    )
    weights = out.attentions[-1]  # of the frames one after the other
    received = [x[0].mean((0, 1)).float() for x in weights]
    got = [family.encoder_attention(-1, x).received() for x in features.inputs[-1]]
    for a, b in zip(got, received, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    packed = family.pack([row[:, None] for row in got], prepared)
    expected = torch.cat([row.view(-1, 4).mean(1) for row in received])
    torch.testing.assert_close(packed[:, 0], expected)


@torch.no_grad()
@pytest.mark.parametrize("still", [(), (1, 3)])
def test_full_tracing_knows_what_patches_receive_inside_the_encoder(lvlm, family, still):
    """Of the tokens that there are, in spread layers, against the matrices of eager attention."""
    media = film(still=still)
    clip = Clip(media.pictures, media.times, 6.0, "film")
    trace = lvlm.answer(video=clip, question=QUESTION, method="fastv", tracing="full").trace
    prepared = family.prepare(media)
    weights = (
        make_model_3("eager")
        .model.vision_model(
            prepared.pixels.double(),
            grid_thw=prepared.grids,
            merge_sizes=torch.full((4,), 2),
            output_attentions=True,
        )
        .attentions
    )  # of the frames one after the other, layer by layer
    n_layers = len(family.encoder_layers)
    assert tuple(trace.detail.encoder) == spread_layers(n_layers)
    frames = [weights[i * n_layers : (i + 1) * n_layers] for i in range(4)]
    if len(weights) == n_layers:
        frames = [[layer[i] for layer in weights] for i in range(4)]
    for layer, row in trace.detail.encoder.items():
        received = [x[layer].reshape(-1, *x[layer].shape[-2:]).mean((0, 1)) for x in frames]
        tokens = torch.stack([x.view(-1, 4).mean(1) for x in received])
        expected = tokens[prepared.unit, prepared.patch].float()
        torch.testing.assert_close(row, expected, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_patches_merged_inside_the_encoder_receive_nothing_afterwards(lvlm):
    request = {"video": make_clip(), "question": QUESTION, "max_new_tokens": 2}
    settings = {"encoder_layers": (0, 1), "tracing": "full"}
    trace = lvlm.answer(**request, method="illava", **settings).trace
    encoder = [event for event in trace.events if event.site == "encoder"]
    for layer, row in trace.detail.encoder.items():
        done = sum(event.layer < layer for event in encoder)
        standing = torch.zeros(len(trace.layout), dtype=torch.bool)
        standing[trace.lineage(done).slot] = True
        assert torch.equal(~row.isnan(), standing), layer
    received = encoder[0].reduction.evidence["importance"]
    torch.testing.assert_close(trace.detail.encoder[0], received.float(), atol=1e-6, rtol=1e-4)


ENCODER = {
    "tome": create("tome", ratio=0.25),
    "illava": create("illava", ratio=0.4),
    "illava, as in the paper": create("illava", ratio=0.4, follow="paper"),
}


@torch.no_grad()
@pytest.mark.parametrize("case", ENCODER)
@pytest.mark.parametrize("still", [None, (), (1,)])  # a picture, or a video
def test_methods_inside_the_encoder_equal_recomputation(family, case, still):
    """Unit by unit from the weights, in eager arithmetic; what stands still is merged with none."""
    method, chosen = ENCODER[case], (1, 2)
    media = Media([make_image(0, 150, 100)]) if still is None else film(2, still, 84, 56)
    prepared = family.prepare(media, pooled=False)
    assert prepared.merge == 1
    compression = Compression(method, prepared, encoder_layers=chosen)
    features = compression.encode(family)
    tower = make_model_3("eager").model.vision_model
    for unit, pixels in enumerate(prepared.pixels.double().split(prepared.grids.prod(1).tolist())):
        own = prepared.patch[prepared.unit == unit].tolist()
        rest = [i for i in range(len(pixels)) if i not in own]
        rows, columns = prepared.grids[unit, 1:].tolist()
        place = torch.tensor([[i, j] for i in range(rows) for j in range(columns)])
        order, n_front = rest + own, len(rest)
        x = tower.embeddings(pixels)[order]
        size = torch.ones(len(own))
        for i, layer in enumerate(tower.encoder.layers):
            cos, sin = tower.rotary_pos_emb(x, place[order])
            q, k, v = (
                getattr(layer.self_attn, f"{name}_proj")(layer.layer_norm1(x)).unflatten(-1, (4, 8))
                for name in "qkv"
            )
            q, k = (turned(y, cos, sin).transpose(0, 1) for y in (q, k))
            attention = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1)
            x = x + layer.self_attn.out_proj(
                (attention @ v.transpose(0, 1)).transpose(0, 1).flatten(1)
            )
            if i in chosen:
                received = attention.mean((0, 1))[n_front:].float()
                step = method.encoder_step(len(x) - n_front, len(own), len(chosen))
                reduction = step.reduce(
                    Tokens(
                        x[n_front:],
                        importance=received,
                        received=received,
                        keys=k.mean(0)[n_front:],
                        size=size,
                    )
                )
                matrix = reduction.dense().double()
                size = (matrix != 0).float() @ size
                x = torch.cat([x[:n_front], matrix @ x[n_front:]])
                order = rest + [order[n_front:][slot] for slot in reduction.slot.tolist()]
            x = x + layer.mlp(layer.layer_norm2(x))
        x = tower.post_layernorm(x)
        torch.testing.assert_close(features.hidden[unit], x[n_front:], atol=1e-5, rtol=0)
        assert len(features.hidden[unit]) < len(own) or len(own) == 1


def turned(x, cos, sin):
    """[T, H, d] with each pair of halves turned by its angle."""
    a, b = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat([-b, a], -1) * sin[:, None]


@pytest.mark.parametrize("name", ["tome", "illava"])
def test_an_answer_with_a_method_inside_the_encoder(lvlm, name):
    """A video: from its patches, which the model would have pooled four to one."""
    trace = lvlm.answer(video=make_clip(), question=QUESTION, method=name, max_new_tokens=2).trace
    assert trace.layout.image.bincount().tolist() == [24] * 4  # 6 tokens of 4 patches
    assert trace.counts[0] < 96 and trace.stages[1].startswith("encoder layer")
    plain = lvlm.answer(video=make_clip(), question=QUESTION, method="vanilla", max_new_tokens=2)
    assert trace.cost.vanilla_flops == plain.trace.cost.flops


@torch.no_grad()
@pytest.mark.parametrize(
    ("video", "cell"), [(True, (2, 1, 2)), (True, (0, 0, 0)), (False, (1, 3, 0))]
)
def test_one_bright_patch_lands_where_it_is(family, video, cell):
    side = CELL if video else 14
    image, row, column = cell
    sizes = [(3, 2)] * 3 if video else [(4, 5), (3, 6)]
    dark = [Image.new("RGB", (w * side, h * side), (40 * i,) * 3) for i, (w, h) in enumerate(sizes)]
    light = [picture.copy() for picture in dark]
    light[image].paste("white", (column * side, row * side, (column + 1) * side, (row + 1) * side))
    times = [0.0, 1.0, 2.0] if video else None
    prepared, other = (family.prepare(Media(pictures, times)) for pictures in (light, dark))
    bright, plain = (family.connect(family.tokens(family.encode(p), p)) for p in (prepared, other))
    found = prepared.layout.select((bright - plain).norm(dim=1).argmax()[None])
    assert (int(found.image), int(found.row), int(found.column)) == cell
    assert int(found.frame) == (image if video else 0)
    width, height = sizes[image]
    expected = [column / width, row / height, (column + 1) / width, (row + 1) / height]
    assert found.box[0].tolist() == pytest.approx(expected)


def test_a_folder_loads_and_answers(tmp_path):
    folder = save_3(tmp_path)
    assert len(list(folder.glob("*.safetensors"))) > 1
    with libra.load(str(folder)) as loaded, make_lvlm_3(dtype=torch.float32) as other:
        plain = other.family.model
        plain.load_state_dict({name: x.half() for name, x in plain.state_dict().items()})
        for media in ({"video": make_clip()}, {"images": [make_image()]}):
            request = {"question": QUESTION, "max_new_tokens": 5, "method": "libra", **media}
            a, b = loaded.answer(**request).trace, other.answer(**request).trace
            assert [w.probability for w in a.words] == [w.probability for w in b.words]
            assert a.counts == b.counts and a.words
        assert loaded.card["family"] == "videollama3"


def test_older_spellings_of_the_videos_limits_are_known(tmp_path):
    folder = save_3(tmp_path)
    size = VIDEO_3["size"]
    older = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    settings = {"merge_size": 2, "use_token_compression": False, **older}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(settings))
    with libra.load(str(folder)) as loaded, make_lvlm_3() as other:
        media = film(3, width=300, height=200)
        grids = [lvlm.family.prepare(media).grids for lvlm in (loaded, other)]
        assert torch.equal(*grids)
        assert not loaded.family.thins
