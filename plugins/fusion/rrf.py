"""Reciprocal rank fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from orchestrator.stage import Knob
from orchestrator.types import Call, Query, RankedList, Scored, ScoreKind

from .weights import adjusted_weights, check_names, input_weights, not_negative, weight_knobs

_K_CHOICES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 100.0, 200.0, 500.0)


class ReciprocalRankFusion:
    """Sum over the inputs of `weight / (k + rank)`, rank from 1; a list that lacks a document adds nothing.

    Source: Cormack, Clarke, Büttcher, "Reciprocal Rank Fusion outperforms Condorcet", SIGIR 2009, with k = 60 as
    there. The weights are ours; the paper has none.

    Args:
        k: damps the lead of the first ranks; 0 or more.
        weights: input stage name -> weight, 0 or more; 1 for those not named.

    Raises:
        ConfigError: `k` or a weight is negative.
    """

    score_kind: ScoreKind = "rrf"
    cost_kind = "fusion"

    def __init__(self, k: float = 60.0, weights: Mapping[str, float] | None = None) -> None:
        self._k = not_negative("k", k)
        self._weights = input_weights(weights)

    def check_inputs(self, inputs: Sequence[str]) -> None:
        """Refuse a weight for a stage that is no input."""
        check_names(self._weights, inputs)

    def knobs(self, inputs: Sequence[str]) -> Mapping[str, Knob]:
        """`k`, and the weight of every input."""
        return {"k": Knob(self._k, _K_CHOICES), **weight_knobs(self._weights, inputs)}

    def adjusted(self, values: Mapping[str, float]) -> Self:
        """One like this with other numbers."""
        return type(self)(values.get("k", self._k), adjusted_weights(self._weights, values))

    def fuse(self, query: Query, lists: Mapping[str, RankedList], call: Call) -> Scored:
        """(doc_id, score) for every document of `lists`; scores in (0, sum of weights / (k + 1)]."""
        totals: dict[str, float] = {}
        for name, ranked in lists.items():
            weight = self._weights.get(name, 1.0)
            for rank, doc_id in enumerate(ranked.doc_ids, start=1):
                totals[doc_id] = totals.get(doc_id, 0.0) + weight / (self._k + rank)
        return list(totals.items())
