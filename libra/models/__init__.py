"""The models this project can open, and how a name becomes one.

A new family is one new file here and one line in `FAMILIES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from transformers import AutoConfig, PretrainedConfig
from transformers.utils import is_flash_attn_2_available

from libra.errors import InputError
from libra.models import room
from libra.models.base import Family
from libra.models.features import Features
from libra.models.llava import Llava
from libra.models.llava_next import LlavaNext
from libra.models.llava_next_video import LlavaNextVideo
from libra.models.llava_onevision import LlavaOnevision
from libra.models.qwen2_5_vl import Qwen25VL
from libra.models.qwen2_vl import Qwen2VL
from libra.models.qwen3_vl import Qwen3VL
from libra.models.video_llava import VideoLlava
from libra.models.videollama2 import VideoLlama2
from libra.models.videollama3 import VideoLlama3

__all__ = [
    "Family",
    "Features",
    "ModelEntry",
    "catalog",
    "entry",
    "memory_needed",
    "open_model",
]

FAMILIES: dict[str, type[Family]] = {  # by `model_type` of the configuration
    "llava": Llava,
    "llava_next": LlavaNext,
    "llava_onevision": LlavaOnevision,
    "llava_next_video": LlavaNextVideo,
    "video_llava": VideoLlava,
    "qwen2_vl": Qwen2VL,
    "qwen2_5_vl": Qwen25VL,
    "qwen3_vl": Qwen3VL,
    "videollama2_mistral": VideoLlama2,
    "videollama2_qwen2": VideoLlama2,
    "video_llama_3": VideoLlama3,
}
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")
PATIENCE = 5  # seconds to wait for the model hub
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
        return room.HEADROOM * bytes_each * self.parameters

    @property
    def reason(self) -> str:
        """Why this machine cannot run it; empty if it can."""
        return room.lack(self.memory)

    @property
    def runnable(self) -> bool:
        """Whether this machine can run it."""
        return not self.reason


_PHOTOS = "Photos and everyday questions about them."
_FILMS = "Photos or a video, and everyday questions about them."

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
    ModelEntry("llava-next-8b", "llava-hf/llama3-llava-next-8b-hf", "llava-next", 8.36e9, _PHOTOS),
    ModelEntry(
        "llava-next-13b", "llava-hf/llava-v1.6-vicuna-13b-hf", "llava-next", 13.35e9, _PHOTOS
    ),
    ModelEntry("llava-next-34b", "llava-hf/llava-v1.6-34b-hf", "llava-next", 34.76e9, _PHOTOS),
    ModelEntry(
        "llava-onevision-0.5b",
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        "llava-onevision",
        0.89e9,
        _FILMS,
    ),
    ModelEntry(
        "llava-onevision-7b",
        "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        "llava-onevision",
        8.03e9,
        _FILMS,
    ),
    ModelEntry(
        "llava-next-video-7b",
        "llava-hf/LLaVA-NeXT-Video-7B-hf",
        "llava-next-video",
        7.06e9,
        _FILMS,
    ),
    ModelEntry("video-llava-7b", "LanguageBind/Video-LLaVA-7B-hf", "video-llava", 7.37e9, _FILMS),
    ModelEntry("qwen2-vl-2b", "Qwen/Qwen2-VL-2B-Instruct", "qwen2_vl", 2.21e9, _FILMS),
    ModelEntry("qwen2-vl-7b", "Qwen/Qwen2-VL-7B-Instruct", "qwen2_vl", 8.29e9, _FILMS),
    ModelEntry("qwen2.5-vl-3b", "Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", 3.75e9, _FILMS),
    ModelEntry("qwen2.5-vl-7b", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 8.29e9, _FILMS),
    ModelEntry("qwen3-vl-2b", "Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl", 2.13e9, _FILMS),
    ModelEntry("qwen3-vl-4b", "Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl", 4.44e9, _FILMS),
    ModelEntry("qwen3-vl-8b", "Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", 8.77e9, _FILMS),
    ModelEntry("videollama2-7b", "DAMO-NLP-SG/VideoLLaMA2-7B-16F", "videollama2", 8.03e9, _FILMS),
    ModelEntry(
        "videollama2.1-7b", "DAMO-NLP-SG/VideoLLaMA2.1-7B-16F", "videollama2", 8.42e9, _FILMS
    ),
    ModelEntry("videollama3-2b", "lkhl/VideoLLaMA3-2B-Image-HF", "videollama3", 1.96e9, _FILMS),
    ModelEntry("videollama3-7b", "lkhl/VideoLLaMA3-7B-Image-HF", "videollama3", 8.04e9, _FILMS),
)


def catalog() -> list[ModelEntry]:
    """The models known by name, the embedded one first."""
    return list(_CATALOG)


def entry(name: str | Path) -> ModelEntry | None:
    """The catalogue's entry for a name or source, if it has one."""
    return next((e for e in _CATALOG if str(name) in (e.name, e.source)), None)


def open_model(
    name_or_path: str | Path,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    attention: str | None = None,
) -> Family:
    """Load a model by its name in the catalogue, hub id or local folder.

    Args:
        name_or_path: for example "tiny-llava" or "llava-hf/llava-1.5-7b-hf".
        device: "cpu", "cuda" ..., or "auto" for all GPUs together (needs accelerate); by default a
            GPU where there is one, or all where the model does not fit one.
        dtype: a type or its name; by default fp32 on the CPU and the type of the stored weights on
            a GPU.
        attention: "sdpa", "eager" or "flash_attention_2"; by default flash-attn, and SDPA where
            that is not installed or does not go: on a CPU, or in full precision.

    Raises:
        InputError: an unknown model, device, type or attention, an unsupported family, a model hub
            out of reach, or a model that is damaged or too large.
    """
    if attention not in (None, *ATTENTIONS):
        raise InputError(f"attention must be one of {', '.join(ATTENTIONS)}, not {attention!r}.")
    dtype = _dtype(dtype)
    path, stored, config = _find(name_or_path)
    if device is None:
        device = room.best_device(_checked_need(name_or_path, stored, config))
    device = _device(str(device))
    if dtype is None:
        dtype = torch.float32 if device.startswith("cpu") else config.dtype or torch.float16
    attention = _attention(attention, device, dtype)
    try:
        return FAMILIES[config.model_type].load(path, device, dtype, attention)
    except InputError:
        raise
    except torch.OutOfMemoryError as error:
        room.abandon(error)
        raise InputError(
            f"{name_or_path} does not fit into the memory of {device}. Choose a smaller model, or "
            f"cpu as its device."
        ) from None
    except Exception as error:  # tokenizer, processor, weights: each raises what it likes
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"{name_or_path} could not be loaded: {reason}. Its folder may be incomplete: download "
            f"it anew."
        ) from error


def _dtype(asked: torch.dtype | str | None) -> torch.dtype | None:
    """A type of floating-point numbers, which may be asked for by its name."""
    dtype = getattr(torch, asked, None) if isinstance(asked, str) else asked
    if asked is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        return dtype
    raise InputError(f"dtype must be float32, bfloat16 or float16, not {asked!r}.")


def _attention(asked: str | None, device: str, dtype: torch.dtype) -> str:
    """The attention that is asked for, or the fastest; SDPA where flash-attn does not go."""
    if asked not in (None, "flash_attention_2"):
        return asked
    goes = not device.startswith("cpu") and dtype.itemsize == 2 and is_flash_attn_2_available()
    return "flash_attention_2" if goes else "sdpa"


def memory_needed(name_or_path: str | Path) -> float | None:
    """Bytes of memory that `open_model` will need; None where only loading will tell.

    Raises:
        InputError: whatever can be said against the model before its weights are fetched.
    """
    _, stored, config = _find(name_or_path)
    return _checked_need(name_or_path, stored, config)


def _find(name_or_path: str | Path) -> tuple[str, float | None, PretrainedConfig]:
    """Where a model is, the bytes of its stored weights if known, and its configuration."""
    known = entry(name_or_path)
    path, stored = _located(known.source if known else str(name_or_path))
    return path, stored, _config(name_or_path, path)


def _checked_need(
    name_or_path: str | Path, stored: float | None, config: PretrainedConfig
) -> float | None:
    """Bytes of memory that a model needs where `open_model` would put it; None if not known."""
    if known := entry(name_or_path):
        needed = known.memory
    else:
        dtype = config.dtype or torch.float32
        itemsize = dtype.itemsize if torch.cuda.is_available() else torch.float32.itemsize
        needed = stored and room.HEADROOM * stored / dtype.itemsize * itemsize
    if needed and (reason := room.lack(needed)):
        raise InputError(f"{name_or_path} {reason}. Choose a smaller model.")
    return needed


def _device(name: str) -> str:
    """The device of this name, once something was computed there."""
    try:
        torch.zeros(1, device="cuda" if name == room.AUTO else name).item()
    except (RuntimeError, AssertionError, TypeError):  # unknown, not compiled in, or not there
        choices = "cpu or cuda" if torch.cuda.is_available() else "cpu"
        raise InputError(f"There is no device {name!r} here. Choose {choices}.") from None
    return name


def _located(path: str) -> tuple[str, float | None]:
    """Where to load from, and bytes of the weights there if known.

    That is a folder or hub id as it is, or what is stored here of an id. The hub is asked once,
    without the retries of its library, so that a machine without a connection says so at once.
    """
    if Path(path).is_dir():
        return path, room.on_disk(path)
    choices = f"{', '.join(e.name for e in _CATALOG)}, a hub id or a local folder"
    missing = InputError(
        f"There is no model {path!r} here or on the model hub. Choose {choices}; for a private "
        f"model, set HF_TOKEN."
    )
    if path.count("/") != 1:  # not a hub id either: do not ask
        raise missing
    try:
        info = HfApi().model_info(path, timeout=PATIENCE, files_metadata=True)
        if info.gated:
            HfApi().auth_check(path)
        return path, room.stored({file.rfilename: file.size or 0 for file in info.siblings or []})
    except GatedRepoError:
        raise InputError(
            f"{path} is a gated model: accept its terms on https://huggingface.co/{path}, and set "
            f"HF_TOKEN to a token of your account."
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise missing from None
    except Exception:  # no connection, no answer, offline mode
        pass
    try:
        folder = snapshot_download(path, local_files_only=True)
        return folder, room.on_disk(folder)
    except LocalEntryNotFoundError:
        raise InputError(
            f"The model hub cannot be reached, and {path!r} is not stored here. Connect to the "
            f"internet, or choose {_CATALOG[0].name} or a local folder."
        ) from None


def _config(name: str, path: str) -> PretrainedConfig:
    """The configuration of a model of a supported family.

    The type is read first: it may be none of transformers', and its code is never run.
    """
    try:
        kind = PretrainedConfig.get_config_dict(path)[0]["model_type"]
        known = kind in FAMILIES
        config = AutoConfig.from_pretrained(path, trust_remote_code=False) if known else None
    except Exception as error:  # no file, no JSON, odd values: each raises what it likes
        names = ", ".join(e.name for e in _CATALOG)
        raise InputError(
            f"{name} holds no model that can be read. Choose {names}, a hub id or a local folder."
        ) from error
    if not known:
        raise InputError(f"{name} is a {kind} model; supported are: {', '.join(FAMILIES)}.")
    return config
