"""A sweep over ratio and layer on the page: the engine's side of it."""

from collections.abc import Iterator, Sequence

from libra import methods
from libra.sweep import Row, Setting, settings, sweep
from page import engine


@engine.GPU
def run(
    model: str, request: dict, ratios: Sequence[float], layers: Sequence[int]
) -> Iterator[tuple[list[Setting], Row]]:
    """Answer under every setting, vanilla first: all settings, and what came of the next one.

    Args:
        model: one of the models that are offered.
        request: arguments of `LVLM.stream`; its own ratio and layers do not count, nor what would
            overrule a ratio.
        ratios: shares of the visual tokens to remove.
        layers: decoder layers, each alone; none for four over the depth.
    """
    with engine.shelf.use(model) as lvlm:
        first = lvlm.family.first_layer
        chosen = settings(request["method"], lvlm.n_layers, ratios, layers, first)
        left_out = (*_SWEPT, *methods.get(request["method"]).instead_of_ratio)
        asked = {name: value for name, value in request.items() if name not in left_out}
        for row, _ in sweep(lvlm, request["method"], chosen, **asked):
            yield chosen, row


_SWEPT = ("method", "ratio", "layers", "tracing")
