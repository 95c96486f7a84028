"""Trace: all that an answer leaves behind, and the file that holds it.

A trace file is one zip: `trace.json` (everything but the numbers), `arrays/*.npy` and
`images/*.png`. It is read without pickle, within size limits, and needs no model.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from libra import methods
from libra.detail import ATTENTION_SCALE, Detail, pack, unpack
from libra.errors import InputError
from libra.layout import TokenLayout
from libra.reduction import Reduction
from libra.trace_check import check

FORMAT = "libra-trace"
VERSION = 2
READABLE = (1, 2)  # 1 knew no detail, and no times of a video
MAX_SIDE = 672  # longest side of the pixels kept in a trace, unless the shorter is below this:
MIN_SIDE, MAX_LENGTH = 336, 2016  # long pictures keep more, up to this length
MAX_PICTURES = 64  # of one request, and so of a trace
MAX_BYTES = 128 * 2**20  # what a trace file may unpack to, pictures as PNG
MAX_HEADER = 8 * 2**20  # and its JSON alone, which grows tenfold in memory
MAX_MEMBERS = 4096

STAGE_NAMES = {
    "encoder": "encoder layer {layer}",
    "connector": "after the encoder",
    "decoder": "after layer {layer}",
}


def at_layers(where: str, layers: Sequence[int]) -> str:
    """`after layers 1, 3` or `after layer 1`, where `where` is `after layer`."""
    return f"{where}{'s' * (len(layers) != 1)} {', '.join(map(str, layers))}"


@dataclass
class Event:
    """One compression event: where it happened and the map it applied."""

    site: str  # "encoder", "connector" or "decoder"
    layer: int  # the layer whose output (decoder) or middle (encoder) was reduced; -1: connector
    reduction: Reduction

    @property
    def name(self) -> str:
        """The stage this event leads to, as shown to people."""
        return STAGE_NAMES[self.site].format(layer=self.layer)


@dataclass
class Word:
    """One generated token with its probability and the five most probable tokens there."""

    text: str
    probability: float
    top: list[tuple[str, float]]


@dataclass
class Timings:
    """Wall-clock seconds of the parts of one answer; `decode` has one entry per later token."""

    encoder: float = 0.0
    connector: float = 0.0
    prefill: float = 0.0
    decode: list[float] = field(default_factory=list)
    where: str = ""  # what they have to be read with: device, dtype, attention; older ones lack it
    read: int | None = None  # tokens that the prefill read behind an earlier answer's; None: all
    turns: int = 1  # how often the prefill was measured, in turns with others; it is the median

    @property
    def total(self) -> float:
        """Seconds in all."""
        return self.encoder + self.connector + self.prefill + sum(self.decode)


@dataclass
class Cost:
    """What the visual tokens cost the decoder, beside the same request without compression.

    Of a follow-up question this is the cost of the conversation, whose media are read only once.
    """

    flops: float
    vanilla_flops: float
    kv_bytes: int
    vanilla_kv_bytes: int
    # Older traces do not know:
    text: int | None = None  # tokens of the prompt that are not visual
    visual: int | None = None  # those that are, without compression
    units: list[int] | None = None  # patches of each sequence that the encoder sees, at first
    attention: str = ""  # how it is computed: sdpa, eager, flash_attention_2


@dataclass
class Trace:
    """One answered question. N visual tokens, L decoder layers, W generated tokens."""

    model: str
    family: str
    method: str
    params: dict
    ratio: float
    layers: tuple[int, ...]
    question: str
    answer: str
    words: list[Word]  # [W]
    images: list[np.ndarray]  # uint8 [H, W, 3], upright, of a `kept_size`
    layout: TokenLayout  # of the N visual tokens before any event
    events: list[Event]
    counts: list[int]  # [L] visual tokens each decoder layer processes, compensation included
    importance: list[Tensor]  # [L] of [n_l]: the last prompt token's attention, head mean
    attention: list[list[Tensor]]  # [W][L] of [n_l]: the row that produced each word
    cls_attention: Tensor | None  # [N] CLS row of the last encoder layer, head mean
    timings: Timings
    cost: Cost
    times: list[float] | None = None  # of a video: the second of each of the images
    detail: Detail | None = None  # what full tracing adds
    history: list[tuple[str, str]] = field(default_factory=list)  # earlier questions and answers

    @property
    def follows(self) -> bool:
        """Whether it went behind the cache of an earlier answer, so that its times are of less."""
        return self.timings.read is not None

    @property
    def sums_up(self) -> bool:
        """Whether any event left a token that sums up others."""
        return any(event.reduction.extras for event in self.events)

    @property
    def stages(self) -> list[str]:
        """Names of the stages: before any event, then after each; len(events) + 1."""
        return ["before", *(event.name for event in self.events)]

    def lineage(self, upto: int) -> Reduction:
        """Composition of the first `upto` events: original tokens -> tokens of that stage."""
        if upto not in range(len(self.events) + 1):
            raise InputError(f"Stage {upto!r} does not exist: choose 0 to {len(self.events)}.")
        lineage = Reduction.identity(len(self.layout))
        for event in self.events[: int(upto)]:
            lineage = lineage.then(event.reduction)
        return lineage

    def save(self, path: str | Path | BinaryIO) -> None:
        """Write the trace to one zip file; the same trace always gives the same.

        Raises:
            InputError: a trace that would be too large to be opened again.
        """
        header, arrays = _pack(self)
        members = {"trace.json": json.dumps(header, ensure_ascii=False).encode()}
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            members[f"arrays/{name}.npy"] = buffer.getvalue()
        for i, pixels in enumerate(self.images):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            members[f"images/{i}.png"] = buffer.getvalue()
        if _too_large({name: len(member) for name, member in members.items()}):
            raise InputError(
                "The trace is too large for a file: ask for fewer words, or without tracing."
            )
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, member in members.items():
                undated = zipfile.ZipInfo(name)
                file.writestr(undated, member, zipfile.ZIP_DEFLATED)

    @classmethod
    def load(cls, path: str | Path | BinaryIO) -> Trace:
        """Read a trace file, closed or open.

        Raises InputError for anything that is not one, is damaged, too large, or was written
        by a newer version.
        """
        name = Path(path).name if isinstance(path, str | PathLike) else "(unnamed)"
        try:
            file = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise InputError(f"There is no trace file {path}.") from None
        except (zipfile.BadZipFile, OSError):
            raise InputError(f"{name} is not a trace file.") from None
        with file:
            reader = _Reader(file, name)
            try:
                return _unpack(reader)
            except Exception as error:
                # Whatever a damaged or forged file provokes, its reader gets one clear sentence.
                raise InputError(f"The trace file {name} is damaged.") from error


class _Reader:
    """Bounded access to the members of a trace file."""

    def __init__(self, file: zipfile.ZipFile, name: str):
        members = file.infolist()
        sizes = {member.filename: member.file_size for member in members}
        if len(members) > len(sizes) or _too_large(sizes):  # no name comes twice
            raise InputError(f"The trace file {name} is too large to open.")
        self.file = file
        self._unread = set(sizes)
        try:
            self.header = json.loads(file.read("trace.json"))
            known = self.header["format"] == FORMAT
        except Exception:  # no such member, damaged, not JSON, not an object: not ours
            known = False
        if not known:
            raise InputError(f"{name} is not a trace file.")
        if self.header.get("version") not in READABLE:
            raise InputError(
                f"{name} has trace version {self.header.get('version')}, this program reads "
                f"up to version {VERSION}: it was written by a newer version. Update to open it."
            )
        if self.header.get("method") not in methods.names():
            raise InputError(
                f"{name} was made with a method that this program does not know. Update to open it."
            )

    def _read(self, member: str) -> bytes:
        """One member, once: the limits count every member once."""
        self._unread.remove(member)
        return self.file.read(member)

    def array(self, name: str) -> np.ndarray:
        """One array; the header may not promise more than the member holds."""
        raw = self._read(f"arrays/{name}.npy")
        buffer = io.BytesIO(raw)
        np.lib.format.read_magic(buffer)
        shape, _, dtype = np.lib.format.read_array_header_1_0(buffer)
        if int(np.prod(shape, dtype=object)) * dtype.itemsize != len(raw) - buffer.tell():
            raise ValueError(f"array {name} does not fit its header")
        return np.load(io.BytesIO(raw), allow_pickle=False)

    def tensor(self, name: str) -> Tensor:
        """One array as a tensor."""
        return torch.from_numpy(self.array(name))

    def picture(self, name: str) -> np.ndarray:
        """One picture, uint8 [H, W, 3]."""
        with Image.open(io.BytesIO(self._read(f"images/{name}.png")), formats=["PNG"]) as image:
            if kept_size(*image.size) != image.size:
                raise ValueError(f"picture {name} is too large")
            return np.asarray(image.convert("RGB"))


def kept_size(width: int, height: int) -> tuple[int, int]:
    """Width and height at which a trace keeps a picture: at most its own."""
    longer, shorter = max(width, height), min(width, height)
    scale = max(MAX_SIDE / longer, min(MIN_SIDE / shorter, MAX_LENGTH / longer))
    if scale >= 1:
        return width, height
    return max(1, round(width * scale)), max(1, round(height * scale))


def _too_large(sizes: Mapping[str, int]) -> bool:
    """Whether a file with members of so many bytes would not be opened."""
    header = sizes.get("trace.json", 0)
    return len(sizes) > MAX_MEMBERS or sum(sizes.values()) > MAX_BYTES or header > MAX_HEADER


def _pack(trace: Trace) -> tuple[dict, dict[str, np.ndarray]]:
    """The JSON header of a trace and its named arrays."""
    arrays = {f"layout.{f.name}": getattr(trace.layout, f.name) for f in fields(TokenLayout)}
    events = []
    for i, event in enumerate(trace.events):
        r = event.reduction
        for name in ("source", "target", "weight", "slot"):
            arrays[f"event{i}.{name}"] = getattr(r, name)
        for name, values in r.evidence.items():
            arrays[f"event{i}.evidence.{name}"] = values
        events.append(
            {
                "site": event.site,
                "layer": event.layer,
                "n_in": r.n_in,
                "compensation": r.compensation,
                "further": r.further,
                "evidence": list(r.evidence),
            }
        )
    arrays["importance"] = _flat(trace.importance)
    rows = [_flat(word) for word in trace.attention]
    arrays["attention"] = (torch.stack(rows) if rows else torch.empty(0, 0)) * ATTENTION_SCALE
    arrays["attention"] = arrays["attention"].half()
    if trace.cls_attention is not None:
        arrays["cls_attention"] = trace.cls_attention
    detail = None
    if trace.detail is not None:
        detail, more = pack(trace.detail)
        arrays |= more
    header = {
        "format": FORMAT,
        "version": VERSION,
        **{name: getattr(trace, name) for name in _PLAIN},
        "words": [asdict(word) for word in trace.words],
        "events": events,
        "pictures": len(trace.images),
        "rows": [len(row) for row in trace.importance],
        "cls_attention": trace.cls_attention is not None,
        "timings": asdict(trace.timings),
        "cost": asdict(trace.cost),
        "times": trace.times,
        "history": trace.history,
        "detail": detail,
    }
    return header, {name: np.ascontiguousarray(array) for name, array in arrays.items()}


_PLAIN = ("model", "family", "method", "params", "ratio", "question", "answer", "layers", "counts")


def _unpack(file: _Reader) -> Trace:
    """The trace in an open file; any inconsistency raises."""
    header = file.header
    rows = header["rows"]
    if header["pictures"] > MAX_PICTURES:
        raise ValueError("too many pictures")
    trace = Trace(
        **{name: header[name] for name in _PLAIN} | {"layers": tuple(header["layers"])},
        words=[
            Word(w["text"], w["probability"], [(text, p) for text, p in w["top"]])
            for w in header["words"]
        ],
        images=[file.picture(str(i)) for i in range(header["pictures"])],
        layout=TokenLayout(
            **{f.name: file.tensor(f"layout.{f.name}") for f in fields(TokenLayout)}
        ),
        events=[_unpack_event(file, i, event) for i, event in enumerate(header["events"])],
        importance=list(file.tensor("importance").split(rows)) if rows else [],
        attention=[
            list((row.float() / ATTENTION_SCALE).split(rows)) for row in file.tensor("attention")
        ],
        cls_attention=file.tensor("cls_attention") if header["cls_attention"] else None,
        timings=Timings(**header["timings"]),
        cost=Cost(**header["cost"]),
        times=header.get("times"),
        history=[(question, answer) for question, answer in header.get("history", [])],
        detail=unpack(header["detail"], rows, file) if header.get("detail") else None,
    )
    if trace.attention:
        trace.attention[0] = trace.importance  # the same row, in full precision
    check(trace)
    return trace


def _unpack_event(file: _Reader, i: int, event: dict) -> Event:
    reduction = Reduction(
        n_in=event["n_in"],
        **{n: file.tensor(f"event{i}.{n}") for n in ("source", "target", "weight", "slot")},
        compensation=event["compensation"],
        further=tuple(event.get("further", ())),  # older traces knew one of one picture alone
        evidence={n: file.tensor(f"event{i}.evidence.{n}") for n in event["evidence"]},
    )
    return Event(event["site"], event["layer"], reduction)


def _flat(rows: Iterable[Tensor]) -> Tensor:
    """Ragged rows as one fp32 vector."""
    rows = [row.float() for row in rows]
    return torch.cat(rows) if rows else torch.empty(0)
