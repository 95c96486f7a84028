"""The tables of the evaluation: every method side by side, and those of the papers."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from libra import LVLM, methods
from tiny.plans import VANILLA, Line, Plan, Table, lines, listed, once, own_plan, plan

HALF, THIRD, FIFTH = 1 / 2, 2 / 3, 4 / 5  # what Libra-Merging removes; a third or a fifth stays
RATIOS = (HALF, THIRD, FIFTH)
ONCE = tuple(  # those that can reduce once, inside the decoder; PyramidDrop is FastV then
    name
    for name in methods.names()
    if "decoder" in methods.create(name).sites() and name not in ("vanilla", "pyramiddrop")
)


def papers(lvlm: LVLM, ratios: Sequence[float] = RATIOS) -> list[Table]:
    """Every method at its own layers, single events at the same layers, the papers' tables.

    The papers' early layer 3 of 32 and their layers 15 and 23 are those of FastV and of
    Libra-Merging's last two events, at this model's depth.
    """
    (early,), (_, middle, late) = lvlm.default_layers("fastv"), lvlm.default_layers("libra")
    names = [name for name in methods.names() if name != "vanilla"]
    return [
        Table(
            "own",
            "Every method at its own layers",
            "R is the share that each event of a decoder method removes. Of a method that acts "
            "before the decoder it is the share removed in all: ToMe and EViT remove equal shares "
            "in each of their encoder layers, iLLaVA divides R between encoder and decoder as in "
            "its paper, and PruMerge keeps as many tokens as R says, not as many as are outliers.",
            [VANILLA, *lines(own_plan(lvlm, name, r) for name in names for r in ratios)],
        ),
        _single("early", lvlm, early, ratios),
        _single("late", lvlm, late, ratios),
        *libra_merging(lvlm, early, middle),
        *prumerge(lvlm),
        *illava(lvlm, early),
    ]


def _single(name: str, lvlm: LVLM, layer: int, ratios: Sequence[float]) -> Table:
    return Table(
        name,
        f"One event, after layer {layer} of 0 to {lvlm.n_layers - 1}",
        "Every decoder method reduces once, after the same layer and to the same count, and so at "
        "equal FLOPs (fused tokens apart); iLLaVA without its encoder part.",
        [VANILLA, *lines(once(lvlm, method, layer, r) for method in ONCE for r in ratios)],
    )


def libra_merging(lvlm: LVLM, early: int, middle: int) -> list[Table]:
    """Tables 1, 3, 4, 5, E and F."""
    three = lvlm.default_layers("libra")

    def deep(ratio: float, name: str = "libra", **request: object) -> Plan:
        return plan(lvlm, name, ratio, ratio=ratio, layers=three, **request)

    def ranked(layer: int, merge: str) -> Plan:  # targets by importance alone
        return once(lvlm, "libra", layer, FIFTH, identify="topk", merge=merge)

    components = [Line("merging", once(lvlm, "turbo", early, HALF))]
    for ratio in RATIOS:
        components += [
            Line("hierarchical", deep(ratio, "turbo")),
            Line("hierarchical, PTI", deep(ratio, merge="average")),
            Line("hierarchical, PTI, IGM", deep(ratio)),
        ]
    techniques = []
    for layer in (early, middle):
        techniques += [
            Line("pruning", once(lvlm, "fastv", layer, FIFTH)),
            Line("merging", ranked(layer, "average")),
            Line("IGM", ranked(layer, "grouped")),
        ]
    return [
        Table(
            "libra-1",
            "As in Libra-Merging's Table 1: methods",
            "FastV and Turbo reduce once and early, Libra-Merging at three layers.",
            [
                VANILLA,
                *lines(once(lvlm, name, early, HALF) for name in ("fastv", "turbo")),
                *lines(deep(ratio) for ratio in (HALF, THIRD)),
            ],
        ),
        Table(
            "libra-3",
            "As in Libra-Merging's Table 3: components",
            "From merging once (Turbo) to merging at three layers (Turbo), with targets from "
            "intervals (PTI, merged to uniform means), with importance-informed groups (IGM).",
            components,
        ),
        Table(
            "libra-4",
            "As in Libra-Merging's Table 4: pruning against merging",
            "Importance alone names the targets; what becomes of the others is varied, after an "
            "early and a middle layer. Sim: their mean similarity to the closest target.",
            techniques,
            similarity=True,
        ),
        Table(
            "libra-5",
            "As in Libra-Merging's Table 5: variants of grouped merging",
            "All others merge (IGM-pos), all go into the compensation token (IGM-neg), or each as "
            "its similarity says (IGM); targets by importance alone.",
            [
                Line("IGM-pos", ranked(middle, "positive")),
                Line("IGM-neg", ranked(middle, "negative")),
                Line("IGM", ranked(middle, "grouped")),
            ],
        ),
        Table(
            "libra-E",
            "As in Libra-Merging's Table E: hyper-parameters",
            "The similarity tau from which tokens merge, and the temperature eta of the weights.",
            [
                *(Line(f"tau {tau}", deep(THIRD, tau=tau)) for tau in (0.3, 0.5, 0.7, 0.9)),
                *(Line(f"eta {eta:g}", deep(THIRD, eta=eta)) for eta in (1e-3, 1e-4, 1e-5)),
                Line("eta: mean importance", deep(THIRD)),
            ],
        ),
        Table(
            "libra-F",
            "As in Libra-Merging's Table F: the compensation token",
            "One early event, with the compensation token last, left out, or first.",
            [
                VANILLA,
                *(
                    Line(label, once(lvlm, "libra", early, HALF, compensation=place))
                    for label, place in (("last", "end"), ("left out", "none"), ("first", "begin"))
                ),
            ],
        ),
    ]


def prumerge(lvlm: LVLM) -> list[Table]:
    """Tables 4 and 5."""

    def kept(name: str, n: int, **request: object) -> Plan:
        return plan(lvlm, name, None, keep=n, **request)

    def grid(rows: int, columns: int) -> Line:
        made = plan(lvlm, "spatial", None, rows=rows, columns=columns)
        return Line(f"spatial, {rows} x {columns}", made)

    sampled = []
    for n, grids in ((40, [(5, 8), (8, 5)]), (35, [(5, 7), (7, 5), (6, 6)]), (16, [(4, 4)])):
        sampled += [
            Line(f"PruMerge, {n} tokens", kept("prumerge", n)),
            Line(f"sequential, {n} tokens", kept("sequential", n)),
            *(grid(*sizes) for sizes in grids),
        ]
    adaptive = [plan(lvlm, name, None) for name in ("prumerge", "prumerge+")]
    return [
        Table(
            "prumerge-4",
            "As in PruMerge's Table 4: sampling",
            "Which tokens reach the decoder: the most attended ones with their neighbours, the "
            "first ones, or an even grid; and PruMerge with as many as there are outliers.",
            [*sampled, *(Line(f"{p.title}, adaptive", p) for p in adaptive)],
        ),
        Table(
            "prumerge-5",
            "As in PruMerge's Table 5: modules",
            "Selecting the important tokens (AITS), then supplementing them with their neighbours "
            "(TS), 40 tokens each.",
            [
                VANILLA,
                Line("AITS", kept("prumerge", 40, merge="none")),
                Line("AITS and TS", kept("prumerge", 40)),
            ],
        ),
    ]


def illava(lvlm: LVLM, early: int) -> list[Table]:
    """Tables 3, 4 and 7."""
    inside, ratio = lvlm.default_encoder_layers("illava"), methods.create("illava").encoder_ratio

    def encoder(name: str, **request: object) -> Plan:
        return plan(lvlm, name, ratio, left=1 - ratio, encoder_layers=inside, **request)

    def recycled(**request: object) -> Plan:  # its own encoder part, and nothing in the decoder
        return plan(lvlm, "illava", ratio, ratio=0.0, encoder_layers=inside, **request)

    def decoder(name: str, **request: object) -> Plan:
        return once(lvlm, name, early, 0.3, **request)

    return [
        Table(
            "illava-3",
            "As in iLLaVA's Table 3: methods",
            "Methods of all three sites that leave about a third of the tokens; without "
            "Free-VideoLLM, which is about videos.",
            lines(own_plan(lvlm, name, THIRD) for name in ("fastv", "tome", "prumerge", "illava")),
        ),
        Table(
            "illava-4",
            "As in iLLaVA's Table 4: strategies inside the encoder",
            f"Encoder layers {listed(inside)} remove {ratio:.1%} in all, the decoder nothing. "
            "Without the crops by CLIP and CLIPSeg, which need these models.",
            [
                Line("attention-based pruning", recycled(merge="none")),
                Line("random pruning", encoder("random", site="encoder")),
                Line("greedy merging", encoder("greedy", site="encoder")),
                Line("bipartite matching", encoder("tome")),
                Line("k-means", encoder("kmeans", site="encoder")),
                Line("iLLaVA", recycled()),
            ],
        ),
        Table(
            "illava-7",
            "As in iLLaVA's Table 7: strategies inside the decoder",
            f"After layer {early}, 30 % are removed; the encoder is left alone.",
            [
                Line("FastV", decoder("fastv")),
                Line("random pruning", decoder("random")),
                Line("greedy merging", decoder("greedy")),
                Line("bipartite matching", decoder("turbo", matching="bipartite", weight=0.0)),
                Line("k-means", decoder("kmeans")),
                Line("iLLaVA", decoder("illava")),
            ],
        ),
    ]


def albums(own: Table) -> Table:
    """The lines of a table, about several pictures."""
    return Table(
        "albums",
        "Several pictures",
        "Two or three pictures of 576 tokens each; settings as above.",
        own.lines,
        kinds=("images",),
    )


def films(own: Table) -> Table:
    """A few lines of a table, about films, which take eight times as long."""
    few = ("vanilla", "fastv", "libra")
    return Table(
        "films",
        "Films",
        "The eight frames of a film as pictures, 576 tokens each; settings as above.",
        [line for line in own.lines if line.plan.method in few],
        kinds=("video",),
    )


def in_style(own: Table, style: str) -> Table:
    """The lines of a table, in another drawing style."""
    return Table(
        f"{own.name}-{style}",
        f"{own.title}, in a drawing style never seen: {style}",
        f"Settings as above; the objects are those of {style}, which training did not draw.",
        [replace(line, style=style) for line in own.lines],
    )


def styles(names: Iterable[str]) -> Table:
    """The model itself in several drawing styles."""
    return Table(
        "styles",
        "Drawing styles",
        "The model without compression, on the drawing styles of the training and on emoji sets "
        "that it has never seen.",
        [Line(name, VANILLA.plan, name) for name in names],
    )
