"""Qwen2-VL: an encoder for pictures of any size that methods can act inside of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration

from libra.devices import now
from libra.layout import TokenLayout
from libra.media import Media
from libra.models.base import EncoderReducers
from libra.models.features import Features, LayerInput
from libra.models.prepared import Prepared
from libra.models.qwen_vl import QwenVL
from libra.models.units import run_reduced


class Qwen2VL(QwenVL):
    """Qwen2-VL.

    What methods inside the encoder leave is joined four by four, in its order, so that a visual
    token may come from patches that are no neighbours.

    Differs from the published code of iLLaVA: a token takes the position of its first patch's
    token, not the next of the positions that its picture begins with.
    """

    name = "qwen2_vl"
    counted = True
    presets: ClassVar[Mapping[str, str]] = {"illava": "Qwen2-VL"}
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
        pixels, begin = self.pixels(prepared), now(self.device)
        pixels = pixels.to(self.device, self.model.dtype)
        grids = self.grids(prepared)
        counts = grids.prod(-1).tolist()
        x = self.tower.patch_embed(pixels)
        seen = LayerInput(x, self.tables(x, grids.to(self.device)))
        units, _, states = run_reduced(self, seen, counts, reducers, layers)
        merged = self.tower.merger(torch.cat(units))
        return Features(
            hidden=list(merged.split([len(unit) // self.merge**2 for unit in units])),
            special=[],
            inputs=states,
            patches=counts,
            seconds=now(self.device) - begin,
        )

    def attend(self, layer: nn.Module, hidden: Tensor, place: dict) -> Tensor:
        """See `libra.models.units.Steps`."""
        return hidden + layer.attn(layer.norm1(hidden), **place)

    def feed(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        """See `libra.models.units.Steps`."""
        return hidden + layer.mlp(layer.norm2(hidden))
