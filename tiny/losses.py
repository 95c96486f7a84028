"""Targets beside the answers: codes of the patches, facts about the objects that are named."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny import model as tiny
from tiny import questions
from tiny.objects import NAMES
from tiny.packing import Packed


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
        loss = loss + self._centres((projected.float() - wanted) @ self.code.axis, labels, logs)
        if cls is not None:
            there = cls.new_zeros(len(cls), len(NAMES) + 1, dtype=torch.float32)
            there.scatter_(1, labels["name"][: len(cls)] % (len(NAMES) + 1), 1.0)
            score = self.present(cls).float()
            loss = loss + 8 * F.binary_cross_entropy_with_logits(score, there[:, :-1])
        return loss, logs

    def _centres(self, error: Tensor, labels, logs: dict[str, float]) -> Tensor:
        """Counting adds up the shares of centres: how far each `[B, N]` is off, and their sums."""
        name = labels["name"] % (len(NAMES) + 1)
        shown = labels["name"] >= 0
        if not shown.any():
            return error.new_zeros(())
        sums = error.new_zeros(len(error), len(NAMES) + 1).scatter_add(1, name, error)
        there = torch.zeros_like(sums).scatter_(1, name, 1.0)[:, :-1] > 0
        sums = sums[:, :-1][there]
        logs["centres"] = float(sums.detach().abs().mean())
        return 10 * (error[shown] ** 2).mean() + 0.1 * (sums**2).mean()
