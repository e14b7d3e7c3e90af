"""Scores of query-document pairs by a stage outside of its pipeline: the same pairs, before a training and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from orchestrator.evaluation.measures import Rankings
from orchestrator.rows.vectors import vectors_for_texts
from orchestrator.stage import Embed, PointwiseRerank, Progress, no_progress
from orchestrator.types import Call, Document, Query, Scores, Vectors

Pairs: TypeAlias = Sequence[tuple[Query, Document]]
_PAIRS_AT_ONCE = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Exam:
    """One query with the candidates that are to be put in order.

    Attributes:
        query: with its id.
        documents: the candidates, in the order in which they came.
        rest: ids that came after them, and stay behind them.
    """

    query: Query
    documents: tuple[Document, ...]
    rest: tuple[str, ...] = ()


def score_pairs(scorer: object, pairs: Pairs, root: Path | None = None) -> Scores:
    """float64 [n_pairs]: by a pointwise rerank, or by the vectors of an embedder. Loads it where it is not.

    Args:
        scorer: has `score`, or `embed`.
        pairs: query and document, with their texts.
        root: where document vectors are kept, and found where they are there already; None keeps none.

    Raises:
        TypeError: it is neither.
    """
    call = Call()
    load_holder(scorer)
    if not pairs:
        return np.empty(0)
    if isinstance(scorer, PointwiseRerank):
        needs = getattr(scorer, "needs", frozenset({"text"}))
        embedder = getattr(scorer, "embedder", None)
        given = with_vectors(embedder, pairs, call, root) if "vectors" in needs and embedder is not None else pairs
        return np.asarray(scorer.score(given, call), dtype=np.float64)
    if isinstance(scorer, Embed):
        return _similarities(scorer, with_vectors(scorer, pairs, call, root))
    raise TypeError(f"{type(scorer).__name__} scores no pairs")


def score_exams(
    scorer: object, exams: Sequence[Exam], root: Path | None, what: str, progress: Progress = no_progress
) -> list[Scores]:
    """The scores of each exam's documents.

    Args:
        scorer: as for `score_pairs`.
        exams: many at once share the embedding of their documents.
        root: as for `score_pairs`.
        what: for `progress`.
        progress: told (what, exams done, exams in all).
    """
    found: list[Scores] = []
    for batch in _batches(exams):
        pairs = [(exam.query, document) for exam in batch for document in exam.documents]
        scores = score_pairs(scorer, pairs, root)
        found += np.split(scores, np.cumsum([len(exam.documents) for exam in batch])[:-1])
        progress(what, len(found), len(exams))
    return found


def ordered(exams: Sequence[Exam], scores: Sequence[Scores], names: Mapping[str, str] | None = None) -> Rankings:
    """Query id -> ids by score, ties in the order in which they came, what was not scored behind.

    Args:
        exams: the queries.
        scores: of their documents.
        names: id -> id as judgements have it, where chunks are ranked and documents judged.
    """
    rankings: Rankings = {}
    for exam, own in zip(exams, scores, strict=True):
        ids = [exam.documents[place].doc_id for place in np.argsort(-own, kind="stable")]
        known = [names.get(doc_id, doc_id) if names else doc_id for doc_id in (*ids, *exam.rest)]
        rankings[exam.query.query_id] = tuple(dict.fromkeys(known))
    return rankings


def with_vectors(embedder: Embed, pairs: Pairs, call: Call, root: Path | None = None) -> list[tuple[Query, Document]]:
    """The pairs with their vectors; each text is embedded once, a document not at all whose vector is kept."""
    load_holder(embedder)
    asked = _each_once([query.text for query, _ in pairs], lambda texts: embedder.embed(texts, kind="query", call=call))
    read = _each_once(
        [document.full_text for _, document in pairs],
        lambda texts: (
            embedder.embed(texts, kind="document", call=call)
            if root is None
            else vectors_for_texts(root, embedder, texts, call)
        ),
    )
    return [
        (dataclasses.replace(query, vector=left), dataclasses.replace(document, vector=right))
        for (query, document), left, right in zip(pairs, asked, read, strict=True)
    ]


def _each_once(texts: Sequence[str], embed: Callable[[Sequence[str]], Vectors]) -> Vectors:
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    vectors = embed(list(places))
    return vectors[[places[text] for text in texts]]


def _similarities(embedder: Embed, pairs: Pairs) -> Scores:
    left = np.stack([query.vector for query, _ in pairs if query.vector is not None]).astype(np.float64)
    right = np.stack([document.vector for _, document in pairs if document.vector is not None]).astype(np.float64)
    scores: Scores = np.einsum("ij,ij->i", left, right)
    if embedder.similarity == "cosine":
        lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        scores = scores / np.maximum(lengths, 1e-12)
    return scores


def _batches(exams: Sequence[Exam]) -> list[list[Exam]]:
    batches: list[list[Exam]] = []
    count = _PAIRS_AT_ONCE
    for exam in exams:
        if count >= _PAIRS_AT_ONCE:
            batches.append([])
            count = 0
        batches[-1].append(exam)
        count += len(exam.documents)
    return batches


def load_holder(scorer: object) -> None:
    """Bring the model of a stage or an embedder into memory, where it has one."""
    load = getattr(scorer, "load", None)
    if load is not None:
        load()
