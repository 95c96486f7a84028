"""Train the embedded model from scratch: `python -m tiny.train` (or `make train`).

Seventeen stages (`tiny/stages.py`); the published weights are those of the last. The pixel stages
need neither of the first two and may run beside them (`--stage`). Each stage keeps a checkpoint and
a JSONL log in its run folder and resumes from there. The stages that answer questions about
pictures use a GPU if there is one, and on a CPU several processes may share them:
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
from tiny.stages import CODES, PICTURES, PUBLISHED, STAGES, TOWER


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
    _only_the_decoder(model)
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
    criterion.load_state_dict(_saved(folder, "pictures")["criterion"])
    _answer_pictures(model, criterion, "joint", folder, settings, 2 * 10**6)


def _describe_codes(folder: Path, stage: str, settings: Settings) -> None:
    """The decoder alone, from scenes written as patch codes, which it has to describe in full."""
    model, criterion = _left_before(stage, folder)
    _only_the_decoder(model)
    run = Run(folder, stage, settings, {"model": model, "criterion": criterion})
    rng = np.random.default_rng([_seed(stage), run.rank, run.step])
    for step in run.steps():
        shown = sight.told(criterion.code, settings.patches(step), rng, settings)
        with torch.autocast("cpu", torch.bfloat16):
            loss, logs = _answer(model, *shown, settings.ratio(step))
        run.update(loss, logs | {"loss": float(loss.detach())})


def _write_sharply(folder: Path, stage: str, settings: Settings) -> None:
    """Codes of whole pictures with few to many objects, two in five drawn without augmentation."""
    model, criterion = _left_before(stage, folder)
    rng = np.random.default_rng([_seed(stage), rank(), _done(folder, stage)])

    def draw(_step: int):
        batch = [scenes.compose(rng, int(rng.integers(6, 12))) for _ in range(settings.batch)]
        return _drawn(batch, rng, plain=0.4)

    _write_codes(model, criterion, stage, folder, settings, draw)


def _only_the_decoder(model) -> None:
    """Nothing else learns."""
    inner = model.model
    for part in (inner.get_input_embeddings(), inner.vision_tower, inner.multi_modal_projector):
        part.requires_grad_(False)


def _go_on(folder: Path, stage: str, settings: Settings) -> None:
    """Train further, on questions about pictures."""
    _answer_pictures(*_left_before(stage, folder), stage, folder, settings, _seed(stage))


def _seed(stage: str) -> int:
    """Far from that of any other stage."""
    return STAGES[stage].seed * 10**6


def _left_before(stage: str, folder: Path):
    """Model and criterion as the mean of what the stages before have learned."""
    model, stages = tiny.build(), STAGES[stage].before
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


FIRST = {
    "symbols": train_symbols,
    "deeper": train_deeper,
    "pixels": train_pixels,
    "pictures": train_pictures,
    "joint": train_joint,
}
FURTHER = {PICTURES: _go_on, CODES: _describe_codes, TOWER: _write_sharply}


def train(stage: str, folder: Path, settings: Settings) -> None:
    """One stage, from where those before have left it, or from where it was left itself."""
    if stage in FIRST:
        FIRST[stage](folder, settings)
    else:
        FURTHER[STAGES[stage].way](folder, stage, settings)


def main() -> None:
    """Command line of the training."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        epilog="\n".join(f"{name:10}{stage.about}" for name, stage in STAGES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stage", choices=STAGES, help="one stage only (default: all, in order)")
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
    for stage in [options.stage] if options.stage else STAGES:
        settings = replace(
            STAGES[stage].settings, compiled=options.compile, compressed=options.compress
        )
        if options.steps:
            settings = replace(settings, steps=options.steps)
        train(stage, options.folder, settings)
    if options.export:
        model = tiny.build()
        model.load_state_dict(_mean(options.folder, PUBLISHED, "model"))
        tiny.save(model, options.export)


if __name__ == "__main__":
    main()
