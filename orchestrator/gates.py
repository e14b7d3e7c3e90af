"""Whether a stage runs for a query: a gate, declared beside the stage."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.types import Query, RankedList


@dataclass(frozen=True, slots=True)
class Gate:
    """A stage runs for a query where every condition that is set holds."""

    def refusal(self, query: Query, incoming: RankedList | None, left_ms: float | None) -> str | None:
        """Why the stage does not run for `query`, in a few words; None where it runs.

        Args:
            query: the question.
            incoming: what the stage would be given; None for a recall.
            left_ms: what is left of the budget; None without one.
        """
        return None


ALWAYS = Gate()
"""The stage runs for every query."""
