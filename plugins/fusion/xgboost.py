"""Learned fusion: LambdaMART on XGBoost over the inputs' scores and ranks and lexical features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from orchestrator.types import Call, Query, RankedList, Scored

from ..learned.boosting import require_xgboost
from ..learned.stage import LearnedStage


class XGBoostFusion(LearnedStage):
    """Scores every document of the inputs by a model learned from judged queries: `orchestrate train fusion`.

    Features are the inputs' scores and ranks, in how many lists a document stands, matches of the query's words in
    title and body, and with an `embedder` the cosine: `plugins/learned/features.py` has them all. See LearnedStage
    for the arguments.
    """

    optional_modules: ClassVar[Mapping[str, str]] = {"xgboost": "ltr"}

    def load(self) -> None:
        """Bring the analyzer's dictionary and the embedder into memory.

        Raises:
            MissingExtraError: xgboost is not installed.
        """
        require_xgboost()
        super().load()

    def fuse(self, query: Query, lists: Mapping[str, RankedList], call: Call) -> Scored:
        """(doc_id, score) for every document of `lists`; scores are unbounded and compare within a query only."""
        doc_ids, features = self.features(query, lists, call)
        return list(zip(doc_ids, self.predict(features).tolist(), strict=True))
