"""What the decoder is asked about: patches of pictures, albums, films and symbolic crowds."""

import numpy as np
import torch
from torch import Tensor

from tiny import model as tiny
from tiny import packing, questions, scenes
from tiny.packing import Packed, Seen, pack

NOISE = 0.05  # added to patch codes: the tower's are not perfect


def tower(model, pixels: Tensor, places: Tensor | None = None, last: int = 0):
    """Features of the penultimate layer `[B, N, C]` and the last CLS of the first `last` pictures.

    `pixels` may be a window of a picture, `places` `[N]` its patches in the full grid.
    """
    vision = model.model.vision_tower
    table = vision.embeddings.position_embedding.weight
    patches = vision.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    patches = patches + (table[1:] if places is None else table[1:][places])
    cls = (vision.embeddings.class_embedding + table[0]).expand(len(patches), 1, -1)
    hidden = vision.pre_layrnorm(torch.cat([cls.to(patches.dtype), patches], 1))
    *layers, final = vision.encoder.layers
    for layer in layers:
        hidden = layer(hidden, None)
    seen = final(hidden[:last], None)[:, 0] if last else None
    return hidden[:, 1:], seen


def normalise(pictures: list[np.ndarray]) -> Tensor:
    """uint8 `[H, W, 3]` pictures to CLIP-normalised pixels `[B, 3, H, W]`."""
    return standardise(torch.from_numpy(np.stack(pictures)))


def standardise(pixels: Tensor) -> Tensor:
    """uint8 `[B, H, W, 3]` to CLIP-normalised pixels `[B, 3, H, W]`."""
    processor = tiny.image_processor()
    mean, std = (
        pixels.new_tensor(value, dtype=torch.float32).view(3, 1, 1)
        for value in (processor.image_mean, processor.image_std)
    )
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def visible(labels: dict[str, Tensor], n: int, rng) -> Tensor:
    """`n` patches of each scene, ascending: the objects' first, their centres before all."""
    noise = torch.from_numpy(rng.random(labels["name"].shape))
    score = noise + (labels["name"] >= 0) + 2.0 * (labels["centre"] > 0.02)
    score = score + 1.0 * (labels["character"] >= 0)
    return score.topk(n, dim=1).indices.sort(dim=1).values


def at(visual: Tensor, where: Tensor) -> Tensor:
    """Visual tokens `[..., 576, D]` at patches `where` `[..., N]`."""
    return visual.gather(-2, where[..., None].expand(*where.shape, visual.shape[-1]))


def written(code, labels: dict[str, Tensor], where: Tensor, noise: float = NOISE) -> Tensor:
    """Patches `where` `[..., n]` of scenes as their codes with some noise `[..., n, D]`."""
    codes = code(**{k: v.gather(-1, where) for k, v in labels.items()}, place=where)
    return codes + noise * torch.randn_like(codes)


def symbolic(code, batch, n: int, rng, noise: float = NOISE) -> tuple[Tensor, Tensor]:
    """Scenes written as patch codes: `n` visual tokens of each `[B, n, D]`, and their patches."""
    labels = tiny.stack([scenes.symbols(scene) for scene in batch])
    where = visible(labels, n, rng)
    return written(code, labels, where, noise), where


def told(code, n: int, rng, settings) -> tuple[Seen, Packed]:
    """A batch of scenes written as patch codes, `n` patches of each, described and asked about."""
    sizes = [(9, 3) if rng.random() < 0.6 else () for _ in range(settings.batch)]
    batch = [scenes.compose(rng, *size) for size in sizes]
    seen = packing.alone(*symbolic(code, batch, n, rng))
    captions = [questions.ask(scene, "caption", rng) for scene in batch]
    others = [dict.fromkeys(questions.mixture(scene, 7, rng, settings.mixture)) for scene in batch]
    asked = [[caption, *more] for caption, more in zip(captions, others, strict=True)]
    return seen, pack(asked, 96)
