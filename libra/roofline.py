"""The roofline model: the least time that a device needs for an operation.

Either its arithmetic or its memory is the limit, so an operation of F FLOPs that moves B bytes
takes max(F / peak, B / bandwidth). Launches, synchronisation and imperfect kernels come on top.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from libra.devices import now
from libra.layer_cost import Operation
from libra.statistics import percent
from libra.workload import Workload


@dataclass(frozen=True)
class Device:
    """Peak rates of a device, in half precision unless it says otherwise."""

    name: str
    flops: float  # per second, dense matrix products; a multiply-add is two
    bandwidth: float  # bytes per second
    itemsize: float = 2  # bytes per number that the rates are of

    @property
    def ridge(self) -> float:
        """FLOPs per byte above which arithmetic is the limit."""
        return self.flops / self.bandwidth


RUNS = 7  # of each kind, to measure a device

# Tensor cores, FP16 with FP32 accumulation, without sparsity; as published by NVIDIA.
DEVICES = {
    device.name: device
    for device in (
        Device("V100", 112e12, 900e9),  # V100 datasheet (2020), the PCIe card
        Device("A100", 312e12, 2039e9),  # A100 datasheet (2021), 80 GB SXM
        Device("A800", 312e12, 2039e9),  # A800 datasheet (2022), 80 GB: an A100 with less NVLink
        Device("H100", 989.4e12, 3350e9),  # H100 datasheet (2023), SXM
        Device("H200", 989.4e12, 4800e9),  # H200 datasheet (2024), SXM
        Device("RTX 4090", 165.2e12, 1008e9),  # Ada architecture whitepaper (2022), appendix A
    )
}


def seconds(operations: Iterable[Operation], device: Device) -> float:
    """Least time for operations that run one after the other."""
    return sum(max(o.flops / device.flops, o.bytes / device.bandwidth) for o in operations)


@dataclass(frozen=True)
class Estimate:
    """Least seconds of the parts of one answer on a device; `decode` is one token."""

    encoder: float
    connector: float
    prefill: float
    decode: float

    @classmethod
    def of(cls, workload: Workload, device: Device) -> Estimate:
        """The parts of a workload, decoding at its first step."""
        return cls(
            encoder=seconds(workload.encoder(), device),
            connector=seconds(workload.connector(), device),
            prefill=seconds(workload.prefill(), device),
            decode=seconds(workload.decode(), device),
        )


def verdict(ours: Workload, vanilla: Workload, device: Device) -> str:
    """Where compression saves on a device, as a sentence: in prefill, decoding, memory, or nowhere.

    What it makes dearer is said, too: methods inside an encoder take the place of the pooling of
    video frames. Less than 1 % is nothing.
    """
    here, plain = Estimate.of(ours, device), Estimate.of(vanilla, device)
    rest = {
        "the encoder": here.encoder / plain.encoder,
        "the prefill": here.prefill / plain.prefill,
        "each further word": here.decode / plain.decode,
        "the KV cache": sum(ours.kv_bytes()) / sum(vanilla.kv_bytes()),
    }
    saved = [f"{percent(1 - x)} of {part}" for part, x in rest.items() if x <= 0.99]
    dearer = [f"{percent(x - 1)} more for {part}" for part, x in rest.items() if x >= 1.01]
    sentence = f"By the roofline of {device.name} this saves {_listed(saved) or 'nothing'}"
    if dearer:
        sentence += f", but takes {_listed(dearer)}"
    elif saved and abs(1 - rest["each further word"]) < 0.01:
        sentence += "; decoding, bound by the weights, is no faster"
    return f"{sentence}."


def _listed(parts: Sequence[str]) -> str:
    """`a, b and c`"""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def measure(device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Device:
    """The rates of this machine: the best of a few large matrix products and copies.

    Takes about a second. `dtype` is by default fp32 on a CPU and bf16 elsewhere.
    """
    device = torch.device(device)
    small = device.type == "cpu"
    dtype = dtype or (torch.float32 if small else torch.bfloat16)
    n, size = (1024, 2**24) if small else (8192, 2**29)  # multiplied and copied numbers
    a, b = torch.randn(2, n, n, device=device).to(dtype)
    source = torch.zeros(size, device=device, dtype=dtype)
    target = torch.empty_like(source)
    product, copy = (_fastest(run, device) for run in (lambda: a @ b, lambda: target.copy_(source)))
    moved = 2 * size * dtype.itemsize  # read and written
    return Device("this machine", 2 * n**3 / product, moved / copy, dtype.itemsize)


def _fastest(run: Callable[[], object], device: torch.device) -> float:
    """Least seconds of all runs."""
    spent = []
    for _ in range(RUNS):
        begin = now(device)
        run()
        spent.append(now(device) - begin)
    return min(spent)
