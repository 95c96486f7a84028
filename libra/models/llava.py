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
from libra.models.base import Family, Features, seconds


class Llava(Family):
    """LLaVA-1.5 and everything built like it (`LlavaForConditionalGeneration` over CLIP)."""

    name = "llava"

    def __init__(self, model, tokenizer, image_processor: CLIPImageProcessorPil):
        super().__init__(model, tokenizer)
        self.image_processor = image_processor
        vision = model.config.vision_config
        if vision.model_type != "clip_vision_model":
            raise InputError(f"LLaVA over {vision.model_type} is not supported, only over CLIP.")
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

    def encode(self, images: Sequence[Image.Image], tracing: bool) -> Features:
        """CLIP features of the configured layer, without CLS: [images, patches, D]."""
        begin = seconds(self.device)
        pixels = self.image_processor(list(images), return_tensors="pt").pixel_values
        states = self.model.model.vision_tower(
            pixels.to(self.device, self.model.dtype), output_hidden_states=True
        ).hidden_states
        chosen = self.model.config.vision_feature_layer
        chosen = [chosen] if isinstance(chosen, int) else chosen
        hidden = torch.cat([states[i][:, 1:] for i in chosen], dim=-1)
        elapsed = seconds(self.device) - begin
        return Features(hidden, self._cls_attention(states[-2]) if tracing else None, elapsed)

    def connect(self, hidden: Tensor) -> Tensor:
        """[images, patches, D] -> [N, d]: the pictures one after the other."""
        return self.model.model.multi_modal_projector(hidden).flatten(0, 1)

    def layout(self, sizes: Sequence[tuple[int, int]]) -> TokenLayout:
        """A square grid in the centre of each picture, or over all of it where none is cut."""
        crops = self.image_processor.do_center_crop
        return TokenLayout.cat(
            [
                TokenLayout.square_crop(*(size if crops else (1, 1)), self.grid, image)
                for image, size in enumerate(sizes)
            ]
        )

    def _cls_attention(self, states: Tensor) -> Tensor:
        """Attention of CLS in the last layer over the patches, head mean, fp32.

        Args:
            states: [images, 1 + patches, D], the input of the last layer.

        Returns:
            [images, patches]; with the CLS token's own share it would sum to one.
        """
        layer = self.encoder_layers[-1]
        x = layer.layer_norm1(states)
        heads = (layer.self_attn.num_heads, layer.self_attn.head_dim)
        query = layer.self_attn.q_proj(x[:, 0]).unflatten(-1, heads).float()
        key = layer.self_attn.k_proj(x).unflatten(-1, heads).float()
        scores = torch.einsum("bhd,bthd->bht", query, key) * layer.self_attn.scale
        return scores.softmax(-1).mean(1)[:, 1:]
