"""The two reranks that need no model of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from orchestrator.plugins.rerank.bi_encoder import BiEncoderRerank
from orchestrator.plugins.rerank.null import NullRerank
from orchestrator.ranking import rescored
from orchestrator.testing import ListRerankContract, PointwiseRerankContract, ranked
from orchestrator.types import Call, Document, Query, TextKind, Vectors


class LetterCounts:
    """How often each letter stands in a text, not normalised: small, real, and the same everywhere."""

    dim, model_id = 26, "letters"

    def __init__(self, similarity: str) -> None:
        self.similarity = similarity

    def load(self) -> None:
        """Nothing to load."""

    def embed(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> Vectors:
        rows = [[text.lower().count(chr(97 + place)) for place in range(26)] for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), 26)


class TestNull(ListRerankContract):
    def make(self) -> NullRerank:
        return NullRerank()


class TestBiEncoderCosine(PointwiseRerankContract):
    def make(self) -> BiEncoderRerank:
        return BiEncoderRerank(LetterCounts("cosine"))


class TestBiEncoderDot(PointwiseRerankContract):
    def make(self) -> BiEncoderRerank:
        return BiEncoderRerank(LetterCounts("dot"))


def test_null_keeps_the_order() -> None:
    incoming = ranked(["b", "a", "c"], [3.0, 3.0, 1.0])
    scores = NullRerank().rescore(Query("q", "x"), incoming, Call())
    assert rescored("n", incoming, scores, "rank").doc_ids == ("b", "a", "c")
    assert scores.tolist() == [3.0, 2.0, 1.0]


@pytest.mark.parametrize(("similarity", "expected"), [("cosine", 11 / (5 * np.sqrt(5))), ("dot", 3 * 1 + 4 * 2)])
def test_scores_are_the_formula(similarity: str, expected: float) -> None:
    stage = BiEncoderRerank(LetterCounts(similarity))
    stage.load()
    assert stage.score_kind == similarity
    query = Query("q", "x", vector=np.array([3, 4], dtype=np.float32))
    document = Document("d", "", vector=np.array([1, 2], dtype=np.float32))
    assert stage.score([(query, document)], Call()).tolist() == pytest.approx([expected])


def test_a_missing_vector_is_named() -> None:
    with pytest.raises(ValueError, match="'q' came without its vector"):
        BiEncoderRerank(LetterCounts("dot")).score([(Query("q", "x"), Document("d", ""))], Call())
