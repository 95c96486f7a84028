"""LLaVA-1.5: a CLIP tower, a two-layer projector and a Llama decoder."""

from __future__ import annotations

from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration

from libra.media import Media
from libra.models.frames import square_grids
from libra.models.prepared import Prepared
from libra.models.tower import TowerFamily


class Llava(TowerFamily):
    """LLaVA-1.5 and everything built like it (`LlavaForConditionalGeneration` over CLIP)."""

    name = "llava"
    model_class = LlavaForConditionalGeneration
    processor_class = CLIPImageProcessorPil

    @property
    def most_frames(self) -> int:
        """As many as fill seven eighths of its context."""
        return max(1, self.max_positions * 7 // 8 // (self.grid[0] * self.grid[1]))

    @property
    def frames(self) -> int:
        """The usual number, or as many as fit."""
        return min(super().frames, self.most_frames)

    def prepare(self, media: Media, pooled: bool = True) -> Prepared:
        """A square grid in the centre of each picture, or over all of it where none is cut."""
        grids = square_grids(media.pictures, self.grid, self.image_processor.do_center_crop)
        return Prepared.of_pictures(media, grids)
