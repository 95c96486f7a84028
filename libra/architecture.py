"""Sizes of vision-language models, as far as their cost depends on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Stack:
    """Equal transformer layers: a decoder or an encoder."""

    n_layers: int
    d: int  # hidden size
    m: int  # MLP size
    heads: int
    d_kv: int  # key-value heads times head size
    gated: bool = True  # three matrices in the MLP instead of two
    d_q: int | None = None  # heads times head size, where that is not the hidden size

    @classmethod
    def of_decoder(cls, text: PretrainedConfig) -> Stack:
        """The layers of a language model's configuration."""
        heads = text.num_attention_heads
        head = getattr(text, "head_dim", None) or text.hidden_size // heads
        return cls(
            n_layers=text.num_hidden_layers,
            d=text.hidden_size,
            m=text.intermediate_size,
            heads=heads,
            d_kv=(getattr(text, "num_key_value_heads", None) or heads) * head,
            d_q=None if heads * head == text.hidden_size else heads * head,
        )

    @property
    def width(self) -> int:
        """Numbers in the queries of a token."""
        return self.d_q or self.d

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of every weight matrix of a layer, by what it computes."""
        mlp = {"gate": (self.d, self.m)} if self.gated else {}
        return {
            "query": (self.d, self.width),
            "key": (self.d, self.d_kv),
            "value": (self.d, self.d_kv),
            "out": (self.width, self.d),
            **mlp,
            "up": (self.d, self.m),
            "down": (self.m, self.d),
        }


@dataclass(frozen=True)
class Architecture:
    """A vision-language model: encoder, connector and decoder.

    The encoder sees pictures as units (a picture, a tile or a frame) of `tile` patches each, and
    `merge` patches become one visual token. Its layers are those that run: one less than there are
    where the features are taken before the last.
    """

    name: str
    decoder: Stack
    vocabulary: int
    encoder: Stack
    pixels: int  # numbers that a patch is embedded from
    tokens: int  # visual tokens of one picture; where that varies, of a typical one
    connector: tuple[tuple[int, int], ...]  # inputs and outputs of its matrices, per visual token
    merge: int = 1
    special: int = 0  # encoder tokens per unit that are no patches
    tile: int | None = None  # patches of a unit; None: a unit is a picture of any size
    tiles: int = 1  # units of one picture
    projects_tokens: bool = False  # the connector takes what is to be visual tokens, not patches

    def units(self, n: int) -> int:
        """How many units the encoder sees for `n` visual tokens, at least one."""
        return max(1, round(n * self.tiles / self.tokens))

    @classmethod
    def of(cls, name: str, config: PretrainedConfig) -> Architecture:
        """The sizes in a model's configuration, for encoders like CLIP, SigLIP and Qwen2-VL's."""
        text, vision = config.get_text_config(), config.vision_config
        d = _first(vision, "embed_dim", "hidden_size")
        merge = getattr(vision, "spatial_merge_size", 1) ** 2
        side = getattr(vision, "image_size", 0) // vision.patch_size
        inner = merge * d if merge > 1 else text.hidden_size
        frames = getattr(vision, "temporal_patch_size", 1)
        channels = _first(vision, "in_channels", "num_channels")
        depth = _first(vision, "depth", "num_hidden_layers")
        features = getattr(config, "vision_feature_layer", -1)
        features = [features] if isinstance(features, int) else features
        return cls(
            name=name,
            decoder=Stack.of_decoder(text),
            vocabulary=text.vocab_size,
            encoder=Stack(
                max(i % (depth + 1) for i in features),
                d,
                getattr(vision, "intermediate_size", None) or int(d * vision.mlp_ratio),
                _first(vision, "num_heads", "num_attention_heads"),
                d,
                gated=vision.hidden_act == "silu",
            ),
            pixels=channels * frames * vision.patch_size**2,
            tokens=side**2 or 1024,
            connector=((len(features) * merge * d, inner), (inner, text.hidden_size)),
            merge=merge,
            special=int(vision.model_type == "clip_vision_model"),
            tile=side**2 or None,
            projects_tokens=config.model_type in _PROJECT_TOKENS,
        )


# Models whose patches are packed, and reduced by methods at the connector, before they are
# projected.
_PROJECT_TOKENS = {"llava", "llava_next", "llava_next_video", "video_llava"}


def _first(config: PretrainedConfig, *names: str) -> int:
    """The value of the first of these names that the configuration has."""
    return next(getattr(config, name) for name in names if hasattr(config, name))


_CLIP_L = Stack(23, 1024, 4096, 16, 1024, gated=False)
_CLIP = {
    "encoder": _CLIP_L,
    "pixels": 3 * 14**2,
    "special": 1,
    "tile": 576,
    "projects_tokens": True,
}
_QWEN2_7B = Stack(28, 3584, 18944, 28, 512)

# By the names of the model catalogue.
ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture(
            "tiny-llava",
            decoder=Stack(8, 256, 640, 4, 256),
            vocabulary=363,
            encoder=Stack(5, 192, 768, 4, 192, gated=False),
            pixels=3 * 14**2,
            tokens=576,
            connector=((192, 256), (256, 256)),
            special=1,
            tile=576,
            projects_tokens=True,
        ),
        Architecture(
            "llava-1.5-7b",
            decoder=Stack(32, 4096, 11008, 32, 4096),
            vocabulary=32064,
            tokens=576,
            connector=((1024, 4096), (4096, 4096)),
            **_CLIP,
        ),
        Architecture(
            "llava-1.5-13b",
            decoder=Stack(40, 5120, 13824, 40, 5120),
            vocabulary=32064,
            tokens=576,
            connector=((1024, 5120), (5120, 5120)),
            **_CLIP,
        ),
        Architecture(
            "llava-next-8b",  # over Llama 3; four tiles and the whole picture
            decoder=Stack(32, 4096, 14336, 32, 1024),
            vocabulary=128320,
            tokens=2266,
            tiles=5,
            connector=((1024, 4096), (4096, 4096)),
            **_CLIP,
        ),
        Architecture(
            "llava-onevision-7b",
            decoder=_QWEN2_7B,
            vocabulary=152000,
            encoder=Stack(26, 1152, 4304, 16, 1152, gated=False),
            pixels=3 * 14**2,
            tokens=729,
            connector=((1152, 3584), (3584, 3584)),
            tile=729,
        ),
        Architecture(
            "qwen2-vl-7b",
            decoder=_QWEN2_7B,
            vocabulary=152064,
            encoder=Stack(32, 1280, 5120, 16, 1280, gated=False),
            pixels=2 * 3 * 14**2,
            tokens=1024,
            connector=((5120, 5120), (5120, 3584)),
            merge=4,
        ),
    )
}
