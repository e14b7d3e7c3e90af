"""Tokens and money that answers took, a query and a stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.answers.trace import Trace


@dataclass(frozen=True, slots=True)
class Spent:
    """What answers took of models, remote ones and those of this machine.

    Attributes:
        tokens: stage -> model tokens in all.
        cost_usd: stage -> US dollars in all.
        n_queries: how many answers.
        n_kept: documents, or windows, whose scores were kept from earlier questions, so that they took nothing.
        paid_usd: US dollars of what was made for these answers; a whole result of a stage that was kept from before
            counts in `cost_usd` with what it took then, and here not at all.
    """

    tokens: Mapping[str, int] = field(default_factory=dict)
    cost_usd: Mapping[str, float] = field(default_factory=dict)
    n_queries: int = 0
    n_kept: int = 0
    paid_usd: float = 0.0

    @classmethod
    def of(cls, traces: Iterable[Trace]) -> Spent:
        """What the answers behind `traces` took; exact also where they were given in batches."""
        tokens: dict[str, int] = {}
        cost_usd: dict[str, float] = {}
        n_queries = n_kept = 0
        paid_usd = 0.0
        for trace in traces:
            n_queries += 1
            for stage in trace.stages:
                tokens[stage.stage] = tokens.get(stage.stage, 0) + stage.tokens
                cost_usd[stage.stage] = cost_usd.get(stage.stage, 0.0) + stage.cost_usd
                n_kept += stage.cache_hits
                paid_usd += 0.0 if stage.reused else stage.cost_usd
        return cls(tokens, cost_usd, n_queries, n_kept, paid_usd)

    @property
    def usd(self) -> float:
        """Of all answers together."""
        return sum(self.cost_usd.values())

    @property
    def tokens_per_query(self) -> float:
        """Of all stages together."""
        return self._per_query(sum(self.tokens.values()))

    @property
    def usd_per_query(self) -> float:
        """Of all stages together."""
        return self._per_query(self.usd)

    def stage_tokens(self, stage: str) -> float:
        """Tokens a query of one stage."""
        return self._per_query(self.tokens.get(stage, 0))

    def stage_usd(self, stage: str) -> float:
        """US dollars a query of one stage."""
        return self._per_query(self.cost_usd.get(stage, 0.0))

    def _per_query(self, total: float) -> float:
        return total / self.n_queries if self.n_queries else 0.0
