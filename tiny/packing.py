"""Questions behind pictures: packed, so that each sees the pictures and itself alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tiny import questions, scenes
from tiny.compress import compressed
from tiny.objects import NAMES, plural
from tiny.vocabulary import ASSISTANT, BOS, EOS, ID, USER, encode

N_PATCHES = scenes.GRID**2
START = 2  # <s> <user> stand before the pictures
KINDS = (*questions.KINDS, *questions.SEQUENCES)
_NAME_OF = {ID[w]: i for i, name in enumerate(NAMES) for w in (name, plural(name))}


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

    def to(self, device: torch.device) -> Packed:
        """The same on a device."""
        return Packed(*(part.to(device) for part in vars(self).values()))


def pack(
    asked: Sequence[Sequence[questions.Question]],
    budget: int,
    shown: Sequence[scenes.Scene] | None = None,
) -> Packed:
    """Pack as many of each picture's questions as `budget` tokens hold.

    Args:
        asked: the questions about each picture, or about several together.
        budget: tokens T.
        shown: the scenes, where the facts about the named objects are wanted.
    """
    shape = (len(asked), budget)
    ids = np.zeros(shape, np.int64)
    block = np.full(shape, -1, np.int64)
    place = np.zeros(shape, np.int64)
    target = np.full(shape, -100, np.int64)
    kind = np.full(shape, -1, np.int64)
    weight = np.zeros(shape, np.float32)
    facts = np.zeros((*shape, 4), np.float32)
    for b, own in enumerate(asked):
        at = 0
        for q, question in enumerate(own):
            ask = [*encode(question.text), ID[ASSISTANT]]
            answer = [*encode(question.answer), ID[EOS]]
            n, end = len(ask), at + len(ask) + len(answer)
            if end > budget:
                continue
            ids[b, at:end] = ask + answer
            block[b, at:end] = q
            place[b, at:end] = np.arange(end - at)
            target[b, at + n - 1 : end - 1] = answer
            kind[b, at + n - 1 : end - 1] = KINDS.index(question.kind)
            weight[b, at + n - 1 : end - 1] = len(answer) ** -0.5
            if shown is not None:
                facts[b, at : at + n] = _facts(ask, question, shown[b])
            at = end
    return Packed(*map(torch.from_numpy, (ids, block, place, target, kind, weight, facts)))


def _facts(tokens: list[int], question: questions.Question, scene: scenes.Scene) -> np.ndarray:
    """What is true of the object that each token names `[T, 4]`: known, count, x, y."""
    facts = np.zeros((len(tokens), 4), np.float32)
    for i, token in enumerate(tokens):
        name = NAMES[_NAME_OF[token]] if token in _NAME_OF else None
        if name in question.mentions:
            same = [t for t in scene.things if t.name == name]
            x, y = (same[0].x, same[0].y) if len(same) == 1 else (-1, -1)
            facts[i] = (1, min(len(same), questions.MOST), x, y)
    return facts


@dataclass
class Seen:
    """What stands between `<user>` and the question, as the decoder gets it."""

    tokens: Tensor  # [B, N, D]
    position: Tensor  # [B, N]
    end: int  # position of the question


def alone(visual: Tensor, where: Tensor) -> Seen:
    """One picture each: patches `where` `[B, N]` with visual tokens `[B, N, D]`."""
    return Seen(visual, START + where, START + N_PATCHES)


def in_order(model, visual: Tensor, where: Tensor) -> Seen:
    """Several pictures each, `[B, F, N, D]` at patches `[B, F, N]`, each behind its number."""
    b, n_pictures, n, width = visual.shape
    device = where.device
    number = torch.tensor([ID[str(k + 1)] for k in range(n_pictures)], device=device)
    number = model.get_input_embeddings()(number).to(visual.dtype)
    tokens = torch.cat([number[None, :, None].expand(b, -1, -1, -1), visual], 2)
    place = torch.cat([where.new_zeros(b, n_pictures, 1), 1 + where], 2)
    first = START + (1 + N_PATCHES) * torch.arange(n_pictures, device=device)
    position = place + first[:, None]
    end = START + (1 + N_PATCHES) * n_pictures
    return Seen(tokens.reshape(b, n_pictures * (n + 1), width), position.flatten(1), end)


def behind(model, visual: Tensor, where: Tensor) -> Seen:
    """One picture each, `[B, N, D]`, or several, `[B, F, N, D]`, at patches `where`."""
    return alone(visual, where) if where.ndim == 2 else in_order(model, visual, where)


def decode(model, seen: Seen, packed: Packed, ratio: float = 0.0) -> Tensor:
    """Hidden states `[B, T, D]` of packed questions behind what they are about.

    With a `ratio`, the decoder merges visual tokens on its way, see `tiny.compress`.
    """
    embed, device = model.get_input_embeddings(), packed.ids.device
    b, n = seen.position.shape
    head = embed(torch.tensor([[ID[BOS], ID[USER]]], device=device)).expand(b, -1, -1)
    inputs = torch.cat([head, seen.tokens, embed(packed.ids)], 1)
    before = torch.arange(START, device=device).expand(b, -1)
    positions = torch.cat([before, seen.position, seen.end + packed.place], 1)
    block = torch.cat([packed.block.new_full((b, START + n), -2), packed.block], 1)
    total = block.shape[1]
    sees = torch.ones(total, total, dtype=torch.bool, device=device).tril()[None]
    sees = sees & ((block[:, None] == -2) | (block[:, None] == block[:, :, None]))
    decoder = model.model.language_model
    asks = F.pad(packed.ids == ID[ASSISTANT], (START + n, 0))
    with compressed(decoder, slice(START, START + n), asks, ratio) if ratio else nullcontext():
        output = decoder(
            inputs_embeds=inputs,
            attention_mask=sees[:, None],
            position_ids=positions,
            use_cache=False,
        )
    return output.last_hidden_state[:, -packed.ids.shape[1] :]


def answer_loss(model, hidden: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
    """Weighted cross entropy of the answer tokens, and which of them are right `[answers]`."""
    at = packed.target >= 0
    logits = model.lm_head(hidden[at]).float()
    wanted = packed.target[at]
    weight = packed.weight[at]
    loss = (F.cross_entropy(logits, wanted, reduction="none") * weight).sum() / weight.sum()
    return loss, logits.argmax(-1) == wanted


def kind_logs(packed: Packed, right: Tensor) -> dict[str, float]:
    """Share of right answer tokens of each kind of question."""
    kind = packed.kind[packed.target >= 0]
    return {
        name: float(right[kind == i].float().mean())
        for i, name in enumerate(KINDS)
        if (kind == i).any()
    }
