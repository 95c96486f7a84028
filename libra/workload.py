"""A whole request, counted in full: encoder, connector, all tokens of the prompt, output layer.

A multiply-add is two FLOPs here, as in the peak figures of devices, where the papers' formula in
`libra.cost` counts one, and visual tokens alone. Batch 1 throughout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from libra.architecture import Architecture
from libra.cost import at_depth
from libra.layer_cost import Operation, layer_operations, linear, peak_activation, repeated

if TYPE_CHECKING:
    from libra.trace import Trace


@dataclass(frozen=True)
class Workload:
    """One question to one model: how many tokens every part of it processes.

    `counts` are the visual tokens of each decoder layer. Encoders that compress have fewer patches
    in later layers: `patches` come into each layer of the encoder, of all units, and out of the
    last one; None: nothing is compressed before the connector. `n` visual tokens is what the
    connector would make of all patches.
    `units` are the patches of each unit; None: those of typical pictures.
    """

    architecture: Architecture
    n: int
    counts: Sequence[int]
    text: int  # all other tokens of the prompt
    patches: Sequence[int] | None = None
    itemsize: float = 2
    fused: bool = True
    units: Sequence[int] | None = None

    @classmethod
    def of(cls, trace: Trace, architecture: Architecture) -> Workload:
        """That of an answered question, by a model of this architecture.

        A trace of an older program does not know its prompt: then its text is left out.
        """
        cost, decoder = trace.cost, architecture.decoder
        n = cost.visual or len(trace.layout)
        return cls(
            architecture=architecture,
            n=n,
            counts=trace.counts,
            text=cost.text or 0,
            patches=_patches(trace, architecture),
            itemsize=cost.vanilla_kv_bytes / (2 * decoder.d_kv * n * len(trace.counts)),
            fused=cost.attention != "eager",
            units=cost.units,
        )

    def elsewhere(self, architecture: Architecture, n: int, itemsize: float = 2) -> Workload:
        """The same staircase of tokens in another model, for `n` visual tokens.

        Encoders that compress keep the shares of their layers, too.
        """
        counts = at_depth([self.n, *self.counts], n, architecture.decoder.n_layers)
        there = Workload(architecture, n, counts, self.text, None, itemsize, self.fused)
        if self.patches is None:
            return there
        whole, (*inside, out), depth = sum(self._units), self.patches, architecture.encoder.n_layers
        n = sum(there._units)
        patches = [*at_depth([whole, *inside], n, depth), *at_depth([whole, out], n, 1)]
        return replace(there, patches=patches)

    @property
    def vanilla(self) -> Workload:
        """The same request without compression."""
        return replace(self, counts=[self.n] * len(self.counts), patches=None)

    def encoder(self) -> list[Operation]:
        """Patch embedding and encoder layers."""
        a, whole = self.architecture, sum(self._units)
        work = [linear("patches", whole, (a.pixels, a.encoder.d), self.itemsize)]
        for entering in pairwise(self.patches or [whole] * (a.encoder.n_layers + 1)):
            for size, units in Counter(self._units).items():
                # Between attention and MLP they become as many as come into the next layer.
                n, left = (round(size * patches / whole) + a.special for patches in entering)
                unit = layer_operations(a.encoder, n, 0, self.itemsize, self.fused, left=left)
                work += [repeated(operation, units) for operation in unit]
        return work

    def connector(self) -> list[Operation]:
        """The projection of all that the encoder hands over, or of what becomes a visual token."""
        a = self.architecture
        reduced = a.projects_tokens or self.patches
        n = self.counts[0] if reduced else sum(self._units) // a.merge
        return [linear("connector", n, shape, self.itemsize) for shape in a.connector]

    def prefill(self, causal: bool = False) -> list[Operation]:
        """All decoder layers over the whole prompt, and the output layer for its last token.

        `causal` leaves out what causal attention hides, as fused kernels do.
        """
        return [*self._layers([(n + self.text, 0) for n in self.counts], causal), self._head()]

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

    @property
    def _units(self) -> Sequence[int]:
        """Patches of each unit, as far as known."""
        if self.units is not None:
            return self.units
        a = self.architecture
        units = a.units(self.n)
        return [a.tile or round(self.n * a.merge / units)] * units

    def _layers(
        self, lengths: Sequence[tuple[int, int]], causal: bool = False
    ) -> Iterator[Operation]:
        """Operations of the decoder layers, each with its (new tokens, cached tokens)."""
        for new, cached in lengths:
            yield from layer_operations(
                self.architecture.decoder, new, cached, self.itemsize, self.fused, causal
            )

    def _head(self) -> Operation:
        a = self.architecture
        return linear("head", 1, (a.decoder.d, a.vocabulary), self.itemsize)

    def per_layer(self) -> list[dict]:
        """What every decoder layer costs, as plain values for a table."""
        a, kv = self.architecture, self.kv_bytes()
        rows = []
        for i, n in enumerate(self.counts):
            prefill, decode = (
                layer_operations(a.decoder, new, cached, self.itemsize, self.fused)
                for new, cached in ((n + self.text, 0), (1, n + self.text))
            )
            rows.append(
                {
                    "layer": i,
                    "visual_tokens": n,
                    "prefill_flops": sum(o.flops for o in prefill),
                    "prefill_bytes": sum(o.bytes for o in prefill),
                    "decode_flops": sum(o.flops for o in decode),
                    "decode_bytes": sum(o.bytes for o in decode),
                    "kv_bytes": kv[i],
                    "peak_activation_bytes": peak_activation(
                        a.decoder, n + self.text, self.itemsize, self.fused
                    ),
                }
            )
        return rows


def _patches(trace: Trace, architecture: Architecture) -> list[int] | None:
    """Patches that come into each encoder layer of a trace, and out of the last one.

    Those that become no visual token (padding) go all the way.
    """
    inside = [event for event in trace.events if event.site == "encoder"]
    if not inside:
        return None
    n = inside[0].reduction.n_in
    padding = sum(trace.cost.units or [n]) - n
    patches = [n + padding] * (architecture.encoder.n_layers + 1)
    for event in inside:
        after = len(patches) - event.layer - 1
        patches[event.layer + 1 :] = [event.reduction.n_out + padding] * after
    return patches
