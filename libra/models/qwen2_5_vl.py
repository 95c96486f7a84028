"""Qwen2.5-VL: most layers of its encoder attend within windows, and M-RoPE counts in seconds."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import LongTensor, Tensor
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.vision_utils import get_vision_window_index

from libra.models.prepared import Prepared
from libra.models.qwen_vl import QwenVL


class Qwen25VL(QwenVL):
    """Qwen2.5-VL."""

    name = "qwen2_5_vl"
    keeps_in_encoder = "most of its layers attend within windows"
    model_class = Qwen2_5_VLForConditionalGeneration

    @property
    def attention_layer(self) -> int:
        """The last layer without windows."""
        return max(self.tower.fullatt_block_indexes)

    @property
    def watched_layers(self) -> tuple[int, ...]:
        """The layers without windows."""
        return tuple(sorted(self.tower.fullatt_block_indexes))

    def run_tower(
        self, pixels: Tensor, grids: LongTensor, layers: Collection[int]
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """As for all families; inside, the tower goes window by window."""
        tokens, states = super().run_tower(pixels, grids, layers)
        tower = self.tower
        order, _ = get_vision_window_index(grids, self.merge, tower.window_size, tower.patch_size)
        back = order.argsort().to(tokens.device)
        windows = {layer: x.unflatten(0, (-1, self.merge**2)) for layer, x in states.items()}
        return tokens, {layer: x[back].flatten(0, 1) for layer, x in windows.items()}

    def clock(self, prepared: Prepared) -> dict[str, list[float]]:
        """Seconds from slot to slot, by the mean distance of the frames."""
        if not prepared.media.is_video:
            return {}
        times = torch.tensor(prepared.media.times, dtype=torch.float64)
        apart = float(times.diff().mean()) if len(times) > 1 else 1.0
        return {"second_per_grid_ts": [self.slot * apart]}
