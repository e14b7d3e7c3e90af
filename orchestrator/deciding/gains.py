"""The published half of the decision rules: what each stack and model is worth, each figure from one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.deciding.expected import NO_DIFFERENCE, DepthCurve, Estimate, Spread, of_another_collection

Priority = Literal["precision", "balanced", "speed"]

INDIFFERENT = 0.005
"""In nDCG@10, where the rules say nothing: runs of GPT-4 over the same candidates differ by .003 to .006 (RankLLM)."""
LEAST_QUERIES = 10
"""Own results on fewer queries say too little, where the rules say nothing."""
NO_CURVE = DepthCurve({})
USUAL_SPREAD = Spread(0.29, 10)
"""Of one query's difference, where the rules say nothing; as conf/decision/default.yaml has it."""


@dataclass(frozen=True, slots=True)
class Gain:
    """A difference in nDCG@10 that somebody has published, both sides from the same table.

    Attributes:
        difference: to `over`.
        sd: between collections.
        sets: over how many collections.
        source: where it stands.
        over: what it is a difference to: another stack, or another model; None, for a stack, is the reference.
        depth: how many candidates the rerank read; None where that makes no difference.
        model: the reranker that was measured, for a stack that has one.
        language: of those collections.
    """

    difference: float
    sd: float
    sets: int
    source: str
    over: str | None = None
    depth: int | None = None
    model: str | None = None
    language: str = "en"

    @property
    def estimate(self) -> Estimate:
        """For a collection that is none of those."""
        return of_another_collection(self.difference, self.sd, self.sets)


@dataclass(frozen=True, slots=True)
class Like:
    """In place of a figure that nobody has published: the stack whose figure is taken, and why that is careful."""

    like: str
    because: str


@dataclass(frozen=True, slots=True)
class Known:
    """What is published about a stack with certain models.

    Attributes:
        estimate: of its difference to the reference.
        gaps: what is taken for granted, in words; empty where all of it is published.
        language: of the collections behind it; None where there are none.
    """

    estimate: Estimate
    gaps: tuple[str, ...] = ()
    language: str | None = None


@dataclass(frozen=True)
class Gains:
    """All that is published, and what to make of it.

    Attributes:
        reference: the stack that the others are compared with.
        stacks: what each is worth; one without an entry is not known.
        models: rerankers -> what each is worth over another one; rows for single languages stand behind the first.
        curve: how much of a gain is there by depth.
        indifference: priority -> within so much of the best, the faster stack is taken; `INDIFFERENT` for one without.
        margin: a rerank that is not expected to gain more than that is not worth its time.
        spread: of one question's difference.
        least_queries: own results on fewer questions say too little.
    """

    reference: str
    stacks: Mapping[str, Gain | Like]
    models: Mapping[str, Sequence[Gain]] = field(default_factory=dict)
    curve: DepthCurve = NO_CURVE
    indifference: Mapping[str, float] = field(default_factory=dict)
    margin: float = INDIFFERENT
    spread: Spread = USUAL_SPREAD
    least_queries: int = LEAST_QUERIES

    def known(self, stack: str, reranker: str | None = None, reads: int = 0, language: str = "") -> Known:
        """What is published about `stack`.

        Args:
            stack: its name.
            reranker: the card of the cross-encoder it runs; None where it runs none.
            reads: how many candidates its last rerank reads.
            language: asked about; of a reranker that is worth another thing there, that figure is taken.
        """
        if stack == self.reference:
            return Known(NO_DIFFERENCE)
        found = self.stacks.get(stack)
        if found is None:
            return Known(self._careless(), (f"nothing is published about {stack}: taken as {self.reference}",))
        if isinstance(found, Like):
            known = self.known(found.like, reranker, reads, language)
            gap = f"{stack} is taken as {found.like}: {found.because}"
            return Known(known.estimate, (gap, *known.gaps), known.language)
        estimate, gaps = self._with_model(found, reranker, language)
        if found.depth is not None:
            estimate = estimate.scaled(self.curve.part(reads, found.depth))
        if found.over is not None:
            below = self.known(found.over, None, reads, language)
            return Known(below.estimate + estimate, (*below.gaps, *gaps), found.language)
        return Known(estimate, gaps, found.language)

    def indifferent(self, priority: str) -> float:
        """Within so much of the best, the faster stack is taken."""
        return self.indifference.get(priority, INDIFFERENT)

    def _careless(self) -> Estimate:
        widest = max((gain.estimate.sd for gain in self.stacks.values() if isinstance(gain, Gain)), default=0.0)
        return Estimate(0.0, widest)

    def _with_model(self, found: Gain, reranker: str | None, language: str) -> tuple[Estimate, tuple[str, ...]]:
        if reranker is None or found.model is None or reranker == found.model:
            return found.estimate, ()
        between = self._over(reranker, found.model, language)
        if between is None:
            return found.estimate, (f"nothing is published about {reranker}: taken as {found.model}",)
        return found.estimate + between, ()

    def _over(self, model: str, base: str, language: str) -> Estimate | None:
        """What `model` is worth over `base`, along the tables that lead from one to the other; None where none do."""
        total, passed = NO_DIFFERENCE, {model}
        while model != base:
            rows = self.models.get(model, ())
            gain = next((row for row in rows if row.language == language), next(iter(rows), None))
            if gain is None or gain.over is None or gain.over in passed:
                return None
            total, model = total + gain.estimate, gain.over
            passed.add(model)
        return total
