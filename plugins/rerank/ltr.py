"""Learned rerank: LambdaMART on XGBoost, or a weighted sum, over one list."""

from __future__ import annotations

from orchestrator.types import Call, Query, RankedList, Scores

from ..learned.stage import LearnedStage


class LTRRerank(LearnedStage):
    """Scores the candidates of one list by a model learned from judged queries: `orchestrate train fusion`.

    Features are those of the learned fusion, with the scores of every earlier stage. Documents that a caller brings
    have none of these scores, which leaves the words, the lengths and the cosine. See LearnedStage for the arguments.
    """

    def rescore(self, query: Query, candidates: RankedList, call: Call) -> Scores:
        """float64 [n_candidates], unbounded; they compare within a query only."""
        return self.predict(self.features(query, candidates, call)[1])
