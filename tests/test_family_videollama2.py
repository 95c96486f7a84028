"""VideoLLaMA 2: its connector, its layout, its prompt and its published folders."""

import json
from itertools import product

import pytest
import torch
from micro_videollama import (
    KINDS,
    N_ENCODER_LAYERS,
    N_FRAMES,
    QUESTION,
    SIDE,
    SLOTS,
    make_clip,
    make_lvlm,
    make_model,
    make_tokenizer,
    save,
)
from safetensors.torch import load_file, save_file

import libra
from libra import InputError
from libra.media import Media
from libra.models.videollama2 import SYSTEM
from libra.models.videollama2_model import PADDING, STCConnector
from libra.video import Clip
from tests import clips


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def lvlm(kind):
    with make_lvlm(kind) as model:
        yield model


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return save(kind, tmp_path_factory.mktemp(f"videollama2-{kind}"))


def video(n=N_FRAMES, width=80, height=60):
    clip = make_clip(n, width, height)
    return Media(clip.frames, clip.times)


def connector(padding, n_in=6, n_out=8):
    """One with random weights in float64, its norms included."""
    torch.manual_seed(0)
    module = STCConnector(n_in, n_out, padding).double().eval()
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn_like(weight) / weight[0].numel() ** 0.5)
    return module


# ---- the connector, in plain loops ----


def norm(x, weight, bias):
    """Layer norm of one vector."""
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * weight + bias


def silu(x):
    return x / (1 + torch.exp(-x))


def block_in_loops(w, prefix, x):
    """A block of RegNet Y over [C, H, W], written from the paper's figure."""

    def layer(name, y):
        mixed = torch.einsum("oc,chw->ohw", w[f"{prefix}.{name}.conv.weight"][:, :, 0, 0], y)
        return normed(name, mixed)

    def normed(name, y):
        weight, bias = (w[f"{prefix}.{name}.bn.{part}"] for part in ("weight", "bias"))
        out = torch.empty_like(y)
        for i, j in product(range(y.shape[1]), range(y.shape[2])):
            out[:, i, j] = norm(y[:, i, j], weight, bias)
        return out

    y = silu(layer("conv1", x))
    kernel, spread = w[f"{prefix}.conv2.conv.weight"], torch.zeros_like(y)
    for c, i, j in product(*map(range, y.shape)):  # each channel by itself, zeros around
        for di, dj in product(range(3), range(3)):
            row, column = i + di - 1, j + dj - 1
            if 0 <= row < y.shape[1] and 0 <= column < y.shape[2]:
                spread[c, i, j] += kernel[c, 0, di, dj] * y[c, row, column]
    y = silu(normed("conv2", spread))
    mean = y.flatten(1).mean(1)
    inner, outer = (
        (w[f"{prefix}.se.{fc}.weight"][:, :, 0, 0], w[f"{prefix}.se.{fc}.bias"])
        for fc in ("fc1", "fc2")
    )
    squeezed = silu(inner[0] @ mean + inner[1])
    gate = 1 / (1 + torch.exp(-(outer[0] @ squeezed + outer[1])))
    y = layer("conv3", y * gate[:, None, None])
    shortcut = layer("downsample", x) if f"{prefix}.downsample.conv.weight" in w else x
    return silu(y + shortcut)


def stage_in_loops(w, name, frames):
    for i in range(1, 5):
        frames = [block_in_loops(w, f"{name}.b{i}", frame) for frame in frames]
    return torch.stack(frames)


def connector_in_loops(w, features, padding):
    """[T, H, W, D] -> tokens after the MLP [t, h, w, d]."""
    frames = stage_in_loops(w, "s1", features.permute(0, 3, 1, 2))
    kernel, bias = w["sampler.0.weight"], w["sampler.0.bias"]
    size = [frames.shape[i] for i in (0, 2, 3)]
    halved = [(n + 2 * padding) // 2 for n in size]
    slots = torch.zeros(halved[0], len(bias), *halved[1:], dtype=frames.dtype)
    for t, i, j in product(*map(range, halved)):
        slots[t, :, i, j] = bias
        for offset in product(range(2), repeat=3):
            t_, i_, j_ = (2 * a + b - padding for a, b in zip((t, i, j), offset, strict=True))
            if all(0 <= a < n for a, n in zip((t_, i_, j_), size, strict=True)):
                slots[t, :, i, j] += kernel[(..., *offset)] @ frames[t_, :, i_, j_]
    slots = stage_in_loops(w, "s2", silu(slots)).permute(0, 2, 3, 1)
    hidden = slots @ w["readout.0.weight"].T + w["readout.0.bias"]
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    return hidden @ w["readout.2.weight"].T + w["readout.2.bias"]


@torch.no_grad()
@pytest.mark.parametrize("padding", PADDING.values())
@pytest.mark.parametrize("shape", [(3, 4, 3), (2, 3, 5)])
def test_the_connector_equals_plain_loops(padding, shape):
    module = connector(padding)
    features = torch.randn(*shape, 6, dtype=torch.float64)
    mixed = module.mix(features)
    expected = connector_in_loops(module.state_dict(), features, padding)
    torch.testing.assert_close(module.readout(mixed), expected, atol=1e-9, rtol=1e-7)
    assert list(mixed.shape[:3]) == [len(module.cells(n)) for n in shape]


@torch.no_grad()
def test_a_frame_shown_several_times_is_a_clip_that_stands_still():
    module = connector(1)
    frame = torch.randn(1, 4, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(module.mix(frame, 5), module.mix(frame.repeat(5, 1, 1, 1)))


@pytest.mark.parametrize(
    ("type_", "frames", "side", "slots"),
    [
        ("stc_connector", 8, 24, (5, 13, 13)),  # VideoLLaMA2-7B
        ("stc_connector", 16, 24, (9, 13, 13)),  # VideoLLaMA2-7B-16F
        ("stc_connector_v35", 16, 27, (8, 13, 13)),  # VideoLLaMA2.1-7B-16F
        ("stc_connector", 32, 27, (17, 14, 14)),  # 3,332: Libra-Merging's FLOPs are of 3,331
    ],
)
def test_token_counts_of_the_published_geometries(type_, frames, side, slots):
    with torch.device("meta"):
        module = STCConnector(1152, 3584, PADDING[type_])
        mixed = module.mix(torch.empty(frames, side, side, 1152))
    assert tuple(mixed.shape) == (*slots, 3584)


def test_the_weights_are_called_as_in_the_published_folders(kind):
    norms = [f"{name}.{part}" for name in ("conv1", "conv2", "conv3") for part in NORMED]
    block = [*norms, *(f"se.{fc}.{part}" for fc in ("fc1", "fc2") for part in ("weight", "bias"))]
    names = {
        f"{stage}.b{i}.{name}" for stage in ("s1", "s2") for i in range(1, 5) for name in block
    }
    names |= {f"s1.b1.downsample.{part}" for part in NORMED}
    names |= {"sampler.0.weight", "sampler.0.bias"}
    names |= {f"readout.{i}.{part}" for i in (0, 2) for part in ("weight", "bias")}
    state = make_model(kind).state_dict()
    assert {n.removeprefix("model.mm_projector.") for n in state if "mm_projector" in n} == names


NORMED = ("conv.weight", "bn.weight", "bn.bias")


# ---- layout ----


@torch.no_grad()
def test_one_bright_patch_reaches_the_tokens_that_lie_over_it(lvlm, kind):
    """Through the halving convolution alone; the blocks around it would spread it further."""
    prepared = lvlm.family.prepare(video())
    sampler = lvlm.family.connector.sampler
    side = SIDE[kind] // 14
    dark = torch.zeros(64, N_FRAMES, side, side, dtype=torch.float64)
    layout, patch = prepared.layout, 1 / side
    x0, y0, x1, y1 = uncropped(layout.box, kind).T
    reached = set()
    for t, i, j in product(range(N_FRAMES), range(side), range(side)):
        bright = dark.clone()
        bright[:, t, i, j] = 1
        lit = (sampler(bright) - sampler(dark)).abs().sum(0).flatten() > 0  # [N]
        x, y = (j + 0.5) * patch, (i + 0.5) * patch
        here = (x0 < x) & (x < x1) & (y0 < y) & (y < y1)
        padding = sampler[0].padding[0]
        here &= layout.frame == (t + padding) // 2
        assert torch.equal(lit, here)
        reached |= set(lit.nonzero().flatten().tolist())
    assert reached == set(range(len(layout)))  # no token lies over nothing


def uncropped(box, kind):
    """Boxes as fractions of what the tower sees: of a picture 80 x 60, CLIP's the middle square."""
    if kind == "qwen2":
        return box
    return torch.stack(
        [(box[:, 0] - 1 / 8) * 4 / 3, box[:, 1], (box[:, 2] - 1 / 8) * 4 / 3, box[:, 3]], 1
    )


def test_rows_columns_slots_and_times(lvlm, kind):
    prepared = lvlm.family.prepare(video())
    layout, slots = prepared.layout, SLOTS[kind]
    places = torch.stack([layout.frame, layout.row, layout.column], 1)
    assert places.tolist() == [list(place) for place in product(*map(range, slots))]
    assert torch.equal(layout.image, layout.frame)
    firsts = [0, 1, 3] if kind == "mistral" else [0, 2]  # the first frame that each slot takes in
    assert prepared.times == [make_clip().times[i] for i in firsts]
    for view, first in zip(prepared.views, firsts, strict=True):
        assert view is prepared.media.pictures[first] or view == prepared.media.pictures[first]


def test_a_picture_is_a_clip_that_stands_still(lvlm, kind):
    """As one frame, as a video of one frame, and as a video of that frame over and over."""
    frame = make_clip().frames[0]
    still = Media([frame])
    one = Media([frame], [0.0])
    many = Media([frame] * N_FRAMES, [0.0] * N_FRAMES)
    tokens = []
    with torch.no_grad():
        for media in (still, one, many):
            prepared = lvlm.family.prepare(media)
            tokens.append(lvlm.family.tokens(lvlm.family.encode(prepared), prepared))
            assert len(prepared.views) == SLOTS[kind][0]
            assert len(prepared.layout) == len(tokens[-1])
    torch.testing.assert_close(tokens[0], tokens[1])
    torch.testing.assert_close(tokens[0], tokens[2])
    assert lvlm.family.prepare(still).layout.frame.unique().tolist() == [0]


def test_too_many_pictures_are_refused(lvlm):
    with pytest.raises(InputError, match=r"slots of time.*fewer pictures"):
        lvlm.family.prepare(Media(make_clip(40, 20, 20).frames))


# ---- the encoder ----


@torch.no_grad()
def test_tokens_equal_recomputation_from_the_tower(lvlm, kind):
    media = video()
    prepared = lvlm.family.prepare(media)
    model = make_model(kind)
    pixels = lvlm.family.image_processor(media.pictures, return_tensors="pt").pixel_values
    states = model.model.vision_tower(pixels.double(), output_hidden_states=True).hidden_states
    features = states[-2][:, 1:] if kind == "mistral" else states[-2]
    side = SIDE[kind] // 14
    mixed = model.model.mm_projector.mix(features.unflatten(1, (side, side)))
    tokens = lvlm.family.tokens(lvlm.family.encode(prepared), prepared)
    torch.testing.assert_close(tokens, mixed.flatten(0, 2), atol=1e-9, rtol=1e-7)
    assert lvlm.family.last_encoder_layer == N_ENCODER_LAYERS - 2


@torch.no_grad()
def test_what_is_known_of_patches_is_averaged_over_those_behind_a_token(lvlm, kind):
    media, side = video(), SIDE[kind] // 14
    prepared = lvlm.family.prepare(media)
    facts = torch.rand(N_FRAMES, side * side, 2)
    padding, expected = int(kind == "mistral"), []
    for t, i, j in product(*map(range, SLOTS[kind])):
        spans = [
            [x for x in (2 * a - padding, 2 * a + 1 - padding) if 0 <= x < n]
            for a, n in zip((t, i, j), (N_FRAMES, side, side), strict=True)
        ]
        behind = [facts[t_, i_ * side + j_] for t_, i_, j_ in product(*spans)]
        expected.append(torch.stack(behind).mean(0))
    torch.testing.assert_close(lvlm.family.pack(list(facts), prepared), torch.stack(expected))


# ---- prompt ----


def test_the_prompt_is_the_published_one(lvlm, kind):
    media = video()
    prepared = lvlm.family.prepare(media)
    prompt = lvlm.family.prompt(QUESTION, prepared)
    tokenizer = make_tokenizer(kind)
    before, after = {
        "mistral": (f"<s>[INST] {SYSTEM}\n\n", f"\n{QUESTION} [/INST]"),
        "qwen2": ("user\n", f"\n{QUESTION}</s>\nassistant\n"),
    }[kind]
    before, after = (tokenizer(x, add_special_tokens=False).input_ids for x in (before, after))
    n = len(prepared.layout)
    assert prompt.ids.tolist() == before + [0] * n + after
    assert prompt.visual.tolist() == list(range(len(before), len(before) + n))
    assert len(prompt.special) == 0


def test_two_pictures_stand_one_after_the_other(lvlm):
    media = Media(make_clip(2).frames)
    prepared = lvlm.family.prepare(media)
    prompt = lvlm.family.prompt(QUESTION, prepared)
    assert len(prompt.visual) == len(prepared.layout) == len(prompt.visual.unique())
    assert [int(span.sum()) for span in prepared.spans] == [len(prompt.visual) // 2] * 2


def test_a_question_with_the_word_for_a_video_is_refused(lvlm):
    with pytest.raises(InputError, match="take the model's word"):
        lvlm.answer(video=make_clip(), question="what is <video> there")


# ---- folders ----


def test_a_folder_of_the_published_kind_loads_and_answers(folder, kind):
    request = {"video": make_clip(), "question": QUESTION, "max_new_tokens": 5}
    with libra.load(str(folder)) as lvlm, make_lvlm(kind, dtype=torch.float32) as other:
        plain = other.family.model
        plain.load_state_dict({name: x.half() for name, x in plain.state_dict().items()})
        loaded = lvlm.family.model.state_dict()
        assert plain.state_dict().keys() == loaded.keys()
        assert all(torch.equal(x, loaded[name]) for name, x in plain.state_dict().items())
        for method in ("vanilla", "libra"):
            a, b = lvlm.answer(**request, method=method), other.answer(**request, method=method)
            assert a.text == b.text
            assert [w.probability for w in a.trace.words] == [w.probability for w in b.trace.words]
        assert lvlm.card["family"] == "videollama2"
        config = lvlm.family.model.config
        assert config.num_frames == N_FRAMES and config.rope_parameters["rope_theta"] == 1e6


def test_a_video_is_looked_at_in_as_many_frames_as_in_training(lvlm, tmp_path):
    path = clips.write(tmp_path / "clip.mp4", [*map(clips.numbered, range(20))])
    assert len(lvlm.encode(video=path).hidden) == lvlm.family.frames == N_FRAMES != 8


def edited(folder, tmp_path, **changes):
    """A copy of the folder's files with changes in config.json; weights are linked."""
    for file in folder.iterdir():
        if file.name != "config.json":
            (tmp_path / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_projector_type": "mlp2x_gelu"}, r"mlp2x_gelu connector is not supported"),
        ({"mm_vision_tower": "./clip-vit-nowhere"}, r"vision tower .* cannot be fetched"),
    ],
)
def test_folders_that_cannot_be_loaded_say_why(folder, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        libra.load(edited(folder, tmp_path, **changes))


def test_a_folder_that_lacks_weights_says_which(folder, tmp_path):
    path = edited(folder, tmp_path)
    shard = tmp_path / "model-00001-of-00002.safetensors"
    state = load_file(shard)
    lost = next(name for name in state if "mm_projector" in name)
    state.pop(lost)
    shard.unlink()
    save_file(state, shard, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"lacks 1 weights, for example {lost}"):
        libra.load(path)


def test_the_answer_of_vanilla_is_that_of_generate(lvlm, kind):
    """transformers' own generate on the same embedded prompt, on a model without hooks."""
    media = video()
    family, model = lvlm.family, make_model(kind)
    prepared = family.prepare(media)
    with torch.no_grad():
        tokens = family.connect(family.tokens(family.encode(prepared), prepared))
        prompt = family.prompt(QUESTION, prepared)
        embedded = model.get_input_embeddings()(prompt.ids)
        embedded[prompt.visual] = tokens
        generated = model.generate(
            inputs_embeds=embedded[None],
            attention_mask=torch.ones(1, len(embedded)),
            max_new_tokens=5,
            do_sample=False,
        )
    expected = family.tokenizer.decode(generated[0], skip_special_tokens=True).strip()
    clip = Clip(media.pictures, media.times, 2.0, "noise")
    answer = lvlm.answer(video=clip, question=QUESTION, method="vanilla", max_new_tokens=5)
    assert answer.text == expected and answer.text


def test_a_tall_video_is_cropped_as_the_tower_sees_it(lvlm, kind):
    layout = lvlm.family.prepare(video(width=60, height=120)).layout
    top, bottom = float(layout.box[:, 1].min()), float(layout.box[:, 3].max())
    assert (top, bottom) == pytest.approx((0.25, 0.75) if kind == "mistral" else (0, 6 / 7))
