"""What every family of vision-language models has to tell the engine."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from PIL import Image
from torch import LongTensor, Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from libra.errors import InputError
from libra.layout import TokenLayout
from libra.models.features import EncoderAttention, Features


@dataclass(frozen=True)
class Geometry:
    """Sizes of the decoder that its cost depends on."""

    n_layers: int
    d: int  # hidden size
    m: int  # MLP size
    d_kv: int  # key-value heads times head size


def seconds(device: torch.device) -> float:
    """The time now, once the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class EncoderReducer(Protocol):
    """Shrinks the tokens of one picture in chosen encoder layers, between attention and MLP."""

    encoder_layers: tuple[int, ...]

    def reduce_in_encoder(
        self, layer: int, hidden: Tensor, attention: Callable[[], EncoderAttention]
    ) -> Tensor:
        """[T, D] tokens of one picture -> [T', D]; special tokens stay in front, untouched."""


class Family(ABC):
    """A loaded model of one family and everything in which families differ."""

    name: ClassVar[str]

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        self.model = model.eval()
        self.tokenizer = tokenizer
        if tokenizer.chat_template is None:
            raise InputError("This model has no chat template: questions cannot be put to it.")
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.geometry = Geometry(
            n_layers=config.num_hidden_layers,
            d=config.hidden_size,
            m=config.intermediate_size,
            d_kv=(getattr(config, "num_key_value_heads", None) or heads) * head_width,
        )
        self.max_positions = config.max_position_embeddings
        eos = model.generation_config.eos_token_id or tokenizer.eos_token_id
        self.eos = set(eos if isinstance(eos, list) else [eos])

    @classmethod
    @abstractmethod
    def load(cls, path: str, device: str, dtype: torch.dtype, attention: str) -> Family:
        """Load a model of this family from a local folder or the hub."""

    @property
    @abstractmethod
    def decoder_layers(self) -> nn.ModuleList:
        """The layers of the language model."""

    @property
    @abstractmethod
    def encoder_layers(self) -> nn.ModuleList:
        """The layers of the vision encoder."""

    @abstractmethod
    def encode(
        self, images: Sequence[Image.Image], reducers: Sequence[EncoderReducer] | None = None
    ) -> Features:
        """Run the vision encoder; with one reducer per picture, let them shrink its tokens."""

    @abstractmethod
    def encoder_attention(self, layer: int, hidden: Tensor) -> EncoderAttention:
        """Queries and keys of an encoder layer for its input [T, D]."""

    @abstractmethod
    def connect(self, hidden: Tensor) -> Tensor:
        """Project encoder features [N, D] to visual tokens [N, d]."""

    @abstractmethod
    def layout(self, sizes: Sequence[tuple[int, int]]) -> TokenLayout:
        """The patch behind each visual token of pictures of these (width, height)."""

    @property
    @abstractmethod
    def last_encoder_layer(self) -> int:
        """The last encoder layer whose output reaches the language model."""

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go."""
        return self.model.get_input_embeddings().weight.device

    def prompt(self, question: str, counts: Sequence[int]) -> tuple[LongTensor, LongTensor]:
        """The question in the model's chat format.

        Args:
            question: what the user asks.
            counts: how many visual tokens each picture has.

        Returns:
            Token ids [S], each picture's placeholder repeated to its count, and the places [N] of
            the placeholders.

        Raises:
            InputError: a question with control words, or a prompt without a place per picture.
        """
        for special in self.tokenizer.all_special_tokens:
            if special in question:
                raise InputError(f"The question contains {special!r}, a control word of the model.")
        content = [{"type": "image"} for _ in counts] + [{"type": "text", "text": question}]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        begin = self.tokenizer.bos_token
        ids = self.tokenizer(
            text,
            add_special_tokens=begin is None or not text.startswith(begin),
            return_tensors="pt",
        ).input_ids[0]
        image_id = self.model.config.image_token_id
        places = int((ids == image_id).sum())
        if places != len(counts):
            raise InputError(
                f"The prompt has places for {places} pictures, not for {len(counts)}: take the "
                f"model's word for a picture out of the question, or use a model whose chat "
                f"template takes pictures."
            )
        repeats = torch.ones_like(ids)
        repeats[ids == image_id] = torch.tensor(counts)
        ids = ids.repeat_interleave(repeats)
        return ids, (ids == image_id).nonzero().flatten()

    def embed(self, ids: LongTensor, visual: LongTensor, tokens: Tensor) -> Tensor:
        """The prompt [1, S, d] with the visual tokens [N, d] at their places."""
        embedded = self.model.get_input_embeddings()(ids.to(self.device))
        embedded[visual.to(self.device)] = tokens.to(self.device, embedded.dtype)
        return embedded[None]
