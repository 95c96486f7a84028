"""When the GPU's memory runs out: one clear message, and the memory is free again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from libra.errors import ShortageError
from libra.media import Media
from libra.methods import Method
from libra.models import Family, catalog
from libra.models.room import abandon


@contextmanager
def bounded(
    name: str, family: Family, media: Media, method: Method | None = None, batch: int = 1
) -> Iterator[None]:
    """Turn a lack of GPU memory into a ShortageError, once what was computed has been freed.

    Args:
        name: of the model.
        family: the model.
        media: what it looks at.
        method: what compresses its tokens, if any does.
        batch: how many questions it answers at once.
    """
    try:
        yield
        return
    except torch.OutOfMemoryError as error:
        abandon(error)
    raise ShortageError(
        f"{name} has run out of memory on {family.device}. This needs less: "
        f"{', or '.join(_ways_out(family, media, method, batch))}."
    ) from None


def _ways_out(family: Family, media: Media, method: Method | None, batch: int) -> list[str]:
    """What would need less memory than a request did."""
    ways, n = [], len(media.pictures)
    if batch > 1:
        ways.append(f"fewer than {batch} questions at once")
    if n > 1:
        ways.append(f"fewer than {n} {'frames' if media.is_video else 'pictures'}")
    if method is not None:
        ratio = getattr(method, "ratio", None)
        ways.append("a method that compresses" if ratio is None else f"a ratio above {ratio:.2g}")
    size = family.model.num_parameters()
    smaller = [e for e in catalog() if e.runnable and e.parameters < size]
    if smaller:
        ways.append(f"a smaller model, like {max(smaller, key=lambda e: e.parameters).name}")
    return ways or ["a shorter answer"]
