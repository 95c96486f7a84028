"""LLaVA-1.5: a CLIP tower, a two-layer projector and a Llama decoder."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from libra.errors import InputError
from libra.layout import TokenLayout
from libra.media import Media
from libra.models.prepared import Prepared
from libra.models.tower import TowerFamily


class Llava(TowerFamily):
    """LLaVA-1.5 and everything built like it (`LlavaForConditionalGeneration` over CLIP)."""

    name = "llava"

    def __init__(self, model, tokenizer, image_processor: CLIPImageProcessorPil):
        super().__init__(model, tokenizer)
        self.image_processor = image_processor
        strategy = model.config.vision_feature_select_strategy
        if strategy != "default":
            raise InputError(f"A LLaVA that selects {strategy!r} features is not supported.")

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

    def prepare(self, media: Media, pooled: bool = True) -> Prepared:
        """A square grid in the centre of each picture, or over all of it where none is cut."""
        crops = self.image_processor.do_center_crop
        sizes = [picture.size if crops else (1, 1) for picture in media.pictures]
        grids = [TokenLayout.square_crop(*size, self.grid, i) for i, size in enumerate(sizes)]
        return Prepared.of_pictures(media, TokenLayout.cat(grids))

    def pixels(self, prepared: Prepared) -> Tensor:
        """CLIP's own processing of each picture."""
        return self.image_processor(prepared.media.pictures, return_tensors="pt").pixel_values

    def connect(self, tokens: Tensor) -> Tensor:
        """[n, D] -> [n, d]."""
        return self.model.model.multi_modal_projector(tokens)
