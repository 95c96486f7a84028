"""What one transformer layer computes, moves and holds, operation by operation.

A multiply-add counts as two FLOPs, as in the peak figures of devices. Element-wise work counts by
the bytes it moves; rotary embeddings are left out.
"""

from dataclasses import dataclass

from libra.architecture import Stack


@dataclass(frozen=True)
class Operation:
    """One kernel: what it computes, and what it moves between memory and processor."""

    name: str
    flops: float  # of matrix products; a multiply-add is two, element-wise work none
    weights: float  # bytes of weights read
    read: float  # bytes of activations, keys and values read
    written: float  # bytes of activations, keys and values written

    @property
    def bytes(self) -> float:
        """Bytes moved."""
        return self.weights + self.read + self.written


def linear(name: str, n: int, shape: tuple[int, int], itemsize: float) -> Operation:
    """`n` vectors through a weight matrix of `shape` (inputs, outputs)."""
    a, b = shape
    return Operation(name, 2 * n * a * b, a * b * itemsize, n * a * itemsize, n * b * itemsize)


def layer_operations(
    stack: Stack,
    n: int,
    cached: int = 0,
    itemsize: float = 2,
    fused: bool = True,
    causal: bool = False,
    left: float | None = None,
) -> list[Operation]:
    """What one layer does with `n` tokens whose attention spans `cached` earlier ones, too.

    Prefill and encoder: n tokens, none cached. Decoding: one token over the cache.

    Args:
        stack: sizes of the layer.
        n: tokens that it processes.
        cached: tokens whose keys and values are read from the cache.
        itemsize: bytes per number, of weights and activations.
        fused: flash or SDPA attention; eager attention writes and reads its matrix.
        causal: count of attention's products only what no later token is in, as fused kernels
            compute them; the papers, and eager attention, take the whole square.
        left: tokens that are left for the MLP, where a method reduces them before it.
    """
    keys, left = n + cached, n if left is None else left
    state, query = (n * width * itemsize for width in (stack.d, stack.width))
    rest, wide = (left * width * itemsize for width in (stack.d, stack.m))
    cache, matrix = keys * stack.d_kv * itemsize, stack.heads * n * keys * itemsize
    pairs = n * cached + n * (n + 1) / 2 if causal else n * keys
    product = 2 * pairs * stack.width
    if fused:
        attention = [Operation("attention", 2 * product, 0, query + 2 * cache, query)]
    else:
        attention = [
            Operation("scores", product, 0, query + cache, matrix),
            Operation("softmax", 0, 0, matrix, matrix),
            Operation("mix", product, 0, matrix + cache, query),
        ]
    matrices = {
        name: linear(name, left if name in ("gate", "up", "down") else n, shape, itemsize)
        for name, shape in stack.matrices.items()
    }
    return [
        Operation("norm", 0, 0, state, state),
        *(matrices[name] for name in ("query", "key", "value")),
        *attention,
        matrices["out"],
        Operation("add", 0, 0, 2 * state, state),
        Operation("norm", 0, 0, rest, rest),
        *(matrices[name] for name in ("gate", "up") if name in matrices),
        Operation("activation", 0, 0, (1 + stack.gated) * wide, wide),
        matrices["down"],
        Operation("add", 0, 0, 2 * rest, rest),
    ]


def peak_activation(stack: Stack, n: int, itemsize: float = 2, fused: bool = True) -> float:
    """Most bytes of activations held at once in a decoder layer for `n` tokens: an estimate.

    The prompt's embeddings and the layer's input are there all the time. Beside them it is most in
    one of three places: while rotary embedding turns the keys (norm, query before and after, key,
    value and three of the keys' size), at the softmax of eager attention (its matrix before and
    after), or in the MLP (residual, norm, three vectors of its width, and still the matrix of eager
    attention). KV cache and weights are not part of it.
    """
    matrix = 0 if fused else stack.heads * n
    rotary = stack.d + 2 * stack.width + 5 * stack.d_kv
    exact = matrix * 4 / itemsize if itemsize < 4 else 0  # the softmax is computed in fp32
    softmax = stack.d + 2 * stack.width + 2 * stack.d_kv + 2 * matrix + exact
    mlp = 2 * stack.d + (2 + stack.gated) * stack.m + matrix
    return n * (2 * stack.d + max(rotary, softmax, mlp)) * itemsize


def repeated(operation: Operation, times: int) -> Operation:
    """An operation over several sequences at once: its weights are read once."""
    o = operation
    return Operation(o.name, times * o.flops, o.weights, times * o.read, times * o.written)
