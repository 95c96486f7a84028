"""Greedy decoding: one request through encoder, connector and decoder, word by word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from weakref import ref

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from libra import cost
from libra.compression import Compression
from libra.conversation import Kept, Memory
from libra.decoder import CompressedCache, DecoderSequence
from libra.detail import Detail, spread_layers
from libra.devices import name_of, now
from libra.models import Family
from libra.recorder import Recorder, received_in_encoder
from libra.request import Request
from libra.trace import Cost, Timings, Trace, Word, kept_size


@dataclass
class Generation:
    """The run of one request. Iterate over it for the answer so far, then ask for its trace."""

    name: str  # of the model
    family: Family
    request: Request
    memory: Memory | None = None  # of the conversation that this belongs to
    batch: int = 1  # requests that are answered together with this one, itself included
    timings: Timings = field(default_factory=Timings)
    words: list[Word] = field(default_factory=list)
    _generated: list[int] = field(default_factory=list)
    _said: str = ""  # what they say

    @torch.inference_mode()
    def __iter__(self) -> Iterator[str]:
        """Compute one token after the other; closing the iterator ends the computation."""
        family = self.family
        kept = self.memory.take(family, self.request) if self.memory is not None else None
        seen = None if kept else self.look()
        begin = now(family.device)
        inputs = self._follow(kept) if kept else self.begin(*seen)
        del seen  # the prompt holds a copy
        for _ in range(self.request.max_new_tokens):
            output = family.model(
                **inputs, past_key_values=self.cache, use_cache=True, logits_to_keep=1
            )
            logits = output.logits[0, -1].float()
            token = int(logits.argmax())
            self.sequence.settle(self.cache)
            if not self.take(token, logits, now(family.device) - begin - self.recording()):
                break
            yield self.text
            begin = now(family.device)
            inputs = self.next_inputs()
        if self.memory is not None:
            self.memory.keep(self._kept(read=len(self.timings.decode)))

    def look(self) -> tuple[Tensor, Tensor | None]:
        """The visual tokens, and the media's other tokens, as the decoder takes them."""
        family, request, timings = self.family, self.request, self.timings
        self.compression = Compression(
            method=request.method,
            prepared=request.prepared,
            layers=request.layers,
            encoder_layers=request.encoder_layers,
            keep=request.keep,
            drop=request.drop,
            tracing=request.tracing,
            generator=torch.Generator(family.device).manual_seed(request.seed),
        )
        self.features = request.features or self.compression.encode(family)
        timings.encoder = self.features.seconds

        begin = now(family.device)
        tokens = family.connect(self.compression.connect(family, self.features))
        specials = family.specials(self.features, request.prepared)
        timings.connector = now(family.device) - begin
        return tokens, specials

    def begin(self, tokens: Tensor, specials: Tensor | None) -> dict:
        """Arguments of the model's first call, for the whole prompt."""
        self.place = self.compression.standing.place.cpu()
        self.prompt = prompt = self.request.prompt.reduced(self.place)
        self.recorder = self._recorder()
        self.sequence = DecoderSequence(
            self.compression,
            prompt.visual,
            prompt.n_trailing,
            self.recorder,
            in_line=prompt.positions is None,
        )
        self.cache = CompressedCache(self.family.model.config, self.sequence)
        return self.family.inputs(prompt, tokens, specials)

    def take(self, token: int, logits: Tensor, elapsed: float) -> bool:
        """Take in the outcome of a call of the model; whether it is a word.

        Args:
            token: the most probable one.
            logits: [V] of all.
            elapsed: seconds of the call.
        """
        if self.words:
            self.timings.decode.append(elapsed)
        else:
            self.timings.prefill = elapsed
        if token in self.family.eos:
            return False
        self.words.append(self._word(token, logits))
        return True

    @property
    def is_full(self) -> bool:
        """Whether the answer is as long as it may be."""
        return len(self.words) == self.request.max_new_tokens

    def next_inputs(self) -> dict:
        """Arguments of the model's call for the word that was taken in last."""
        return self.family.next_inputs(self._generated[-1], self.prompt, len(self._generated))

    def _follow(self, kept: Kept) -> dict:
        """Arguments of the model's first call, for what the cache does not hold of the prompt."""
        self.compression, self.features = kept.compression, kept.features
        self.place, self.cache, self.sequence = kept.place, kept.cache, kept.cache.sequence
        self.prompt, self.recorder = self.request.prompt.reduced(self.place), None
        self.compression.tracing = bool(self.request.tracing)
        self.sequence.follow_up()
        self.timings.read = len(self.prompt.ids) - len(kept.ids)
        return self.family.text_inputs(self.prompt, len(kept.ids))

    def _kept(self, read: int) -> Kept:
        """What the next question can build on, once the model has read so many of its own words."""
        own = torch.tensor(self._generated[:read], dtype=torch.long)
        return Kept(
            family=ref(self.family),
            request=self.request,
            compression=self.compression,
            features=self.features,
            place=self.place,
            cache=self.cache,
            ids=torch.cat([self.prompt.ids, own]),
        )

    def _recorder(self) -> Recorder | None:
        """What collects the decoder's part of a detail."""
        if self.request.tracing != "full":
            return None
        return Recorder(spread_layers(self.family.geometry.n_layers))

    def recording(self) -> float:
        """Seconds since the last call that full tracing took: they are none of the answer's."""
        return self.recorder.lap() if self.recorder else 0.0

    @property
    def text(self) -> str:
        """The answer so far."""
        return self._said.strip()

    def _decode(self, tokens: list[int]) -> str:
        """What the tokens say, without a half-finished character at the end."""
        return self.family.tokenizer.decode(tokens, skip_special_tokens=True).rstrip("\ufffd")

    def _word(self, token: int, logits: Tensor) -> Word:
        """Take in the next token: its word, probability and the five most probable ones."""
        best, candidates = (x.tolist() for x in logits.softmax(-1).topk(min(5, len(logits))))
        # A few tokens of context decide about spaces; the whole answer is not needed for that.
        before, decode = self._generated[-4:], self.family.tokenizer.decode
        start = len(decode(before))
        self._generated.append(token)
        earlier, self._said = self._said, self._decode(self._generated)
        return Word(
            text=self._said[len(earlier) :],
            probability=best[0],  # decoding is greedy
            top=[
                (decode([*before, candidate])[start:], p)
                for candidate, p in zip(candidates, best, strict=True)
            ],
        )

    def trace(self) -> Trace:
        """Everything the answer leaves behind, on the CPU.

        Tensors are copied: nobody could change those that were made in inference mode.
        """
        request, compression = self.request, self.compression
        self.timings.where = self._where()
        rows = _copied(self.sequence.rows)
        for event in compression.events:
            event.reduction = event.reduction.to("cpu")
        settings = asdict(request.method)
        settings.pop("ratio", None)
        if settings.get("keep") is None:
            settings.pop("keep", None)
        if request.encoder_layers:
            settings["encoder_layers"] = list(request.encoder_layers)
        return Trace(
            model=self.name,
            family=self.family.name,
            method=request.method.name,
            ratio=self._ratio(),
            params=settings,
            layers=request.layers,
            question=request.question,
            history=request.history,
            answer=self.text,
            words=self.words,
            images=[_thumbnail(view) for view in request.prepared.views],
            times=request.prepared.times,
            layout=request.prepared.layout,
            events=compression.events,
            counts=self.sequence.counts,
            importance=rows[0] if rows else [],
            attention=rows[: len(self.words)],
            cls_attention=self._cls_attention(),
            timings=self.timings,
            cost=self._cost(),
            detail=self._detail(),
        )

    def _ratio(self) -> float:
        """The share that the method removes: as it is set, or else as its first event shows.

        Fused and compensation tokens are not counted.
        """
        method, events = self.request.method, self.compression.events
        if method.by_ratio:
            return method.ratio
        if not events:
            return 0.0
        first = events[0].reduction
        return 1 - first.n_kept / first.n_in

    def _where(self) -> str:
        """What the times have to be read with."""
        prompt, read = self.request.prompt, self.timings.read
        dtype = str(self.family.model.dtype).removeprefix("torch.")
        where = f"{name_of(self.family.device)}, {dtype}, {self._attention}, batch {self.batch}"
        if read is not None:
            return f"{where}, {read} tokens behind {len(self.prompt.ids) - read} in the cache"
        text = len(prompt.ids) - len(prompt.visual)
        return f"{where}, {self.request.n_plain} visual and {text} other tokens"

    @property
    def _attention(self) -> str:
        """How the model computes it."""
        return self.family.model.config.get_text_config()._attn_implementation

    @torch.no_grad()
    def _detail(self) -> Detail | None:
        """What full tracing adds."""
        if self.recorder is None:
            return None
        return Detail(
            encoder=received_in_encoder(self.family, self.features, self.compression),
            matrices=self.recorder.matrices,
            heads=deepcopy(self.recorder.heads),
            similarity=deepcopy(self.recorder.similarity),
        )

    @torch.no_grad()
    def _cls_attention(self) -> Tensor | None:
        """[N] CLS row of the last encoder layer, if tracing and if all patches are there."""
        family, request = self.family, self.request
        if not request.tracing or request.encoder_layers or not family.has_cls:
            return None
        rows = [family.encoder_attention(-1, x).cls_row() for x in self.features.inputs[-1]]
        packed = family.pack([row[:, None] for row in rows], request.prepared)
        return packed[:, 0].cpu()

    def _cost(self) -> Cost:
        """What the visual tokens cost the decoder, and what all of them would have cost it."""
        sizes, prompt = self.family.geometry, self.request.prompt
        counts = self.sequence.counts
        vanilla = [self.request.n_plain] * sizes.n_layers
        widths = sizes.d, sizes.m, sizes.d_kv, sizes.d_q
        itemsize = self.family.model.dtype.itemsize
        return Cost(
            flops=cost.prefill_flops(counts, *widths),
            vanilla_flops=cost.prefill_flops(vanilla, *widths),
            kv_bytes=sum(cost.kv_bytes(counts, sizes.d_kv, itemsize)),
            vanilla_kv_bytes=sum(cost.kv_bytes(vanilla, sizes.d_kv, itemsize)),
            text=len(prompt.ids) - len(prompt.visual),
            visual=self.request.n_plain,
            units=self.features.patches,
            attention=self._attention,
        )


def _copied(rows: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """The rows of every step on the CPU, brought there in one copy: a GPU is waited for in each."""
    if not any(rows):
        return [[] for _ in rows]
    every = [row for step in rows for row in step]
    whole = torch.cat([row.to(every[0].device) for row in every]).to("cpu")
    parts = iter(whole.split([len(row) for row in every]))
    return [[next(parts).clone() for _ in step] for step in rows]  # none holds on to the others


def _thumbnail(image: Image.Image) -> np.ndarray:
    """The pixels of a trace: uint8 [H, W, 3]."""
    size = kept_size(*image.size)
    return np.asarray(image if size == image.size else image.resize(size, reducing_gap=2.0))
