"""PyramidDrop: FastV's selection, halving the tokens again and again in deeper layers."""

from dataclasses import dataclass
from typing import ClassVar

from libra.methods.fastv import FastV


@dataclass(frozen=True)
class PyramidDrop(FastV):
    """Keep the tokens that the last instruction token attends to most, at several layers.

    Differs from the paper: tokens keep their original positions instead of being renumbered.
    """

    name = "pyramiddrop"
    title = "PyramidDrop"
    summary = "Drops half of the remaining visual tokens after each stage of the decoder."
    paper = "Xing et al., PyramidDrop, CVPR 2025, section 3.2"
    presets: ClassVar[dict[str, dict]] = {
        "keep 1/2, 1/4, 1/8": {"ratio": 0.5, "layers": (7, 15, 23)}
    }
