"""LVLM: one loaded model that answers questions about pictures, with or without compression."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import torch
from PIL import Image
from torch import LongTensor, Tensor

from libra import cost, methods
from libra.compression import CompressedCache, Compression, Hooks
from libra.counterfactual import check_forced
from libra.errors import InputError
from libra.layout import TokenLayout
from libra.media import Source, load_image
from libra.methods import Method
from libra.models import Family, Features, entry, open_model
from libra.models.base import seconds
from libra.trace import MAX_SIDE, Cost, Timings, Trace, Word

MAX_QUESTION = 2000  # characters
MAX_NEW_TOKENS = 512


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


@dataclass
class _Request:
    """A checked request: everything that the run needs, nothing that could still be wrong."""

    images: list[Image.Image]
    question: str
    ids: LongTensor  # [S]
    visual: LongTensor  # [N]
    layout: TokenLayout
    method: Method
    layers: tuple[int, ...]
    keep: Sequence[int]
    drop: Sequence[int]
    max_new_tokens: int
    seed: int
    tracing: bool
    features: Features | None


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
            "visual_tokens": len(self.family.layout([(1, 1)])),
            "knows": known.knows if known else "",
        }

    def default_layers(self, method: str) -> tuple[int, ...]:
        """The decoder layers after which the paper of `method` reduces, scaled to this depth."""
        return default_layers(methods.get(method), self.n_layers)

    def encode(self, images: Sequence[Source], tracing: bool = True) -> Features:
        """Encoder features of pictures, to be reused by several requests about them."""
        with torch.no_grad():
            return self.family.encode(self._pictures(images), tracing)

    def answer(self, **request: object) -> Answer:
        """Answer one question. Takes the arguments of `stream`."""
        for step in self.stream(**request):
            last = step
        return Answer(last.text, last.trace)

    def stream(
        self,
        images: Sequence[Source] = (),
        question: str = "",
        video: object = None,
        method: str = "libra",
        ratio: float = 0.5,
        layers: Sequence[int] | None = None,
        max_new_tokens: int = 32,
        seed: int = 0,
        keep: Sequence[int] | None = None,
        drop: Sequence[int] | None = None,
        tracing: bool = True,
        features: Features | None = None,
        **params: object,
    ) -> Iterator[Step]:
        """Answer one question, step by step: greedy decoding, one `Step` per token.

        Closing the iterator ends the computation.

        Args:
            images: PIL images, paths or uint8 arrays.
            question: up to 2,000 characters.
            video: not supported by this family.
            method: a name out of `libra.methods.names()`.
            ratio: share of the visual tokens that each event removes.
            layers: decoder layers (0-based) after which to reduce; default: as in the paper.
            max_new_tokens: where the answer is cut off.
            seed: of methods that draw at random.
            keep: patches that the first event may not remove or change (`libra.counterfactual`).
            drop: patches that it must remove.
            tracing: collect attention rows; without it the trace holds everything else.
            features: result of `encode` for the same images.
            params: further parameters of the method.

        Raises:
            InputError: anything that cannot be answered, before any computation.
        """
        if self._hooks is None:
            raise InputError("This model has been closed: load it again.")
        if video is not None:
            raise InputError(f"{self.name} takes pictures, not videos.")
        pictures = self._pictures(images)
        layout = self.family.layout([picture.size for picture in pictures])
        ids, visual = self.family.prompt(
            _checked_question(question), layout.image.bincount().tolist()
        )
        if not 1 <= max_new_tokens <= MAX_NEW_TOKENS:
            raise InputError(f"max_new_tokens must lie in 1..{MAX_NEW_TOKENS}.")
        if len(ids) + max_new_tokens > self.family.max_positions:
            raise InputError(
                f"{len(pictures)} pictures and this question make {len(ids)} tokens, more than "
                f"the {self.family.max_positions} that {self.name} takes: use fewer pictures."
            )
        keep, drop = list(keep or ()), list(drop or ())
        kind = methods.get(method)
        if "ratio" in {f.name for f in fields(kind)}:
            params = {"ratio": ratio} | params
        plan = methods.create(method, **params)
        check_forced(plan, keep, drop, len(layout))
        return self._run(
            _Request(
                images=pictures,
                question=question,
                ids=ids,
                visual=visual,
                layout=layout,
                method=plan,
                layers=self._checked_layers(kind, layers),
                keep=keep,
                drop=drop,
                max_new_tokens=max_new_tokens,
                seed=seed,
                tracing=tracing,
                features=features,
            )
        )

    def _pictures(self, images: Sequence[Source]) -> list[Image.Image]:
        if len(images) == 0:
            raise InputError("There is no picture: give at least one.")
        return [load_image(image) for image in images]

    def _checked_layers(
        self, method: type[Method], layers: Sequence[int] | None
    ) -> tuple[int, ...]:
        """The decoder layers of the plan."""
        if method.site != "decoder":
            raise InputError(f"{method.title} acts at the {method.site}, which is not supported.")
        if method.kind == "none":
            return ()
        if layers is None:
            return default_layers(method, self.n_layers)
        last = self.n_layers - 2
        try:
            layers = tuple(operator.index(layer) for layer in layers)
        except TypeError:
            raise InputError("Layers must be whole numbers, for example 1, 3, 5.") from None
        if not layers:
            raise InputError("Choose at least one layer after which to compress.")
        if any(not 0 <= layer <= last for layer in layers):
            raise InputError(
                f"Layers must lie in 0..{last}, but these are {list(layers)}: {self.name} has "
                f"{self.n_layers} layers and nothing can follow the last."
            )
        if list(layers) != sorted(set(layers)):
            raise InputError(f"Layers must ascend without repeats, but these are {list(layers)}.")
        return layers

    @torch.no_grad()
    def _run(self, request: _Request) -> Iterator[Step]:
        family, timings = self.family, Timings()
        features = request.features or family.encode(request.images, request.tracing)
        timings.encoder = features.seconds
        begin = seconds(family.device)
        tokens = family.connect(features.hidden)
        timings.connector = seconds(family.device) - begin

        compression = Compression(
            method=request.method,
            layers=request.layers,
            visual=request.visual,
            layout=request.layout,
            keep=request.keep,
            drop=request.drop,
            tracing=request.tracing,
            generator=torch.Generator(family.device).manual_seed(request.seed),
        )
        cache = CompressedCache(family.model.config, compression)
        begin = seconds(family.device)
        inputs = {"inputs_embeds": family.embed(request.ids, request.visual, tokens)}
        generated, words = [], []
        for step in range(request.max_new_tokens):
            output = family.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logits = output.logits[0, -1].float()
            token = int(logits.argmax())
            elapsed = seconds(family.device) - begin
            if step == 0:
                timings.prefill = elapsed
            else:
                timings.decode.append(elapsed)
            if token in family.eos:
                break
            words.append(self._word(generated, token, logits))
            generated.append(token)
            yield Step(self._text(generated).strip())
            begin = seconds(family.device)
            inputs = {"input_ids": torch.tensor([[token]], device=family.device)}
        text = self._text(generated).strip()
        yield Step(text, self._trace(request, features, compression, timings, text, words))

    def _text(self, tokens: list[int]) -> str:
        """What the tokens say so far, without a half-finished character at the end."""
        return self.family.tokenizer.decode(tokens, skip_special_tokens=True).rstrip("\ufffd")

    def _word(self, before: list[int], token: int, logits: Tensor) -> Word:
        """One generated token, its probability and the five most probable ones."""
        probabilities = logits.softmax(-1)
        best, candidates = probabilities.topk(min(5, len(logits)))
        decode = self.family.tokenizer.decode
        # A few tokens of context decide about spaces; the whole answer is not needed for that.
        start = decode(before[-4:])
        return Word(
            text=self._text([*before, token])[len(self._text(before)) :],
            probability=float(probabilities[token]),
            top=[
                (decode([*before[-4:], candidate])[len(start) :], p)
                for candidate, p in zip(candidates.tolist(), best.tolist(), strict=True)
            ],
        )

    def _trace(
        self,
        request: _Request,
        features: Features,
        compression: Compression,
        timings: Timings,
        text: str,
        words: list[Word],
    ) -> Trace:
        """Everything the answer leaves behind, on the CPU."""
        rows = [[row.cpu() for row in step] for step in compression.rows]
        cls = features.cls_attention
        events = compression.events
        for event in events:
            event.reduction = event.reduction.to("cpu")
        settings = asdict(request.method)
        settings.pop("keep", None)
        return Trace(
            model=self.name,
            family=self.family.name,
            method=request.method.name,
            ratio=settings.pop("ratio", 0.0),
            params=settings,
            layers=request.layers,
            question=request.question,
            answer=text,
            words=words,
            images=[_thumbnail(image) for image in request.images],
            layout=request.layout,
            events=events,
            counts=compression.counts,
            importance=rows[0] if rows else [],
            attention=rows[: len(words)],
            cls_attention=cls.flatten().cpu() if request.tracing and cls is not None else None,
            timings=timings,
            cost=self._cost(len(request.layout), compression.counts),
        )

    def _cost(self, n: int, counts: list[int]) -> Cost:
        """What `counts` visual tokens per layer cost, beside `n` in every layer."""
        sizes = self.family.geometry
        vanilla = [n] * sizes.n_layers
        itemsize = self.family.model.dtype.itemsize
        return Cost(
            flops=cost.prefill_flops(counts, sizes.d, sizes.m, sizes.d_kv),
            vanilla_flops=cost.prefill_flops(vanilla, sizes.d, sizes.m, sizes.d_kv),
            kv_bytes=sum(cost.kv_bytes(counts, sizes.d_kv, itemsize)),
            vanilla_kv_bytes=sum(cost.kv_bytes(vanilla, sizes.d_kv, itemsize)),
        )


def load(
    name_or_path: str = "tiny-llava",
    device: str | None = None,
    dtype: torch.dtype | None = None,
    attention: str = "sdpa",
) -> LVLM:
    """Load a model by name, hub id or folder (`libra.models.open_model`)."""
    return LVLM(str(name_or_path), open_model(name_or_path, device, dtype, attention))


def compare(
    lvlm: LVLM,
    methods: Iterable[str | Mapping],
    images: Sequence[Source],
    question: str,
    **shared: object,
) -> list[Answer]:
    """Ask the same question under several methods; the encoder runs once for all of them.

    Args:
        lvlm: the model.
        methods: names, or mappings of arguments of `LVLM.stream` with `method` among them, which
            override the shared ones.
        images: the pictures.
        question: the question.
        shared: arguments of `LVLM.stream` for all methods.
    """
    pictures = [load_image(image) for image in images]
    features = None
    answers = []
    for choice in methods:
        own = {"method": choice} if isinstance(choice, str) else dict(choice)
        request = {"images": pictures, "question": question, **shared, **own}
        if features is None:
            features = lvlm.encode(pictures, tracing=bool(shared.get("tracing", True)))
        answers.append(lvlm.answer(**request, features=features))
    return answers


def default_layers(method: type[Method], n_layers: int) -> tuple[int, ...]:
    """The layers of a method's first preset, which speaks of 32 layers, in `n_layers`.

    Several events sit at equal parts of the depth ({7, 15, 23} of 32: a quarter, a half, three
    quarters). A single early event stays at the paper's layer in deeper models, as their tables
    have it, and moves forward in shallower ones.
    """
    layers = next((p["layers"] for p in method.presets.values() if "layers" in p), ())
    if len(layers) == 1:
        return (min(layers[0], max(1, round(layers[0] * n_layers / 32))),)
    return tuple(sorted({max(0, round((x + 1) * n_layers / 32) - 1) for x in layers}))


def _checked_question(question: str) -> str:
    if not question.strip():
        raise InputError("There is no question: type one.")
    if len(question) > MAX_QUESTION:
        raise InputError(
            f"The question has {len(question):,} characters; at most {MAX_QUESTION:,} are allowed."
        )
    return question


def _thumbnail(image: Image.Image) -> np.ndarray:
    """The pixels of a trace: uint8 [H, W, 3], longest side at most `MAX_SIDE`."""
    small = image.copy()
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.asarray(small)
