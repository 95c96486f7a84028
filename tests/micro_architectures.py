"""Geometries of a few tokens and layers, for benchmarks and checks that build models by them."""

from dataclasses import replace

from libra.architecture import Architecture, Stack

LLAVA = Architecture(
    "micro-llava",
    decoder=Stack(4, 64, 96, 4, 64),
    vocabulary=400,
    encoder=Stack(3, 32, 64, 4, 32, gated=False),
    pixels=588,
    tokens=16,
    connector=((32, 64), (64, 64)),
    special=1,
    tile=16,
    projects_tokens=True,
)
QWEN = replace(
    LLAVA,
    name="micro-qwen",
    decoder=Stack(4, 64, 96, 4, 32),
    pixels=1176,
    connector=((128, 128), (128, 64)),
    merge=4,
    special=0,
    tile=None,
    projects_tokens=False,
)
