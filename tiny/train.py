"""Train the embedded model from scratch: `python -m tiny.train` (or `make train`).

Seventeen stages, each quick where learning from pixels alone is slow:
  symbols  half the decoder learns to answer from scenes written as patch codes, without pictures
  deeper   the same with the whole decoder: a layer that adds nothing yet after each of the first
  pixels   the tower learns to write those codes, from windows of pictures
  pictures the same on whole pictures
  joint    everything together
  refine   the same, longer, with several pictures and films
  crowds   the same with more of what is still hard: crowded scenes, where there is much to count
  settle   scenes as they are asked about, at a rate that falls to nothing
  polish   the same again, from the mean of the last two
  retell   the decoder alone again, on patch codes, from the mean of the last three
  finish   everything together once more
  sharpen  tower and projector alone again, on whole pictures
  reread   the decoder alone, on what they now write
  hone     tower and projector once more, for longer
  recite   and the decoder on that
  rehearse the decoder alone a last time, on patch codes, from the mean of the last three
  master   everything together from that mean, with 192 pictures at each step: work for a GPU
The published weights are those of the last.
The pixel stages need neither of the first two and may run beside them (`--stage`). Each stage
keeps a checkpoint and a JSONL log in its run folder and resumes from there. The stages that answer
questions about pictures use a GPU if there is one, and on a CPU several processes may share them:
`torchrun --nproc-per-node 2 -m tiny.train --stage joint --threads 1`. With `--compress 0.3` the
decoder merges visual tokens while it learns, as in Libra-Merging's supplement (`tiny/compress.py`).
"""

import argparse
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tiny import lessons, packing, questions, scenes, sight
from tiny import model as tiny
from tiny.losses import CodeLoss, FactProbe
from tiny.packing import N_PATCHES, pack
from tiny.run import Run, Settings, rank

TOGETHER = Settings(steps=0, batch=4, rate=0, asked=24, budget=352)  # of each of two processes

STAGES = {
    "symbols": Settings(steps=3000, batch=12, rate=1e-3, decay=0, whole=0),
    "deeper": Settings(steps=1200, batch=12, rate=1e-3, whole=0),
    "pixels": Settings(steps=3500, batch=32, rate=1.5e-3, decay=0.3),
    "pictures": Settings(steps=900, batch=8, rate=8e-4, decay=0.6),
    "joint": replace(
        TOGETHER,
        steps=1250,
        decay=0.6,
        visible=(192,),
        rate=6e-4,
        mixture=(6, 24, 9, 9, 12, 18, 6, 9, 7),  # more of what is still wrong by then
    ),
    "refine": replace(
        TOGETHER,
        steps=2600,
        decay=0.65,
        visible=(192,),
        rate=5e-4,
        mixture=(6, 22, 7, 7, 10, 18, 8, 12, 10),
        sequences=True,
    ),
    "crowds": replace(
        TOGETHER,
        steps=800,
        decay=0.65,
        visible=(128, 192, 320, 576),
        whole=0.05,
        rate=4e-4,
        mixture=(6, 26, 6, 6, 8, 20, 6, 10, 12),
        sequences=True,
        crowds=(0, 60, 0, 0, 5, 20, 0, 0, 15),
    ),
    "settle": replace(
        TOGETHER,
        steps=320,
        decay=0.85,
        visible=(192, 384),
        whole=0.15,
        rate=4e-4,
        mixture=(5, 38, 5, 5, 7, 16, 6, 9, 9),
        sequences=True,
    ),
    "polish": replace(
        TOGETHER,
        steps=220,
        decay=0.8,
        visible=(384,),
        whole=0.2,
        rate=4e-4,
        mixture=(4, 46, 4, 4, 6, 16, 5, 8, 7),
        sequences=True,
    ),
    "retell": Settings(
        steps=1600,
        batch=16,
        decay=0.7,
        visible=(96, 144, 224),
        whole=0,
        rate=5e-4,
        mixture=(3, 20, 3, 3, 6, 45, 3, 12, 5),
    ),
    "finish": replace(
        TOGETHER,
        steps=400,
        decay=0.9,
        visible=(160, 384),
        whole=0.15,
        rate=4e-4,
        asked=30,
        mixture=(5, 26, 5, 5, 7, 24, 5, 11, 12),
        distinct=True,
        sequences=True,
        crowds=(2, 20, 2, 2, 6, 36, 2, 10, 20),
    ),
    "sharpen": Settings(steps=1600, batch=8, rate=4e-4, decay=0.9),
    "reread": Settings(
        steps=450,
        batch=8,
        decay=0.9,
        visible=(144, 320),
        whole=0.08,
        rate=4e-4,
        asked=14,
        budget=160,
        mixture=(4, 22, 4, 4, 6, 30, 4, 14, 12),
        distinct=True,
        fixed=True,
        sequences=True,
    ),
    "hone": Settings(steps=4200, batch=8, rate=6e-4, decay=0.9),
}
STAGES["recite"] = STAGES["reread"]
STAGES["rehearse"] = replace(
    STAGES["retell"], steps=650, decay=0.9, visible=(112, 176, 320), whole=0.08
)
STAGES["master"] = Settings(
    steps=754,
    batch=192,
    rate=8e-4,
    decay=0.9,
    visible=(192, 320, N_PATCHES),
    whole=0,
    asked=24,
    mixture=(5, 20, 5, 5, 7, 14, 5, 11, 28),
    distinct=True,
    sequences=True,
    crowds=(2, 22, 2, 2, 6, 24, 2, 10, 30),
)


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


PUBLISHED = ("master",)  # the stages whose mean is exported


def train_symbols(folder: Path, settings: Settings) -> None:
    """Half the decoder alone, on scenes written as patch codes of which it sees a random part."""
    _read_symbols(tiny.build(tiny.LAYERS // 2), "symbols", folder, settings)


def train_deeper(folder: Path, settings: Settings) -> None:
    """The same with the decoder grown to its full depth."""
    decoder = tiny.build(tiny.LAYERS // 2)
    decoder.load_state_dict(_saved(folder, "symbols")["model"])
    _read_symbols(tiny.grow(decoder), "deeper", folder, settings)


def _read_symbols(model, stage: str, folder: Path, settings: Settings) -> None:
    code, probe = tiny.PatchCode(), FactProbe()
    model.get_input_embeddings().weight.requires_grad_(False)
    model.model.vision_tower.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(False)
    run = Run(folder, stage, settings, {"model": model, "probe": probe})
    rng = np.random.default_rng(run.step)
    layers = model.model.language_model.layers
    middle = layers[len(layers) // 2 - 1]
    for _ in run.steps():
        batch = [scenes.compose(rng) for _ in range(settings.batch)]
        visual, where = sight.symbolic(code, batch, settings.patches(run.step), rng, 0.025)
        asked = [questions.mixture(scene, settings.asked, rng, settings.mixture) for scene in batch]
        packed = pack(asked, settings.budget, batch)
        with torch.autocast("cpu", torch.bfloat16), captured(middle) as states:
            alone = packing.alone(visual, where)
            hidden = packing.decode(model, alone, packed, settings.ratio(run.step))
            loss, right = packing.answer_loss(model, hidden, packed)
            facts = probe(states[0][:, -settings.budget :], packed)
        logs = {"loss": float(loss.detach()), "facts": float(facts.detach())}
        run.update(loss + 0.3 * facts, logs | packing.kind_logs(packed, right))


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
    saved = _saved(folder, "pixels")
    model.load_state_dict(saved["model"])
    criterion.load_state_dict(saved["criterion"])
    rng = np.random.default_rng([3 * 10**6, _done(folder, "pictures")])

    def draw(_step: int):
        crowded = [rng.random() < 0.5 for _ in range(settings.batch)]
        batch = [scenes.compose(rng, 20, 6, 3) if c else scenes.compose(rng, 8) for c in crowded]
        return _drawn(batch, rng)

    _write_codes(model, criterion, "pictures", folder, settings, draw)


def _done(folder: Path, stage: str) -> int:
    """Steps of an earlier run of a stage: a resumed one must not draw the same scenes again."""
    return _saved(folder, stage)["step"] if (folder / f"{stage}.pt").exists() else 0


def _saved(folder: Path, stage: str) -> dict:
    """What a stage has left, wherever it ran."""
    return torch.load(folder / f"{stage}.pt", map_location="cpu", weights_only=True)


def _write_codes(model, criterion, stage: str, folder: Path, settings: Settings, draw) -> None:
    model.model.language_model.requires_grad_(False)
    run = Run(folder, stage, settings, {"model": model, "criterion": criterion})
    for step in run.steps():
        pixels, labels, places = draw(step)
        with torch.autocast("cpu", torch.bfloat16):
            features, cls = sight.tower(model, pixels, places, last=settings.batch // 4)
            projected = model.model.multi_modal_projector(features)
        loss, logs = criterion(projected, labels, places, cls)
        run.update(loss, {"loss": float(loss.detach())} | logs)


def _drawn(
    batch: Sequence[scenes.Scene], rng, plain: float = 0.0
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Whole pictures of scenes: pixels, labels and patch numbers.

    They are drawn without augmentation with probability `plain`.
    """
    each = (scenes.draw(s, rng, plain=plain > 0 and rng.random() < plain) for s in batch)
    pictures, labels = zip(*each, strict=True)
    places = torch.arange(N_PATCHES).expand(len(batch), -1)
    return sight.normalise(pictures), tiny.stack(labels), places


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
    return sight.normalise(pictures), stacked, torch.stack(places)


def train_joint(folder: Path, settings: Settings) -> None:
    """Everything, from whole pictures."""
    model = _assembled(folder)
    criterion = CodeLoss(tiny.PatchCode(), model.config.vision_config.hidden_size)
    saved = _saved(folder, "pictures")
    criterion.load_state_dict(saved["criterion"])
    _answer_pictures(model, criterion, "joint", folder, settings, 2 * 10**6)


def train_refine(folder: Path, settings: Settings) -> None:
    """The same again with a rate that rises once more."""
    _go_on(folder, ("joint",), "refine", settings, 4 * 10**6)


def train_crowds(folder: Path, settings: Settings) -> None:
    """The same with crowded scenes, drawn and symbolic; how many patches are seen varies."""
    _go_on(folder, ("refine",), "crowds", settings, 5 * 10**6)


def train_settle(folder: Path, settings: Settings) -> None:
    """Scenes of the usual kind again, with a rate that falls nearly all the time."""
    _go_on(folder, ("crowds",), "settle", settings, 6 * 10**6)


def train_polish(folder: Path, settings: Settings) -> None:
    """Once more, from the mean of the last two: it counts better than either."""
    _go_on(folder, ("crowds", "settle"), "polish", settings, 7 * 10**6)


def train_retell(folder: Path, settings: Settings) -> None:
    """The decoder alone again, from scenes written as patch codes: to describe them in full."""
    _describe_codes(folder, ("crowds", "settle", "polish"), "retell", settings, 8 * 10**6)


def train_finish(folder: Path, settings: Settings) -> None:
    """Everything together once more."""
    _go_on(folder, ("retell",), "finish", settings, 9 * 10**6)


def train_sharpen(folder: Path, settings: Settings) -> None:
    """Tower and projector alone again: what they write of whole pictures limits the captions."""
    _write_sharply(folder, "finish", "sharpen", settings, 10**7)


def train_reread(folder: Path, settings: Settings) -> None:
    """The decoder alone, on what the tower now writes."""
    _go_on(folder, ("sharpen",), "reread", settings, 11 * 10**6)


def train_hone(folder: Path, settings: Settings) -> None:
    """Tower and projector once more: their errors still fell when the other stage ended."""
    _write_sharply(folder, "reread", "hone", settings, 12 * 10**6)


def train_recite(folder: Path, settings: Settings) -> None:
    """The decoder alone, on what the honed tower writes."""
    _go_on(folder, ("hone",), "recite", settings, 13 * 10**6)


def train_rehearse(folder: Path, settings: Settings) -> None:
    """The decoder alone, from patch codes again: the tower now writes nearly as well."""
    _describe_codes(folder, ("reread", "hone", "recite"), "rehearse", settings, 14 * 10**6)


def train_master(folder: Path, settings: Settings) -> None:
    """Everything together a last time, with many pictures at each step: work for a GPU."""
    before = ("hone", "recite", "rehearse")
    _go_on(folder, before, "master", settings, 15 * 10**6)


def _describe_codes(
    folder: Path, before: Sequence[str], stage: str, settings: Settings, seed: int
) -> None:
    """The decoder alone, from scenes written as patch codes, which it has to describe in full."""
    model, criterion = _left_by(folder, before)
    _only_the_decoder(model)
    run = Run(folder, stage, settings, {"model": model, "criterion": criterion})
    rng = np.random.default_rng([seed, run.rank, run.step])
    for step in run.steps():
        shown = sight.told(criterion.code, settings.patches(step), rng, settings)
        with torch.autocast("cpu", torch.bfloat16):
            loss, logs = _answer(model, *shown, settings.ratio(step))
        run.update(loss, logs | {"loss": float(loss.detach())})


def _write_sharply(folder: Path, before: str, stage: str, settings: Settings, seed: int) -> None:
    """Codes of whole pictures with few to many objects, two in five drawn without augmentation."""
    model, criterion = _left_by(folder, (before,))
    rng = np.random.default_rng([seed, rank(), _done(folder, stage)])

    def draw(_step: int):
        batch = [scenes.compose(rng, int(rng.integers(6, 12))) for _ in range(settings.batch)]
        return _drawn(batch, rng, plain=0.4)

    _write_codes(model, criterion, stage, folder, settings, draw)


def _only_the_decoder(model) -> None:
    """Nothing else learns."""
    inner = model.model
    for part in (inner.get_input_embeddings(), inner.vision_tower, inner.multi_modal_projector):
        part.requires_grad_(False)


def _go_on(folder: Path, before: Sequence[str], stage: str, settings: Settings, seed: int) -> None:
    """Train everything further from where the stages before have left it."""
    _answer_pictures(*_left_by(folder, before), stage, folder, settings, seed)


def _left_by(folder: Path, stages: Sequence[str]):
    """Model and criterion as the mean of what several stages have learned."""
    model = tiny.build()
    criterion = CodeLoss(tiny.PatchCode(), model.config.vision_config.hidden_size)
    model.load_state_dict(_mean(folder, stages, "model"))
    criterion.load_state_dict(_mean(folder, stages, "criterion"))
    return model, criterion


def _mean(folder: Path, stages: Sequence[str], part: str) -> dict[str, Tensor]:
    """The mean of what several stages have learned: their errors differ."""
    saved = [_saved(folder, stage)[part] for stage in stages]
    return {name: sum(state[name] for state in saved) / len(saved) for name in saved[0]}


def _answer_pictures(model, criterion, stage: str, folder: Path, settings, seed: int) -> None:
    if settings.fixed:
        _only_the_decoder(model)
    device = tiny.device()
    modules = {"model": model.to(device), "criterion": criterion.to(device)}
    run = Run(folder, stage, settings, modules)
    supply = lessons.supply(settings, [seed, run.rank], run.step)
    for _, lesson in zip(run.steps(), supply, strict=True):
        run.update(*_learn(model, criterion, lesson.to(device), settings.ratio(run.step)))


def _learn(
    model, criterion, lesson: lessons.Lesson, ratio: float
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a lesson, and the shares of right answer tokens; `ratio` as of `packing.decode`."""
    own, code = lesson.single, criterion.code
    n = len(lesson.pixels)
    everywhere = torch.arange(N_PATCHES, device=lesson.pixels.device).expand(n, -1)
    mixed = torch.autocast(lesson.pixels.device.type, torch.bfloat16)
    with mixed:
        features, cls = sight.tower(model, sight.standardise(lesson.pixels), last=max(1, n // 4))
        projected = model.model.multi_modal_projector(features)
    dense, logs = criterion(projected, own.labels, everywhere, cls)
    parts = [("", 1.0, own, sight.at(projected, own.where))]
    if album := lesson.album:
        parts.append(("", 0.3, album, sight.at(projected[lesson.chosen], album.where)))
    if film := lesson.film:
        parts.append(("", 0.3, film, _frames(model, code, lesson)))
    if crowd := lesson.crowd:
        parts.append(("crowd ", 1.0, crowd, sight.written(code, crowd.labels, crowd.where)))
    loss = 0.5 * dense
    for name, share, asked, visual in parts:
        with mixed:
            seen, alone = packing.behind(model, visual, asked.where), asked.where.ndim == 2
            more, right = _answer(model, seen, asked.packed, ratio if alone else 0.0)
        loss = loss + share * more
        logs |= {name + kind: value for kind, value in right.items()}
    return loss, logs | {"loss": float(loss.detach())}


def _frames(model, code, lesson: lessons.Lesson) -> Tensor:
    """The visual tokens `[G, F, n, D]` of films, as the tower sees them or as patch codes."""
    film, frames = lesson.film, lesson.frames
    if frames is None:
        return sight.written(code, film.labels, film.where)
    with torch.no_grad(), torch.autocast(frames.device.type, torch.bfloat16):
        features, _ = sight.tower(model, sight.standardise(frames.flatten(0, 1)))
        visual = model.model.multi_modal_projector(features)
    return sight.at(visual.unflatten(0, frames.shape[:2]), film.where)


def _answer(
    model, seen: packing.Seen, packed: packing.Packed, ratio: float
) -> tuple[Tensor, dict[str, float]]:
    """Loss of the packed answers, and the share of right answer tokens of each kind."""
    loss, right = packing.answer_loss(model, packing.decode(model, seen, packed, ratio), packed)
    return loss, packing.kind_logs(packed, right)


def _assembled(folder: Path):
    """Tower and projector of the picture stage with the decoder of the deeper stage."""
    model = tiny.build()
    model.load_state_dict(_saved(folder, "deeper")["model"])
    seeing = _saved(folder, "pictures")["model"]
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
    "crowds": train_crowds,
    "settle": train_settle,
    "polish": train_polish,
    "retell": train_retell,
    "finish": train_finish,
    "sharpen": train_sharpen,
    "reread": train_reread,
    "hone": train_hone,
    "recite": train_recite,
    "rehearse": train_rehearse,
    "master": train_master,
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
    parser.add_argument(
        "--compress",
        type=float,
        default=0.0,
        metavar="R",
        help="merge this share of a picture's tokens at each of four layers, 0.3 in the paper, "
        "and ever fewer towards the end (default: none)",
    )
    options = parser.parse_args()
    if not 0 <= options.compress < 1:
        parser.error(f"--compress is a share from 0 to below 1, not {options.compress}")
    if options.compress and options.compile:
        parser.error("--compress changes what layers get: leave --compile out")
    if options.threads:
        torch.set_num_threads(options.threads)
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    for stage in [options.stage] if options.stage else RUNNERS:
        settings = replace(STAGES[stage], compiled=options.compile, compressed=options.compress)
        if options.steps:
            settings = replace(settings, steps=options.steps)
        RUNNERS[stage](options.folder, settings)
    if options.export:
        model = tiny.build()
        model.load_state_dict(_mean(options.folder, PUBLISHED, "model"))
        tiny.save(model, options.export)


if __name__ == "__main__":
    main()
