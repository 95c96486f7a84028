"""What an encoder makes of the pictures, and what its attention says about the patches."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class EncoderAttention:
    """Queries and keys of one encoder layer for one picture.

    The attention matrix is formed here, from the layer's own projections: of one layer, and only
    where a method ranks by it. Everything is about the N patches; special tokens are left out of
    what is returned, though their share is part of each row's sum.
    """

    query: Tensor  # [H, T, d], fp32 at least
    key: Tensor  # [H, T, d]
    n_special: int  # leading tokens that are no patches: 1 where there is a CLS token

    def cls_row(self, joint: bool = False) -> Tensor | None:
        """[N] attention of the CLS token, mean over heads; None without a CLS token.

        Args:
            joint: take the heads together as one of full width instead (PruMerge's code).
        """
        if self.n_special == 0:
            return None
        query, key = (_one_head(x) if joint else x for x in (self.query[:, :1], self.key))
        return _softmax(query, key).mean(0)[0, self.n_special :].float()

    def received(self) -> Tensor:
        """[N] attention that each patch receives, mean over heads and over all T queries."""
        return _softmax(self.query, self.key).mean((0, 1))[self.n_special :].float()

    def keys(self, joint: bool = False) -> Tensor:
        """[N, d] keys, mean over heads; with `joint` [N, H * d], the heads side by side."""
        keys = _one_head(self.key)[0] if joint else self.key.mean(0)
        return keys[self.n_special :]


@dataclass
class Features:
    """What the encoder made of each picture: reusable wherever the encoder is left alone."""

    hidden: list[Tensor]  # per picture [N, D]: the input of the projector
    inputs: dict[int, list[Tensor]]  # of the last layers, -1 and -2: per picture [T, D]
    seconds: float


def _one_head(x: Tensor) -> Tensor:
    """[H, T, d] -> [1, T, H * d]."""
    return x.transpose(0, 1).flatten(1)[None]


def _softmax(query: Tensor, key: Tensor) -> Tensor:
    """[H, R, d], [H, T, d] -> attention [H, R, T]."""
    return (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
