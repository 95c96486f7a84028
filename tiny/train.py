"""Train the embedded model from scratch: `python -m tiny.train` (or `make train`).

Six stages, each quick where learning from pixels alone is slow:
  symbols  half the decoder learns to answer from scenes written as patch codes, without pictures
  deeper   the same with the whole decoder: a layer that adds nothing yet after each of the first
  pixels   the tower learns to write those codes, from windows of pictures
  pictures the same on whole pictures
  joint    everything together
  refine   the same, longer
The pixel stages need neither of the first two and may run beside them (`--stage`). Each stage
keeps a checkpoint and a JSONL log in its run folder and resumes from there. The last two may
be shared by several processes: `torchrun --nproc-per-node 2 -m tiny.train --stage joint --threads 1`.
"""

import argparse
import contextlib
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from tiny import model as tiny
from tiny import questions, scenes
from tiny.objects import NAMES, plural
from tiny.vocabulary import ASSISTANT, BOS, EOS, ID, USER, encode

N_PATCHES = scenes.GRID**2
START = 2  # <s> <user> stand before the picture
_KIND = {kind: i for i, kind in enumerate(questions.KINDS)}
_NAME_OF = {ID[w]: i for i, name in enumerate(NAMES) for w in (name, plural(name))}


@dataclass(frozen=True)
class Settings:
    """One stage's schedule."""

    steps: int
    batch: int
    rate: float
    decay: float = 0.35  # share of the steps in which the rate falls
    asked: int = 20  # questions for each scene
    budget: int = 288  # question tokens for each scene
    visible: int = 80  # patches that the decoder sees of a symbolic scene
    mixture: tuple[float, ...] = (11, 15, 12, 12, 13, 12, 9, 9, 7)  # shares of questions.KINDS
    compiled: bool = False


STAGES = {
    "symbols": Settings(steps=3000, batch=12, rate=1e-3, decay=0),
    "deeper": Settings(steps=1200, batch=12, rate=1e-3),
    "pixels": Settings(steps=3500, batch=32, rate=1.5e-3, decay=0.3),
    "pictures": Settings(steps=900, batch=8, rate=8e-4, decay=0.6),
    "joint": Settings(
        steps=1250,
        batch=4,  # in each of two processes
        decay=0.6,
        visible=192,
        rate=6e-4,
        asked=24,
        budget=352,
        mixture=(6, 24, 9, 9, 12, 18, 6, 9, 7),  # more of what is still wrong by then
    ),
    "refine": Settings(
        steps=4000,
        batch=4,
        decay=0.6,
        visible=192,
        rate=5e-4,
        asked=24,
        budget=352,
        mixture=(6, 22, 7, 7, 10, 18, 8, 12, 10),
    ),
}


# ---- questions behind an image: packed, each sees the image and itself alone ----


@dataclass
class Packed:
    """Question tokens of a batch, `[B, T]` each."""

    ids: Tensor
    block: Tensor  # number of the question, -1 for padding
    place: Tensor  # position within the question
    target: Tensor  # next answer token, -100 elsewhere
    kind: Tensor  # kind of the question at its answer tokens
    weight: Tensor  # of an answer token: long answers must not drown the short ones
    facts: Tensor  # [B, T, 4] at tokens that name an object: known, count, x, y

    @property
    def known(self) -> Tensor:
        """Which tokens `[B, T]` name an object."""
        return self.facts[..., 0] > 0


def pack(batch: list[scenes.Scene], settings: Settings, rng, weights) -> Packed:
    """Ask each scene `settings.asked` questions and pack as many as the budget holds."""
    shape = (len(batch), settings.budget)
    ids = np.zeros(shape, np.int64)
    block = np.full(shape, -1, np.int64)
    place = np.zeros(shape, np.int64)
    target = np.full(shape, -100, np.int64)
    kind = np.full(shape, -1, np.int64)
    weight = np.zeros(shape, np.float32)
    facts = np.zeros((*shape, 4), np.float32)
    for b, scene in enumerate(batch):
        at = 0
        for q, question in enumerate(questions.mixture(scene, settings.asked, rng, weights)):
            ask = [*encode(question.text), ID[ASSISTANT]]
            answer = [*encode(question.answer), ID[EOS]]
            n, end = len(ask), at + len(ask) + len(answer)
            if end > settings.budget:
                continue
            ids[b, at:end] = ask + answer
            block[b, at:end] = q
            place[b, at:end] = np.arange(end - at)
            target[b, at + n - 1 : end - 1] = answer
            kind[b, at + n - 1 : end - 1] = _KIND[question.kind]
            weight[b, at + n - 1 : end - 1] = len(answer) ** -0.5
            for i, token in enumerate(ask):
                if token in _NAME_OF and NAMES[_NAME_OF[token]] in question.mentions:
                    same = [t for t in scene.things if t.name == NAMES[_NAME_OF[token]]]
                    x, y = (same[0].x, same[0].y) if len(same) == 1 else (-1, -1)
                    facts[b, at + i] = (1, min(len(same), questions.MOST), x, y)
            at = end
    return Packed(*map(torch.from_numpy, (ids, block, place, target, kind, weight, facts)))


def decode(model, visual: Tensor, where: Tensor, packed: Packed, weights=None) -> Tensor:
    """Hidden states `[B, T, D]` of packed questions behind visual tokens `[B, N, D]`.

    `where` `[B, N]` is the patch of each visual token: it keeps that patch's position id.
    """
    embed = model.get_input_embeddings()
    b, n = where.shape
    head = embed(torch.tensor([[ID[BOS], ID[USER]]])).expand(b, -1, -1)
    inputs = torch.cat([head, visual, embed(packed.ids)], 1)
    before = torch.arange(START).expand(b, -1)
    positions = torch.cat([before, START + where, START + N_PATCHES + packed.place], 1)
    block = torch.cat([torch.full((b, START + n), -2), packed.block], 1)
    total = block.shape[1]
    sees = torch.ones(total, total, dtype=torch.bool).tril()[None]
    sees = sees & ((block[:, None] == -2) | (block[:, None] == block[:, :, None]))
    output = model.model.language_model(
        inputs_embeds=inputs, attention_mask=sees[:, None], position_ids=positions, use_cache=False
    )
    return output.last_hidden_state[:, START + n :]


def answer_loss(model, hidden: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
    """Weighted cross entropy of the answer tokens, and which of them are right `[answers]`."""
    at = packed.target >= 0
    logits = model.lm_head(hidden[at]).float()
    wanted = packed.target[at]
    weight = packed.weight[at]
    loss = (F.cross_entropy(logits, wanted, reduction="none") * weight).sum() / weight.sum()
    return loss, logits.argmax(-1) == wanted


class FactProbe(nn.Module):
    """Reads count and place of an object off the hidden state of the word that names it."""

    def __init__(self, width: int = tiny.WIDTH) -> None:
        super().__init__()
        self.count = nn.Linear(width, questions.MOST + 1)
        self.where = nn.Linear(width, 2)

    def forward(self, hidden: Tensor, packed: Packed) -> Tensor:
        """Loss over the naming tokens; places count only where the object is alone."""
        hidden, facts = hidden[packed.known], packed.facts[packed.known]
        loss = F.cross_entropy(self.count(hidden).float(), facts[:, 1].long())
        alone = facts[:, 2] >= 0
        if alone.any():
            loss = loss + 10 * F.mse_loss(self.where(hidden[alone]).float(), facts[alone, 2:])
        return loss


@contextlib.contextmanager
def captured(module: nn.Module):
    """Collect a module's outputs while the context is open."""
    seen: list[Tensor] = []
    handle = module.register_forward_hook(
        lambda _m, _a, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    try:
        yield seen
    finally:
        handle.remove()


# ---- the tower ----


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


class CodeLoss(nn.Module):
    """How far projected patches are from their codes, and whether each names what it shows."""

    def __init__(self, code: tiny.PatchCode, width: int) -> None:
        super().__init__()
        self.code = code
        self.sharp = nn.Parameter(torch.tensor(2.5))
        self.present = nn.Linear(width, len(NAMES))

    def forward(self, projected, labels, places, cls) -> tuple[Tensor, dict[str, float]]:
        """Loss for `projected` `[B, N, D]`; `cls` `[b, C]` must list the objects of its picture."""
        wanted = self.code(**labels, place=places)
        loss = 3 * ((projected.float() - wanted) ** 2).mean() / wanted.var()
        logs = {"code": float(loss.detach()) / 3}
        for key, share in (("name", 2.0), ("colour", 1.0), ("character", 1.0)):
            label, table = labels[key], getattr(self.code, f"{key}s")
            shown = label >= 0
            if key != "name" and not shown.any():
                continue
            keep = torch.ones_like(shown) if key == "name" else shown
            seen = projected[keep].float() - self.code.place[places.expand_as(label)[keep]]
            scores = self.sharp.exp() * F.normalize(seen, dim=-1) @ F.normalize(table, dim=-1).T
            errors = F.cross_entropy(scores, label[keep] % len(table), reduction="none")
            shown = shown[keep]
            loss = loss + share * errors[shown].mean()
            if key == "name":  # most patches show nothing: they must not drown the others
                loss = loss + errors[~shown].mean()
            logs[key] = float((scores.argmax(-1) == label[keep])[shown].float().mean())
        if cls is not None:
            there = torch.zeros(len(cls), len(NAMES) + 1)
            there.scatter_(1, labels["name"][: len(cls)] % (len(NAMES) + 1), 1.0)
            score = self.present(cls).float()
            loss = loss + 8 * F.binary_cross_entropy_with_logits(score, there[:, :-1])
        return loss, logs


# ---- running a stage ----


class Run:
    """Optimisers, schedule, checkpoint and log of one stage."""

    def __init__(self, folder: Path, stage: str, settings: Settings, modules: dict[str, nn.Module]):
        self.folder, self.stage, self.settings, self.modules = folder, stage, settings, modules
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.log_path = folder / f"{stage}.pt", folder / f"{stage}.jsonl"
        parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
        hidden = {
            id(p)
            for name, p in modules["model"].named_parameters()
            if p.ndim == 2 and ".layers." in name
        }
        matrices = [p for p in parameters if id(p) in hidden]
        others = [p for p in parameters if id(p) not in hidden]
        self.parameters = parameters
        self.optimisers = [
            torch.optim.Muon(matrices, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01),
        ]
        self.step, self.sums, self.began = 0, {}, time.time()
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        if settings.compiled:
            for name, module in modules["model"].named_modules():
                if name.rpartition(".")[0].endswith(".layers"):
                    module.compile(dynamic=False)
        if self.path.exists():
            saved = torch.load(self.path, weights_only=True)
            self.step = saved["step"]
            for key, module in modules.items():
                module.load_state_dict(saved[key])
            for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
                optimiser.load_state_dict(state)

    def steps(self):
        """The remaining steps, with a progress bar; the rate warms up and falls at the end."""
        bar = tqdm(range(self.step, self.settings.steps), initial=self.step, desc=self.stage,
                   total=self.settings.steps, mininterval=10)  # fmt: skip
        for step in bar:
            left = (self.settings.steps - step) / self.settings.steps
            fall = max(0.02, left / self.settings.decay) if self.settings.decay else 1.0
            rate = self.settings.rate * min(1.0, (step + 1) / 100, fall)
            for optimiser, factor in zip(self.optimisers, (2.0, 1.0), strict=True):
                for group in optimiser.param_groups:
                    group["lr"] = factor * rate
            yield step
        self.save()

    def update(self, loss: Tensor, logs: dict[str, float]) -> None:
        """One optimiser step; every 50 steps a line of means to the log."""
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if dist.is_initialized():
            self._average_gradients()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        for key, value in logs.items():
            total, n = self.sums.get(key, (0.0, 0))
            self.sums[key] = (total + value, n + 1)
        if self.step % 50 == 0 and self.rank == 0:
            row = {k: round(total / n, 4) for k, (total, n) in self.sums.items()}
            row = {"step": self.step, "seconds": round(time.time() - self.began), **row}
            with self.log_path.open("a") as log:
                log.write(json.dumps(row) + "\n")
            self.sums = {}
        if self.step % 250 == 0:
            self.save()

    def _average_gradients(self) -> None:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for own, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            own.copy_(mean.view_as(own))

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        if self.rank != 0:
            return
        state = {key: module.state_dict() for key, module in self.modules.items()}
        state |= {"step": self.step, "optimisers": [o.state_dict() for o in self.optimisers]}
        torch.save(state, self.path.with_suffix(".part"))
        self.path.with_suffix(".part").replace(self.path)


def kind_logs(packed: Packed, right: Tensor) -> dict[str, float]:
    """Share of right answer tokens of each kind of question."""
    kind = packed.kind[packed.target >= 0]
    return {
        name: float(right[kind == i].float().mean())
        for name, i in _KIND.items()
        if (kind == i).any()
    }


def weights(settings: Settings) -> np.ndarray:
    """The mixture of question kinds `[len(KINDS)]`."""
    return np.array(settings.mixture) / sum(settings.mixture)


def train_symbols(folder: Path, settings: Settings) -> None:
    """Half the decoder alone, on scenes written as patch codes of which it sees a random part."""
    _read_symbols(tiny.build(tiny.LAYERS // 2), "symbols", folder, settings)


def train_deeper(folder: Path, settings: Settings) -> None:
    """The same with the decoder grown to its full depth."""
    decoder = tiny.build(tiny.LAYERS // 2)
    decoder.load_state_dict(torch.load(folder / "symbols.pt", weights_only=True)["model"])
    _read_symbols(tiny.grow(decoder), "deeper", folder, settings)


def _read_symbols(model, stage: str, folder: Path, settings: Settings) -> None:
    code, probe = tiny.PatchCode(), FactProbe()
    model.get_input_embeddings().weight.requires_grad_(False)
    model.model.vision_tower.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(False)
    run = Run(folder, stage, settings, {"model": model, "probe": probe})
    rng = np.random.default_rng(run.step)
    mix = weights(settings)
    layers = model.model.language_model.layers
    middle = layers[len(layers) // 2 - 1]
    for _ in run.steps():
        batch = [scenes.compose(rng) for _ in range(settings.batch)]
        labels = tiny.stack([scenes.symbols(scene) for scene in batch])
        where = _visible(labels, settings.visible, rng)
        seen = {key: value.gather(1, where) for key, value in labels.items()}
        visual = code(**seen, place=where)
        visual = visual + 0.025 * torch.randn_like(visual)
        packed = pack(batch, settings, rng, mix)
        with torch.autocast("cpu", torch.bfloat16), captured(middle) as states:
            hidden = decode(model, visual, where, packed)
            loss, right = answer_loss(model, hidden, packed)
            facts = probe(states[0][:, -settings.budget :], packed)
        logs = {"loss": float(loss.detach()), "facts": float(facts.detach())}
        run.update(loss + 0.3 * facts, logs | kind_logs(packed, right))


def _visible(labels: dict[str, Tensor], n: int, rng) -> Tensor:
    """`n` patches of each scene, ascending: the objects' first, their centres before all."""
    noise = torch.from_numpy(rng.random(labels["name"].shape))
    score = noise + (labels["name"] >= 0) + 2.0 * (labels["centre"] > 0.02)
    score = score + 1.0 * (labels["character"] >= 0)
    return score.topk(n, dim=1).indices.sort(dim=1).values


def train_pixels(folder: Path, settings: Settings) -> None:
    """Tower and projector, on windows of pictures crowded with objects."""
    model = tiny.build(2)
    criterion = CodeLoss(tiny.PatchCode(), model.config.vision_config.hidden_size)
    rng = np.random.default_rng([10**6, _done(folder, "pixels")])

    def draw(step: int):
        easy = max(0.2, 1 - 2 * step / settings.steps)  # colours first, then robustness
        return _windows(settings.batch, rng, easy)

    _write_codes(model, criterion, "pixels", folder, settings, draw)


def train_pictures(folder: Path, settings: Settings) -> None:
    """The same on whole pictures, with objects of all sizes."""
    model = tiny.build(2)
    criterion = CodeLoss(tiny.PatchCode(), model.config.vision_config.hidden_size)
    saved = torch.load(folder / "pixels.pt", weights_only=True)
    model.load_state_dict(saved["model"])
    criterion.load_state_dict(saved["criterion"])
    rng = np.random.default_rng([3 * 10**6, _done(folder, "pictures")])
    places = torch.arange(N_PATCHES).expand(settings.batch, -1)

    def draw(_step: int):
        crowded = [rng.random() < 0.5 for _ in range(settings.batch)]
        batch = [scenes.compose(rng, 20, 6, 3) if c else scenes.compose(rng, 8) for c in crowded]
        pictures, labels = zip(*(scenes.draw(scene, rng) for scene in batch), strict=True)
        return normalise(pictures), tiny.stack(labels), places

    _write_codes(model, criterion, "pictures", folder, settings, draw)


def _done(folder: Path, stage: str) -> int:
    """Steps of an earlier run of a stage: a resumed one must not draw the same scenes again."""
    path = folder / f"{stage}.pt"
    return torch.load(path, weights_only=True)["step"] if path.exists() else 0


def _write_codes(model, criterion, stage: str, folder: Path, settings: Settings, draw) -> None:
    model.model.language_model.requires_grad_(False)
    run = Run(folder, stage, settings, {"model": model, "criterion": criterion})
    for step in run.steps():
        pixels, labels, places = draw(step)
        with torch.autocast("cpu", torch.bfloat16):
            features, cls = tower(model, pixels, places, last=settings.batch // 4)
            projected = model.model.multi_modal_projector(features)
        loss, logs = criterion(projected, labels, places, cls)
        run.update(loss, {"loss": float(loss.detach())} | logs)


def _windows(n: int, rng, easy: float) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """`n` half-size windows of crowded scenes: pixels, labels and patch numbers.

    A scene gives five of them and is drawn without augmentation with probability `easy`.
    """
    half = scenes.GRID // 2
    grid = torch.arange(N_PATCHES).view(scenes.GRID, scenes.GRID)
    pictures, labels, places = [], [], []
    while len(pictures) < n:
        least, most = (14, 24) if rng.random() < 0.6 else (1, 12)
        scene = scenes.compose(rng, most, least, signs=3)
        picture, label = scenes.draw(scene, rng, plain=rng.random() < easy)
        whole = {k: v.view(scenes.GRID, -1) for k, v in tiny.stack([label]).items()}
        for row, column in rng.integers(0, half + 1, (min(5, n - len(pictures)), 2)):
            patch = np.s_[row : row + half, column : column + half]
            pixel = np.s_[
                row * scenes.PATCH : (row + half) * scenes.PATCH,
                column * scenes.PATCH : (column + half) * scenes.PATCH,
            ]
            pictures.append(picture[pixel])
            labels.append({k: v[patch].reshape(-1) for k, v in whole.items()})
            places.append(grid[patch].reshape(-1))
    stacked = {k: torch.stack([label[k] for label in labels]) for k in labels[0]}
    return normalise(pictures), stacked, torch.stack(places)


def train_joint(folder: Path, settings: Settings) -> None:
    """Everything, from whole pictures."""
    model = _assembled(folder)
    criterion = CodeLoss(tiny.PatchCode(), model.config.vision_config.hidden_size)
    saved = torch.load(folder / "pictures.pt", weights_only=True)
    criterion.load_state_dict(saved["criterion"])
    _answer_pictures(model, criterion, "joint", folder, settings, 2 * 10**6)


def train_refine(folder: Path, settings: Settings) -> None:
    """The same again with a rate that rises once more."""
    model = tiny.build()
    criterion = CodeLoss(tiny.PatchCode(), model.config.vision_config.hidden_size)
    saved = torch.load(folder / "joint.pt", weights_only=True)
    model.load_state_dict(saved["model"])
    criterion.load_state_dict(saved["criterion"])
    _answer_pictures(model, criterion, "refine", folder, settings, 4 * 10**6)


def _answer_pictures(model, criterion, stage: str, folder: Path, settings, seed: int) -> None:
    run = Run(folder, stage, settings, {"model": model, "criterion": criterion})
    rng = np.random.default_rng([seed, run.rank, run.step])
    mix = weights(settings)
    everywhere = torch.arange(N_PATCHES).expand(settings.batch, -1)
    for step in run.steps():
        batch = [scenes.compose(rng, most=int(rng.integers(5, 10))) for _ in range(settings.batch)]
        pictures, labels = zip(*(scenes.draw(scene, rng) for scene in batch), strict=True)
        packed = pack(batch, settings, rng, mix)
        labels = tiny.stack(labels)
        part = step < 0.8 * settings.steps  # a part is quicker, and enough until the end
        where = _visible(labels, settings.visible, rng) if part else everywhere
        with torch.autocast("cpu", torch.bfloat16):
            features, cls = tower(model, normalise(pictures), last=1)
            projected = model.model.multi_modal_projector(features)
            index = where[..., None].expand(-1, -1, projected.shape[-1])
            hidden = decode(model, projected.gather(1, index), where, packed)
            loss, right = answer_loss(model, hidden, packed)
        dense, logs = criterion(projected, labels, everywhere, cls)
        logs |= {"loss": float(loss.detach())} | kind_logs(packed, right)
        run.update(loss + 0.5 * dense, logs)


def _assembled(folder: Path):
    """Tower and projector of the picture stage with the decoder of the deeper stage."""
    model = tiny.build()
    model.load_state_dict(torch.load(folder / "deeper.pt", weights_only=True)["model"])
    seeing = torch.load(folder / "pictures.pt", weights_only=True)["model"]
    seeing = {k: v for k, v in seeing.items() if "vision_tower" in k or "projector" in k}
    model.load_state_dict(seeing, strict=False)
    return model


RUNNERS = {
    "symbols": train_symbols,
    "deeper": train_deeper,
    "pixels": train_pixels,
    "pictures": train_pictures,
    "joint": train_joint,
    "refine": train_refine,
}


def main() -> None:
    """Command line of the training."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stage", choices=RUNNERS, help="one stage only (default: all, in order)")
    parser.add_argument("--steps", type=int, help="steps of that stage (default: as published)")
    parser.add_argument("--folder", type=Path, default=Path("runs/train"), help="checkpoints, logs")
    parser.add_argument("--export", type=Path, help="write the trained model into this folder")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument(
        "--compile", action="store_true", help="a third faster; needs a C++ compiler"
    )
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    for stage in [options.stage] if options.stage else RUNNERS:
        settings = replace(STAGES[stage], compiled=options.compile)
        if options.steps:
            settings = replace(settings, steps=options.steps)
        RUNNERS[stage](options.folder, settings)
    if options.export:
        model = tiny.build()
        saved = torch.load(options.folder / "refine.pt", weights_only=True)
        model.load_state_dict(saved["model"])
        tiny.save(model, options.export)


if __name__ == "__main__":
    main()
