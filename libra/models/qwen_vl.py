"""What the Qwen-VL families share: pictures of any size, two frames to a slot, M-RoPE.

The encoder sees patches; two by two of them become one visual token, and in a video two frames
become one slot of time. A unit is what the encoder's full attention spans: a picture or a slot.
Patches come in the order of their tokens: the four of the first, the four of the second ...
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from PIL import Image
from torch import LongTensor, Tensor, nn
from transformers import PreTrainedModel, Qwen2VLImageProcessorPil
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids

from libra.devices import now
from libra.errors import InputError
from libra.layout import TokenLayout
from libra.media import MAX_ASPECT, Media
from libra.methods.operations import at_least_fp32
from libra.models.base import EncoderReducers, Family
from libra.models.features import EncoderAttention, Features, LayerInput, Tables
from libra.models.folder import (
    load_image_processor,
    load_model,
    load_tokenizer,
    video_settings,
)
from libra.models.prepared import Prepared
from libra.models.units import bounds


class QwenVL(Family):
    """A vision transformer without CLS, a merger of two by two patches, and a Qwen decoder.

    Args:
        model: the model.
        tokenizer: with the model's chat template.
        image_processor: PIL's variant of the model's own.
        video_size: limits of a video's pixels, as the model's video processor has them.
    """

    takes_video = True
    has_cls = False
    model_class: ClassVar[type[PreTrainedModel]]

    def __init__(self, model, tokenizer, image_processor: Qwen2VLImageProcessorPil, video_size):
        super().__init__(model, tokenizer)
        self.image_processor = image_processor
        self.video_size = video_size
        self.slot = image_processor.temporal_patch_size  # frames
        self.merge = image_processor.merge_size  # patches to a token, each way

    @classmethod
    def load(cls, path: str, device: str, dtype: torch.dtype, attention: str) -> QwenVL:
        """Load from a local folder or the hub; needs no torchvision."""
        tokenizer, video = load_tokenizer(path), video_settings(path)
        return cls(
            load_model(cls.model_class, path, device, dtype, attention),
            tokenizer,
            load_image_processor(Qwen2VLImageProcessorPil, path),
            Qwen2VLImageProcessorPil.from_dict(video).size,  # which knows the older spellings too
        )

    @property
    def tower(self) -> nn.Module:
        """The vision encoder, merger included."""
        return self.model.model.visual

    @property
    def encoder_layers(self) -> nn.ModuleList:
        """The transformer's layers."""
        return self.tower.blocks

    @property
    def last_encoder_layer(self) -> int:
        """The last layer: its output is what the merger takes."""
        return len(self.encoder_layers) - 1

    @property
    def attention_layer(self) -> int:
        """The last layer in which all patches of a unit attend to each other."""
        return self.last_encoder_layer

    def picture_size(self, picture: Image.Image) -> tuple[int, int]:
        """(height, width) in pixels that the processor scales a picture to."""
        width, height = picture.size
        limits = self.image_processor.size
        return smart_resize(height, width, self.side, limits.shortest_edge, limits.longest_edge)

    def frame_size(self, frames: Sequence[Image.Image]) -> tuple[int, int]:
        """(height, width) in pixels that the processor scales the frames of a video to."""
        width, height = frames[0].size
        limits = self.video_size
        return smart_resize(height, width, self.side, limits.shortest_edge, limits.longest_edge)

    @property
    def side(self) -> int:
        """Pixels of a visual token, each way."""
        return self.image_processor.patch_size * self.merge

    def prepare(self, media: Media, pooled: bool = True) -> Prepared:
        """A grid over the whole of each picture or slot, as fine as its size asks for."""
        width, height = media.pictures[0].size
        if media.is_video and max(width, height) > MAX_ASPECT * min(width, height):
            raise InputError(
                f"The video is {width} x {height} pixels large: one side is more than {MAX_ASPECT} "
                f"times the other. Crop it."
            )
        if media.is_video:
            views = media.pictures[:: self.slot]
            sizes = [self.frame_size(media.pictures)] * len(views)
        else:
            views = media.pictures
            sizes = [self.picture_size(picture) for picture in views]
        layout = TokenLayout.cat(
            [
                TokenLayout.square_crop(1, 1, (height // self.side, width // self.side), i)
                for i, (height, width) in enumerate(sizes)
            ]
        )
        if not media.is_video:
            return Prepared.of_pictures(media, layout)
        film = Prepared.of_pictures(media, layout, [torch.ones(len(layout), dtype=torch.bool)])
        return replace(film, views=views, times=media.times[:: self.slot])

    def grids(self, prepared: Prepared) -> LongTensor:
        """[U, 3] slots (one), rows and columns of patches of each unit."""
        side = self.merge if prepared.chunk == 1 else 1  # patches to a cell of the layout
        grids = [prepared.layout.grid(i) for i in range(len(prepared.views))]
        return torch.tensor([(1, side * rows, side * columns) for rows, columns in grids])

    def pixels(self, prepared: Prepared) -> Tensor:
        """[P, W] the pixels of every patch, as the model's own processors give them."""
        pictures = prepared.media.pictures
        if not prepared.media.is_video:
            return self.image_processor(pictures, return_tensors="pt").pixel_values
        height, width = self.frame_size(pictures)
        frames = [f.resize((width, height), self.image_processor.resample) for f in pictures]
        stills = self.image_processor(frames, do_resize=False, return_tensors="pt").pixel_values
        # A still fills a slot with copies of itself: take one of each, and pair the frames.
        patches = stills.view(len(frames), -1, 3, self.slot, self.image_processor.patch_size**2)
        patches = patches[:, :, :, 0]
        patches = torch.cat([patches, patches[-1:].expand(-len(frames) % self.slot, -1, -1, -1)])
        return patches.unflatten(0, (-1, self.slot)).permute(0, 2, 3, 1, 4).flatten(2).flatten(0, 1)

    def encode(
        self,
        prepared: Prepared,
        reducers: EncoderReducers | None = None,
        layers: Collection[int] = (),
    ) -> Features:
        """The merged tokens of every unit."""
        pixels, begin = self.pixels(prepared), now(self.device)
        pixels = pixels.to(self.device, self.model.dtype)
        grids = self.grids(prepared)
        counts = grids.prod(-1).tolist()
        tokens, states = self.run_tower(pixels, grids, {*layers, self.attention_layer})
        tables = self.tables(pixels, grids.to(self.device))
        inputs = {layer: LayerInput(x, tables).split(counts) for layer, x in states.items()}
        last = inputs[self.attention_layer]
        return Features(
            hidden=list(tokens.split([n // self.merge**2 for n in counts])),
            special=[],
            inputs={-1: last, -2: last} | {layer: inputs[layer] for layer in layers},
            patches=counts,
            seconds=now(self.device) - begin,
        )

    def run_tower(
        self, pixels: Tensor, grids: LongTensor, layers: Collection[int]
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The merged tokens [N, D] and what some layers see of all patches, [P, D] each."""
        out = self.see(pixels, grids, layers)
        return out.pooler_output, {layer: out.hidden_states[layer] for layer in layers}

    def see(
        self, pixels: Tensor, grids: LongTensor, layers: Collection[int]
    ) -> BaseModelOutputWithPooling:
        """What the tower says to pixels whose grids [U, 3] are known on the CPU."""
        return self.tower(
            pixels,
            grid_thw=grids.to(pixels.device),
            cu_seqlens=bounds(grids.prod(-1).tolist(), self.tower.config, pixels.device),
            output_hidden_states=[*layers],
        )

    def tables(self, x: Tensor, grids: LongTensor) -> Tables:
        """Cosines and sines [P, d] for the rows and columns of all patches."""
        return self.tower.rotary_pos_emb(x, get_vision_position_ids(grids, self.merge))

    def encoder_attention(self, layer: int, hidden: LayerInput) -> EncoderAttention:
        """Queries and keys of a watched layer; below 0, of the last one with full attention."""
        layer = layer if layer >= 0 else self.attention_layer
        return self.attention(self.encoder_layers[layer], hidden)

    def attention(self, layer: nn.Module, seen: LayerInput, n_front: int = 0) -> EncoderAttention:
        """Queries and keys of a layer, after rotary embedding."""
        mixed = layer.attn.qkv(layer.norm1(seen.hidden))
        query, key, _ = mixed.unflatten(-1, (3, layer.attn.num_heads, -1)).unbind(-3)
        query, key = apply_rotary_pos_emb_vision(query, key, *seen.tables)
        query, key = (at_least_fp32(x.transpose(-3, -2)) for x in (query, key))
        return EncoderAttention(query, key, n_front, has_cls=False)

    def pack(self, patches: Sequence[Tensor], prepared: Prepared) -> Tensor:
        """A token knows the mean of what its patches know."""
        return torch.cat(list(patches)).unflatten(0, (-1, self.merge**2)).mean(1)

    def tokens(self, features: Features, prepared: Prepared) -> Tensor:
        """[N, D] behind the merger: what mixes patches has been done."""
        return torch.cat(features.hidden)

    def connect(self, tokens: Tensor) -> Tensor:
        """The merger has brought them to the decoder's width."""
        return tokens

    def positions(self, ids: LongTensor, prepared: Prepared) -> LongTensor:
        """[3, S] time, row and column of every token."""
        kind, number = ("video", 2) if prepared.media.is_video else ("image", 1)
        places = ids == getattr(self.model.config, f"{kind}_token_id")
        grids = self.grids(prepared)
        if prepared.media.is_video:
            grids = torch.cat([torch.tensor([[len(grids)]]), grids[:1, 1:]], dim=1)
        starts = ~places  # of tokens: a chunk of patches stands where its token would
        starts[places.nonzero().flatten()[:: prepared.chunk]] = True
        positions, _ = self.model.model.get_rope_index(
            ids[None, starts],
            mm_token_type_ids=number * places[None, starts].int(),
            **{f"{kind}_grid_thw": grids, **self.clock(prepared)},
        )
        return positions[:, 0, starts.cumsum(0) - 1]

    def clock(self, prepared: Prepared) -> dict[str, list[float]]:
        """What else `get_rope_index` wants to know of the times of a video."""
        return {}
