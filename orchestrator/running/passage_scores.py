"""Scores of pairs whose documents are read in passages: the passages are scored, and their scores become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from orchestrator.running.cutting import Cutter, Passage, Span
from orchestrator.stack.passages import Aggregate, Passages
from orchestrator.stage import KnowsTokens, PointwiseRerank, WindowRerank
from orchestrator.types import Call, Document, Query, Scores

Pair: TypeAlias = tuple[Query, Document]


class PairsRead:
    """Pairs as a stage reads them, their documents cut as the policy says.

    Args:
        stage: knows its tokens where the policy cuts.
        pairs: queries with whole documents.
        policy: how they are cut.
        call: of the stage.
    """

    def __init__(self, stage: PointwiseRerank, pairs: Sequence[Pair], policy: Passages, call: Call) -> None:
        self._stage, self._policy, self._call = stage, policy, call
        self._cut: list[list[Passage]] | None = None
        self._read = list(pairs)
        if policy.cuts and pairs:
            cutter = Cutter(policy, cast(KnowsTokens, stage), call)
            self._cut = [cutter.cut(query, document) for query, document in pairs]
            parts = zip(pairs, self._cut, strict=True)
            self._read = [(query, passage.document) for (query, _), found in parts for passage in found]
            call.count(passages=len(self._read))

    def scored(self) -> tuple[npt.NDArray[np.floating], list[Span | None]]:
        """One score a pair, and the span of each document's best window; None where it was not read in windows.

        Raises:
            ValueError: the stage gave something else than one number a passage.
        """
        return self._joined(_asked(self._stage, self._read, self._call), range(self._n_pairs))

    @property
    def not_to_keep(self) -> frozenset[int]:
        """Places of pairs of which a passage got a score that is no answer of the model."""
        rows = self._call.not_to_keep
        if not rows or self._cut is None:
            return frozenset(rows)
        ends = np.cumsum([len(parts) for parts in self._cut])
        return frozenset(int(np.searchsorted(ends, row, side="right")) for row in rows)

    def reported(self) -> tuple[list[int], npt.NDArray[np.floating], list[Span | None]]:
        """Of a call that was stopped: the places of the pairs whose passages had all been scored, and as `scored`."""
        told = self._call.reported
        done, start = [], 0
        for place in range(self._n_pairs):
            end = start + (len(self._cut[place]) if self._cut is not None else 1)
            if all(row in told for row in range(start, end)):
                done.append((place, [told[row] for row in range(start, end)]))
            start = end
        places = [place for place, _ in done]
        scores, spans = self._joined(np.array([score for _, found in done for score in found]), places)
        return places, scores, spans

    @property
    def _n_pairs(self) -> int:
        return len(self._read if self._cut is None else self._cut)

    def _joined(
        self, scores: npt.NDArray[np.floating], places: Sequence[int]
    ) -> tuple[npt.NDArray[np.floating], list[Span | None]]:
        """Scores of the passages of the pairs at `places` as scores of those pairs."""
        if self._cut is None or not len(places):
            return scores, [None] * len(places)
        parts = [self._cut[place] for place in places]
        values, best = aggregated(scores, [len(found) for found in parts], self._policy.aggregate)
        if self._policy.how != "windows":
            return values, [None] * len(places)
        return values, [found[place].span for found, place in zip(parts, best.tolist(), strict=True)]


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
