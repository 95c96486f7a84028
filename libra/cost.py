"""What an answer costs: FLOPs, bytes moved and memory, by arithmetic alone.

Two counts of FLOPs are in use. `prefill_flops` is the papers': visual tokens in the decoder alone,
and a multiply-add is one FLOP. Everything else here is the full count of a `Workload`: encoder,
connector, all tokens of the prompt and the output layer, where a multiply-add is two FLOPs, as in
the peak figures of devices. Batch 1 throughout.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from libra.architecture import Architecture
from libra.errors import InputError
from libra.layer_cost import Operation, layer_operations, linear, peak_activation, repeated


def token_counts(n: int, n_layers: int, layers: Sequence[int], ratio: float) -> list[int]:
    """How many visual tokens each decoder layer processes; compensation tokens are not counted.

    Layers are 0-based, and a layer in `layers` still processes the full set: the tokens are
    reduced on its output, from N to max(1, round(N * (1 - ratio))).

    Raises:
        InputError: a ratio outside 0..1, or layers out of range, repeated or descending.
    """
    if not 0 <= ratio <= 1:
        raise InputError(f"The ratio must be a number from 0 to 1, not {ratio}.")
    if any(not 0 <= layer < n_layers for layer in layers):
        raise InputError(f"Layers must lie in 0..{n_layers - 1}, but these are {list(layers)}.")
    if list(layers) != sorted(set(layers)):
        raise InputError(f"Layers must ascend without repeats, but these are {list(layers)}.")
    counts = []
    for layer in range(n_layers):
        counts.append(n)
        if layer in layers:
            n = max(1, round(n * (1 - ratio)))
    return counts


def at_depth(counts: Sequence[int], n: int, n_layers: int) -> list[int]:
    """The staircase `counts` carried over to `n` visual tokens in a decoder `n_layers` deep.

    A layer keeps the share of the tokens that the layer at the same relative depth kept of its
    first layer's, times what had gone before the decoder; the first of them has to be N.

    Args:
        counts: visual tokens before the decoder, then in each of its layers.
        n: visual tokens before the decoder in the other model.
        n_layers: its depth.
    """
    whole, *layers = counts
    shares = (layers[i * len(layers) // n_layers] / whole for i in range(n_layers))
    return [max(1, round(n * share)) for share in shares]


def prefill_flops(counts: Sequence[float], d: int, m: int, d_kv: int | None = None) -> float:
    """FLOPs of the visual tokens in the prefill, as Libra-Merging (section 4.1) counts them.

    A layer with n tokens, hidden size d and FFN size m costs 4nd^2 + 2n^2 d + 3ndm: projections,
    attention, gated FFN; one multiply-add is one FLOP. With grouped-query attention the key and
    value projections have `d_kv` outputs and cost n*d*d_kv each.
    """
    kv = d if d_kv is None else d_kv
    return float(sum(2 * n * d * (d + kv) + 2 * n * n * d + 3 * n * d * m for n in counts))


def kv_bytes(counts: Sequence[int], d_kv: int, itemsize: int = 2) -> list[int]:
    """Bytes that the visual tokens take in the KV cache, per layer.

    `d_kv` is the width of the keys (key-value heads times head size), `itemsize` the bytes per
    number. Layers before a reduction keep their full cache.
    """
    return [2 * n * d_kv * itemsize for n in counts]


@dataclass(frozen=True)
class Workload:
    """One question to one model: how many tokens every part of it processes.

    `counts` are the visual tokens of each decoder layer. Encoders that compress have fewer patches
    in later layers: `patches` per layer of the encoder, of all units; None: nothing is compressed
    before the connector. `n` visual tokens is what the connector would make of all patches.
    """

    architecture: Architecture
    n: int
    counts: Sequence[int]
    text: int  # all other tokens of the prompt
    patches: Sequence[int] | None = None
    itemsize: float = 2
    fused: bool = True

    def encoder(self) -> list[Operation]:
        """Patch embedding and encoder layers."""
        a = self.architecture
        units = a.units(self.n)
        whole = units * a.tile if a.tile else self.n * a.merge
        work = [linear("patches", whole, (a.pixels, a.encoder.d), self.itemsize)]
        for patches in self.patches or [whole] * a.encoder.n_layers:
            tokens = round(patches / units) + a.special
            unit = layer_operations(a.encoder, tokens, 0, self.itemsize, self.fused)
            work += [repeated(operation, units) for operation in unit]
        return work

    def connector(self) -> list[Operation]:
        """The projection of what the encoder hands over: at most all patches."""
        a = self.architecture
        n = self.patches[-1] // a.merge if self.patches else self.n
        return [linear("connector", n, shape, self.itemsize) for shape in a.connector]

    def prefill(self) -> list[Operation]:
        """All decoder layers over the whole prompt, and the output layer for its last token."""
        return [*self._layers([(n + self.text, 0) for n in self.counts]), self._head()]

    def decode(self, step: int = 1) -> list[Operation]:
        """The `step`-th token after the first one: one token over everything before it."""
        return [*self._layers([(1, n + self.text + step - 1) for n in self.counts]), self._head()]

    def kv_bytes(self) -> list[float]:
        """Bytes of keys and values after the prefill, text included, per decoder layer."""
        width = self.architecture.decoder.d_kv * self.itemsize
        return [2 * (n + self.text) * width for n in self.counts]

    def peak_activation(self) -> float:
        """Most bytes of activations at once in the prefill: those of its longest layer."""
        longest = max(self.counts) + self.text
        return peak_activation(self.architecture.decoder, longest, self.itemsize, self.fused)

    def weight_bytes(self) -> float:
        """Bytes of the decoder's weights, embedding and output layer included."""
        a = self.architecture
        matrices = sum(x * y for x, y in a.decoder.matrices.values()) * a.decoder.n_layers
        return (matrices + 2 * a.vocabulary * a.decoder.d) * self.itemsize

    def _layers(self, lengths: Sequence[tuple[int, int]]) -> Iterator[Operation]:
        """Operations of the decoder layers, each with its (new tokens, cached tokens)."""
        for new, cached in lengths:
            yield from layer_operations(
                self.architecture.decoder, new, cached, self.itemsize, self.fused
            )

    def _head(self) -> Operation:
        a = self.architecture
        return linear("head", 1, (a.decoder.d, a.vocabulary), self.itemsize)
