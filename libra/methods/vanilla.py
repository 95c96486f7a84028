"""Vanilla: no compression."""

from dataclasses import dataclass

from libra.methods.base import Method, Tokens
from libra.reduction import Reduction


@dataclass(frozen=True)
class Vanilla(Method):
    """The plain model: every visual token stays."""

    name = "vanilla"
    title = "Vanilla (no compression)"
    summary = "Keeps every visual token: the plain model that the others are held against."
    paper = "-"
    kind = "none"

    def reduce(self, tokens: Tokens) -> Reduction:
        """The identity."""
        return Reduction.identity(len(tokens), tokens.hidden.device)
