"""What the decoder is asked about: patches of pictures, albums, films and symbolic crowds."""

import numpy as np
import torch
from torch import Tensor

from tiny import films, packing, questions, scenes
from tiny import model as tiny
from tiny.packing import Packed, Seen, pack


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
    processor = tiny.image_processor()
    mean = torch.tensor(processor.image_mean).view(3, 1, 1)
    std = torch.tensor(processor.image_std).view(3, 1, 1)
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    return (pixels - mean) / std


def visible(labels: dict[str, Tensor], n: int, rng) -> Tensor:
    """`n` patches of each scene, ascending: the objects' first, their centres before all."""
    noise = torch.from_numpy(rng.random(labels["name"].shape))
    score = noise + (labels["name"] >= 0) + 2.0 * (labels["centre"] > 0.02)
    score = score + 1.0 * (labels["character"] >= 0)
    return score.topk(n, dim=1).indices.sort(dim=1).values


def at(visual: Tensor, where: Tensor) -> Tensor:
    """Visual tokens `[..., 576, D]` at patches `where` `[..., N]`."""
    return visual.gather(-2, where[..., None].expand(*where.shape, visual.shape[-1]))


def written(code, labels: dict[str, Tensor], where: Tensor, noise: float) -> Tensor:
    """Patches `where` `[B, n]` of scenes as their codes with some noise `[B, n, D]`."""
    codes = code(**{k: v.gather(1, where) for k, v in labels.items()}, place=where)
    return codes + noise * torch.randn_like(codes)


def album(model, projected, labels, batch, n: int, rng) -> tuple[Seen, Packed]:
    """Two or three of a batch's pictures one after the other, `n` patches of each."""
    chosen = rng.permutation(len(batch))[: int(rng.integers(2, 4))]
    where = visible({k: v[chosen] for k, v in labels.items()}, n, rng)
    seen = packing.in_order(model, at(projected[chosen], where)[None], where[None])
    asked = [questions.ask_images([batch[i] for i in chosen], rng) for _ in range(12)]
    return seen, pack([[q for q in asked if q]], 128)


def film(model, code, n: int, rng, drawn: bool) -> tuple[Seen, Packed]:
    """A film as the tower sees it (`drawn`), or four as patch codes; `n` patches of each frame."""
    shot = [films.compose(rng) for _ in range(1 if drawn else 4)]
    asked = [[q for _ in range(10) if (q := questions.ask_film(take, rng))] for take in shot]
    if drawn:
        pictures, labels = zip(*films.draw(shot[0], rng), strict=True)
        labels = tiny.stack(labels)
        where = visible(labels, n, rng)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            features, _ = tower(model, normalise(pictures))
            visual = at(model.model.multi_modal_projector(features), where)
    else:
        visual, where = symbolic(code, [scene for take in shot for scene in take], n, rng)
    visual, where = (x.unflatten(0, (len(shot), -1)) for x in (visual, where))
    return packing.in_order(model, visual, where), pack(asked, 96)


def symbolic(code, batch, n: int, rng, noise: float = 0.05) -> tuple[Tensor, Tensor]:
    """Scenes written as patch codes: `n` visual tokens of each `[B, n, D]`, and their patches."""
    labels = tiny.stack([scenes.symbols(scene) for scene in batch])
    where = visible(labels, n, rng)
    return written(code, labels, where, noise), where


def crowds(code, n: int, rng, mix: np.ndarray) -> tuple[Seen, Packed]:
    """Eight crowded scenes written as patch codes, `n` patches of each."""
    batch = [scenes.compose(rng, 9, 4) for _ in range(8)]
    seen = packing.alone(*symbolic(code, batch, n, rng))
    return seen, pack([questions.mixture(scene, 10, rng, mix) for scene in batch], 96)


def told(code, n: int, rng, mix: np.ndarray, size: int) -> tuple[Seen, Packed]:
    """`size` scenes written as patch codes, `n` patches of each, described and asked about."""
    batch = [scenes.compose(rng, *((9, 3) if rng.random() < 0.6 else ())) for _ in range(size)]
    seen = packing.alone(*symbolic(code, batch, n, rng))
    captions = [questions.ask(scene, "caption", rng) for scene in batch]
    others = [dict.fromkeys(questions.mixture(scene, 7, rng, mix)) for scene in batch]
    asked = [[caption, *more] for caption, more in zip(captions, others, strict=True)]
    return seen, pack(asked, 96)
