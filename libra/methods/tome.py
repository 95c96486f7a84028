"""ToMe: token merging by bipartite soft matching."""

from dataclasses import dataclass, field
from typing import ClassVar

from libra.methods.base import RATIO, RatioMethod, Tokens
from libra.methods.bipartite import bipartite_merge
from libra.reduction import Reduction


@dataclass(frozen=True)
class ToMe(RatioMethod):
    """Token merging: the pairs of most similar keys become one token, a size-weighted mean."""

    name = "tome"
    title = "ToMe"
    summary = "Merges the most similar pairs between every other token and its neighbours."
    paper = "Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, section 3"
    kind = "merge"
    weighs = True
    site = "encoder"
    needs = ("keys",)
    presets: ClassVar[dict[str, dict]] = {
        "layers of iLLaVA": {"ratio": 0.1, "encoder_layers": (4, 5, 6, 7)},
        "bipartite matching (iLLaVA, Table 4)": {"ratio": 0.16, "encoder_layers": (3, 4, 5, 6)},
    }

    ratio: float = field(default=0.1, metadata=RATIO)

    def decide(self, tokens: Tokens, n_keep: int) -> Reduction:
        """One step of matching and merging."""
        return bipartite_merge(self.title, tokens.keys, len(tokens) - n_keep, tokens.sizes())
