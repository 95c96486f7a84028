"""Colours: one colour-blind-safe palette, and the colouring of touching groups."""

import colorsys

import numpy as np

ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = OKABE_ITO = (
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
# Lines need contrast on white: no yellow, no sky blue first.
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
INK, GREY, FAINT, CARD = "#1F2328", "#6E7781", "#D8DEE4", "#FFFFFF"
RIGHT, WRONG = "#00694D", "#A34700"  # green and vermilion, dark enough for text
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # brightness of R, G, B (ITU-R BT.601)


def rgb(colour: str) -> np.ndarray:
    """`#RRGGBB` as float32 [3] in 0..255."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


def _palette() -> np.ndarray:
    """Okabe-Ito, then its light and its dark shades: float32 [21, 3]."""
    base = np.stack([rgb(colour) for colour in OKABE_ITO])
    return np.concatenate([base, base + (255 - base) * 0.55, base * 0.5])


PALETTE = _palette()


def unique_hues(n: int) -> np.ndarray:
    """`n` different colours, float32 [n, 3]: golden-angle hues, so neighbours differ most."""
    golden = 0.618034
    colours = [
        colorsys.hsv_to_rgb(i * golden % 1, 0.55 + 0.4 * (i % 2), 0.95 - 0.3 * (i % 3 == 2))
        for i in range(n)
    ]
    return np.array(colours, np.float32).reshape(n, 3) * 255


def dsatur(n: int, edges: np.ndarray) -> np.ndarray:
    """Colour a graph so that touching nodes differ (Brélaz's DSATUR).

    Always next: the node whose neighbours show the most colours, then the one of highest degree,
    then the first; it takes the lowest colour free.

    Args:
        n: number of nodes.
        edges: int [E, 2], each pair in either or both directions; loops are ignored.

    Returns:
        int [n], colours counted from 0.
    """
    adjacent = np.zeros((n, n), bool)
    a, b = edges[edges[:, 0] != edges[:, 1]].T
    adjacent[a, b] = adjacent[b, a] = True
    degree = adjacent.sum(1)
    seen = np.zeros((n, degree.max(initial=0) + 1), bool)  # seen[node, colour]: at a neighbour
    colour = np.full(n, -1)
    urgency = degree.copy()  # saturation * (n + 1) + degree; -1 once coloured
    for _ in range(n):
        node = int(urgency.argmax())
        colour[node] = chosen = int(seen[node].argmin())
        fresh = adjacent[node] & ~seen[:, chosen] & (colour < 0)
        seen[adjacent[node], chosen] = True
        urgency[fresh] += n + 1
        urgency[node] = -1
    return colour
