"""Micro random models of VideoLLaMA 2 and 3, in memory and as folders on disk."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3ImageProcessorPil,
)

from libra.lvlm import LVLM
from libra.models.videollama2 import VideoLlama2
from libra.models.videollama2_model import VideoLlama2Mistral, VideoLlama2Qwen2
from libra.models.videollama3 import VideoLlama3
from libra.video import Clip

N_LAYERS = 8
N_ENCODER_LAYERS = 4
N_FRAMES = 4
KINDS = ("mistral", "qwen2")  # VideoLLaMA 2 (over CLIP) and 2.1 (over SigLIP)
SIDE = {"mistral": 56, "qwen2": 98}  # 4 x 4 and 7 x 7 patches
SLOTS = {"mistral": (3, 3, 3), "qwen2": (2, 3, 3)}  # slots, rows, columns of a video's tokens
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
WORDS = "is there a cat dog in the video ? what how many left right yes no one two of".split()
WORDS += "[ ] INST /".split()
QUESTION = "is there a cat in the video ?"
TEMPLATES = {
    "mistral": (
        "<s>{% for message in messages %}{% if message['role'] == 'system' %}"
        "{% set system = message['content'] %}[INST] {{ system }}\n\n"
        "{% else %}{{ message['content'] }} [/INST]{% endif %}{% endfor %}"
    ),
    "qwen2": (
        "{% for message in messages %}{{ message['role'] }}\n{{ message['content'] }}</s>\n"
        "{% endfor %}{% if add_generation_prompt %}assistant\n{% endif %}"
    ),
}


def make_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A word-level tokenizer."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=TEMPLATES[kind],
    )


def make_image_processor(kind: str) -> CLIPImageProcessorPil | SiglipImageProcessorPil:
    """The tower's own."""
    side = SIDE[kind]
    square = {"height": side, "width": side}
    if kind == "qwen2":
        return SiglipImageProcessorPil(size=square)
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square)


def make_vision_config(kind: str) -> CLIPVisionConfig | SiglipVisionConfig:
    """A tower of four layers."""
    config_class = SiglipVisionConfig if kind == "qwen2" else CLIPVisionConfig
    return config_class(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=N_ENCODER_LAYERS,
        num_attention_heads=4,
        image_size=SIDE[kind],
        patch_size=14,
        initializer_range=0.1,
    )


def settings(kind: str) -> dict:
    """What config.json says in the published folders, but for the tower's place."""
    return {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rope_theta": 1e6,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "mm_hidden_size": 32,
        "mm_projector_type": "stc_connector_v35" if kind == "qwen2" else "stc_connector",
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "num_frames": N_FRAMES,
        "use_mm_proj": True,
    }


def make_model(
    kind: str, attention: str = "sdpa", dtype: torch.dtype = torch.float64, seed: int = 0
) -> VideoLlama2Mistral | VideoLlama2Qwen2:
    """Random weights, large enough that attention and answers differ between tokens."""
    torch.manual_seed(seed)
    model_class = VideoLlama2Qwen2 if kind == "qwen2" else VideoLlama2Mistral
    config = model_class.config_class(**settings(kind), vision_config=make_vision_config(kind))
    model = model_class._from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for name, weight in model.model.mm_projector.named_parameters():
            if ".bn." in name:  # otherwise ones and zeros: a wrong place would not show
                weight.add_(torch.randn_like(weight) / 4)
    model.generation_config.eos_token_id = 2
    return model.to(dtype).eval()


def make_lvlm(
    kind: str = "mistral", attention: str = "sdpa", dtype: torch.dtype = torch.float64
) -> LVLM:
    """The micro model behind the engine."""
    model = make_model(kind, attention, dtype)
    return LVLM(
        f"micro-{kind}", VideoLlama2(model, make_tokenizer(kind), make_image_processor(kind))
    )


def save(kind: str, folder: Path) -> Path:
    """A folder with the files and names of the published ones, in half precision; two shards."""
    model = make_model(kind, dtype=torch.float16)
    inner = "model.vision_tower.vision_tower.vision_model."
    state = {
        name.replace("model.vision_tower.", inner): weight.contiguous()
        for name, weight in model.state_dict().items()
    }
    names, index = sorted(state), {}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{i:05}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    tower = folder / "tower"
    make_vision_config(kind).save_pretrained(tower)
    make_image_processor(kind).save_pretrained(tower)
    make_tokenizer(kind).save_pretrained(folder)
    config = settings(kind) | {
        "architectures": [f"Videollama2{kind.title()}ForCausalLM"],
        "model_type": f"videollama2_{kind}",
        "mm_vision_tower": str(tower),
        "torch_dtype": "float16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def make_clip(n: int = N_FRAMES, width: int = 80, height: int = 60) -> Clip:
    """Frames of noise: every patch of every frame differs."""
    noise = np.random.default_rng(n).integers(0, 255, (n, height, width, 3), dtype=np.uint8)
    frames = [Image.fromarray(frame) for frame in noise]
    return Clip(frames, [i / 2 for i in range(n)], n / 2, "noise")


SPECIAL_3 = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<unk>",
]
WORDS_3 = [*WORDS, *"user assistant Time . s : , 0 1 2 3 4 5 6 7 8 9".split()]
TEMPLATE_3 = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}<|{{ part['type'] }}_pad|>\n{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VIDEO_3 = {"merge_size": 2, "size": {"shortest_edge": 4 * 28**2, "longest_edge": 48 * 28**2}}


def make_tokenizer_3() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with Qwen2's special tokens; digits stand alone."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_3, *WORDS_3])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation(),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        extra_special_tokens=[t for t in SPECIAL_3 if t.startswith("<|")],
        chat_template=TEMPLATE_3,
    )


def make_image_processor_3() -> VideoLlama3ImageProcessorPil:
    """VideoLLaMA 3's own, with 4 to 40 patches per picture."""
    return VideoLlama3ImageProcessorPil(
        size={"shortest_edge": 4 * 14**2, "longest_edge": 40 * 14**2}
    )


def make_model_3(
    attention: str = "sdpa", dtype: torch.dtype = torch.float64, seed: int = 0
) -> VideoLlama3ForConditionalGeneration:
    """Random weights, large enough that attention and answers differ between tokens."""
    torch.manual_seed(seed)
    config = VideoLlama3Config(
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(SPECIAL_3) + len(WORDS_3),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": N_LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.3,
            "pad_token_id": 0,
            "eos_token_id": SPECIAL_3.index("<|im_end|>"),
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": N_ENCODER_LAYERS,
            "num_attention_heads": 4,
            "patch_size": 14,
            "initializer_range": 0.15,
        },
        image_token_id=SPECIAL_3.index("<|image_pad|>"),
        video_token_id=SPECIAL_3.index("<|video_pad|>"),
    )
    config._attn_implementation = attention
    model = VideoLlama3ForConditionalGeneration(config)
    model.generation_config.eos_token_id = SPECIAL_3.index("<|im_end|>")
    return model.to(dtype).eval()


def make_lvlm_3(attention: str = "sdpa", dtype: torch.dtype = torch.float64) -> LVLM:
    """The micro model behind the engine."""
    family = VideoLlama3(
        make_model_3(attention, dtype),
        make_tokenizer_3(),
        make_image_processor_3(),
        VideoLlama3ImageProcessorPil(**VIDEO_3),
    )
    return LVLM("micro-videollama3", family)


def save_3(folder: Path) -> Path:
    """The model as the hub would have it: several shards in half precision, processors beside."""
    make_model_3(dtype=torch.float16).save_pretrained(folder, max_shard_size="200KB")
    make_tokenizer_3().save_pretrained(folder)
    make_image_processor_3().save_pretrained(folder)
    (folder / "video_preprocessor_config.json").write_text(json.dumps(VIDEO_3))
    return folder
