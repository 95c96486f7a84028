"""What an encoder makes of the media, and what its attention says about the patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from torch import Tensor


@dataclass(frozen=True)
class EncoderAttention:
    """Queries and keys of one encoder layer for one unit.

    The attention matrix is formed here, from the layer's own projections: of one layer, and only
    where a method ranks by it. Everything is about the T patches; the tokens before them are left
    out of what is returned, though their share is part of each row's sum.
    """

    query: Tensor  # [H, F + T, d], fp32 at least
    key: Tensor  # [H, F + T, d]
    n_front: int  # F: tokens before the patches, CLS first
    has_cls: bool = True

    def cls_row(self, joint: bool = False) -> Tensor | None:
        """[T] attention of the CLS token, mean over heads; None without a CLS token.

        Args:
            joint: take the heads together as one of full width instead (PruMerge's code).
        """
        if not self.has_cls:
            return None
        query, key = (_one_head(x) if joint else x for x in (self.query[:, :1], self.key))
        return _softmax(query, key).mean(0)[0, self.n_front :].float()

    def received(self) -> Tensor:
        """[T] attention that each patch receives, mean over heads and over all queries."""
        return _softmax(self.query, self.key).mean((0, 1))[self.n_front :].float()

    def keys(self, joint: bool = False) -> Tensor:
        """[T, d] keys, mean over heads; with `joint` [T, H * d], the heads side by side."""
        keys = _one_head(self.key)[0] if joint else self.key.mean(0)
        return keys[self.n_front :]


@dataclass
class Features:
    """What the encoder made of each unit: reusable wherever the encoder is left alone."""

    hidden: list[Tensor]  # per unit [T, D]: the patches
    special: list[Tensor]  # per unit [F, D]: the tokens before them, as CLS
    inputs: dict[int, list[Tensor]]  # by layer, see `Family.encoder_attention`: [F + T, D] each
    seconds: float

    def split(self, counts: Sequence[int]) -> list[Features]:
        """Those of so many units each, which share the time in equal parts."""
        return [
            Features(
                hidden=self.hidden[begin:end],
                special=self.special[begin:end],
                inputs={layer: units[begin:end] for layer, units in self.inputs.items()},
                seconds=self.seconds / len(counts),
            )
            for begin, end in pairwise([0, *accumulate(counts)])
        ]


def _one_head(x: Tensor) -> Tensor:
    """[H, T, d] -> [1, T, H * d]."""
    return x.transpose(0, 1).flatten(1)[None]


def _softmax(query: Tensor, key: Tensor) -> Tensor:
    """[H, R, d], [H, T, d] -> attention [H, R, T]."""
    return (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
