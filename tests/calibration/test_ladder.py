"""What a stage was given, as the cost model reckons it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from orchestrator.calibration.ladder import MOST_WARM_UP, _load, climb
from orchestrator.costs.cost import PAIR_TOKENS, Load
from orchestrator.pipeline import Pipeline
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Call, Document, Query

QUESTION, DOCUMENTS = 7, {"a": 100, "b": 300}


def load(kind: str, *, tokens: int = 0, max_length_tokens: int | None = None) -> Load:
    """Of a stage that was given both documents, and told so many tokens."""
    node = SimpleNamespace(
        kind="rerank",
        needs=frozenset({"text"}),
        inputs=("fused",),
        stage=SimpleNamespace(cost_kind=kind, max_length_tokens=max_length_tokens),
    )
    result = SimpleNamespace(query="q", outputs={"fused": SimpleNamespace(doc_ids=tuple(DOCUMENTS))})
    counted = SimpleNamespace(
        query=lambda query: QUESTION,
        documents=lambda ids, most: sum(min(DOCUMENTS[doc_id], most) for doc_id in ids),
    )
    return _load(result, node, SimpleNamespace(n_in=2, tokens=tokens), counted)  # type: ignore[arg-type]


def test_pairs_are_what_the_model_counted() -> None:
    assert load("cross_encoder", tokens=450) == Load(2, 450, QUESTION)


@pytest.mark.parametrize("kind", ["api", "llm", "cross_encoder"])
def test_who_counts_nothing_reads_the_question_with_every_document(kind: str) -> None:
    assert load(kind) == Load(2, 100 + 300 + 2 * (QUESTION + PAIR_TOKENS), QUESTION)


def test_others_read_each_document_to_where_they_cut_it_whatever_they_count() -> None:
    assert load("late_interaction", tokens=QUESTION, max_length_tokens=256) == Load(2, 100 + 256, QUESTION)


class Waits:
    """A pointwise rerank on somebody else's machine, so that nothing of a late answer is of use."""

    score_kind = "logit"
    is_remote = True
    seconds = 0.02

    def load(self) -> None:
        """Nothing to load."""

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> Any:
        time.sleep(self.seconds)
        return np.zeros(len(pairs))


def test_slow_answers_count_whatever_the_stage_may_take(shared_root: Path, small_sample: Path) -> None:
    words = ["pipeline=bm25", "cache.scores=false", f"storage.root={shared_root}", f"corpus.path={small_sample}"]
    with Pipeline.compose(words) as bm25:
        specs = [StageSpec("bm25", bm25.graph["bm25"].stage, 5), StageSpec("slow", Waits(), 5, max_ms=5)]
        with Pipeline(StageGraph.of(specs), bm25.corpus_spec, shared_root) as limited:
            asked = limited.corpus.queries()[: MOST_WARM_UP + 1]
            found = climb(limited, [{}], asked, len, 60)
    assert found.shortfalls == {}
    assert len(found.points["slow"]) == len(asked)
    assert min(point.ms for point in found.points["slow"]) >= 1000 * Waits.seconds
