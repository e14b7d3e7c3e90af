"""What contract tests give to stages and embedders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.types import Call, Document, Query, RankedList, ScoreKind

TEXTS: Sequence[str] = (
    "Glaucoma damages the optic nerve, often because of high pressure inside the eye.",
    "Regular eye examinations find glaucoma early. " * 30,
    "The Great Wall of China is more than twenty thousand kilometres long.",
    "eye",
    "",
    "青光眼是一种损害视神经的疾病。",
    "Glaucoma damages the optic nerve, often because of high pressure inside the eye.",
)
"""Ordinary, long, unrelated, one word, empty, Chinese, and the first one again."""


def ranked(doc_ids: Sequence[str], scores: Sequence[float], kind: ScoreKind = "bm25", stage: str = "a") -> RankedList:
    """A RankedList for a test, with one stage column."""
    column = np.asarray(scores, dtype=np.float64)
    return RankedList(tuple(doc_ids), column, kind, {stage: column})


def with_vector(embedder: Any, query: Query) -> Query:
    """The query as the runner hands it to a stage that needs vectors."""
    vector = embedder.embed([query.text], kind="query", call=Call())[0]
    return Query(query.query_id, query.text, query.language, vector)


def with_document_vector(embedder: Any, document: Document) -> Document:
    """The document as the runner hands it to a stage that needs vectors."""
    vector = embedder.embed([document.full_text], kind="document", call=Call())[0]
    return Document(document.doc_id, document.text, document.title, document.metadata, vector)
