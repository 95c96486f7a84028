"""Media as a model takes them: which tokens they become, and where these stand in the prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from PIL import Image
from torch import BoolTensor, LongTensor, Tensor

from libra.layout import TokenLayout
from libra.media import Media


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a model makes of media, known from their sizes alone. N visual tokens.

    A unit is what the encoder sees as one sequence: a picture, a tile of one, a frame. Visual
    tokens have a patch; newline tokens and the like are none, and stay in the prompt like text.
    """

    media: Media
    layout: TokenLayout  # of the visual tokens, in the order of the prompt
    unit: LongTensor  # [N] methods before the decoder reduce unit by unit
    patch: LongTensor  # [N] which patch of its unit; where patches are pooled, of no meaning
    spans: list[BoolTensor]  # per placeholder in the prompt: which of its tokens are visual
    views: list[Image.Image]  # the pictures that `layout.image` counts
    times: list[float] | None = None  # of a video: the second of each view
    chunk: int = 1  # patches in a row that the connector joins, once the encoder has reduced them

    @classmethod
    def of_pictures(
        cls, media: Media, layout: TokenLayout, spans: list[BoolTensor] | None = None
    ) -> Prepared:
        """Every picture or frame is one unit; by default, a span of visual tokens alone."""
        counts = layout.image.bincount()
        return cls(
            media=media,
            layout=replace(layout, frame=layout.image) if media.is_video else layout,
            unit=layout.image,
            patch=torch.cat([torch.arange(n) for n in counts]),
            spans=spans or [torch.ones(n, dtype=torch.bool) for n in counts.tolist()],
            views=media.pictures,
            times=media.times,
        )

    @cached_property
    def line(self) -> LongTensor:
        """[N] the line that each token stands in: lines end at newline tokens and at text."""
        ends = torch.cat([torch.cat([~span, torch.tensor([True])]) for span in self.spans])
        visual = torch.cat([torch.cat([span, torch.tensor([False])]) for span in self.spans])
        return ends.cumsum(0)[visual]


@dataclass(frozen=True, eq=False)
class Prompt:
    """The token sequence that the decoder gets. S tokens, N of them visual."""

    ids: LongTensor  # [S] with placeholders where the media stand
    visual: LongTensor  # [N] places of the visual tokens, ascending
    special: LongTensor  # [K] places of the media's other tokens, as newlines
    positions: Tensor | None = None  # [..., S] position ids, where they are not 0..S-1

    @property
    def n_trailing(self) -> int:
        """How many of the media's other tokens follow the last visual one."""
        return int((self.special > self.visual.max()).sum())

    def reduced(self, places: LongTensor) -> Prompt:
        """The prompt once only some visual tokens are left.

        Args:
            places: [n] the visual token whose place each of those left takes, line by line.
        """
        line = self.visual - torch.arange(len(self.visual))  # tokens before it that are not visual
        others = torch.ones(len(self.ids), dtype=torch.bool)
        others[self.visual] = False
        others = others.nonzero().flatten()
        visual = line[places] + torch.arange(len(places))
        origin = torch.empty(len(others) + len(places), dtype=torch.long)
        rest = torch.ones(len(origin), dtype=torch.bool)
        rest[visual] = False
        origin[rest], origin[visual] = others, self.visual[places]
        place = torch.empty_like(self.ids)
        place[others] = rest.nonzero().flatten()
        return Prompt(
            ids=self.ids[origin],
            visual=visual,
            special=place[self.special],
            positions=None if self.positions is None else self.positions[..., origin],
        )
