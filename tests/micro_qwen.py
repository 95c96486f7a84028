"""Micro random models of the Qwen-VL families, in memory and as folders on disk."""

import json
from pathlib import Path

import torch
from conftest import make_image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.image_utils import SizeDict

from libra.media import Media
from libra.models.qwen2_5_vl import Qwen25VL
from libra.models.qwen2_vl import Qwen2VL
from libra.models.qwen3_vl import Qwen3VL

N_LAYERS = 8
N_ENCODER_LAYERS = 5
PATCH = {"qwen2_vl": 14, "qwen2_5_vl": 14, "qwen3_vl": 16}
SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<unk>",
]
IMAGE_ID, VIDEO_ID = SPECIAL.index("<|image_pad|>"), SPECIAL.index("<|video_pad|>")
WORDS = (
    "system user assistant you are a helpful . < > seconds 0 1 2 3 4 5 6 7 8 9 "
    "is there cat dog in the image video ? what how many left right yes no one two of"
).split()
QUESTION = "is there a cat in the image ?"
# What the published templates make of one user message, system prompt included (Qwen3 has none).
TEMPLATE = (
    "{system}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}<|vision_start|><|{{ part['type'] }}_pad|><|vision_end|>{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = "<|im_start|>system\nyou are a helpful assistant .<|im_end|>\n"
CLASSES = {
    "qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration),
    "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration),
    "qwen3_vl": (Qwen3VLConfig, Qwen3VLForConditionalGeneration),
}
FAMILIES = {"qwen2_vl": Qwen2VL, "qwen2_5_vl": Qwen25VL, "qwen3_vl": Qwen3VL}
VISION = {
    "qwen2_vl": {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2},
    "qwen2_5_vl": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "window_size": 56,  # two by two visual tokens
        "fullatt_block_indexes": [2, 4],
        "tokens_per_second": 2,
    },
    "qwen3_vl": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "deepstack_visual_indexes": [0, 2, 3],
        "num_position_embeddings": 64,
    },
}


def make_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A word-level tokenizer with Qwen's special tokens; digits stand alone, as in Qwen's own."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    system = "" if family == "qwen3_vl" else SYSTEM
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        extra_special_tokens=[t for t in SPECIAL if t.startswith("<|")],
        chat_template=TEMPLATE.replace("{system}", system),
    )


def make_image_processor(family: str) -> Qwen2VLImageProcessorPil:
    """Qwen's own, with 4 to 24 visual tokens per picture."""
    side = 2 * PATCH[family]
    return Qwen2VLImageProcessorPil(
        size={"shortest_edge": 4 * side**2, "longest_edge": 24 * side**2},
        patch_size=PATCH[family],
        **({"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if family == "qwen3_vl" else {}),
    )


def make_video_size(family: str) -> dict[str, int]:
    """Limits of a frame's pixels; Qwen3-VL means those of the whole video."""
    side, frames = 2 * PATCH[family], 8 if family == "qwen3_vl" else 1
    return {"shortest_edge": 2 * frames * side**2, "longest_edge": 12 * frames * side**2}


def make_model(
    family: str, attention: str = "sdpa", dtype: torch.dtype = torch.float64, seed: int = 0
) -> torch.nn.Module:
    """Random weights, large enough that attention and answers differ between tokens."""
    torch.manual_seed(seed)
    config_class, model_class = CLASSES[family]
    config = config_class(
        text_config={
            "vocab_size": len(SPECIAL) + len(WORDS),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": N_LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 512,
            "initializer_range": 0.3,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 3, 3],
                **({"mrope_interleaved": True} if family == "qwen3_vl" else {}),
            },
            "pad_token_id": 0,
            "bos_token_id": 0,
            "eos_token_id": SPECIAL.index("<|im_end|>"),
        },
        vision_config={
            "depth": N_ENCODER_LAYERS,
            "num_heads": 2,
            "patch_size": PATCH[family],
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "initializer_range": 0.15,
            **VISION[family],
        },
        image_token_id=IMAGE_ID,
        video_token_id=VIDEO_ID,
        vision_start_token_id=SPECIAL.index("<|vision_start|>"),
        vision_end_token_id=SPECIAL.index("<|vision_end|>"),
    )
    config._attn_implementation = attention
    model = model_class(config)
    model.generation_config.eos_token_id = SPECIAL.index("<|im_end|>")
    return model.to(dtype).eval()


def make_family(
    family: str, attention: str = "sdpa", dtype: torch.dtype = torch.float64
) -> Qwen2VL | Qwen25VL | Qwen3VL:
    """The micro model as the engine sees it."""
    size = SizeDict(**make_video_size(family))
    model, tokenizer = make_model(family, attention, dtype), make_tokenizer(family)
    return FAMILIES[family](model, tokenizer, make_image_processor(family), size)


def save(family: str, folder: Path) -> Path:
    """The model as the hub would have it: several shards in half precision, processors beside."""
    make_model(family, dtype=torch.float16).save_pretrained(folder, max_shard_size="200KB")
    make_tokenizer(family).save_pretrained(folder)
    make_image_processor(family).save_pretrained(folder)
    settings = make_image_processor(family).to_dict() | {"size": make_video_size(family)}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(settings, default=list))
    return folder


def make_film(n=5, width=120, height=80, seconds=0.5):
    """Frames that differ, `seconds` apart."""
    return Media([make_image(i, width, height) for i in range(n)], [i * seconds for i in range(n)])


def mrope_by_hand(ids, grids, visual_id, apart=None):
    """[3, S] M-RoPE by its equations: a text token steps on, a picture spans its longer side."""
    now, positions, grids, i = 0, [], [list(g) for g in grids], 0
    ids = ids.tolist()
    while i < len(ids):
        if ids[i] != visual_id:
            positions.append((now, now, now))
            now, i = now + 1, i + 1
            continue
        t, rows, columns = grids.pop(0)
        for slot in range(t):
            for row in range(rows):
                for column in range(columns):
                    time = int(slot * (apart or 1))
                    positions.append((now + time, now + row, now + column))
        now, i = now + max(rows, columns), i + t * rows * columns
    assert not grids
    return torch.tensor(positions).T
