"""Models of published sizes with random weights, and inputs of a given number of visual tokens.

They run through the engine like any model: what is measured is the way of a real answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlavaConfig,
    Qwen2VLConfig,
    Qwen2VLImageProcessorPil,
)

from libra.architecture import ARCHITECTURES, Architecture, Stack
from libra.devices import runs_ahead
from libra.errors import InputError
from libra.lvlm import LVLM
from libra.media import Media
from libra.models import ASSETS
from libra.models.fused import fuse_norms
from libra.models.llava import Llava
from libra.models.prepared import Prepared
from libra.models.qwen2_vl import Qwen2VL

POSITIONS = 2**15  # as many as any of the prompts has
IMAGE = 4  # the picture's placeholder in the embedded model's tokenizer, which all models here use
FOREVER = 10**9  # an end of the answer that never comes
QUESTION = "is there a cat in the image to the left of the dog and what color is it " * 2


@dataclass(frozen=True)
class Scale:
    """How much smaller than published: divisors of widths (and heads) and of depths."""

    width: int = 1
    depth: int = 1

    def __str__(self) -> str:
        if self == Scale():
            return "as published"
        return f"widths 1/{self.width}, layers 1/{self.depth} of the published ones"


def scaled(name: str, scale: Scale) -> Architecture:
    """The architecture of that name, made smaller."""
    if name not in ARCHITECTURES:
        raise InputError(f"There is no model {name!r}. Choose of {', '.join(ARCHITECTURES)}.")
    a, w = ARCHITECTURES[name], scale.width
    decoder, encoder = (_scaled(stack, scale) for stack in (a.decoder, a.encoder))
    return replace(
        a,
        decoder=decoder,
        encoder=encoder,
        vocabulary=a.vocabulary // w,
        connector=tuple((x // w, y // w) for x, y in a.connector),
    )


def _scaled(stack: Stack, scale: Scale) -> Stack:
    heads = stack.d_kv * stack.heads // stack.d  # of keys and values
    if stack.heads % scale.width or heads % scale.width:
        raise InputError(f"Widths cannot be divided by {scale.width}: choose a smaller divisor.")
    return replace(
        stack,
        n_layers=max(1, round(stack.n_layers / scale.depth)),
        d=stack.d // scale.width,
        m=stack.m // scale.width,
        heads=stack.heads // scale.width,
        d_kv=stack.d_kv // scale.width,
    )


@dataclass(frozen=True)
class Model:
    """A model with random weights and what to ask it."""

    lvlm: LVLM
    architecture: Architecture
    pictures: list[Image.Image]
    n: int  # visual tokens before any compression

    @classmethod
    def of(
        cls,
        architecture: Architecture,
        n: int,
        device: torch.device,
        dtype: torch.dtype,
        attention: str = "sdpa",
    ) -> Model:
        """A model that sees `n` visual tokens; see `network` and `around`."""
        return cls.around(network(architecture, device, dtype, attention), architecture, n)

    @classmethod
    def around(cls, network: torch.nn.Module, architecture: Architecture, n: int) -> Model:
        """A network that sees `n` visual tokens, or as many as a picture's grid comes close to.

        Only one model at a time may be around a network.
        """
        see = _qwen2_vl if architecture.merge > 1 else _llava
        family, pictures, n = see(network, architecture, n)
        return cls(LVLM(architecture.name, family), architecture, pictures, n)


def network(
    a: Architecture, device: torch.device, dtype: torch.dtype, attention: str = "sdpa"
) -> torch.nn.Module:
    """The random weights of an architecture.

    Raises:
        InputError: an architecture that has no family to run it here.
    """
    if a.merge == 1 and not (a.special and a.tiles == 1):
        raise InputError(f"{a.name} cannot be built with random weights.")
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(
            _qwen2_vl_config(a) if a.merge > 1 else _llava_config(a),
            dtype=dtype,
            attn_implementation=attention,
        )
    model.generation_config.eos_token_id = FOREVER
    if runs_ahead(device):  # as in a model that is loaded
        fuse_norms(model)
    return model


class _CutLlava(Llava):
    """LLaVA-1.5 that takes the first `n` visual tokens of its pictures."""

    n: int

    def prepare(self, media: Media, pooled: bool = True) -> Prepared:
        """As the family has it, the last picture cut short."""
        whole = super().prepare(media, pooled)
        n = min(self.n, len(whole.layout))
        cut = len(whole.spans[-1]) - (len(whole.layout) - n)
        return replace(
            whole,
            layout=whole.layout.select(torch.arange(n)),
            unit=whole.unit[:n],
            patch=whole.patch[:n],
            spans=[*whole.spans[:-1], whole.spans[-1][:cut]],
        )


def _llava_config(a: Architecture) -> LlavaConfig:
    return LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "image_size": _side(a),
            "patch_size": 14,
            **_encoder(a.encoder, a.encoder.n_layers + 1),  # the last layer does not run
        },
        text_config={"model_type": "llama", **decoder_sizes(a)},
        image_token_id=IMAGE,
        vision_feature_layer=-2,
    )


def _llava(network: torch.nn.Module, a: Architecture, n: int) -> tuple:
    side = _side(a)
    size = {"height": side, "width": side}
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=size)
    family = _CutLlava(network, _tokenizer(), processor)
    family.n = n
    return family, [_noise(side, side, i) for i in range(-(-n // a.tile))], n


def _side(a: Architecture) -> int:
    """Pixels along a square picture of one tile."""
    return 14 * round(a.tile**0.5)


def _qwen2_vl_config(a: Architecture) -> Qwen2VLConfig:
    return Qwen2VLConfig(
        vision_config={
            "embed_dim": a.encoder.d,
            "depth": a.encoder.n_layers,
            "num_heads": a.encoder.heads,
            "mlp_ratio": a.encoder.m // a.encoder.d,
            "hidden_size": a.decoder.d,
        },
        text_config={
            **decoder_sizes(a),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, **_sections(a)},
        },
        image_token_id=IMAGE,
    )


def _qwen2_vl(network: torch.nn.Module, a: Architecture, n: int) -> tuple:
    columns = round(n**0.5)
    rows = round(n / columns)
    if rows * columns != n:  # the closest grid that is not longer than four times its height
        rows, columns = min(
            ((r, round(n / r)) for r in range(max(1, round((n / 4) ** 0.5)), columns + 1)),
            key=lambda grid: abs(grid[0] * grid[1] - n),
        )
    n, side = rows * columns, 28
    limits = {"shortest_edge": n * side**2, "longest_edge": n * side**2}
    processor = Qwen2VLImageProcessorPil(size=limits)
    family = Qwen2VL(network, _tokenizer(), processor, processor.size)
    return family, [_noise(columns * side, rows * side, 0)], n


def decoder_sizes(a: Architecture) -> dict:
    """The language model as a configuration of transformers has it; no token begins or ends."""
    stack = a.decoder
    return {
        "hidden_size": stack.d,
        "intermediate_size": stack.m,
        "num_hidden_layers": stack.n_layers,
        "num_attention_heads": stack.heads,
        "num_key_value_heads": stack.d_kv * stack.heads // stack.d,
        "vocab_size": a.vocabulary,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _encoder(stack: Stack, n_layers: int) -> dict:
    return {
        "hidden_size": stack.d,
        "intermediate_size": stack.m,
        "num_hidden_layers": n_layers,
        "num_attention_heads": stack.heads,
    }


def _sections(a: Architecture) -> dict:
    """Shares of M-RoPE as Qwen2-VL has them: a quarter for time, the rest for rows and columns."""
    half = a.decoder.d // a.decoder.heads // 2
    time = half // 4
    rows = (half - time) // 2
    return {"mrope_section": [time, rows, half - time - rows]}


def _tokenizer():
    return AutoTokenizer.from_pretrained(ASSETS / "tiny-llava")


def _noise(width: int, height: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)
