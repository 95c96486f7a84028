"""iLLaVA: recycle the least attended tokens into one of them."""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from libra.methods.base import FOLLOW, RATIO, RatioMethod, Tokens
from libra.methods.operations import inverse
from libra.reduction import Reduction


@dataclass(frozen=True)
class ILLaVA(RatioMethod):
    """One merging step of iLLaVA; it takes several in the encoder and one in the decoder.

    The r + 1 least attended tokens become one, with linearly falling weights: the least attended
    token weighs most. `follow="code"`: it stands where the best of them stood, and a decoder ranks
    by the output token's row. `follow="paper"`: it comes last, in nobody's place and so as an extra
    token, and tokens are ranked by the mean attention that they receive from all image tokens.
    Ratios and counts are of all that are left, the merged token among them in either case: the 361
    and 253 tokens of the paper are 360 and 252 that stay, and one more.
    """

    name = "illava"
    title = "iLLaVA"
    summary = "Merges the least attended tokens into one, inside the encoder and the decoder."
    paper = "Hu et al., iLLaVA, 2024, section 3.2"
    kind = "merge"
    site = "encoder"
    encoder_score = "received"
    presets: ClassVar[dict[str, dict]] = {
        "images": {"ratio": 0.3, "layers": (7,), "encoder_layers": (4, 5, 6, 7)},
        "LLaVA-OneVision": {  # decoder layer 7 of 28, encoder layers 5, 6, 7, 8 of 26
            "ratio": 0.3,
            "layers": (8,),
            "encoder_layers": (4.6, 5.5, 6.5, 7.4),
        },
        "paper and video": {
            "ratio": 0.3,
            "layers": (1,),
            "encoder_layers": (3, 4, 5, 6),
            "follow": "paper",
        },
        "Qwen2-VL": {  # decoder layers 6, 7, 8 of 28, encoder layers 12, 13, 14, 15 of 32
            "ratio": 0.1,
            "layers": (7, 8, 9),
            "encoder_layers": (9, 9.75, 10.5, 11.25),
            "encoder_layer_ratio": 0.16,
        },
        "pruning by attention (Table 4)": {
            "ratio": 0.0,
            "layers": (1,),
            "encoder_layers": (3, 4, 5, 6),
            "merge": "none",
        },
    }

    ratio: float = field(default=0.3, metadata=RATIO)
    encoder_ratio: float = field(
        default=0.505,
        metadata={**RATIO, "help": "share of the patches that its encoder layers merge in all"},
    )
    encoder_layer_ratio: float | None = field(
        default=None,
        metadata={
            **RATIO,
            "help": "share of the patches left that each of its encoder layers merges, instead",
        },
    )
    follow: str = field(default="code", metadata=FOLLOW)
    merge: str = field(
        default="recycle",
        metadata={
            "help": "merge the least attended tokens into one, or only drop them (the paper's "
            "attention-based pruning)",
            "choices": ("recycle", "none"),
        },
    )

    def sites(self) -> tuple[str, ...]:
        """Encoder and decoder."""
        return ("encoder", "decoder")

    def leaving(self, share: float, n_encoder: int, n_decoder: int) -> dict[str, float | None]:
        """Encoder and decoder each do the part of it that they do in the paper, whatever is set."""
        usual = type(self)()
        inside, after = math.log(1 - usual.encoder_ratio), math.log(1 - usual.ratio)
        part = inside / (inside + after)
        return {
            "encoder_ratio": 1 - share**part,
            "encoder_layer_ratio": None,
            "ratio": 1 - share ** ((1 - part) / n_decoder),
        }

    def encoder_step(self, n: int, n_first: int, n_steps: int) -> "ILLaVA":
        """Every encoder layer removes as many: by default 92 of 729, or 73 of 576, in four.

        With `encoder_layer_ratio` each removes that share of what it finds, rounded down.
        """
        removed = round(self.encoder_ratio * n_first / n_steps)
        if self.encoder_layer_ratio is not None:
            removed = int(self.encoder_layer_ratio * n)
        return replace(self, keep=max(1, n - removed))

    @property
    def needs(self) -> tuple[str, ...]:
        """What the tokens are ranked by."""
        return ("importance",) if self.follow == "code" else ("received",)

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """Merge the `len(tokens) - n_keep + 1` tokens of lowest score into one."""
        n = len(tokens)
        (ranking,) = self.needs
        score = tokens.scores(ranking)
        ascending = score.sort(stable=True).indices
        if self.merge == "none":
            return Reduction.select(ascending[n - n_keep :].sort().values, n, {ranking: score})
        merged, others = ascending.tensor_split([n - n_keep + 1])
        weight = torch.arange(len(merged), 0, -1, dtype=score.dtype, device=score.device)
        weight = weight / weight.sum()

        if self.follow == "code":  # it takes the slot of the last of them
            slot, order = ascending[n - n_keep :].sort()
            place, fused = inverse(order), None
        else:
            slot, order = torch.cat([torch.full_like(merged[:1], n), others]).sort()
            slot, place, fused = slot.clamp_max_(n - 1), inverse(order), n_keep - 1
        return Reduction(
            n_in=n,
            source=torch.cat([others, merged]),
            target=torch.cat([place[1:], place[:1].expand_as(merged)]),
            weight=torch.cat([weight.new_ones(len(others)), weight]),
            slot=slot,
            compensation=fused,
            evidence={ranking: score},
        )
