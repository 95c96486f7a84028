"""PyramidDrop: FastV's selection, halving the tokens again and again in deeper layers."""

from dataclasses import dataclass
from typing import ClassVar

from libra.methods.fastv import FastV


@dataclass(frozen=True)
class PyramidDrop(FastV):
    """Keep the tokens that the last instruction token attends to most, at several layers.

    Those that are left, and the words of the answer after them, get consecutive positions in every
    layer; where a model counts positions in rows and columns (M-RoPE), tokens keep theirs.

    Differs from the paper: tokens are ranked by the attention of the layer that they leave, like
    those of all methods here; the published code computes that of the next layer in advance.
    """

    name = "pyramiddrop"
    title = "PyramidDrop"
    summary = (
        "Drops half of the remaining visual tokens after each stage of the decoder, and numbers "
        "those that are left anew."
    )
    paper = "Xing et al., PyramidDrop, CVPR 2025, section 3.2"
    renumbers = True
    presets: ClassVar[dict[str, dict]] = {
        "keep 1/2, 1/4, 1/8": {"ratio": 0.5, "layers": (7, 15, 23)}
    }
