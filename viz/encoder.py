"""Encoder attention by layer (iLLaVA Fig. 2b): which patches the encoder itself looks at."""

import numpy as np
from PIL import Image
from torch import Tensor

from libra.errors import InputError
from libra.trace import Trace
from viz.canvas import Canvas
from viz.heat import heat_scale, paint_heat, with_scale
from viz.marks import to_image
from viz.panel import PATCH, named, wrapped

COLUMNS = 5


def encoder_attention(trace: Trace, image: int = 0) -> Image.Image:
    """The picture and the mean attention that each patch receives in spread encoder layers.

    All maps share one scale. Patches that an earlier encoder layer merged away are faded.

    Raises:
        InputError: the trace was made without full tracing.
    """
    rows = {layer: row.numpy() for layer, row in received(trace).items()}
    canvas = Canvas.of(trace, image, PATCH)
    top = heat_scale(row[~np.isnan(row)] for row in rows.values())
    maps = [to_image(paint_heat(canvas, row, top)) for row in rows.values()]
    captions = [f"encoder layer {layer}" for layer in rows]
    card = wrapped([to_image(canvas.pixels), *maps], ["picture", *captions], COLUMNS)
    gone = any(np.isnan(row).any() for row in rows.values())
    text = "attention that a patch receives, mean over all tokens" + "; faded: merged away" * gone
    return named(with_scale(card, top, True, text), trace, image)


def received(trace: Trace) -> dict[int, Tensor]:
    """[N] the mean attention that each patch receives, by encoder layer.

    Raises:
        InputError: the trace was made without full tracing.
    """
    if trace.detail is None or not trace.detail.encoder:
        raise InputError("This trace has no encoder attention: ask with full tracing.")
    return trace.detail.encoder
