"""Qwen3-VL: DeepStack features of early encoder layers, and times of a video as text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import LongTensor, Tensor
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

from libra.media import Media
from libra.models.prepared import Prepared, Prompt
from libra.models.qwen_vl import QwenVL


class Qwen3VL(QwenVL):
    """Qwen3-VL. A visual token carries its DeepStack features beside it into the decoder.

    The decoder adds them to its first layers' outputs, token by token.
    """

    name = "qwen3_vl"
    keeps_in_encoder = "what its early layers make of every token goes to the decoder"
    model_class = Qwen3VLForConditionalGeneration

    def __init__(self, model, *processors):
        super().__init__(model, *processors)
        model.model.language_model._deepstack_process = with_deepstack

    @property
    def first_layer(self) -> int:
        """The first decoder layer after which tokens can be reduced: the last DeepStack layer."""
        return len(self.tower.deepstack_visual_indexes) - 1

    def frame_size(self, frames: Sequence[Image.Image]) -> tuple[int, int]:
        """(height, width) in pixels of every frame; the limits are those of the whole video."""
        width, height = frames[0].size
        limits = self.video_size
        return smart_resize(
            max(len(frames), self.slot),
            height,
            width,
            self.slot,
            self.side,
            limits.shortest_edge,
            limits.longest_edge,
        )

    def prepare(self, media: Media, pooled: bool = True) -> Prepared:
        """As for all families; in a video, every slot stands alone behind its time."""
        prepared = super().prepare(media, pooled)
        counts = prepared.layout.image.bincount().tolist()
        return replace(prepared, spans=[torch.ones(n, dtype=torch.bool) for n in counts])

    def run_tower(
        self, pixels: Tensor, grids: LongTensor, layers: Collection[int]
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The tokens with their DeepStack features [N, (1 + F) * d], and states [P, D]."""
        out = self.see(pixels, grids, layers)
        tokens = torch.cat([out.pooler_output, *out.deepstack_features], 1)
        return tokens, {layer: out.hidden_states[layer] for layer in layers}

    def expand(self, ids: LongTensor, kind: str, prepared: Prepared) -> Prompt:
        """As for all families, once a video's placeholder has become one per slot."""
        if prepared.media.is_video:
            place = (ids == self.model.config.video_token_id).nonzero().flatten()[:1]
            slots = self.tokenizer(
                self.film(prepared), add_special_tokens=False, return_tensors="pt"
            ).input_ids[0]
            ids = torch.cat([ids[:place], slots, ids[place + 1 :]])
        return super().expand(ids, kind, prepared)

    def film(self, prepared: Prepared) -> str:
        """A video as text: the time of every slot, the mean of its first and last frame's."""
        times = torch.tensor(prepared.media.times, dtype=torch.float64)
        first, last = times[:: self.slot], times[self.slot - 1 :: self.slot]
        last = torch.cat([last, times[-1:]])[: len(first)]  # a frame that is left over fills a slot
        means = ((first + last) / 2).tolist()
        return "".join(
            f"<{mean:.1f} seconds><|vision_start|><|video_pad|><|vision_end|>" for mean in means
        )

    def inputs(self, prompt: Prompt, tokens: Tensor, specials: Tensor | None = None) -> dict:
        """The prompt, and as the tower's own output what the model puts in its places."""
        kind = "video" if (prompt.ids == self.model.config.video_token_id).any() else "image"
        merged, *deep = tokens.split(self.geometry.d, dim=1)
        output = BaseModelOutputWithDeepstackFeatures(
            pooler_output=[merged], deepstack_features=[[x] for x in deep]
        )
        return {
            "input_ids": prompt.ids[None].to(self.device),
            "position_ids": prompt.positions[:, None].to(self.device),
            "mm_encoder_outputs": {kind: output},
        }

    def joined(self, calls: Sequence[dict]) -> dict:
        """As for all families; of each kind of media, the outputs follow each other, too."""
        outputs = [call["mm_encoder_outputs"] for call in calls if "mm_encoder_outputs" in call]
        kinds = {kind for output in outputs for kind in output}
        seen = {kind: _joined([x[kind] for x in outputs if kind in x]) for kind in kinds}
        return super().joined(calls) | ({"mm_encoder_outputs": seen} if seen else {})


def with_deepstack(hidden: Tensor, places: Tensor, features: Tensor) -> Tensor:
    """What the decoder's first layers hand on: DeepStack features added at the visual tokens.

    The model's own way picks these tokens out by a mask, for which a GPU has to be waited for.

    Args:
        hidden: [B, S, d] a layer's output.
        places: bool [B, S] where the visual tokens are.
        features: [N, d] one row for each of them.
    """
    places = places.to(hidden.device)
    number = places.flatten().cumsum(0).sub_(1).clamp_min_(0).view(places.shape)
    added = features.to(hidden.device, hidden.dtype)[number]
    return hidden + added.masked_fill_(~places[..., None], 0)


def _joined(
    outputs: Sequence[BaseModelOutputWithDeepstackFeatures],
) -> BaseModelOutputWithDeepstackFeatures:
    """The outputs of the tower for several requests, as one."""
    deep = zip(*(output.deepstack_features for output in outputs), strict=True)
    return BaseModelOutputWithDeepstackFeatures(
        pooler_output=[x for output in outputs for x in output.pooler_output],
        deepstack_features=[[x for own in layer for x in own] for layer in deep],
    )
