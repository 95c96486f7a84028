"""Detail: what full tracing adds to a trace, bounded in size.

How the encoder's layers attend to the patches, the decoder's attention as a whole and head by head,
and how alike the tokens were wherever a method merged by similarity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import LongTensor, Tensor

from libra.methods.operations import unit

MAX_PAIRED = 1100  # tokens of what is stored in pairs: then about a megabyte
SEGMENTS = ("system", "image", "instruction", "output")
BINS = (16, 48, 24, 24)  # of each segment, at most
OCTAVES = 24  # below one, that log codes reach
ATTENTION_SCALE = 2.0**14  # keeps the digits of 1e-8 in half precision: 1 * 2**14 < 65504


@dataclass(frozen=True)
class AttentionMatrix:
    """Causal attention of one decoder layer, mean over heads, over the S tokens that it held.

    The tokens are in the order of the sequence: system prompt, pictures (with what stands between
    them), instruction, output. Bins of about equal length divide each segment.
    """

    segments: tuple[int, ...]  # tokens of each of SEGMENTS; S in all
    pooled: Tensor  # [B, B] mean over the pairs of a query and a key that it sees; else 0
    raw: Tensor | None  # uint8 [S, S] `log_codes` of every pair, up to MAX_PAIRED tokens

    @classmethod
    def of_prompt(
        cls, rows: Tensor, queries: LongTensor, segments: tuple[int, int, int]
    ) -> AttentionMatrix:
        """From the rows [R, S] of some queries [R] of every bin of a prompt; raw where of all."""
        whole = len(queries) == rows.shape[1] <= MAX_PAIRED
        pooled = _pool(rows, queries, bins(segments))
        return cls((*segments, 0), pooled, log_codes(rows) if whole else None)

    def followed_by(self, rows: list[Tensor]) -> AttentionMatrix:
        """The same with the rows [S + 1], [S + 2] ... of the tokens generated after the prompt."""
        n_prompt, n = sum(self.segments), len(rows)
        segments = (*self.segments[:3], n)
        whole = torch.zeros(n, n_prompt + n)
        for row, values in zip(whole, rows, strict=True):
            row[: len(values)] = values
        starts, below = bins(segments), len(self.pooled)
        pooled = torch.zeros(len(starts), len(starts))
        pooled[:below, :below] = self.pooled
        pooled[below:] = _pool(whole, n_prompt + torch.arange(n), starts)[below:]
        raw = None
        if self.raw is not None and n_prompt + n <= MAX_PAIRED:
            raw = torch.nn.functional.pad(self.raw, (0, n, 0, n))
            raw[n_prompt:] = log_codes(whole)
        return AttentionMatrix(segments, pooled, raw)

    @property
    def starts(self) -> LongTensor:
        """[B] the first token of each bin."""
        return bins(self.segments)


@dataclass(frozen=True)
class Similarity:
    """Cosines between the n tokens before an event, in 8 bits: off by (high - low) / 510."""

    n: int
    low: float
    high: float
    codes: Tensor  # uint8 [n * (n - 1) / 2] pairs of a token and a later one, row by row

    @classmethod
    def of(cls, hidden: Tensor) -> Similarity:
        """Of hidden states [n, D]."""
        direction = unit(hidden)
        first, second = torch.triu_indices(len(hidden), len(hidden), 1, device=hidden.device)
        cosines = (direction @ direction.T)[first, second].float()
        low, high = cosines.aminmax() if len(cosines) else (cosines.new_tensor(1.0),) * 2
        codes = (cosines - low) / (high - low).clamp_min(1e-9) * 255
        return cls(len(hidden), float(low), float(high), codes.round().to("cpu", torch.uint8))

    def matrix(self) -> Tensor:
        """fp32 [n, n], symmetric; one with itself."""
        first, second = torch.triu_indices(self.n, self.n, 1)
        matrix = torch.eye(self.n)
        matrix[first, second] = self.low + (self.high - self.low) * (self.codes.float() / 255)
        matrix[second, first] = matrix[first, second]
        return matrix


@dataclass
class Detail:
    """What full tracing adds. N visual tokens, L decoder layers of H heads."""

    encoder: dict[int, Tensor]  # by layer: [N] mean attention received by each patch; NaN: gone
    matrices: dict[int, AttentionMatrix]  # by decoder layer
    heads: list[Tensor]  # [L] of [H, n_l]: the rows behind `Trace.importance`
    similarity: dict[int, Similarity]  # by index of the event, where it merged by similarity


def spread_layers(n: int) -> tuple[int, ...]:
    """The first, the last and two layers between, out of `n`; fewer where there are fewer."""
    return tuple(sorted({round(i * (n - 1) / 3) for i in range(4)}))


def bins(segments: tuple[int, ...]) -> LongTensor:
    """[B] first tokens of the bins of some segments of these lengths."""
    parts, start = [torch.zeros(0, dtype=torch.long)], 0
    for n, most in zip(segments, BINS, strict=False):
        parts.append(start + torch.arange(min(n, most)) * n // max(1, min(n, most)))
        start += n
    return torch.cat(parts)


def log_codes(share: Tensor) -> Tensor:
    """Shares of attention in 8 bits, on the CPU: 0 below 2**-24, then equal ratios up to 255."""
    codes = 1 + 254 * (1 + share.clamp_min(1e-30).log2() / OCTAVES)
    return torch.where(codes < 1, 0, codes.round()).to("cpu", torch.uint8)


def from_log_codes(codes: Tensor) -> Tensor:
    """The shares behind `log_codes`, fp32, within 3.4 %."""
    share = torch.exp2(((codes.float() - 1) / 254 - 1) * OCTAVES)
    return share.masked_fill(codes == 0, 0.0)


def _pool(rows: Tensor, queries: LongTensor, starts: LongTensor) -> Tensor:
    """Mean of rows [R, S] over the visible pairs of each two bins, [B, B] on the CPU."""
    key = torch.arange(rows.shape[1])

    def membership(tokens: LongTensor) -> Tensor:
        own = torch.searchsorted(starts, tokens, right=True) - 1
        return torch.nn.functional.one_hot(own, len(starts)).to(rows.device, rows.dtype)

    of_query, of_key = membership(queries).T, membership(key)
    visible = (key <= queries[:, None]).to(rows.device, rows.dtype)
    pairs = of_query @ (visible @ of_key)
    return (of_query @ (rows @ of_key) / pairs.clamp_min(1)).cpu()


# -- file ---------------------------------------------------------------------------------------


class Reader(Protocol):
    """Access to the arrays of a trace file."""

    def tensor(self, name: str) -> Tensor:
        """One array as a tensor."""


def pack(detail: Detail) -> tuple[dict, dict[str, Tensor]]:
    """The detail's part of a trace file: plain values, and named arrays."""
    arrays = {"heads": torch.cat([x.flatten() for x in detail.heads])}
    arrays |= {f"encoder{layer}": row for layer, row in detail.encoder.items()}
    arrays |= {f"matrix{layer}.pooled": m.pooled for layer, m in detail.matrices.items()}
    arrays = {name: (array * ATTENTION_SCALE).half() for name, array in arrays.items()}
    arrays |= {
        f"matrix{layer}.raw": m.raw for layer, m in detail.matrices.items() if m.raw is not None
    }
    arrays |= {f"similarity{event}": s.codes for event, s in detail.similarity.items()}
    header = {
        "heads": len(detail.heads[0]),
        "encoder": list(detail.encoder),
        "matrices": [
            {"layer": layer, "segments": m.segments, "raw": m.raw is not None}
            for layer, m in detail.matrices.items()
        ],
        "similarity": [
            {"event": event, "n": s.n, "low": s.low, "high": s.high}
            for event, s in detail.similarity.items()
        ],
    }
    return header, {f"detail.{name}": array for name, array in arrays.items()}


def unpack(header: dict, rows: list[int], file: Reader) -> Detail:
    """The detail in a trace file with attention rows of these lengths; may raise anything."""

    def shares(name: str) -> Tensor:
        stored = file.tensor(f"detail.{name}")
        if stored.dtype != torch.float16:
            raise ValueError(f"{name} holds no shares of attention")
        return stored.float() / ATTENTION_SCALE

    heads = header["heads"]
    matrices = {}
    for entry in header["matrices"]:
        layer, segments = entry["layer"], tuple(entry["segments"])
        raw = file.tensor(f"detail.matrix{layer}.raw") if entry["raw"] else None
        matrices[layer] = AttentionMatrix(segments, shares(f"matrix{layer}.pooled"), raw)
    return Detail(
        encoder={layer: shares(f"encoder{layer}") for layer in header["encoder"]},
        matrices=matrices,
        heads=[x.view(heads, -1) for x in shares("heads").split([heads * n for n in rows])],
        similarity={
            entry["event"]: Similarity(
                entry["n"],
                entry["low"],
                entry["high"],
                file.tensor(f"detail.similarity{entry['event']}"),
            )
            for entry in header["similarity"]
        },
    )
