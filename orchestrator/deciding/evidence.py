"""What the user's own evaluations say of stacks, as plain data. Pure; `own_results` finds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.costs.cost import Predicted
from orchestrator.deciding.expected import Estimate, Paired, Spread, paired

StackKey = tuple[str, str | None, str | None]
"""Name of a stack, of its embedder, and of its reranker; None where it runs none."""


@dataclass(frozen=True)
class Evidence:
    """One stack beside the reference, in one evaluation.

    Attributes:
        reads: how many candidates its last rerank read.
        differences: query id -> nDCG@10 less that of the reference.
        when: the day, ISO 8601.
        top_ks: how many each of its stages passed on, in order, the last one's left out.
        measured: p50 and p95 of the whole stack, where it was timed on this machine.
    """

    reads: int
    differences: Mapping[str, float]
    when: str
    top_ks: tuple[int, ...] = ()
    measured: Predicted | None = None

    def beside(self, spread: Spread) -> Paired:
        """The mean difference to the reference."""
        return paired(list(self.differences.values()), spread)

    def beside_other(self, other: Evidence | None, spread: Spread) -> Paired | None:
        """The mean difference to another stack on the questions that both answered; None is the reference itself.

        None where they share no question.
        """
        if other is None:
            return self.beside(spread)
        common = [query_id for query_id in self.differences if query_id in other.differences]
        differences = [self.differences[query_id] - other.differences[query_id] for query_id in common]
        return paired(differences, spread) if differences else None


@dataclass(frozen=True)
class Own:
    """All that own evaluations say.

    Attributes:
        found: evaluations of each stack, the last one first.
        notes: what was there and could not be used, in words.
    """

    found: Mapping[StackKey, Sequence[Evidence]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def nearest(self, key: StackKey, reads: int) -> Evidence | None:
        """The evaluation that read nearest to so many candidates; of those, the last one."""
        return min(self.found.get(key, ()), key=lambda one: abs(one.reads - reads), default=None)


NONE = Own()


def at_depth(own: Paired, measured: float, wanted: float) -> Estimate:
    """What a measurement at one depth says of another one.

    Args:
        own: what was measured.
        measured: published expectation at the depth that was measured.
        wanted: published expectation at the depth asked about. The measurement is moved by the difference of the two,
            and is as much less sure.
    """
    moved = wanted - measured
    return Estimate(own.mean + moved, (own.se**2 + moved**2) ** 0.5)
