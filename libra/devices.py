"""What is to be known of a device, such as its name: every measured figure has to say it."""

from __future__ import annotations

import platform
import time
from functools import lru_cache
from pathlib import Path

import torch


def runs_ahead(device: torch.device) -> bool:
    """Whether work is queued there, so that to ask for a number is to wait until all is done."""
    return device.type != "cpu"


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@lru_cache
def name_of(device: torch.device) -> str:
    """`NVIDIA H100 80GB HBM3`, `CPU (AMD EPYC)`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return f"CPU ({next(named, platform.processor() or platform.machine())})"
