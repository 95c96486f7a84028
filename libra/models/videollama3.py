"""VideoLLaMA 3: pictures of any size, frames pooled two by two and thinned out, Qwen2.

Zhang et al., "VideoLLaMA 3", arXiv 2501.13106.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import LongTensor, Tensor, nn
from transformers import (
    BatchFeature,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3ImageProcessorPil,
)
from transformers.models.video_llama_3.modeling_video_llama_3 import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids

from libra.devices import now
from libra.layout import TokenLayout
from libra.media import Media
from libra.methods.operations import at_least_fp32
from libra.models.base import EncoderReducers, Family
from libra.models.features import EncoderAttention, Features, LayerInput, Tables
from libra.models.folder import (
    load_image_processor,
    load_model,
    load_tokenizer,
    video_settings,
)
from libra.models.prepared import Prepared, Prompt
from libra.models.units import run_reduced

STILL = 0.1  # mean difference, times 255, up to which a token repeats the frame before


@dataclass(frozen=True, eq=False)
class Patches(Prepared):
    """Media whose tokens depend on their pixels: these are kept for the encoder."""

    pixels: Tensor | None = None  # [P, 3 * patch ** 2] of all units
    grids: Tensor | None = None  # [U, 3] per unit: one frame, rows and columns of patches
    merge: int = 1  # patches that one token stands for, along each side


class VideoLlama3(Family):
    """VideoLLaMA 3 as transformers has it.

    A frame's token that shows what the frame before has shown is no token at all (the paper's
    differential frame pruner); each frame keeps at least one. Methods that act inside the encoder
    take the place of pooling, so that every patch is a token to them.

    Args:
        model: the model.
        tokenizer: with the model's chat template.
        image_processor: PIL's variant of the model's own.
        frame_processor: the same with the settings of the model's video processor.
        thins: whether tokens that stand still are left out of videos.
    """

    name = "videollama3"
    takes_video = True
    has_cls = False

    def __init__(
        self,
        model,
        tokenizer,
        image_processor: VideoLlama3ImageProcessorPil,
        frame_processor: VideoLlama3ImageProcessorPil,
        thins: bool = True,
    ):
        super().__init__(model, tokenizer)
        self.image_processor = image_processor
        self.frame_processor = frame_processor
        self.thins = thins

    @classmethod
    def load(cls, path: str, device: str, dtype: torch.dtype, attention: str) -> VideoLlama3:
        """Load from a local folder or the hub; needs no torchvision."""
        tokenizer, video = load_tokenizer(path), video_settings(path)
        return cls(
            load_model(VideoLlama3ForConditionalGeneration, path, device, dtype, attention),
            tokenizer,
            load_image_processor(VideoLlama3ImageProcessorPil, path),
            VideoLlama3ImageProcessorPil.from_dict({"merge_size": 2} | video),
            video.get("use_token_compression", True),
        )

    @property
    def tower(self) -> nn.Module:
        """The vision transformer."""
        return self.model.model.vision_model

    @property
    def encoder_layers(self) -> nn.ModuleList:
        """Its layers."""
        return self.tower.encoder.layers

    @property
    def last_encoder_layer(self) -> int:
        """The last one."""
        return len(self.encoder_layers) - 1

    def prepare(self, media: Media, pooled: bool = True) -> Patches:
        """A grid over each picture as it is; the frames of a video share what one may have."""
        inputs = self._inputs(media, pooled)
        merge = int(inputs.image_merge_sizes[0])
        grids = inputs.image_grid_thw
        tokens = grids[:, 1:] // merge
        layout = TokenLayout.cat(
            [TokenLayout.square_crop(1, 1, tuple(n), i) for i, n in enumerate(tokens.tolist())]
        )
        if media.is_video:
            layout = replace(layout, frame=layout.image)
        counts = layout.image.bincount()
        kept = torch.arange(len(layout))
        if media.is_video and self.thins:
            kept = _moving(inputs.pixel_values.view(len(grids), int(counts[0]), -1)).flatten()
            kept = kept.nonzero().flatten()
        layout = layout.select(kept)
        return Patches(
            media=media,
            layout=layout,
            unit=layout.image,
            patch=kept - (counts.cumsum(0) - counts)[layout.image],
            spans=[torch.ones(n, dtype=torch.bool) for n in layout.image.bincount().tolist()],
            views=media.pictures,
            times=media.times,
            pixels=inputs.pixel_values,
            grids=grids,
            merge=merge,
        )

    def _inputs(self, media: Media, pooled: bool) -> BatchFeature:
        """Patches and grids as the model's own processors give them."""
        if not media.is_video:
            return self.image_processor(media.pictures, return_tensors="pt")
        limits = self.frame_processor.size
        size = {
            "shortest_edge": limits.shortest_edge,
            "longest_edge": limits.longest_edge // len(media.pictures),
        }
        options = {"size": size} if pooled else {"size": size, "merge_size": 1}
        return self.frame_processor(media.pictures, **options, return_tensors="pt")

    def encode(
        self,
        prepared: Patches,
        reducers: EncoderReducers | None = None,
        layers: Collection[int] = (),
    ) -> Features:
        """The vision transformer's output, pooled where the model does so."""
        begin = now(self.device)
        pixels = prepared.pixels.to(self.device, self.model.dtype)
        grids = prepared.grids.to(self.device)
        encoded = (
            self._encoded(pixels, grids, prepared.merge, layers)
            if reducers is None
            else self._reduced(pixels, grids, reducers, layers)
        )
        patches = prepared.grids.prod(1).tolist()
        return Features(*encoded, patches=patches, seconds=now(self.device) - begin)

    def _encoded(
        self, pixels: Tensor, grids: LongTensor, merge: int, layers: Collection[int]
    ) -> tuple[list, list, dict]:
        """The fields of `Features`, of all units at once."""
        merges = torch.full_like(grids[:, 0], merge)
        counts, looked_at = grids.prod(1).tolist(), {-1: self.last_encoder_layer}
        looked_at |= {-2: self.last_encoder_layer} | {layer: layer for layer in layers}
        states = sorted({*looked_at.values()})
        out = self.tower(pixels, grid_thw=grids, merge_sizes=merges, output_hidden_states=states)
        tables = self._tables(pixels, grids, merges)
        seen = {i: LayerInput(out.hidden_states[i], tables).split(counts) for i in states}
        hidden = list(out.last_hidden_state.split([n // merge**2 for n in counts]))
        inputs = {i: seen[layer] for i, layer in looked_at.items()}
        return hidden, [x[:0] for x in hidden], inputs

    def _reduced(
        self,
        pixels: Tensor,
        grids: LongTensor,
        reducers: EncoderReducers,
        layers: Collection[int],
    ) -> tuple[list, list, dict]:
        """The fields of `Features`. Patches that are no token stand in front of their unit."""
        x = self.tower.embeddings(pixels)
        whole = LayerInput(x, self._tables(x, grids, torch.ones_like(grids[:, 0])))
        counts = grids.prod(1).tolist()
        units, fronts, states = run_reduced(self, whole, counts, reducers, layers)
        normed = self.tower.post_layernorm(torch.cat(units)).split([len(unit) for unit in units])
        both = list(zip(normed, fronts, strict=True))
        return [x[n:] for x, n in both], [x[:n] for x, n in both], states

    def attend(self, layer: nn.Module, hidden: Tensor, place: dict) -> Tensor:
        """See `libra.models.units.Steps`."""
        return hidden + layer.self_attn(layer.layer_norm1(hidden), **place)[0]

    def feed(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        """See `libra.models.units.Steps`."""
        return hidden + layer.mlp(layer.layer_norm2(hidden))

    def _tables(self, x: Tensor, grids: LongTensor, merges: LongTensor) -> Tables:
        """Cosines and sines [P, d] for the rows and columns of all patches."""
        return self.tower.rotary_pos_emb(x, get_vision_position_ids(grids, merges))

    def encoder_attention(self, layer: int, hidden: LayerInput) -> EncoderAttention:
        """Queries and keys of a watched layer; below 0, of the last one."""
        return self.attention(self.encoder_layers[max(-1, layer)], hidden, 0)

    def attention(self, layer: nn.Module, seen: LayerInput, n_front: int) -> EncoderAttention:
        """Queries and keys of a layer, after rotary embedding."""
        heads = (layer.self_attn.num_heads, layer.self_attn.head_dim)
        normed = layer.layer_norm1(seen.hidden)
        query, key = (
            project(normed).unflatten(-1, heads)
            for project in (layer.self_attn.q_proj, layer.self_attn.k_proj)
        )
        query, key = apply_rotary_pos_emb_vision(query, key, *seen.tables)
        query, key = (at_least_fp32(x.transpose(-3, -2)) for x in (query, key))
        return EncoderAttention(query, key, n_front, has_cls=False)

    def pack(self, patches: Sequence[Tensor], prepared: Patches) -> Tensor:
        """A token knows the mean of what its patches know."""
        means = [x.unflatten(0, (-1, prepared.merge**2)).mean(1) for x in patches]
        return super().pack(means, prepared)

    def tokens(self, features: Features, prepared: Patches) -> Tensor:
        """[N, D] the pooled patches of the tokens that there are."""
        return super().pack(features.hidden, prepared)

    def connect(self, tokens: Tensor) -> Tensor:
        """[n, D] -> [n, d]."""
        return self.model.model.projector(tokens)

    def expand(self, ids: LongTensor, kind: str, prepared: Prepared) -> Prompt:
        """As of other families; in a video each frame's tokens follow its second."""
        if kind == "video":
            place = self.model.config.video_token_id
            marks = [f",Time {second:.1f}s:" for second in prepared.times]
            marks[0] = marks[0].removeprefix(",")
            pieces = self.tokenizer(marks, add_special_tokens=False).input_ids
            frames = [i for piece in pieces for i in (*piece, place)]
            ids = torch.tensor(
                [i for old in ids.tolist() for i in (frames if old == place else [old])]
            )
        return super().expand(ids, kind, prepared)


def _moving(tokens: Tensor) -> Tensor:
    """Which tokens of a video [T, N, C] differ from the frame before: [T, N], one per frame."""
    moving = torch.ones(tokens.shape[:2], dtype=torch.bool)
    moving[1:] = tokens.diff(dim=0).abs().mean(-1) * 255 > STILL
    moving[:, 0] |= ~moving.any(1)
    return moving
