"""LVLM: one loaded model that answers questions about pictures, with or without compression."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import torch
from PIL import Image

from libra import methods as registry
from libra.architecture import ARCHITECTURES, Architecture
from libra.batch import run_all
from libra.conversation import Chat, Memory
from libra.decoder import Hooks
from libra.errors import InputError
from libra.generation import Generation
from libra.media import Media, Source
from libra.models import Family, Features, entry, open_model
from libra.prefills import measure_in_turns
from libra.request import (
    Request,
    check_request,
    default_encoder_layers,
    default_layers,
    load_media,
    loaded,
)
from libra.shortage import bounded
from libra.trace import Trace
from libra.video import Clip

TYPICAL = Image.new("RGB", (640, 480))  # the picture that a card speaks of


@dataclass
class Step:
    """The answer so far; the last step of a stream carries the trace."""

    text: str
    trace: Trace | None = None


@dataclass
class Answer:
    """The whole answer and its trace."""

    text: str
    trace: Trace


class LVLM:
    """A vision-language model whose visual tokens can be compressed.

    It serves concurrent requests: nothing of a request is stored here. `close`, or leaving a
    `with` block, takes the hooks off the underlying model again.
    """

    def __init__(self, name: str, family: Family):
        self.name = name
        self.family = family
        self._hooks: Hooks | None = Hooks(
            family.decoder_layers, family.model.config.get_text_config()._attn_implementation
        )

    def close(self) -> None:
        """Leave the underlying model as it was loaded; this object answers no more."""
        if self._hooks is not None:
            self._hooks.remove()
            self._hooks = None

    def __enter__(self) -> LVLM:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return self.family.geometry.n_layers

    @property
    def architecture(self) -> Architecture | None:
        """The sizes that its cost depends on; None for families that are not counted in full."""
        known = ARCHITECTURES.get(self.name)
        if known is not None or not self.family.counted:
            return known
        return Architecture.of(self.name, self.family.model.config)

    @property
    def card(self) -> dict:
        """What to know about the model: sizes, device, and what it can be asked."""
        known = entry(self.name)
        model = self.family.model
        return {
            "name": self.name,
            "family": self.family.name,
            "parameters": model.num_parameters(),
            "device": str(self.family.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "layers": self.n_layers,
            "visual_tokens": len(self.family.prepare(Media([TYPICAL])).layout),
            "knows": known.knows if known else "",
        }

    def default_layers(self, method: str) -> tuple[int, ...]:
        """The decoder layers after which the paper of `method` reduces, scaled to this depth."""
        family = self.family
        return default_layers(
            registry.create(method), self.n_layers, family.first_layer, family.presets.get(method)
        )

    def default_encoder_layers(self, method: str) -> tuple[int, ...]:
        """The encoder layers inside which `method` reduces, scaled to this encoder's depth."""
        return default_encoder_layers(
            registry.create(method),
            len(self.family.encoder_layers),
            self.family.last_encoder_layer,
            self.family.presets.get(method),
        )

    def encode(
        self,
        images: Source | Iterable[Source] = (),
        video: str | Path | Clip | None = None,
        tracing: bool | str = True,
    ) -> Features:
        """Encoder features of pictures or a video, to be reused by several requests about them.

        Requests with `tracing="full"` find the encoder's attention in those of the same tracing.
        """
        encode = self.family.watch if tracing == "full" else self.family.encode
        media = load_media(images, video, self.family.frames)
        with torch.no_grad(), bounded(self.name, self.family, media):
            features = encode(self.family.prepare(media))
        features.media = media
        return features

    def chat(self, images: Source | Iterable[Source] = (), **request: object) -> Chat:
        """A conversation about pictures or a video: `ask` it one question after the other.

        Takes the arguments of `stream` that all questions share.
        """
        return Chat(self, images, **request)

    def answer(
        self, images: Source | Iterable[Source] = (), question: str = "", **request: object
    ) -> Answer:
        """Answer one question. Takes the arguments of `stream`."""
        for step in self.stream(images, question, **request):
            last = step
        return Answer(last.text, last.trace)

    def answer_batch(self, requests: Iterable[Mapping]) -> list[Answer]:
        """Answer several questions at once, each as if it were alone.

        One call of the model computes the next tokens of all, whatever their lengths and methods
        (`libra.batch`), and the device has to hold what all of them need. Times in the traces are
        those of the batch. Questions of conversations (`memory`), and all questions to a model with
        eager attention, are answered one after the other.

        Args:
            requests: arguments of `stream` for each question.

        Raises:
            InputError: the first of them that cannot be answered, as of `stream`.
        """
        checked = [self._arguments(request) for request in requests]
        if not checked:
            return []
        largest = max((r for _, r in checked), key=lambda r: len(r.prompt.ids))
        media = largest.prepared.media
        with bounded(self.name, self.family, media, largest.method, len(checked)):
            return self._answers(checked)

    def stream(
        self,
        images: Source | Iterable[Source] = (),
        question: str = "",
        video: str | Path | Clip | None = None,
        history: Sequence[tuple[str, str]] = (),
        method: str = "libra",
        ratio: float | None = None,
        layers: int | Sequence[int] | None = None,
        encoder_layers: int | Sequence[int] | None = None,
        left: float | None = None,
        max_new_tokens: int = 32,
        seed: int = 0,
        keep: int | Sequence[int] | None = None,
        drop: Sequence[int] | None = None,
        tracing: bool | str = True,
        features: Features | None = None,
        memory: Memory | None = None,
        **params: object,
    ) -> Iterator[Step]:
        """Answer one question, step by step: greedy decoding, one `Step` per token.

        Closing the iterator ends the computation.

        Args:
            images: PIL images, paths, bytes of files, uint8 arrays or tensors, at most 64; one
                alone is fine.
            question: up to 2,000 characters.
            video: a path, or a clip of `libra.video.load_video`, instead of images. Of a path, the
                model gets as many frames as it is used to (`Family.frames`); one that knows
                pictures only gets them as pictures.
            history: earlier questions about the same media, each with its answer.
            method: a name out of `libra.methods.names()`.
            ratio: share of the visual tokens that each event removes; default: the method's own,
                which is one half for most.
            layers: decoder layers (0-based; one alone is fine) after which to reduce, for methods
                that act there, up to the last one, after which nothing is left to save; default: as
                in the paper, scaled to the depth.
            encoder_layers: encoder layers inside which to reduce, for methods that act there.
            left: instead of a ratio, the share of vanilla's visual tokens that is left after all
                events: what each removes follows from how many they are. Fused tokens are not
                counted; an exact number of tokens, where one is given, comes first.
            max_new_tokens: where the answer is cut off.
            seed: of methods that draw at random.
            keep: patches that the first event may not remove or change (`libra.counterfactual`).
                One number instead: how many tokens the method keeps.
            drop: patches that the first event must remove; vanilla, which has none, never gets
                them from the encoder.
            tracing: collect attention rows; without it the trace holds everything else. "full"
                adds `Trace.detail`: attention of the encoder, by head and as matrices, and the
                similarities behind the merges.
            features: result of `encode` for the same images or video; not used where the method
                acts inside the encoder.
            memory: what is kept between the questions of one conversation (`libra.conversation`): a
                follow-up with the same settings goes behind what is in its cache.
            params: further parameters of the method. Without any it is set as published for this
                family, where there is such a preset.

        Raises:
            InputError: anything that cannot be answered, before any computation; what only the
                tokens of an event tell (half of them can be merged at once, not more), once that
                has come.
        """
        return self._run(
            memory,
            self._checked(
                images=images,
                question=question,
                history=history,
                video=video,
                method=method,
                ratio=ratio,
                left=left,
                layers=layers,
                encoder_layers=encoder_layers,
                max_new_tokens=max_new_tokens,
                seed=seed,
                keep=keep,
                drop=drop,
                tracing=tracing,
                features=features,
                params=params,
            ),
        )

    def _checked(self, **arguments: object) -> Request:
        if self._hooks is None:
            raise InputError("This model has been closed: load it again.")
        return check_request(self.name, self.family, **arguments)

    def _arguments(self, request: Mapping) -> tuple[Memory | None, Request]:
        """The arguments of `stream`, its own defaults among them, as `_run` takes them."""
        if not isinstance(request, Mapping):
            kind = type(request).__name__
            raise InputError(f"A request is a mapping of arguments of `LVLM.stream`, not {kind}.")
        call = signature(self.stream).bind(**request)
        call.apply_defaults()
        memory = call.arguments.pop("memory")
        return memory, self._checked(**call.arguments)

    def _run(self, memory: Memory | None, request: Request) -> Iterator[Step]:
        with bounded(self.name, self.family, request.prepared.media, request.method):
            yield from self._steps(memory, request)

    def _steps(self, memory: Memory | None, request: Request) -> Iterator[Step]:
        generation = Generation(self.name, self.family, request, memory)
        for text in generation:
            yield Step(text)
        yield Step(generation.text, generation.trace())

    def _answers(self, checked: Sequence[tuple[Memory | None, Request]]) -> list[Answer]:
        generations = [Generation(self.name, self.family, r, memory) for memory, r in checked]
        run_all(generations)
        return [Answer(generation.text, generation.trace()) for generation in generations]


def load(
    name_or_path: str | Path = "tiny-llava",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    attention: str | None = None,
) -> LVLM:
    """Load a model by name, hub id or folder (`libra.models.open_model`).

    Its name is that of the catalogue, the hub id, or the folder's own without its parents.
    """
    known, path = entry(name_or_path), Path(name_or_path)
    own = path.resolve().name if path.is_dir() else str(name_or_path)
    family = open_model(name_or_path, device, dtype, attention)
    return LVLM(known.name if known else own, family)


def compare(
    lvlm: LVLM,
    methods: str | Mapping | Iterable[str | Mapping],
    images: Source | Iterable[Source] = (),
    question: str = "",
    video: str | Path | Clip | None = None,
    refused: Callable[[str, InputError], object] | None = None,
    **shared: object,
) -> list[Answer]:
    """Ask the same question under several methods; the encoder runs once for all that leave it be.

    It runs once more where some are traced in full and others are not. Quick prefills are measured
    again in the end, in turns (`libra.prefills`).

    Args:
        lvlm: the model.
        methods: names, or mappings of arguments of `LVLM.stream` with `method` among them, which
            override the shared ones; one alone is fine.
        images: the pictures.
        question: the question.
        video: a path or a clip, instead of pictures.
        refused: is told which method cannot do this, and why; otherwise that raises InputError.
        shared: arguments of `LVLM.stream` for all methods.
    """
    methods = [methods] if isinstance(methods, str | Mapping) else methods
    media = loaded(images, video, lvlm.family.frames)
    encoded, runs = {}, []  # features with and without full tracing, once they are needed
    for choice in methods:
        own = {"method": choice} if isinstance(choice, str) else choice
        request = {
            **media,
            "question": question,
            "method": "libra",
            "tracing": True,
            **shared,
            **own,
        }
        full = request["tracing"] == "full"
        if full not in encoded and not lvlm.default_encoder_layers(request["method"]):
            encoded[full] = lvlm.encode(**media, tracing=request["tracing"])
        request["features"] = encoded.get(full)
        try:
            runs.append((request, lvlm.answer(**request)))
        except InputError as error:
            if refused is None:
                raise
            refused(request["method"], error)
    traced = [(request, answer.trace) for request, answer in runs]
    deque(measure_in_turns(lvlm, traced), maxlen=0)  # to its end
    return [answer for _, answer in runs]
