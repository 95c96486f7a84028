"""Qwen2-VL: an encoder for pictures of any size that methods can act inside of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import LongTensor, Tensor
from transformers import Qwen2VLForConditionalGeneration

from libra.layout import TokenLayout
from libra.media import Media
from libra.models.base import EncoderReducer, seconds
from libra.models.features import Features
from libra.models.prepared import Prepared
from libra.models.qwen_vl import LayerInput, QwenVL


class Qwen2VL(QwenVL):
    """Qwen2-VL.

    What methods inside the encoder leave is joined four by four, in its order, so that a visual
    token may come from patches that are no neighbours.

    Differs from the published code of iLLaVA: a token takes the position of its first patch's
    token, not the next of the positions that its picture begins with.
    """

    name = "qwen2_vl"
    model_class = Qwen2VLForConditionalGeneration
    reduces_in_encoder = True

    def prepare(self, media: Media, pooled: bool = True) -> Prepared:
        """As for all families; for methods inside the encoder, its patches instead of tokens."""
        prepared = super().prepare(media)
        if pooled:
            return prepared
        grids = [self._patches(i, *grid) for i, (_, *grid) in enumerate(self.grids(prepared))]
        chunk = self.merge**2
        spans = [span.repeat_interleave(chunk) for span in prepared.spans]
        patches = Prepared.of_pictures(media, TokenLayout.cat(grids), spans)
        return replace(patches, views=prepared.views, times=prepared.times, chunk=chunk)

    def _patches(self, image: int, rows: int, columns: int) -> TokenLayout:
        """The patches of a picture or slot in the order in which the encoder has them."""
        places = torch.arange(rows * columns)
        blocks = places.view(rows // self.merge, self.merge, columns // self.merge, self.merge)
        grid = TokenLayout.square_crop(1, 1, (rows, columns), image)
        return grid.select(blocks.transpose(1, 2).flatten())

    def encode(
        self,
        prepared: Prepared,
        reducers: Mapping[int, EncoderReducer] | None = None,
        layers: Collection[int] = (),
    ) -> Features:
        """The merged tokens of every unit; with reducers, unit by unit."""
        if reducers is None:
            return super().encode(prepared, layers=layers)
        begin = seconds(self.device)
        pixels = self.pixels(prepared).to(self.device, self.model.dtype)
        grids = self.grids(prepared).to(self.device)
        units = zip(pixels.split(grids.prod(-1).tolist()), grids.split(1), strict=True)
        hidden, states = zip(
            *(self._reduced(*unit, reducers[i], layers) for i, unit in enumerate(units)),
            strict=True,
        )
        return Features(
            hidden=list(hidden),
            special=[],
            inputs={layer: [x[layer] for x in states] for layer in layers},
            seconds=seconds(self.device) - begin,
        )

    def _reduced(
        self, pixels: Tensor, grid: LongTensor, reducer: EncoderReducer, layers: Collection[int]
    ) -> tuple[Tensor, dict[int, LayerInput]]:
        """The merged tokens [n, d] of one unit [T, W], and what `layers` have seen of it.

        A chosen layer is taken apart, because what is merged between attention and MLP changes the
        length of the residual too, which no hook reaches. Patches keep their rotary embedding.
        """
        x = self.tower.patch_embed(pixels)
        whole = self.tables(x, grid)
        tables, states = whole, {}
        for i, layer in enumerate(self.encoder_layers):
            place = {
                "cu_seqlens": torch.tensor([0, len(x)], dtype=torch.int32, device=x.device),
                "position_embeddings": tables,
            }
            seen = LayerInput(x, tables)
            if i in layers:
                states[i] = seen
            if i not in reducer.encoder_layers:
                x = layer(x, **place)
                continue
            attended = x + layer.attn(layer.norm1(x), **place)
            attention = partial(self.attention, layer, seen)
            h = reducer.reduce_in_encoder(i, attended, attention)
            x = h + layer.mlp(layer.norm2(h))
            tables = tuple(table[reducer.left.to(x.device)] for table in whole)
        return self.tower.merger(x), states
