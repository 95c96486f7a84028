"""Families over a vision transformer of CLIP's or SigLIP's make, which sees units of one size.

The tower is run layer by layer, so that chosen layers can shrink their tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

import torch
from torch import LongTensor, Tensor, nn
from transformers import PreTrainedModel

from libra.devices import now
from libra.errors import InputError
from libra.methods.operations import at_least_fp32, complement
from libra.models.base import EncoderReducers, Family
from libra.models.features import EncoderAttention, Features
from libra.models.folder import load_image_processor, load_model, load_tokenizer
from libra.models.prepared import Prepared
from libra.models.units import reduce_together, together


class TowerFamily(Family):
    """A vision tower, a projector and a decoder."""

    counted = True
    tower_type: ClassVar[str] = "clip_vision_model"  # or "siglip_vision_model"
    model_class: ClassVar[type[PreTrainedModel]]
    processor_class: ClassVar[type]  # of pictures; needs no torchvision

    def __init__(self, model, tokenizer, image_processor):
        super().__init__(model, tokenizer)
        self.image_processor = image_processor
        vision = model.config.vision_config
        if vision.model_type != self.tower_type:
            raise InputError(
                f"A {self.name} model over {vision.model_type} is not supported, only over "
                f"{self.tower_type}."
            )
        self.has_cls = self.tower_type == "clip_vision_model"
        strategy = getattr(model.config, "vision_feature_select_strategy", None)
        if strategy == ("full" if self.has_cls else "default"):
            raise InputError(f"A {self.name} that selects {strategy!r} features is not supported.")
        self.grid = (vision.image_size // vision.patch_size,) * 2

    @classmethod
    def load(cls, path: str, device: str, dtype: torch.dtype, attention: str) -> TowerFamily:
        """Load from a local folder or the hub; needs no torchvision."""
        tokenizer, processors = load_tokenizer(path), cls.load_processors(path)
        model = load_model(cls.model_class, path, device, dtype, attention)
        return cls(model, tokenizer, *processors)

    @classmethod
    def load_processors(cls, path: str) -> tuple:
        """What turns media into pixels: the arguments of the constructor after the tokenizer."""
        return (load_image_processor(cls.processor_class, path),)

    @property
    def tower(self) -> nn.Module:
        """The vision encoder."""
        return self.model.model.vision_tower

    def tower_for(self, prepared: Prepared) -> nn.Module:
        """The vision encoder for these media."""
        return self.tower

    def pixels(self, prepared: Prepared) -> Tensor:
        """[U, 3, H, W] what the encoder sees of each unit: pictures as the processor has them."""
        return self.image_processor(prepared.media.pictures, return_tensors="pt").pixel_values

    @property
    def encoder_layers(self) -> nn.ModuleList:
        """The transformer's layers."""
        return self.tower.encoder.layers

    @property
    def last_encoder_layer(self) -> int:
        """The deepest layer whose output is among the configured features."""
        return max(self._feature_states) - 1

    @property
    def _feature_states(self) -> list[int]:
        """Which states are the features; state i is the input of layer i."""
        chosen = self.model.config.vision_feature_layer
        chosen = [chosen] if isinstance(chosen, int) else chosen
        return [i % (len(self.encoder_layers) + 1) for i in chosen]

    def _layer(self, layer: int) -> int:
        """The encoder layer that a number means: see `encoder_attention`."""
        if layer >= 0:
            return layer
        return min(self.last_encoder_layer + 2 + layer, len(self.encoder_layers) - 1)

    def encode(
        self,
        prepared: Prepared,
        reducers: EncoderReducers | None = None,
        layers: Collection[int] = (),
    ) -> Features:
        """Features of the configured layers, and the inputs of `layers`, counted from 0."""
        return self._encoded(self.tower_for(prepared), self.pixels(prepared), reducers, layers)

    def encode_each(self, prepared: Sequence[Prepared]) -> list[Features]:
        """All units in one run of the tower."""
        pixels = [self.pixels(media) for media in prepared]
        whole = self._encoded(self.tower, torch.cat(pixels))
        return whole.split([len(units) for units in pixels])

    def _encoded(
        self,
        tower: nn.Module,
        pixels: Tensor,
        reducers: EncoderReducers | None = None,
        layers: Collection[int] = (),
    ) -> Features:
        """Features of units [U, 3, H, W]."""
        begin = now(self.device)
        pixels = pixels.to(self.device, self.model.dtype)
        looked_at = {layer: self._layer(layer) for layer in (-1, -2, *layers)}
        wanted = {*self._feature_states, *looked_at.values()}
        if reducers is None:
            states, fronts = self._states(tower, pixels, wanted), [int(self.has_cls)] * len(pixels)
        else:
            states, fronts = self._reduced_states(tower, pixels, wanted, reducers)
        chosen = zip(*(states[i] for i in self._feature_states), fronts, strict=True)
        features = [(torch.cat(x, -1) if x[1:] else x[0], front) for *x, front in chosen]
        return Features(
            hidden=[x[front:] for x, front in features],
            special=[x[:front] for x, front in features],
            inputs={i: list(states[layer]) for i, layer in looked_at.items()},
            patches=[self.grid[0] * self.grid[1]] * len(pixels),
            seconds=now(self.device) - begin,
        )

    def encoder_attention(self, layer: int, hidden: Tensor) -> EncoderAttention:
        """Queries and keys of a layer, for a unit that nothing has been taken from."""
        return self._attention(self.encoder_layers[self._layer(layer)], hidden, int(self.has_cls))

    def _attention(self, layer: nn.Module, hidden: Tensor, n_front: int) -> EncoderAttention:
        """Queries and keys of a layer for its input [(U,) F + T, D]."""
        heads = (layer.self_attn.num_heads, layer.self_attn.head_dim)
        normed = layer.layer_norm1(hidden)
        query, key = (
            at_least_fp32(project(normed).unflatten(-1, heads).transpose(-3, -2))
            for project in (layer.self_attn.q_proj, layer.self_attn.k_proj)
        )
        return EncoderAttention(query, key, n_front, self.has_cls)

    def connect(self, tokens: Tensor) -> Tensor:
        """The projector: [n, D] -> [n, d]."""
        return self.model.model.multi_modal_projector(tokens)

    def _embed(self, tower: nn.Module, pixels: Tensor) -> Tensor:
        """[U, 3, H, W] -> [U, F + T, D]: the input of the first layer."""
        x = tower.embeddings(pixels)
        return tower.pre_layrnorm(x) if self.has_cls else x

    def _states(
        self, tower: nn.Module, pixels: Tensor, wanted: Collection[int]
    ) -> dict[int, Tensor]:
        """The wanted states [U, F + T, D]: the input of a layer, or the output of the last."""
        x, states = self._embed(tower, pixels), {}
        for i, layer in enumerate(tower.encoder.layers[: max(wanted)]):
            if i in wanted:
                states[i] = x
            x = layer(x, None)
        return states | {max(wanted): x}

    def _reduced_states(
        self, tower: nn.Module, pixels: Tensor, wanted: Collection[int], reducers: EncoderReducers
    ) -> tuple[dict[int, list[Tensor]], list[int]]:
        """The wanted states [F + n, D] of each unit, and how many tokens stand before its patches.

        A chosen layer is taken apart, because what is merged between attention and MLP changes the
        length of the residual too, which no hook reaches. Patches that become no visual token
        (padding) move to the front, where nothing is merged.
        """
        whole, states = self._embed(tower, pixels), {}
        orders, fronts = self._orders(reducers, *whole.shape[:2])
        x = [*whole.take_along_dim(orders.to(whole.device)[..., None], dim=1)]
        for i, layer in enumerate(tower.encoder.layers[: max(wanted)]):
            if i in wanted:
                states[i] = x
            if i in reducers.encoder_layers:
                x = self._reduced_layer(layer, x, fronts, reducers)
            else:
                x = together(lambda x, layer=layer: layer(x, None), x)
        return states | {max(wanted): x}, fronts

    def _orders(
        self, reducers: EncoderReducers, n_units: int, length: int
    ) -> tuple[LongTensor, list[int]]:
        """The order [U, F + T] in which tokens stand while they are reduced, and F of each unit."""
        orders, fronts = [], []
        for unit in range(n_units):
            patches = torch.arange(length)[int(self.has_cls) :]
            if unit in reducers:
                patches = reducers[unit].patches + int(self.has_cls)
            front = complement(patches, length)
            orders.append(torch.cat([front, patches]))
            fronts.append(len(front))
        return torch.stack(orders), fronts

    def _reduced_layer(
        self, layer: nn.Module, x: list[Tensor], fronts: Sequence[int], reducers: EncoderReducers
    ) -> list[Tensor]:
        """The output [F + n', D] of a chosen layer for its input [F + n, D], of each unit."""

        def attend(x: Tensor) -> Tensor:
            return x + layer.self_attn(layer.layer_norm1(x), attention_mask=None)[0]

        def attention(units: Sequence[int]) -> EncoderAttention:
            return self._attention(layer, torch.stack([x[i] for i in units]), fronts[units[0]])

        h = reduce_together(reducers, together(attend, x), fronts, attention)
        return together(lambda h: h + layer.mlp(layer.layer_norm2(h)), h)
