"""How many documents a stage passes on: its `top_k`, or fewer where the scores say so."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.types import RankedList


@dataclass(frozen=True, slots=True)
class Cut:
    """How many of a stage's documents are passed on."""

    def keep(self, ranked: RankedList, top_k: int) -> int:
        """How many of the first rows of `ranked` are passed on, `top_k` at most."""
        return min(len(ranked), top_k)


TOP_K = Cut()
"""The first `top_k`, whatever their scores."""
