"""Qwen2-VL: an encoder for pictures of any size that methods can act inside of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration

from libra.layout import TokenLayout
from libra.media import Media
from libra.models.base import EncoderReducers, seconds
from libra.models.features import EncoderAttention, Features, LayerInput
from libra.models.prepared import Prepared
from libra.models.qwen_vl import QwenVL
from libra.models.units import packed, reduce_together


class Qwen2VL(QwenVL):
    """Qwen2-VL.

    What methods inside the encoder leave is joined four by four, in its order, so that a visual
    token may come from patches that are no neighbours.

    Differs from the published code of iLLaVA: a token takes the position of its first patch's
    token, not the next of the positions that its picture begins with.
    """

    name = "qwen2_vl"
    counted = True
    model_class = Qwen2VLForConditionalGeneration

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
        reducers: EncoderReducers | None = None,
        layers: Collection[int] = (),
    ) -> Features:
        """The merged tokens of every unit."""
        if reducers is None:
            return super().encode(prepared, layers=layers)
        pixels, begin = self.pixels(prepared), seconds(self.device)
        pixels = pixels.to(self.device, self.model.dtype)
        grids = self.grids(prepared)
        counts = grids.prod(-1).tolist()
        x = self.tower.patch_embed(pixels)
        seen = LayerInput(x, self.tables(x, grids.to(self.device)))
        hidden, states = self._reduced(seen, counts, reducers, layers)
        return Features(
            hidden=list(hidden),
            special=[],
            inputs=states,
            patches=counts,
            seconds=seconds(self.device) - begin,
        )

    def _reduced(
        self,
        first: LayerInput,
        counts: Sequence[int],
        reducers: EncoderReducers,
        layers: Collection[int],
    ) -> tuple[Sequence[Tensor], dict[int, list[LayerInput]]]:
        """The merged tokens [n, d] of each unit, and what `layers` have seen of it.

        Units stand one after the other, whatever their lengths, as in the model itself. A chosen
        layer is taken apart, because what is merged between attention and MLP changes the length
        of the residual too, which no hook reaches. Patches keep their rotary embedding.

        Args:
            first: what the first layer sees of all units.
            counts: of how many patches each.
            reducers: what shrinks them.
            layers: whose inputs are wanted.
        """
        starts, seen, states = [0, *accumulate(counts)], first, {}
        for i, layer in enumerate(self.encoder_layers):
            if i in layers:
                states[i] = seen.split(counts)
            place = packed(seen, counts, self.tower.config)
            if i not in reducers.encoder_layers:
                seen = replace(seen, hidden=layer(seen.hidden, **place))
                continue
            attended = seen.hidden + layer.attn(layer.norm1(seen.hidden), **place)
            attention = partial(self._attention_of, layer, seen.split(counts))
            units = reduce_together(reducers, attended.split(counts), [0] * len(counts), attention)
            counts, h = [len(x) for x in units], torch.cat(units)
            left = [reducers[i].left.to(h.device) + starts[i] for i in range(len(units))]
            seen = first.at(torch.cat(left), h + layer.mlp(layer.norm2(h)))
        return self.tower.merger(seen.hidden).split([n // self.merge**2 for n in counts]), states

    def _attention_of(
        self, layer: nn.Module, seen: Sequence[LayerInput], units: Sequence[int]
    ) -> EncoderAttention:
        """Queries and keys of a layer for some units of one length."""
        return self.attention(layer, LayerInput.stack([seen[i] for i in units]))
