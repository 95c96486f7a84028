"""Synthetic traces that look like real ones: methods run on hidden states made from a photo.

No model is involved. The hidden state of a patch follows its colours, so that similar patches
have similar states; importance follows local contrast, with a few sinks, as in real decoders.
"""

from dataclasses import fields, replace

import numpy as np
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageOps

from libra import methods
from libra.detail import AttentionMatrix, Detail, Similarity, spread_layers
from libra.layout import TokenLayout
from libra.methods import Tokens
from libra.recorder import prompt_queries
from libra.reduction import Reduction
from libra.trace import Cost, Event, Timings, Trace, Word

WIDTH, MLP, HEADS = 256, 768, 4  # of the pretended decoder


def photo(width: int = 512, height: int = 600) -> np.ndarray:
    """A real photo (Grace Hopper, public domain, comes with matplotlib), cut to size: uint8."""
    with get_sample_data("grace_hopper.jpg") as file, Image.open(file) as image:
        return np.asarray(ImageOps.fit(image.convert("RGB"), (width, height)))


def make_trace(
    method: str = "libra",
    ratio: float = 0.5,
    layers: tuple[int, ...] = (1, 3, 5),
    pictures: list[np.ndarray] | None = None,
    grid: tuple[int, int] = (24, 24),
    n_layers: int = 8,
    answer: str = "a woman in uniform",
    seed: int = 0,
    full: bool = False,
    **params,
) -> Trace:
    """A trace of `method` over `pictures` (default: one photo); `full`: with detail.

    Methods of the encoder and the connector act once, before the first decoder layer.
    """
    pictures = [photo()] if pictures is None else pictures
    layout = TokenLayout.cat(
        [TokenLayout.square_crop(p.shape[1], p.shape[0], grid, i) for i, p in enumerate(pictures)]
    )
    generator = torch.Generator().manual_seed(seed)
    hidden, contrast = _states(pictures, layout, generator)
    words = answer.split()
    # A row per word; importance is there even where the answer is empty.
    salience = [contrast + 0.7 * _noise(len(layout), generator) for _ in words or [""]]
    cls_attention = (3 * contrast + 0.5 * _noise(len(layout), generator)).softmax(0)
    counts, importance, rows, events = [], [], [[] for _ in salience], []
    standing = torch.arange(len(layout))  # the original token whose place each token takes
    similarity = {}

    def reduce(site: str, layer: int, score: torch.Tensor) -> None:
        nonlocal hidden, standing
        kind = methods.get(method)
        known = {"ratio": ratio} if "ratio" in {f.name for f in fields(kind)} else {}
        last = events[-1].reduction.extras if events else ()
        tokens = Tokens(
            hidden,
            importance=score,
            keys=hidden,
            received=score,
            text_similarity=score[:, None],
            text_attention=score[:, None],
            layout=None if events else layout,
            n_previous_compensation=len(last),
            generator=generator,
        )
        reduction = methods.create(method, **known | params).reduce(tokens)
        if full and "similarity" in reduction.evidence:
            similarity[len(events)] = Similarity.of(hidden)
        events.append(Event(site, layer, reduction))
        hidden, standing = reduction.apply(hidden), standing[reduction.slot]

    site = methods.get(method).site
    if site != "decoder":
        reduce(site, {"encoder": 4, "connector": -1}[site], cls_attention)
    for layer in range(n_layers):
        counts.append(len(hidden))
        for row, score in zip(rows, salience, strict=True):
            sharp = score[standing] * (1 + layer / 4)
            row.append(sharp.softmax(0) * (0.6 - 0.04 * layer))
        importance.append(rows[0][-1])
        if site == "decoder" and method != "vanilla" and layer in layers:
            reduce("decoder", layer, importance[-1])
        hidden = hidden + 0.15 * hidden.std() * _noise(hidden.shape, generator)
    trace = Trace(
        model="synthetic",
        family="llava",
        method=method,
        params=params if method != "libra" else {"tau": 0.7, **params},
        ratio=ratio,
        layers=tuple(event.layer for event in events if event.site == "decoder"),
        question="Who is in the picture?",
        answer=answer,
        words=[Word(f" {w}", 0.9, [(f" {w}", 0.9), (" the", 0.04), (" one", 0.02)]) for w in words],
        images=pictures,
        layout=layout,
        events=events,
        counts=counts,
        importance=importance,
        attention=rows[: len(words)],
        cls_attention=cls_attention,
        timings=_timings(counts, len(words)),
        cost=_cost(counts, len(layout)),
    )
    if full:
        trace.detail = _detail(trace, similarity, generator)
    return trace


def twice(trace: Trace) -> Trace:
    """The same picture once more, each reduced alone before the decoder; attention is halved."""
    layout = TokenLayout.cat(
        [trace.layout, replace(trace.layout, image=trace.layout.image + len(trace.images))]
    )

    def double(rows: list[torch.Tensor]) -> list[torch.Tensor]:
        return [row.repeat(2) / 2 for row in rows]

    return replace(
        trace,
        images=2 * trace.images,
        layout=layout,
        events=[
            replace(event, reduction=Reduction.side_by_side([event.reduction] * 2))
            for event in trace.events
        ],
        counts=[2 * count for count in trace.counts],
        importance=double(trace.importance),
        attention=[double(word) for word in trace.attention],
        cls_attention=trace.cls_attention.repeat(2) / 2,
    )


def nothing_left(trace: Trace) -> Trace:
    """The same with every token dropped by its first event, which is in the decoder."""
    event, n = trace.events[0], len(trace.layout)
    none = Reduction.select(torch.zeros(0, dtype=torch.long), n, event.reduction.evidence)

    def cut(rows: list[torch.Tensor]) -> list[torch.Tensor]:
        return [row[..., : 0 if i > event.layer else n] for i, row in enumerate(rows)]

    detail = trace.detail and replace(trace.detail, heads=cut(trace.detail.heads))
    return replace(
        trace,
        events=[replace(event, reduction=none)],
        counts=[0 if i > event.layer else n for i in range(len(trace.counts))],
        importance=cut(trace.importance),
        attention=[cut(word) for word in trace.attention],
        detail=detail,
    )


def _detail(trace: Trace, similarity: dict[int, Similarity], generator: torch.Generator) -> Detail:
    """What full tracing would add: heads around the rows, attention that fades with distance."""
    heads = []
    for row in trace.importance:
        sharpness = torch.rand(HEADS, len(row), generator=generator) + 0.5
        heads.append(row * sharpness / sharpness.mean(0))
    gone = [e for e in trace.events if e.site == "encoder"]
    encoder = {}
    for layer in spread_layers(6):
        encoder[layer] = (trace.cls_attention.log() * (1 - layer / 8)).softmax(0)
        if gone and layer > gone[0].layer:
            merged = torch.ones(len(trace.layout), dtype=torch.bool)
            merged[gone[0].reduction.slot] = False
            encoder[layer] = encoder[layer].masked_fill(merged, torch.nan)
    matrices = {}
    for layer in spread_layers(len(trace.counts)):
        segments = (5, trace.counts[layer], 9)
        n, queries = sum(segments), prompt_queries(segments)
        rows = [_row(int(q) + 1, n, generator) for q in queries]
        prompt = AttentionMatrix.of_prompt(torch.stack(rows), queries, segments)
        later = [_row(n + i + 1, n + i + 1, generator) for i in range(len(trace.words) - 1)]
        matrices[layer] = prompt.followed_by(later)
    return Detail(encoder, matrices, heads, similarity)


def _row(n: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """The attention [width] of token n - 1: much to the first ones, then less with the distance."""
    row = torch.zeros(width)
    distance = torch.arange(n, 0, -1)
    score = -distance.log() + 2.0 * (torch.arange(n) < 2) + 0.5 * _noise(n, generator)
    row[:n] = score.softmax(0)
    return row


def _states(
    pictures: list[np.ndarray], layout: TokenLayout, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states [N, WIDTH] and standardised contrast [N] of the patches."""
    features = []
    for i, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        boxes = layout.box[layout.image == i] * torch.tensor([width, height, width, height])
        for x0, y0, x1, y1 in boxes.tolist():
            cut = Image.fromarray(picture).resize((4, 4), box=(x0, y0, x1, y1))
            features.append(np.asarray(cut, np.float32).ravel() / 255)
    features = torch.from_numpy(np.stack(features))
    contrast = features.std(1)
    mixing = torch.randn(features.shape[1] + 2, WIDTH, generator=generator)
    place = torch.stack([layout.row, layout.column], dim=1) / layout.row.max().clamp_min(1)
    state = torch.cat([features - features.mean(0), place - 0.5], dim=1) @ mixing
    state = state + 0.6 * state.std() * torch.randn(state.shape, generator=generator)
    return state, ((contrast - contrast.mean()) / contrast.std()).nan_to_num()  # of one patch: 0


def _noise(shape, generator: torch.Generator) -> torch.Tensor:
    shape = (shape,) if isinstance(shape, int) else shape
    return torch.randn(shape, generator=generator)


def _cost(counts: list[int], n: int) -> Cost:
    def flops(counts):
        return float(sum(4 * n * WIDTH**2 + 2 * n**2 * WIDTH + 3 * n * WIDTH * MLP for n in counts))

    vanilla = [n] * len(counts)
    return Cost(
        flops=flops(counts),
        vanilla_flops=flops(vanilla),
        kv_bytes=4 * WIDTH * sum(counts),
        vanilla_kv_bytes=4 * WIDTH * sum(vanilla),
    )


def _timings(counts: list[int], n_words: int) -> Timings:
    return Timings(0.12, 0.01, 1e-4 * sum(counts), [0.01 + 5e-6 * sum(counts)] * n_words)
