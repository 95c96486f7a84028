"""Running a training stage: optimisers, schedule, checkpoint, log."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from tiny.compress import share
from tiny.muon import Muon
from tiny.packing import N_PATCHES


@dataclass(frozen=True)
class Settings:
    """One stage's schedule."""

    steps: int
    batch: int
    rate: float
    decay: float = 0.35  # share of the steps in which the rate falls
    asked: int = 20  # questions for each scene
    budget: int = 288  # question tokens for each scene
    visible: tuple[int, ...] = (80,)  # patches of a scene that the decoder sees, step by step
    whole: float = 0.1  # share of the steps, the last, in which it sees all
    mixture: tuple[float, ...] = (11, 15, 12, 12, 13, 12, 9, 9, 7)  # shares of questions.KINDS
    distinct: bool = False  # ask no question twice: a scene has one caption
    fixed: bool = False  # only the decoder learns
    sequences: bool = False  # ask about several pictures and films too
    crowds: tuple[float, ...] = ()  # the mixture asked about crowded symbolic scenes besides
    compiled: bool = False
    compressed: float = 0.0  # share of a picture's tokens that go at each of four layers

    def ratio(self, step: int) -> float:
        """The share of a picture's tokens that each of four layers merges at a step."""
        return share(self.compressed, step, self.steps)

    def patches(self, step: int) -> int:
        """How many patches of a scene the decoder sees: a part is quicker, and mostly enough."""
        if step >= (1 - self.whole) * self.steps:
            return N_PATCHES
        return self.visible[step % len(self.visible)]


def rank() -> int:
    """The number of this process among those that share a stage."""
    return dist.get_rank() if dist.is_initialized() else 0


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
            Muon(matrices, weight_decay=0.02),
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01),
        ]
        self.step, self.sums, self.began = 0, {}, time.time()
        self.rank = rank()
        if settings.compiled:
            for name, module in modules["model"].named_modules():
                if name.rpartition(".")[0].endswith(".layers"):
                    module.compile()
        if self.path.exists():
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
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
