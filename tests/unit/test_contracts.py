"""The contract tests themselves: what they refuse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from orchestrator.testing import PointwiseRerankContract
from orchestrator.types import Call, Document, Query, ScoreKind


class Reports:
    """Scores by length; what it reports is `off` by so much, its rows by `shift`."""

    score_kind: ScoreKind = "logit"

    def __init__(self, off: float = 0.0, shift: int = 0) -> None:
        self.off, self.shift = off, shift

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
        scores = np.array([float(len(document.text)) for _, document in pairs])
        call.report([row + self.shift for row in range(len(pairs))], (scores + self.off).tolist())
        return scores


def contract(stage: Reports) -> PointwiseRerankContract:
    class Made(PointwiseRerankContract):
        def make(self) -> Reports:
            return stage

    return Made()


def test_a_stage_that_reports_what_it_returns_is_taken() -> None:
    contract(Reports()).test_reported_is_what_is_returned()


@pytest.mark.parametrize(
    ("stage", "said"), [(Reports(off=0.5), "Not equal to tolerance"), (Reports(shift=1), "rows are places in `pairs`")]
)
def test_a_stage_that_reports_something_else_is_refused(stage: Reports, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        contract(stage).test_reported_is_what_is_returned()
