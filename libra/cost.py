"""What the visual tokens cost: how many each layer processes, FLOPs of the prefill, KV cache.

These are the papers' counts: visual tokens in the decoder alone, and a multiply-add is one FLOP.
`libra.workload` counts everything, for the roofline. The cost of a trace counts what was there:
compensation tokens, too, which the papers leave out.
"""

import operator
from collections.abc import Iterable, Sequence
from numbers import Integral, Real

from libra.errors import InputError


def checked_layers(layers: int | Iterable[int], allowed: range, what: str) -> tuple[int, ...]:
    """Numbers of layers, one alone or several, as a tuple.

    Raises:
        InputError: `what` are no whole numbers, not out of `allowed`, repeated or descending.
    """
    try:
        several = (layers,) if isinstance(layers, Integral) else layers
        chosen = tuple(operator.index(layer) for layer in several)
    except TypeError:
        raise InputError(f"{what} must be whole numbers, for example 1, 3, 5.") from None
    if any(layer not in allowed for layer in chosen):
        limits = f"{allowed.start}..{allowed.stop - 1}"
        raise InputError(f"{what} must lie in {limits}, but these are {list(chosen)}.")
    if list(chosen) != sorted(set(chosen)):
        raise InputError(f"{what} must ascend without repeats, but these are {list(chosen)}.")
    return chosen


def token_counts(n: int, n_layers: int, layers: int | Iterable[int], ratio: float) -> list[int]:
    """How many visual tokens each decoder layer processes; compensation tokens are not counted.

    Layers are 0-based, and a layer in `layers` still processes the full set: the tokens are
    reduced on its output, from N to max(1, round(N * (1 - ratio))), and none stay none.

    Raises:
        InputError: a ratio that is no number in 0..1, or layers as of `checked_layers`.
    """
    if not (isinstance(ratio, Real) and 0 <= ratio <= 1):
        raise InputError(f"The ratio must be a number from 0 to 1, not {ratio!r}.")
    layers = checked_layers(layers, range(n_layers), "Layers")
    counts = []
    for layer in range(n_layers):
        counts.append(n)
        if layer in layers:
            n = min(n, max(1, round(n * (1 - ratio))))
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


def prefill_flops(
    counts: Sequence[float], d: int, m: int, d_kv: int | None = None, d_q: int | None = None
) -> float:
    """FLOPs of the visual tokens in the prefill, as Libra-Merging (section 4.1) counts them.

    A layer with n tokens, hidden size d and FFN size m costs 4nd^2 + 2n^2 d + 3ndm: projections,
    attention, gated FFN; one multiply-add is one FLOP. With grouped-query attention the key and
    value projections have `d_kv` outputs and cost n*d*d_kv each; `d_q` is the width of the
    queries, where that is not the hidden size.
    """
    q, kv = d_q or d, d if d_kv is None else d_kv
    ns = map(float, counts)  # integers of an array would overflow
    return float(sum(2 * n * d * (q + kv) + 2 * n * n * q + 3 * n * d * m for n in ns))


def kv_bytes(counts: Sequence[int], d_kv: int, itemsize: int = 2) -> list[int]:
    """Bytes that the visual tokens take in the KV cache, per layer.

    `d_kv` is the width of the keys (key-value heads times head size), `itemsize` the bytes per
    number. Layers before a reduction keep their full cache.
    """
    return [2 * n * d_kv * itemsize for n in counts]
