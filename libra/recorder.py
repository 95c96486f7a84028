"""What full tracing wants to know of one request: the decoder while it runs, the encoder after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import LongTensor, Tensor

from libra.attention import Rows
from libra.compression import Compression
from libra.detail import MAX_PAIRED, AttentionMatrix, Similarity, bins
from libra.devices import now
from libra.models.base import Family
from libra.models.features import Features

SAMPLES = 16  # queries of a bin, where a prompt has more than MAX_PAIRED tokens
PAIRS = 2**21  # of query and key, in all heads, that are looked at at once


class Recorder:
    """The decoder's part of the `Detail` of one request.

    Args:
        layers: the decoder layers whose attention is recorded as a whole.
    """

    def __init__(self, layers: Collection[int]):
        self._seconds = 0.0
        self.heads: list[Tensor] = []
        self.similarity: dict[int, Similarity] = {}
        self._layers = layers
        self._prompt: dict[int, AttentionMatrix] = {}
        self._output: dict[int, list[Tensor]] = defaultdict(list)

    @property
    def matrices(self) -> dict[int, AttentionMatrix]:
        """The attention of some spread layers, from the first token to the last."""
        return {
            layer: prompt.followed_by(self._output[layer]) for layer, prompt in self._prompt.items()
        }

    def prefill(self, layer: int, text: LongTensor, visual: LongTensor, rows: Rows) -> None:
        """Look at a layer that processes the prompt.

        Args:
            layer: its number.
            text: places of the text after the media, with which the prompt ends.
            visual: places of the visual tokens.
            rows: the layer's attention.
        """
        with self._timed(visual.device):
            self.heads.append(rows(text[-1:])[:, 0, visual].float().cpu())
            if layer not in self._layers:
                return
            first, end, n = int(visual.min()), int(text[0]), int(text[-1]) + 1
            segments = (first, end - first, n - end)
            queries = prompt_queries(segments)
            parts = [rows(q).mean(0).float() for q in queries.split(max(1, PAIRS // n))]
            self._prompt[layer] = AttentionMatrix.of_prompt(torch.cat(parts), queries, segments)

    def decode(self, layer: int, row: Tensor) -> None:
        """Keep the attention [T] of a generated token, mean over heads."""
        if layer in self._layers:
            with self._timed(row.device):
                self._output[layer].append(row.cpu())

    def compare(self, event: int, hidden: Tensor) -> None:
        """Look at the tokens [n, D] that an event merges by similarity."""
        if len(hidden) <= MAX_PAIRED:
            with self._timed(hidden.device):
                self.similarity[event] = Similarity.of(hidden)

    def lap(self) -> float:
        """Seconds that recording took since the last call."""
        taken, self._seconds = self._seconds, 0.0
        return taken

    @contextmanager
    def _timed(self, device: torch.device) -> Iterator[None]:
        begin = now(device)
        yield
        self._seconds += now(device) - begin


def prompt_queries(segments: tuple[int, int, int]) -> LongTensor:
    """All tokens of a prompt, or of a long one some evenly spread ones of each bin."""
    n = sum(segments)
    if n <= MAX_PAIRED:
        return torch.arange(n)
    edges = [*bins(segments).tolist(), n]
    return torch.cat(
        [
            a + torch.arange(min(b - a, SAMPLES)) * (b - a) // min(b - a, SAMPLES)
            for a, b in pairwise(edges)
        ]
    )


def received_in_encoder(
    family: Family, features: Features, compression: Compression
) -> dict[int, Tensor]:
    """The mean attention [N] that each patch receives in the encoder layers that were watched.

    NaN where a patch has been merged into another before that layer.
    """
    prepared, received = compression.prepared, {}
    for layer, states in features.inputs.items():
        if layer < 0:
            continue
        units = [family.encoder_attention(layer, x).received().cpu() for x in states]
        if not compression.encoder_layers:
            received[layer] = family.pack([row[:, None] for row in units], prepared)[:, 0]
            continue
        n_events = sum(event < layer for event in compression.encoder_layers)
        received[layer] = torch.full((len(prepared.layout),), torch.nan)
        for i, unit in compression.encoder_units.items():
            places = unit.places(n_events)
            received[layer][places] = units[i][-len(places) :]  # others stand before the patches
    return received
