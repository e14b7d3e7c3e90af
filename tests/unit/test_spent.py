"""Tokens and money of batches are exact: what all queries of a batch have together is what the stage counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from answers import Finds, Held

from orchestrator.answers.trace import StageTrace, Trace
from orchestrator.evaluation.spent import Spent
from orchestrator.running.runner import Runner
from orchestrator.stack.gates import Gate
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Call, Document, Query, ScoreKind

QUERIES = [Query(f"q{n}", "two words" if n % 3 else "only these three") for n in range(7)]


class Billed:
    """A rerank that counts 11 tokens and a tenth of a cent for each call, however many pairs, and 3 for each pair."""

    score_kind: ScoreKind = "logit"
    needs = frozenset({"text"})

    def __init__(self) -> None:
        self.tokens, self.usd = 0, 0.0

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
        tokens, usd = 11 + 3 * len(pairs), 0.001
        call.count(tokens=tokens, cost_usd=usd)
        self.tokens, self.usd = self.tokens + tokens, self.usd + usd
        return np.zeros(len(pairs))


@pytest.mark.parametrize("gate", [Gate(), Gate(max_query_words=2)], ids=["all", "some"])
def test_a_batch_spends_what_its_stages_counted(gate: Gate) -> None:
    billed = Billed()
    specs = [StageSpec("bm25", Finds("d1", "d2"), 2), StageSpec("precise", billed, 1, when=gate)]
    results = Runner(StageGraph.of(specs), Held()).run(QUERIES)  # type: ignore[arg-type]
    spent = Spent.of(result.trace for result in results)
    assert spent.tokens == {"bm25": 0, "precise": billed.tokens}
    assert spent.usd == pytest.approx(billed.usd)
    assert spent.tokens_per_query == billed.tokens / 7
    assert spent.stage_usd("precise") == spent.usd_per_query == pytest.approx(billed.usd / 7)
    shares = [stage.tokens for result in results for stage in result.trace.stages if stage.stage == "precise"]
    ran = [share for share in shares if share]
    assert max(ran) - min(ran) <= 1


def test_a_result_that_is_used_again_counts_with_its_cost_and_is_not_paid_again() -> None:
    made = StageTrace("precise", "rerank", 1.0, 2, 1, tokens=4, cost_usd=0.5)
    traces = [Trace(1.0, None, (one,)) for one in (made, replace(made, reused=True))]
    spent = Spent.of(traces)
    assert (spent.usd, spent.usd_per_query, spent.paid_usd) == (1.0, 0.5, 0.5)


def test_nothing_asked_is_nothing_spent() -> None:
    assert (Spent.of([]).usd_per_query, Spent.of([]).tokens_per_query, Spent().stage_usd("x")) == (0.0, 0.0, 0.0)
