"""The pictures of a trace as the page shows them. Pure functions, no model."""

import base64
import io
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np
from gradio.processing_utils import hash_bytes
from gradio.utils import get_upload_folder
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageOps

import viz
from libra.reduction import Fate
from libra.report import as_csv, facts
from libra.statistics import percent
from libra.trace import Trace
from page import texts
from page.shown import overlays
from viz.canvas import PATCH, Canvas, framed
from viz.heat import FAINT, loudest, stage_at
from viz.panel import left
from viz.retention import kept_of

SMALL = {"legend": False, "patch": 5}  # of a small picture: pixels per patch
FILM = 120  # pixels of a side of a small picture without patches
OF_MERGED = ("merged", "groups")  # overlays that show which patches became one token


def stage_choices(trace: Trace | None) -> list[tuple[str, int]]:
    """(label, index) of every stage, with the number of visual tokens that it leaves."""
    if trace is None:
        return [("Before", 0)]
    counts = [len(trace.layout), *(left(event.reduction) for event in trace.events)]
    names = (f"{name[0].upper()}{name[1:]}" for name in trace.stages)
    return [(f"{name} · {n}", i) for i, (name, n) in enumerate(zip(names, counts, strict=True))]


def stage_caption(trace: Trace, stage: int, image: int) -> str:
    """The label of a stage, and of one of several pictures how many tokens are its own."""
    label = stage_choices(trace)[stage][0]
    if len(trace.images) == 1:
        return label
    return f"{label}, {kept_of(trace, stage, image)} of these here"


def deciding_layer(trace: Trace, stage: int) -> int:
    """The decoder layer whose attention belongs to a stage: it sees the tokens of this stage.

    That of the next event, which it decides; at the end, of the layers that are left, the one that
    attends most to the pictures.
    """
    if stage < len(trace.events):
        event = trace.events[stage]
        return event.layer if event.site == "decoder" else 0
    layers = range(len(trace.importance))
    left = [layer for layer in layers if stage_at(trace, layer) == stage]
    return loudest(trace, left or layers[-1:])


def picture(
    trace: Trace,
    overlay: str,
    stage: int,
    word: int = 0,
    layer: int | None = None,
    vmax: float | None = None,
    legend: bool = True,
    patch: int = PATCH,
    image: int = 0,
) -> Image.Image:
    """One picture of a trace under one overlay at one stage, `patch` pixels per patch.

    Heat maps show `layer` (default: the one that belongs to the stage), up to `vmax`.
    """
    if layer is None and overlay in texts.HEAT:
        layer = deciding_layer(trace, stage)
    options = {"legend": legend, "patch": patch, "image": image}
    heat = partial(viz.heat_map, trace, layer, vmax=vmax, **options)
    groups = partial(viz.group_map, trace, stage, **options)
    draw = {
        "fate": partial(viz.fate_map, trace, stage, **options),
        "kept": partial(viz.selected, trace, stage, **options),
        "merged": partial(groups, mode="mean"),
        "groups": partial(groups, mode="label"),
        "importance": heat,
        "word": partial(heat, word=word),
    }
    return draw[overlay]()


def thumbnails(trace: Trace, stage: int, word: int, image: int = 0) -> dict[str, str]:
    """A small picture of every overlay that the trace has, at one stage, as a data URL."""
    small = partial(picture, trace, stage=stage, word=word, image=image, **SMALL)
    return {overlay: data_url(small(overlay=overlay)) for overlay in overlays(trace)}


def filmstrip(trace: Trace, overlay: str = "", stage: int = 0, word: int = 0) -> list[str]:
    """All pictures of a trace, small, under one overlay or as they are, as data URLs."""
    images = range(len(trace.images))
    if overlay:
        return [data_url(picture(trace, overlay, stage, word, image=i, **SMALL)) for i in images]
    return [data_url(shrunk(image(trace, i))) for i in images]


def shrunk(picture: Image.Image) -> Image.Image:
    """A picture as small as one of a strip."""
    return ImageOps.contain(picture, (FILM, FILM))


def data_url(image: Image.Image) -> str:
    """A small picture inside the page itself: no request of its own."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def caption(trace: Trace, overlay: str, stage: int, word: int = 0) -> str:
    """One sentence on what the overlay shows, one on the numbers of this stage."""
    meaning = texts.OVERLAYS[overlay][1]
    if overlay in texts.HEAT:
        layer = deciding_layer(trace, stage)
        here = f"Layer {layer}."
        if overlay == "word":
            said = f": “{trace.words[word].text.strip()}”" if trace.words else ""
            here = f"Layer {layer}, word {word + 1} of {len(trace.words)}{said}."
        if (share := _attended(trace, overlay, layer, word)) < FAINT:
            meaning = texts.FAINT.format(percent(share)) + texts.STAGE_BACK * (stage > 0)
    else:
        fate = trace.lineage(stage).fate()
        here = _standing(trace, stage, int((fate == Fate.DROPPED).sum()))
        if overlay in OF_MERGED and not (fate == Fate.MERGED).any():
            meaning = texts.NOTHING_MERGED
    return f"{here} {meaning}"


def _standing(trace: Trace, stage: int, gone: int) -> str:
    """How many tokens stand for the patches at a stage, `gone` of which have none any more."""
    n = len(trace.layout)
    if stage == 0:
        return f"Before compression: one token for each of {n} patches."
    event = trace.events[stage - 1].reduction
    tokens = "1 token" if event.n_kept == 1 else f"{event.n_kept} tokens"
    n_extra = len(event.extras)
    sums = f" and {n_extra} that sum up others" if n_extra > 1 else " and one that sums up others"
    extra = sums if n_extra else ""
    there = f"{n - gone} of {n} patches, the others are gone" if gone else f"{n} patches"
    return f"{tokens}{extra} stand for {there}."


def _attended(trace: Trace, overlay: str, layer: int, word: int) -> float:
    """The share of a layer's attention that is on the visual tokens."""
    rows = trace.importance if overlay == "importance" else trace.attention[word]
    return float(rows[layer].sum())


def patch_at(trace: Trace, image: int, x: float, y: float) -> int | None:
    """The patch at a place of a picture, from 0 to 1; None where the model saw nothing."""
    token = Canvas.of(trace, image).token
    if not (0 <= x < 1 and 0 <= y < 1):
        return None
    patch = int(token[int(y * token.shape[0]), int(x * token.shape[1])])
    return patch if patch < len(trace.layout) else None


def cropped(trace: Trace, index: int = 0) -> str:
    """A sentence on how much of a picture the model sees, where that is not nearly all."""
    box = trace.layout.box[trace.layout.of_picture(index)]
    if not len(box):
        return ""
    width, height = (box[:, 2:].amax(0) - box[:, :2].amin(0)).tolist()
    share = width * height
    if share >= 0.95:
        return ""
    whole = framed(trace).images[index].shape == trace.images[index].shape
    return texts.CROPPED.format(percent(share)) + texts.FRAMED * (not whole)


def save_png(image: Image.Image, name: str) -> str:
    """The picture as a PNG file in the page's cache, under a name that says what it is."""
    save = partial(image.save, format="PNG", compress_level=3)
    return _cached(image.tobytes(), f"{_safe(name)}.png", save)


def file_name(trace: Trace, *parts: str | int) -> str:
    """`libra-fate-after-layer-3`"""
    return "-".join([trace.method, *map(str, parts)]).replace(" ", "-")


def image(trace: Trace, index: int = 0) -> Image.Image:
    """A picture of a trace, as it is."""
    return Image.fromarray(trace.images[index])


def save_trace(trace: Trace) -> str:
    """The trace as a file to download."""
    file = io.BytesIO()
    trace.save(file)
    content, name = file.getvalue(), f"{_safe(trace.method)}.trace.zip"
    return _cached(content, name, lambda path: path.write_bytes(content))


def save_table(traces: Sequence[Trace]) -> str:
    """The table of the command line, with all numbers in plain units, as a CSV file."""
    table = as_csv([facts(trace) for trace in traces])
    return _cached(table.encode(), "comparison.csv", lambda path: path.write_text(table, "utf-8"))


def save_figure(figure: Image.Image | Figure, name: str) -> str:
    """A figure as a PNG file: pictures as they are, charts at twice the screen's resolution."""
    if isinstance(figure, Figure):
        figure.set_dpi(2 * figure.get_dpi())
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        figure = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    return save_png(figure, name)


def _safe(name: str) -> str:
    """A name as that of a file: neither folders nor hidden files, whatever a trace calls itself."""
    return re.sub(r"[^\w.+-]", "-", name[:100], flags=re.ASCII).strip(".-") or "unnamed"


def _cached(content: bytes, name: str, write: Callable[[Path], object]) -> str:
    """The file of that content in the page's cache; nobody ever finds it half written."""
    folder = Path(get_upload_folder()) / hash_bytes(content)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    try:
        os.utime(path)  # wanted again: the cache is cleared by age
    except FileNotFoundError:
        unfinished = folder / f"{uuid4().hex}.part"
        write(unfinished)
        os.replace(unfinished, path)
    return str(path)
