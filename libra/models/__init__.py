"""The models this project can open, and how a name becomes one.

A new family is one new file here and one line in `FAMILIES`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, PretrainedConfig
from transformers.utils import is_flash_attn_2_available

from libra.errors import InputError
from libra.models.base import Family, Geometry
from libra.models.features import Features
from libra.models.llava import Llava

__all__ = ["Family", "Features", "Geometry", "ModelEntry", "catalog", "entry", "open_model"]

FAMILIES: dict[str, type[Family]] = {"llava": Llava}  # by `model_type` of the configuration
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")
ASSETS = Path(__file__).resolve().parents[2] / "assets"


@dataclass(frozen=True)
class ModelEntry:
    """One model of the list that the page offers."""

    name: str
    source: str  # hub id or folder
    family: str
    parameters: float
    knows: str  # what it can be asked, in one sentence

    @property
    def memory(self) -> float:
        """Bytes the weights need on the device that `open_model` would choose, with headroom."""
        bytes_each = 2 if torch.cuda.is_available() else 4
        return 1.2 * bytes_each * self.parameters

    @property
    def reason(self) -> str:
        """Why this machine cannot run it; empty if it can."""
        has, where = _memory()
        if self.memory <= has:
            return ""
        return f"needs {self.memory / 1e9:.0f} GB of {where}, this machine has {has / 1e9:.0f} GB"

    @property
    def runnable(self) -> bool:
        """Whether this machine can run it."""
        return not self.reason


_PHOTOS = "Photos and everyday questions about them."

_CATALOG = (
    ModelEntry(
        "tiny-llava",
        str(ASSETS / "tiny-llava"),
        "llava",
        9.1e6,
        "Composed scenes of common objects: which are there, how many, where, what colour.",
    ),
    ModelEntry("llava-1.5-7b", "llava-hf/llava-1.5-7b-hf", "llava", 7.06e9, _PHOTOS),
    ModelEntry("llava-1.5-13b", "llava-hf/llava-1.5-13b-hf", "llava", 13.35e9, _PHOTOS),
)


def catalog() -> list[ModelEntry]:
    """The models known by name, the embedded one first."""
    return list(_CATALOG)


def entry(name: str) -> ModelEntry | None:
    """The catalogue's entry for a name or source, if it has one."""
    return next((e for e in _CATALOG if name in (e.name, e.source)), None)


def open_model(
    name_or_path: str,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    attention: str = "sdpa",
) -> Family:
    """Load a model by its name in the catalogue, hub id or local folder.

    Args:
        name_or_path: for example "tiny-llava" or "llava-hf/llava-1.5-7b-hf".
        device: "cpu", "cuda" ...; by default a GPU where there is one.
        dtype: by default fp32 on the CPU and the type of the stored weights on a GPU.
        attention: "sdpa", "eager" or "flash_attention_2" (SDPA where that is not installed).

    Raises:
        InputError: an unknown model, an unsupported family or attention.
    """
    if attention not in ATTENTIONS:
        raise InputError(f"attention must be one of {', '.join(ATTENTIONS)}, not {attention!r}.")
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        attention = "sdpa"
    known = entry(name_or_path)
    path = known.source if known else str(name_or_path)
    config = _config(path)
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise InputError(
            f"{name_or_path} is a {config.model_type} model; supported are: {', '.join(FAMILIES)}."
        )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if dtype is None:
        dtype = torch.float32 if device == "cpu" else config.dtype or torch.float16
    return family.load(path, device, dtype, attention)


def _config(path: str) -> PretrainedConfig:
    """The configuration of a model in a local folder or on the hub."""
    try:
        if not Path(path).is_dir() and path.count("/") != 1:  # not a hub id either: do not ask
            raise FileNotFoundError(path)
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        names = ", ".join(e.name for e in _CATALOG)
        raise InputError(
            f"There is no model {path!r} here or on the model hub. Choose {names}, a hub id "
            f"or a local folder."
        ) from error


def _memory() -> tuple[float, str]:
    """Bytes of memory of the device that `open_model` would choose, and what to call it."""
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory), "GPU memory"
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), "memory"
