"""What is read of a model's folder, or of the hub: nothing in it is ever run.

An error names the part that is missing; which model it is of, the caller knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import (
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.video_processing_utils import BaseVideoProcessor

from libra.devices import runs_ahead
from libra.models.fused import fuse_norms
from libra.models.room import placed, spread


@contextmanager
def reading(part: str, owner: str = "it") -> Iterator[None]:
    """Say in one line which part cannot be read, instead of what the hub could have to do with it.

    Raises:
        ValueError: the part cannot be read.
    """
    try:
        yield
    except Exception as error:  # each part raises what it likes
        raise ValueError(f"{owner} has no {part} that can be read") from error


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, with the chat template of the processor where that has its own.

    A tokenizer's template may be the language model's, which knows of no media.
    """
    with reading("tokenizer (tokenizer.json)"):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        processor, _ = ProcessorMixin.get_processor_dict(path)
    tokenizer.chat_template = processor.get("chat_template") or tokenizer.chat_template
    return tokenizer


def load_image_processor(kind: type, path: str, owner: str = "it"):
    """What turns pictures into pixels, in the class `kind`, which needs no torchvision."""
    with reading("image processor (preprocessor_config.json)", owner):
        return kind.from_pretrained(path)


def video_settings(path: str) -> dict:
    """What is noted down of a model's video processor, whose class would need torchvision."""
    with reading("video processor (video_preprocessor_config.json)"):
        settings, _ = BaseVideoProcessor.get_video_processor_dict(path)
    return settings


def load_model(
    kind: type[PreTrainedModel],
    path: str,
    device: str,
    dtype: torch.dtype,
    attention: str,
    config: PreTrainedConfig | None = None,
    **options: object,
) -> PreTrainedModel:
    """A model with all of its weights, where it belongs.

    Raises:
        ValueError: weights are missing, which transformers would make up at random.
    """
    model, report = kind.from_pretrained(
        path,
        config=_without_code(config or kind.config_class.from_pretrained(path)),
        dtype=dtype,
        attn_implementation=attention,
        output_loading_info=True,
        **spread(device),
        **options,
    )
    if missing := sorted(report["missing_keys"]):  # without those that are tied to others
        raise ValueError(f"it lacks {len(missing)} weights, for example {missing[0]}")
    model = placed(model, device)
    if runs_ahead(model.device):
        fuse_norms(model)
    return model


def _without_code(config: PreTrainedConfig) -> PreTrainedConfig:
    """A configuration that names no code: a model asks to run that of its parts, too."""
    vars(config).pop("auto_map", None)
    for part in filter(None, (getattr(config, name, None) for name in config.sub_configs)):
        _without_code(part)
    return config
