"""Micro random models of the families after LLaVA-1.5, in memory and as folders on disk."""

import json
from dataclasses import fields

import torch
from conftest import (
    IMAGE_SIZE,
    N_ENCODER_LAYERS,
    N_LAYERS,
    PATCH,
    SPECIAL,
    WORDS,
    make_image,
    make_tokenizer,
)
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    Qwen2Config,
    SiglipVisionConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VideoLlavaImageProcessor,
)

from libra.lvlm import LVLM
from libra.models.llava_next import LlavaNext
from libra.models.llava_next_video import LlavaNextVideo
from libra.models.llava_onevision import LlavaOnevision
from libra.models.video_llava import VideoLlava
from libra.video import Clip

SIDE = {"llava-onevision": 70}  # 5 x 5 patches, as 27 x 27 an odd number; the others 4 x 4
FAMILIES = {
    "llava-next": LlavaNext,
    "llava-onevision": LlavaOnevision,
    "llava-next-video": LlavaNextVideo,
    "video-llava": VideoLlava,
}
CLASSES = {
    "llava-next": (LlavaNextConfig, LlavaNextForConditionalGeneration),
    "llava-onevision": (LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration),
    "llava-next-video": (LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration),
    "video-llava": (VideoLlavaConfig, VideoLlavaForConditionalGeneration),
}
VIDEO_FAMILIES = ("llava-onevision", "llava-next-video", "video-llava")
TEMPLATE = (
    "<s>{% for message in messages %}<user>{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<{{ part['type'] }}>{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
VIDEO = len(SPECIAL) + len(WORDS)  # id of the placeholder of a video


def side_of(name):
    """Pixels of a unit's side."""
    return SIDE.get(name, IMAGE_SIZE)


def tokenizer_of(name):
    """The word-level tokenizer, with a place for videos."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<video>"]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def model_of(name, attention="sdpa", dtype=torch.float64, side=None):
    """Random weights, large enough that attention and answers differ between tokens."""
    torch.manual_seed(0)
    side = side or side_of(name)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": N_ENCODER_LAYERS,
        "num_attention_heads": 4,
        "image_size": side,
        "patch_size": PATCH,
    }
    text = {
        "vocab_size": VIDEO + 1,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    config_class, model_class = CLASSES[name]
    sigmoid = name == "llava-onevision"
    settings = {
        "vision_config": SiglipVisionConfig(**vision) if sigmoid else CLIPVisionConfig(**vision),
        "text_config": Qwen2Config(**text) if sigmoid else LlamaConfig(**text),
        "image_token_index": SPECIAL.index("<image>"),
        "video_token_index": VIDEO,
        "image_grid_pinpoints": tiles_of(name),
        "vision_aspect_ratio": "anyres_max_4",
        "attn_implementation": attention,
    }
    known = {f.name for f in fields(config_class)} | {"attn_implementation"}
    model = model_class(config_class(**{k: v for k, v in settings.items() if k in known}))
    for parameter in model.parameters():  # SigLIP's initialisation knows no range
        if parameter.ndim > 1 and parameter.std() < 0.05:
            torch.nn.init.normal_(parameter, std=0.1)
    model.generation_config.eos_token_id = 2
    return model.to(dtype).eval()


def processors_of(name):
    """Of pictures and, where there are any, of frames."""
    side = side_of(name)
    square = {"height": side, "width": side}
    cropped = {"size": {"shortest_edge": side}, "crop_size": square}
    tiles = tiles_of(name)
    frames = CLIPImageProcessorPil(**cropped)
    match name:
        case "llava-next":
            return (LlavaNextImageProcessorPil(**cropped, image_grid_pinpoints=tiles),)
        case "llava-next-video":
            return LlavaNextImageProcessorPil(**cropped, image_grid_pinpoints=tiles), frames
        case "llava-onevision":
            stills = LlavaOnevisionImageProcessorPil(size=square, image_grid_pinpoints=tiles)
            return stills, CLIPImageProcessorPil(size=square, do_center_crop=False)
        case "video-llava":
            return VideoLlavaImageProcessor(**cropped), frames


def tiles_of(name):
    """The resolutions that a picture may be scaled to."""
    side = side_of(name)
    tiles = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side], [side, 3 * side]]
    return [*tiles, [3 * side, 4 * side]] if name == "llava-onevision" else tiles


def lvlm_of(name, attention="sdpa", dtype=torch.float64):
    """The micro model behind the engine."""
    model = model_of(name, attention, dtype)
    family = FAMILIES[name](model, tokenizer_of(name), *processors_of(name))
    return LVLM(f"micro-{name}", family)


def clip_of(n=3, width=80, height=60):
    """A video of noise: every frame and patch differs."""
    frames = [make_image(i, width, height) for i in range(n)]
    return Clip(frames, [0.5 * i for i in range(n)], 0.5 * n, "noise.mp4")


def save(name, folder):
    """Save the micro model as the hub would have it: in half precision and in several files."""
    model_of(name, dtype=torch.float16).save_pretrained(folder, max_shard_size="100KB")
    tokenizer = tokenizer_of(name)
    template, tokenizer.chat_template = tokenizer.chat_template, None
    tokenizer.save_pretrained(folder)
    own = json.loads((folder / "tokenizer_config.json").read_text())
    own["chat_template"] = "{{ messages[0]['content'] | trim }}"  # the language model's, of text
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    stills, *frames = processors_of(name)
    stills.save_pretrained(folder)
    for processor in frames:
        settings = json.dumps(processor.to_dict(), default=str)
        (folder / "video_preprocessor_config.json").write_text(settings)
    return folder
