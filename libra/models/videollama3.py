"""VideoLLaMA 3: pictures of any size, frames pooled two by two and thinned out, Qwen2.

Zhang et al., "VideoLLaMA 3", arXiv 2501.13106.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import LongTensor, Tensor, nn
from transformers import (
    BatchFeature,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3ImageProcessorPil,
)
from transformers.models.video_llama_3.modeling_video_llama_3 import apply_rotary_pos_emb_vision
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.vision_utils import get_vision_position_ids

from libra.layout import TokenLayout
from libra.media import Media
from libra.models.base import EncoderReducer, Family, load_tokenizer, seconds
from libra.models.features import EncoderAttention, Features
from libra.models.prepared import Prepared, Prompt

Tables = tuple[Tensor, Tensor]  # [T, d] cosines and sines of the encoder's rotary embedding
STILL = 0.1  # mean difference, times 255, up to which a token repeats the frame before


@dataclass(frozen=True, eq=False)
class Patches(Prepared):
    """Media whose tokens depend on their pixels: these are kept for the encoder."""

    pixels: Tensor | None = None  # [P, 3 * patch ** 2] of all units
    grids: Tensor | None = None  # [U, 3] per unit: one frame, rows and columns of patches
    merge: int = 1  # patches that one token stands for, along each side


@dataclass(frozen=True)
class LayerInput:
    """What a layer of the encoder sees of one unit."""

    hidden: Tensor  # [T, D]
    tables: Tables


class VideoLlama3(Family):
    """VideoLLaMA 3 as transformers has it.

    A frame's token that shows what the frame before has shown is no token at all (the paper's
    differential frame pruner); each frame keeps at least one.

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
    reduces_in_encoder = False

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
        model = VideoLlama3ForConditionalGeneration.from_pretrained(
            path, dtype=dtype, attn_implementation=attention
        )
        video, _ = BaseVideoProcessor.get_video_processor_dict(path)
        return cls(
            model.to(device),
            load_tokenizer(path),
            VideoLlama3ImageProcessorPil.from_pretrained(path),
            VideoLlama3ImageProcessorPil.from_dict({"merge_size": 2} | video),
            video.get("use_token_compression", True),
        )

    @property
    def encoder_layers(self) -> nn.ModuleList:
        """The vision transformer's layers."""
        return self.model.model.vision_model.encoder.layers

    @property
    def last_encoder_layer(self) -> int:
        """The last one."""
        return len(self.encoder_layers) - 1

    def prepare(self, media: Media, pooled: bool = True) -> Patches:
        """A grid over each picture as it is; the frames of a video share what one may have."""
        inputs = self._inputs(media)
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

    def _inputs(self, media: Media) -> BatchFeature:
        """Patches and grids as the model's own processors give them."""
        if not media.is_video:
            return self.image_processor(media.pictures, return_tensors="pt")
        limits = self.frame_processor.size
        size = {
            "shortest_edge": limits.shortest_edge,
            "longest_edge": limits.longest_edge // len(media.pictures),
        }
        return self.frame_processor(media.pictures, size=size, return_tensors="pt")

    def encode(
        self, prepared: Patches, reducers: Mapping[int, EncoderReducer] | None = None
    ) -> Features:
        """The vision transformer's output, pooled where the model does so."""
        begin = seconds(self.device)
        tower = self.model.model.vision_model
        grids = prepared.grids.to(self.device)
        merges = torch.full_like(grids[:, 0], prepared.merge)
        out = tower(
            prepared.pixels.to(self.device, self.model.dtype),
            grid_thw=grids,
            merge_sizes=merges,
            output_hidden_states=[self.last_encoder_layer],
        )
        last = out.hidden_states[self.last_encoder_layer]
        tables = tower.rotary_pos_emb(last, get_vision_position_ids(grids, merges))
        counts = grids.prod(1).tolist()
        seen = zip(last.split(counts), *(table.split(counts) for table in tables), strict=True)
        inputs = [LayerInput(x, (cos, sin)) for x, cos, sin in seen]
        tokens = out.last_hidden_state.split([n // prepared.merge**2 for n in counts])
        return Features(
            hidden=list(tokens),
            special=[x[:0] for x in tokens],
            inputs={-1: inputs, -2: inputs},
            seconds=seconds(self.device) - begin,
        )

    def encoder_attention(self, layer: int, hidden: LayerInput) -> EncoderAttention:
        """Queries and keys of the last layer, after rotary embedding, whichever is asked for."""
        last = self.encoder_layers[-1]
        heads = (last.self_attn.num_heads, last.self_attn.head_dim)
        dtype = torch.promote_types(hidden.hidden.dtype, torch.float32)
        normed = last.layer_norm1(hidden.hidden)
        query, key = (
            project(normed).unflatten(-1, heads)
            for project in (last.self_attn.q_proj, last.self_attn.k_proj)
        )
        query, key = apply_rotary_pos_emb_vision(query, key, *hidden.tables)
        query, key = (x.transpose(0, 1).to(dtype) for x in (query, key))
        return EncoderAttention(query, key, n_front=0, has_cls=False)

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
