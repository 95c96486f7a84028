"""A small true picture of each method: it is run on sixteen toy tokens and its map is drawn."""

import torch

from libra import methods
from libra.errors import InputError
from libra.layout import TokenLayout
from libra.methods import Tokens
from libra.reduction import Fate, Reduction
from viz.panel import left

N, STEP, TOP, BOTTOM = 16, 30, 40, 128  # tokens; pixels between them; the two rows
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")


def toy() -> tuple[Tokens, list[int]]:
    """Sixteen tokens of four kinds with fixed importances, and the kind of each."""
    kinds = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 1, 1, 0, 3, 0, 0]
    attention = [2, 5, 3, 8, 4, 2, 3, 9, 2, 4, 6, 2, 1, 7, 2, 3]
    generator = torch.Generator().manual_seed(0)
    hidden = torch.eye(4)[kinds] + 0.15 * torch.randn(N, 4, generator=generator)
    importance = torch.tensor(attention) / (4 * sum(attention))
    words = hidden * torch.tensor([0.0, 1.0, 1.0, 0.0])  # four, of which two name a kind of token
    tokens = Tokens(
        hidden=hidden,
        importance=importance,
        keys=hidden,
        received=importance,
        text_similarity=words,
        text_attention=words.softmax(0),
        layout=TokenLayout.square_crop(1, 1, (4, 4)),
        generator=generator,
    )
    return tokens, kinds


def diagram(name: str) -> str:
    """Sixteen tokens in, what `name` makes of them out: the edges are those of its Reduction.

    Empty for a method that needs more than the toy tokens have.
    """
    tokens, kinds = toy()
    try:
        reduction = methods.create(name).reduce(tokens)
    except InputError:
        return ""
    places = _places(reduction)
    edges = "".join(
        f'<line x1="{_x(s)}" y1="{TOP + 9}" x2="{places[t]:.0f}" y2="{BOTTOM - 9}" '
        f'stroke="{COLOURS[kinds[s]]}" stroke-width="{1 + 3 * w:.1f}"/>'
        for s, t, w in zip(
            reduction.source.tolist(),
            reduction.target.tolist(),
            reduction.weight.tolist(),
            strict=True,
        )
    )
    peak = float(tokens.importance.max())
    above = "".join(
        _bar(_x(i), float(a) / peak) + _token(_x(i), TOP, kinds[i], fate)
        for i, (a, fate) in enumerate(
            zip(tokens.importance, reduction.fate().tolist(), strict=True)
        )
    )
    below = "".join(
        _token(x, BOTTOM, None if t == reduction.compensation else kinds[s], Fate.KEPT)
        for t, (x, s) in enumerate(zip(places, reduction.slot.tolist(), strict=True))
    )
    words = f"{methods.get(name).title}: {N} tokens become {left(reduction)}."
    width = N * STEP + STEP * (reduction.compensation is not None)
    return (
        f'<svg class="diagram" viewBox="0 0 {N * STEP + STEP} {BOTTOM + 16}" role="img" '
        f'aria-label="{words}" style="max-width:{width + STEP}px">{edges}{above}{below}</svg>'
    )


def _places(reduction: Reduction) -> list[float]:
    """The x of every output: below its slot; the compensation token at the end."""
    xs = [float(_x(slot)) for slot in reduction.slot.tolist()]
    if reduction.compensation is not None:
        xs[reduction.compensation] = _x(N)
    return xs


def _x(i: int) -> int:
    return STEP // 2 + i * STEP


def _bar(x: float, share: float) -> str:
    height = round(4 + 20 * share)
    top = TOP - 12 - height
    return f'<rect class="importance" x="{x - 3}" y="{top}" width="6" height="{height}"/>'


def _token(x: float, y: int, kind: int | None, fate: int) -> str:
    """A token of one kind; hollow where it was dropped, grey where it compensates."""
    colour = "#8a8a85" if kind is None else COLOURS[kind]
    fill = "none" if fate == Fate.DROPPED else colour
    ring = "kept" if fate == Fate.KEPT else ""
    return (
        f'<rect class="token {ring}" x="{x - 9}" y="{y - 9}" width="18" height="18" rx="4" '
        f'fill="{fill}" stroke="{colour}"/>'
    )
