"""What a stage was given, as the cost model reckons it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orchestrator.calibration.ladder import _load
from orchestrator.costs.cost import PAIR_TOKENS, Load

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
