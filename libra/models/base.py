"""What every family of vision-language models has to tell the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import cycle
from typing import ClassVar, Protocol

import torch
from torch import LongTensor, Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from libra.architecture import Stack
from libra.detail import spread_layers
from libra.errors import InputError
from libra.media import Media
from libra.models.features import EncoderAttention, Features
from libra.models.prepared import Prepared, Prompt
from libra.video import FRAMES

_CALLED = {"image": "pictures", "video": "videos"}


class UnitReducer(Protocol):
    """Shrinks the tokens of one unit."""

    patches: LongTensor  # [n] the patches of the unit that become visual tokens, in their order
    left: LongTensor  # [n'] those of them whose places the tokens take that are left


class EncoderReducers(Protocol):
    """By unit, what shrinks its tokens in chosen encoder layers, between attention and MLP."""

    encoder_layers: tuple[int, ...]

    def __contains__(self, unit: object) -> bool: ...

    def __getitem__(self, unit: int) -> UnitReducer: ...

    def reduce_in_encoder(
        self, units: Sequence[int], hidden: Tensor, attention: Callable[[], EncoderAttention]
    ) -> Sequence[Tensor]:
        """Tokens [U, F + n, D] of some units -> [F + n', D] of each; the F in front stay."""


class Family(ABC):
    """A loaded model of one family and everything in which families differ.

    The way of a request: `prepare` (which tokens the media become) -> `encode` (patches of each
    unit) -> `tokens` (the visual tokens, where methods at the connector act) -> `connect` (to the
    decoder's width) -> `inputs` (the prompt with all that stands in it).

    A new family writes `load`, `prepare`, `encode`, `encoder_attention` and `connect`, and where it
    differs from a plain row of patches, also: `pack` (tiles, pooling), `project` (where that comes
    after projecting), `specials` (newline tokens), `tokens` (a connector that mixes patches) and
    `positions` (M-RoPE).
    """

    name: ClassVar[str]
    takes_video: ClassVar[bool] = False  # otherwise the frames of a video are so many pictures
    has_cls: bool = True  # whether the encoder has a CLS token to rank patches by
    keeps_in_encoder: str = ""  # why `encode` takes no reducers; empty if it does
    presets: ClassVar[Mapping[str, str]] = {}  # by method: that of its settings made for the family
    counted: ClassVar[bool] = False  # whether `Architecture.of` says all that its cost depends on
    first_layer: int = 0  # the first decoder layer after which tokens can be reduced

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        self.model = model.eval()
        self.tokenizer = tokenizer
        if tokenizer.chat_template is None:
            raise InputError("This model has no chat template: questions cannot be put to it.")
        config = model.config.get_text_config()
        self.geometry = Stack.of_decoder(config)
        self.max_positions = config.max_position_embeddings
        eos = model.generation_config.eos_token_id or tokenizer.eos_token_id
        self.eos = set(eos if isinstance(eos, list) else [eos])

    @classmethod
    @abstractmethod
    def load(cls, path: str, device: str, dtype: torch.dtype, attention: str) -> Family:
        """Load a model of this family from a local folder or the hub."""

    @property
    def frames(self) -> int:
        """How many frames of a video it looks at unless told otherwise."""
        return FRAMES

    @property
    def most_frames(self) -> int | None:
        """How many frames of a video fit its context, if each takes the same room."""
        return None

    @property
    def decoder_layers(self) -> nn.ModuleList:
        """The layers of the language model."""
        return self.model.model.language_model.layers

    @property
    @abstractmethod
    def encoder_layers(self) -> nn.ModuleList:
        """The layers of the vision encoder."""

    @property
    @abstractmethod
    def last_encoder_layer(self) -> int:
        """The last encoder layer whose output reaches the language model."""

    @abstractmethod
    def prepare(self, media: Media, pooled: bool = True) -> Prepared:
        """Which tokens the media become; needs their sizes alone.

        Args:
            media: pictures or a video.
            pooled: whether patches are pooled, where the model does so. Methods that act inside
                the encoder take the place of pooling.

        Raises:
            InputError: media that the model does not take.
        """

    @property
    def watched_layers(self) -> tuple[int, ...]:
        """Some spread encoder layers in which all tokens of a unit attend to each other."""
        return spread_layers(self.last_encoder_layer + 1)

    @abstractmethod
    def encode(
        self,
        prepared: Prepared,
        reducers: EncoderReducers | None = None,
        layers: Collection[int] = (),
    ) -> Features:
        """Run the vision encoder.

        Args:
            prepared: the media.
            reducers: what shrinks the tokens of units; units of one length go through together.
            layers: of which the inputs are handed over, too; among `watched_layers`.
        """

    def watch(self, prepared: Prepared, reducers: EncoderReducers | None = None) -> Features:
        """`encode`, and hand over the inputs of the watched layers, too."""
        return self.encode(prepared, reducers, self.watched_layers)

    def encode_each(self, prepared: Sequence[Prepared]) -> list[Features]:
        """What `encode` makes of the media of several requests: at once, where it can."""
        return [self.encode(media) for media in prepared]

    @abstractmethod
    def encoder_attention(self, layer: int, hidden: Tensor) -> EncoderAttention:
        """Queries and keys of an encoder layer for its input [F + T, D].

        Layer -2 is the one that gives the model its features (`last_encoder_layer`), -1 the one
        after it, or itself where it is the last.
        """

    def pack(self, patches: Sequence[Tensor], prepared: Prepared) -> Tensor:
        """Anything known per patch, [T, C] of each unit, as known per visual token: [N, C]."""
        counts = torch.tensor([len(x) for x in patches])
        index = (counts.cumsum(0) - counts)[prepared.unit] + prepared.patch
        return torch.cat(list(patches))[index.to(patches[0].device)]

    def project(self, hidden: Sequence[Tensor]) -> Sequence[Tensor]:
        """What is done to the patches of each unit [T, D] before they are packed, if anything."""
        return hidden

    def tokens(self, features: Features, prepared: Prepared) -> Tensor:
        """[N, D] the visual tokens as methods at the connector see them."""
        return self.pack(self.project(features.hidden), prepared)

    @abstractmethod
    def connect(self, tokens: Tensor) -> Tensor:
        """[n, D] -> [n, d]: visual tokens as the decoder takes them."""

    def specials(self, features: Features, prepared: Prepared) -> Tensor | None:
        """[K, d] the media's other tokens, as newlines, in the order of the prompt."""
        return None

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go."""
        return self.model.get_input_embeddings().weight.device

    def prompt(
        self, question: str, prepared: Prepared, history: Sequence[tuple[str, str]] = ()
    ) -> Prompt:
        """The question in the model's chat format, with places for all tokens of the media.

        Args:
            question: what is asked.
            prepared: the media, which stand before the first question.
            history: earlier questions about the media, each with its answer.

        Raises:
            InputError: a question with control words, or a chat template without places for media.
        """
        kind = "video" if self.takes_video and prepared.media.is_video else "image"
        content = [{"type": kind}] * (1 if kind == "video" else len(prepared.media.pictures))
        messages = [
            {"role": role, "content": [{"type": "text", "text": words}]}
            for role, words in self.said(question, history)
        ]
        messages[0]["content"] = [*content, *messages[0]["content"]]
        text = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        begin = self.tokenizer.bos_token
        ids = self.tokenizer(
            text,
            add_special_tokens=begin is None or not text.startswith(begin),
            return_tensors="pt",
        ).input_ids[0]
        return self.expand(ids, kind, prepared)

    def said(self, question: str, history: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Who has said what, the question last.

        Raises:
            InputError: control words of the model among it.
        """
        words = [words for turn in history for words in turn] + [question]
        for special in self.tokenizer.all_special_tokens:
            if any(special in text for text in words):
                raise InputError(f"The question contains {special!r}, a control word of the model.")
        return list(zip(cycle(("user", "assistant")), words, strict=False))

    def expand(self, ids: LongTensor, kind: str, prepared: Prepared) -> Prompt:
        """Token ids with one placeholder ("image" or "video") per span -> the whole prompt."""
        placeholder, spans = getattr(self.model.config, f"{kind}_token_id"), prepared.spans
        places = int((ids == placeholder).sum())
        if places != len(spans):
            raise InputError(
                f"The prompt has places for {places} {_CALLED[kind]}, not for {len(spans)}: take "
                f"the model's word for them out of the question, or use a model whose chat "
                f"template takes {_CALLED[kind]}."
            )
        repeats = torch.ones_like(ids)
        repeats[ids == placeholder] = torch.tensor([len(span) for span in spans])
        ids = ids.repeat_interleave(repeats)
        media = (ids == placeholder).nonzero().flatten()
        visual = torch.cat(spans)
        return Prompt(ids, media[visual], media[~visual], self.positions(ids, prepared))

    def positions(self, ids: LongTensor, prepared: Prepared) -> Tensor | None:
        """[..., S] position ids of a whole prompt, where they are not 0..S-1 (M-RoPE)."""
        return None

    def inputs(self, prompt: Prompt, tokens: Tensor, specials: Tensor | None = None) -> dict:
        """Arguments of the model's first call: the prompt with the media's tokens in place."""
        embedded = self.model.get_input_embeddings()(prompt.ids.to(self.device))
        embedded[prompt.visual.to(self.device)] = tokens.to(self.device, embedded.dtype)
        if specials is not None:
            embedded[prompt.special.to(self.device)] = specials.to(self.device, embedded.dtype)
        inputs = {"inputs_embeds": embedded[None]}
        if prompt.positions is not None:
            inputs["position_ids"] = prompt.positions[..., None, :].to(self.device)
        return inputs

    def text_inputs(self, prompt: Prompt, start: int) -> dict:
        """Arguments of the model's call for the text of a prompt from token `start` on.

        It goes behind a cache that holds what stands before it.
        """
        inputs = {"input_ids": prompt.ids[None, start:].to(self.device)}
        if prompt.positions is not None:
            inputs["position_ids"] = prompt.positions[..., None, start:].to(self.device)
        return inputs

    def next_inputs(self, token: int, prompt: Prompt, step: int) -> dict:
        """Arguments of the model's call for the generated token number `step` (1-based)."""
        inputs = {"input_ids": torch.tensor([[token]], device=self.device)}
        if prompt.positions is not None:
            last = prompt.positions[..., None, -1:].to(self.device)
            inputs["position_ids"] = last + step
        return inputs

    def joined(self, calls: Sequence[dict]) -> dict:
        """Arguments of one call for several requests side by side, from those of each."""
        axes = {"input_ids": -1, "inputs_embeds": -2, "position_ids": -1}
        return {
            name: torch.cat([call[name] for call in calls], axis)
            for name, axis in axes.items()
            if name in calls[0]
        }
