"""No reranking."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orchestrator.types import Call, Query, RankedList, ScoreKind


class NullRerank:
    """Keeps the incoming order: rank r of n scores n - r + 1. The control that any reranker has to beat."""

    score_kind: ScoreKind = "rank"

    def rescore(self, query: Query, candidates: RankedList, call: Call) -> npt.NDArray[np.float64]:
        """float64 [n_candidates]: n for the first, 1 for the last."""
        return np.arange(len(candidates), 0, -1, dtype=np.float64)
