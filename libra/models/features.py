"""What an encoder makes of the media, and what its attention says about the patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import LongTensor, Tensor

from libra.media import Media

Tables = tuple[Tensor, Tensor]  # [(U,) T, d] cosines and sines of a rotary embedding
PAIRS = 2**26  # of query and key, in all heads, that attention is formed of at once: 256 MiB


@dataclass(frozen=True)
class EncoderAttention:
    """Queries and keys of one encoder layer for one unit, or for several of one length (U).

    The attention matrix is formed here, from the layer's own projections: of one layer, and only
    where a method ranks by it. Everything is about the T patches; the tokens before them are left
    out of what is returned, though their share is part of each row's sum.
    """

    query: Tensor  # [(U,) H, F + T, d], fp32 at least
    key: Tensor  # [(U,) H, F + T, d]
    n_front: int  # F: tokens before the patches, CLS first
    has_cls: bool = True

    def cls_row(self, joint: bool = False) -> Tensor | None:
        """[(U,) T] attention of the CLS token, mean over heads; None without a CLS token.

        Args:
            joint: take the heads together as one of full width instead (PruMerge's code).
        """
        if not self.has_cls:
            return None
        query, key = (_one_head(x) if joint else x for x in (self.query[..., :1, :], self.key))
        return _softmax(query, key).mean(-3)[..., 0, self.n_front :].float()

    def received(self) -> Tensor:
        """[(U,) T] attention that each patch receives, mean over heads and over all queries."""
        *several, heads, length, _ = self.query.shape
        rows = max(1, PAIRS // (heads * length))  # of all heads, at once: of a unit or of several
        query, key = (
            x.reshape(-1, *x.shape[-3:]).split(max(1, rows // length))
            for x in (self.query, self.key)
        )
        parts = [
            sum(
                _softmax(some, k).mean((-3, -2)) * (some.shape[-2] / length)
                for some in q.split(rows, dim=-2)
            )
            for q, k in zip(query, key, strict=True)
        ]
        return torch.cat(parts).view(*several, length)[..., self.n_front :].float()

    def keys(self, joint: bool = False) -> Tensor:
        """[(U,) T, d] keys, mean over heads; with `joint` [(U,) T, H * d], them side by side."""
        keys = (_one_head(self.key) if joint else self.key).mean(-3)
        return keys[..., self.n_front :, :]


@dataclass(frozen=True)
class LayerInput:
    """What a layer sees of one unit, or of several of one length, as it turns queries and keys."""

    hidden: Tensor  # [(U,) T, D]
    tables: Tables

    def split(self, counts: Sequence[int]) -> list[LayerInput]:
        """The units of so many tokens each that stand one after the other."""
        tables = zip(*(table.split(counts) for table in self.tables), strict=True)
        return [LayerInput(*unit) for unit in zip(self.hidden.split(counts), tables, strict=True)]

    def at(self, tokens: LongTensor, hidden: Tensor) -> LayerInput:
        """Other hidden states [n, D] in the places of some of the tokens."""
        return LayerInput(hidden, tuple(table[tokens] for table in self.tables))

    @classmethod
    def stack(cls, units: Sequence[LayerInput]) -> LayerInput:
        """Units of one length as one batch."""
        tables = zip(*(unit.tables for unit in units), strict=True)
        return cls(torch.stack([unit.hidden for unit in units]), tuple(map(torch.stack, tables)))


@dataclass
class Features:
    """What the encoder made of each unit: reusable wherever the encoder is left alone."""

    hidden: list[Tensor]  # per unit [T, D]: the patches
    special: list[Tensor]  # per unit [F, D]: the tokens before them, as CLS
    inputs: dict[int, list[Tensor]]  # by layer, see `Family.encoder_attention`: [F + T, D] each
    patches: list[int]  # of each unit, before any was merged or pooled
    seconds: float  # of the encoder, without what turns media into pixels
    media: Media | None = None  # what they are of, where they are handed out

    def split(self, counts: Sequence[int]) -> list[Features]:
        """Those of so many units each, which share the time in equal parts."""
        return [
            Features(
                hidden=self.hidden[begin:end],
                special=self.special[begin:end],
                inputs={layer: units[begin:end] for layer, units in self.inputs.items()},
                patches=self.patches[begin:end],
                seconds=self.seconds / len(counts),
            )
            for begin, end in pairwise([0, *accumulate(counts)])
        ]


def _one_head(x: Tensor) -> Tensor:
    """[..., H, T, d] -> [..., 1, T, H * d]."""
    return x.transpose(-3, -2).flatten(-2).unsqueeze(-3)


def _softmax(query: Tensor, key: Tensor) -> Tensor:
    """[..., R, d], [..., T, d] -> attention [..., R, T]."""
    return (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
