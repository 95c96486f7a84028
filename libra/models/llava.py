"""LLaVA-1.5: a CLIP tower, a two-layer projector and a Llama decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from libra.errors import InputError
from libra.layout import TokenLayout
from libra.models.base import EncoderReducer, Family, seconds
from libra.models.clip import clip_attention, clip_states
from libra.models.features import EncoderAttention, Features


class Llava(Family):
    """LLaVA-1.5 and everything built like it (`LlavaForConditionalGeneration` over CLIP)."""

    name = "llava"

    def __init__(self, model, tokenizer, image_processor: CLIPImageProcessorPil):
        super().__init__(model, tokenizer)
        self.image_processor = image_processor
        vision = model.config.vision_config
        if vision.model_type != "clip_vision_model":
            raise InputError(f"LLaVA over {vision.model_type} is not supported, only over CLIP.")
        strategy = model.config.vision_feature_select_strategy
        if strategy != "default":
            raise InputError(f"A LLaVA that selects {strategy!r} features is not supported.")
        self.grid = (vision.image_size // vision.patch_size,) * 2

    @classmethod
    def load(cls, path: str, device: str, dtype: torch.dtype, attention: str) -> Llava:
        """Load from a local folder or the hub; needs no torchvision."""
        tokenizer = AutoTokenizer.from_pretrained(path)
        if tokenizer.chat_template is None:  # older folders keep it with the processor
            tokenizer.chat_template = LlavaProcessor.get_processor_dict(path)[0].get(
                "chat_template"
            )
        model = LlavaForConditionalGeneration.from_pretrained(
            path, dtype=dtype, attn_implementation=attention
        )
        return cls(model.to(device), tokenizer, CLIPImageProcessorPil.from_pretrained(path))

    @property
    def decoder_layers(self) -> nn.ModuleList:
        """The Llama layers."""
        return self.model.model.language_model.layers

    @property
    def encoder_layers(self) -> nn.ModuleList:
        """The CLIP layers."""
        return self.model.model.vision_tower.encoder.layers

    @property
    def last_encoder_layer(self) -> int:
        """The deepest layer whose output is among the configured features."""
        n = len(self.encoder_layers)
        return max(i % (n + 1) for i in self._feature_layers) - 1

    @property
    def _feature_layers(self) -> list[int]:
        chosen = self.model.config.vision_feature_layer
        return [chosen] if isinstance(chosen, int) else list(chosen)

    def encode(
        self, images: Sequence[Image.Image], reducers: Sequence[EncoderReducer] | None = None
    ) -> Features:
        """CLIP features of the configured layers, without CLS."""
        begin = seconds(self.device)
        pixels = self.image_processor(list(images), return_tensors="pt").pixel_values
        pixels = pixels.to(self.device, self.model.dtype)
        tower = self.model.model.vision_tower
        if reducers is None:
            states = [clip_states(tower, pixels)]
        else:  # pictures may shrink to different lengths: they go through one by one
            states = [
                clip_states(tower, picture, reducer)
                for picture, reducer in zip(pixels.split(1), reducers, strict=True)
            ]
        return Features(
            hidden=[
                x
                for s in states
                for x in torch.cat([s[i][:, 1:] for i in self._feature_layers], -1)
            ],
            inputs={-1: [x for s in states for x in s[-2]], -2: [x for s in states for x in s[-3]]},
            seconds=seconds(self.device) - begin,
        )

    def encoder_attention(self, layer: int, hidden: Tensor) -> EncoderAttention:
        """Queries and keys of a CLIP layer."""
        return clip_attention(self.encoder_layers[layer], hidden)

    def connect(self, hidden: Tensor) -> Tensor:
        """[N, D] -> [N, d]."""
        return self.model.model.multi_modal_projector(hidden)

    def layout(self, sizes: Sequence[tuple[int, int]]) -> TokenLayout:
        """A square grid in the centre of each picture, or over all of it where none is cut."""
        crops = self.image_processor.do_center_crop
        return TokenLayout.cat(
            [
                TokenLayout.square_crop(*(size if crops else (1, 1)), self.grid, image)
                for image, size in enumerate(sizes)
            ]
        )
