"""Whether a model has room on this machine, and on which of its devices."""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.utils import is_accelerate_available

HEADROOM = 1.2  # what is held beside the weights, as a factor
AUTO = "auto"  # a device's name that means all GPUs together
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # the files that are read, best first
CGROUP = [  # where a container's limit stands: of version 2, of version 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
]


def capacity() -> tuple[float, str]:
    """Bytes of memory that `open_model` would use on its own, and what to call it."""
    if not torch.cuda.is_available():
        return _ram(), "memory"
    gpus = _gpus()
    if len(gpus) > 1 and not is_accelerate_available():
        return max(gpus), "memory on one GPU (`make gpu` adds what spreads a model over several)"
    return sum(gpus), "GPU memory"


def lack(needed: float) -> str:
    """What this machine lacks for a model that needs so many bytes; empty if nothing."""
    has, where = capacity()
    if needed <= has:
        return ""
    return f"needs {needed / 1e9:.0f} GB of {where}, this machine has {has / 1e9:.0f} GB"


def best_device(needed: float | None) -> str:
    """The GPU with the most room, all of them if that may be too little; the CPU without any.

    Other models may lie on a GPU already, so that what is free counts.

    Args:
        needed: bytes of memory; None where that is not known.
    """
    if not torch.cuda.is_available():
        return "cpu"
    if torch.cuda.device_count() == 1:
        return "cuda"
    free = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
    fits_one = needed is not None and needed <= max(free)
    return f"cuda:{free.index(max(free))}" if fits_one or not is_accelerate_available() else AUTO


def on_disk(folder: str) -> float | None:
    """Bytes of the weights in a folder; None where there are none."""
    files = [file for file in Path(folder).iterdir() if file.is_file()]
    return stored({file.name: file.stat().st_size for file in files})


def stored(sizes: Mapping[str, int]) -> float | None:
    """Bytes of the weights among files of these names and sizes; None where there are none."""
    kinds = ([size for name, size in sizes.items() if fnmatch(name, kind)] for kind in WEIGHTS)
    return next((float(sum(kind)) for kind in kinds if kind), None)


def spread(device: str) -> dict[str, str]:
    """Arguments of `from_pretrained` that load for a device."""
    return {"device_map": AUTO} if device == AUTO else {}


def placed(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """A loaded model where it belongs: on one device, or as accelerate has spread it.

    Raises:
        torch.OutOfMemoryError: some layers found no room on any GPU.
    """
    if device != AUTO:
        return model.to(device)
    if {"cpu", "disk"} & set(model.hf_device_map.values()):
        raise torch.OutOfMemoryError("The GPUs together are too small.")
    return model


def release() -> None:
    """Give back what is no longer referenced, so that others find the GPU's memory free."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def abandon(error: BaseException) -> None:
    """Give back what an attempt held that has failed: its frames keep all they had computed."""
    traceback.clear_frames(error.__traceback__)
    release()


def _ram() -> float:
    """Bytes of memory of this machine, or of the container that this is."""
    limits = [file.read_text().strip() for file in CGROUP if file.is_file()]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return float(min([machine, *(int(limit) for limit in limits if limit.isdigit())]))


def _gpus() -> list[float]:
    """Bytes of memory of each GPU."""
    numbers = range(torch.cuda.device_count())
    return [float(torch.cuda.get_device_properties(i).total_memory) for i in numbers]
