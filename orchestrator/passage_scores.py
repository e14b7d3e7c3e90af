"""Scores of pairs whose documents are read in passages: the passages are scored, and their scores become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from orchestrator.cutting import Cutter, Span
from orchestrator.passages import Aggregate, Passages
from orchestrator.stage import KnowsTokens, PointwiseRerank, WindowRerank
from orchestrator.types import Call, Document, Query, Scores

Pair: TypeAlias = tuple[Query, Document]


def score_cut(
    stage: PointwiseRerank, pairs: Sequence[Pair], policy: Passages, call: Call
) -> tuple[npt.NDArray[np.floating], list[Span | None]]:
    """One score a pair, its document read as `policy` says.

    Args:
        stage: knows its tokens where the policy cuts.
        pairs: queries with whole documents.
        policy: how they are cut.
        call: of the stage.

    Returns:
        scores: float [n_pairs].
        spans: of each document's best window; None where it was not read in windows.

    Raises:
        ValueError: the stage gave something else than one number a passage.
    """
    if not policy.cuts or not pairs:
        return _asked(stage, pairs, call), [None] * len(pairs)
    cutter = Cutter(policy, cast(KnowsTokens, stage), call)
    cut = [cutter.cut(query, document) for query, document in pairs]
    read = [(query, passage.document) for (query, _), parts in zip(pairs, cut, strict=True) for passage in parts]
    call.count(passages=len(read))
    scores, best = aggregated(_asked(stage, read, call), [len(parts) for parts in cut], policy.aggregate)
    if policy.how != "windows":
        return scores, [None] * len(pairs)
    return scores, [parts[place].span for parts, place in zip(cut, best.tolist(), strict=True)]


def read_once(
    stage: WindowRerank, query: Query, documents: Sequence[Document], policy: Passages, call: Call
) -> tuple[list[Document], list[Span | None]]:
    """The documents as a stage reads them that orders several together: one passage of each.

    Args:
        stage: knows its tokens where the policy cuts.
        query: the question.
        documents: whole.
        policy: how they are cut.
        call: of the stage.

    Returns:
        documents: as they are read.
        spans: of the window that is read; None where a document is not read in windows.
    """
    if not policy.cuts:
        return list(documents), [None] * len(documents)
    cutter = Cutter(policy, cast(KnowsTokens, stage), call)
    cut = [cutter.cut(query, document)[0] for document in documents]
    call.count(passages=len(cut))
    in_windows = policy.how == "windows"
    return [passage.document for passage in cut], [passage.span if in_windows else None for passage in cut]


def _asked(stage: PointwiseRerank, pairs: Sequence[Pair], call: Call) -> npt.NDArray[np.floating]:
    scores = np.asarray(stage.score(pairs, call)) if pairs else np.empty(0)
    if scores.shape != (len(pairs),):
        raise ValueError(f"returned scores of shape {scores.shape} for {len(pairs)} pairs")
    return scores


def aggregated(
    scores: npt.NDArray[np.floating], counts: Sequence[int], how: Aggregate
) -> tuple[Scores, npt.NDArray[np.int64]]:
    """One score a document of those of its passages, and which of its passages was the best.

    Args:
        scores: float [n_passages], the passages of one document side by side.
        counts: how many passages each document has, at least one.
        how: `max`, `mean` or `first`.

    Returns:
        values: float64 [n_documents].
        best: int64 [n_documents], the place of the highest score among the document's own passages.
    """
    parts = np.split(np.asarray(scores, np.float64), np.cumsum(counts)[:-1])
    best = np.array([int(np.argmax(part)) for part in parts], np.int64)
    if how == "max":
        values = [float(part.max()) for part in parts]
    else:
        values = [float(part.mean() if how == "mean" else part[0]) for part in parts]
    return np.array(values, np.float64), best
