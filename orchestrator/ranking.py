"""Order, ties and merging of score columns: done here once, for every stage."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from orchestrator.types import RankedList, Scored, ScoreKind, Scores

_RRF_K = 60


def ranked_from_pairs(stage: str, pairs: Scored, kind: ScoreKind) -> RankedList:
    """(doc_id, score) pairs in order: by score descending, ties by `doc_id`.

    Raises:
        ValueError: a document stands twice, or a score is NaN.
    """
    doc_ids = [pair[0] for pair in pairs]
    scores = np.fromiter((pair[1] for pair in pairs), dtype=np.float64, count=len(doc_ids))
    _check(doc_ids, scores)
    order = np.argsort(-scores, kind="stable")
    in_order = scores[order]
    if (in_order[1:] == in_order[:-1]).any():
        order = np.lexsort((np.array(doc_ids), -scores))
        in_order = scores[order]
    ids = tuple(map(doc_ids.__getitem__, order.tolist()))
    return RankedList(ids, in_order, kind, {stage: in_order})


def fused(stage: str, pairs: Scored, kind: ScoreKind, lists: Mapping[str, RankedList]) -> RankedList:
    """Fused pairs in order, with the score columns of every input carried over (NaN where a list lacks a document).

    Raises:
        ValueError: a document stands twice, a score is NaN, or `pairs` are not the documents of `lists`.
    """
    merged = ranked_from_pairs(stage, pairs, kind)
    place = {doc_id: row for row, doc_id in enumerate(merged.doc_ids)}
    columns: dict[str, Scores] = {}
    seen = 0
    covered = np.zeros(len(merged), dtype=bool)
    for ranked in lists.values():
        try:
            rows = np.fromiter(map(place.__getitem__, ranked.doc_ids), dtype=np.intp, count=len(ranked))
        except KeyError as error:
            raise ValueError(f"lost document {error} that stands in an input") from None
        covered[rows] = True
        seen += len(ranked)
        for name, column in ranked.stage_scores.items():
            target = columns.setdefault(name, np.full(len(merged), np.nan))
            target[rows] = column
    if not covered.all():
        raise ValueError(f"made up document '{merged.doc_ids[int(np.argmin(covered))]}': no input holds it")
    columns[stage] = merged.scores
    return RankedList(merged.doc_ids, merged.scores, kind, columns)


def rescored(stage: str, incoming: RankedList, new_scores: npt.NDArray[np.floating], kind: ScoreKind) -> RankedList:
    """`incoming` in the order of new scores, ties by incoming rank; the old columns go along.

    Args:
        stage: whose scores they are.
        incoming: the list that was scored.
        new_scores: float [n], in the order of `incoming`.
        kind: what the new scores are.

    Raises:
        ValueError: not one score for each document, or a NaN.
    """
    scores = np.asarray(new_scores, dtype=np.float64)
    if scores.shape != (len(incoming),):
        raise ValueError(f"returned scores of shape {scores.shape} for {len(incoming)} documents")
    if np.isnan(scores).any():
        raise ValueError(f"returned NaN for document '{incoming.doc_ids[int(np.argmax(np.isnan(scores)))]}'")
    order = np.argsort(-scores, kind="stable")
    in_order = scores[order]
    columns = {name: column[order] for name, column in incoming.stage_scores.items()}
    columns[stage] = in_order
    ids = tuple(map(incoming.doc_ids.__getitem__, order.tolist()))
    return RankedList(ids, in_order, kind, columns)


def partly_rescored(
    stage: str,
    incoming: RankedList,
    rows: npt.NDArray[np.intp],
    new_scores: npt.NDArray[np.floating],
    kind: ScoreKind,
) -> RankedList:
    """`incoming` where only some rows were scored: those first, by their new score, then the others as they came.

    Args:
        stage: whose scores they are.
        incoming: the list that was scored in part.
        rows: int [n_scored], ascending: which rows were scored; all of them is `rescored`.
        new_scores: float [n_scored], in the order of `rows`.
        kind: what the new scores are.

    Raises:
        ValueError: not one score for each of `rows`, or a NaN.
    """
    if len(rows) == len(incoming):
        return rescored(stage, incoming, new_scores, kind)
    scores = np.asarray(new_scores, dtype=np.float64)
    if scores.shape != rows.shape:
        raise ValueError(f"returned scores of shape {scores.shape} for {len(rows)} documents")
    if np.isnan(scores).any():
        raise ValueError(f"returned NaN for document '{incoming.doc_ids[int(rows[np.argmax(np.isnan(scores))])]}'")
    best_first = np.argsort(-scores, kind="stable")
    is_left = np.ones(len(incoming), dtype=bool)
    is_left[rows] = False
    left = np.flatnonzero(is_left)
    order = np.concatenate([rows[best_first], left])
    columns = {name: column[order] for name, column in incoming.stage_scores.items()}
    if len(rows):
        columns[stage] = np.concatenate([scores[best_first], np.full(len(left), np.nan)])
    in_order = np.concatenate([scores[best_first], incoming.scores[left]])
    ids = tuple(map(incoming.doc_ids.__getitem__, order.tolist()))
    first_kind = kind if len(rows) else incoming.kind_at(0)
    return RankedList(ids, in_order, first_kind, columns, len(rows), _parts(incoming, left, len(rows)))


def by_reciprocal_rank(stage: str, lists: Mapping[str, RankedList]) -> RankedList:
    """`lists` merged by reciprocal rank, as where a fusion gives nothing in its time.

    The sum of 1 / (60 + rank), Cormack et al. 2009, "Reciprocal Rank Fusion outperforms Condorcet".

    Args:
        stage: under which name the sums are kept.
        lists: stage name -> list.
    """
    totals: dict[str, float] = {}
    for ranked in lists.values():
        for rank, doc_id in enumerate(ranked.doc_ids, start=1):
            totals[doc_id] = totals.get(doc_id, 0.0) + 1 / (_RRF_K + rank)
    return fused(stage, list(totals.items()), "rrf", lists)


def unscored(incoming: RankedList) -> RankedList:
    """`incoming` as a stage passes it on that did not run: the same order, no row scored by it."""
    if not len(incoming):
        return incoming
    return partly_rescored("", incoming, np.empty(0, np.intp), np.empty(0), incoming.score_kind)


def _parts(incoming: RankedList, left: npt.NDArray[np.intp], start: int) -> tuple[tuple[int, ScoreKind], ...]:
    """The tail of a list whose rows from `start` on are rows `left` of `incoming`, ascending."""
    tail: list[tuple[int, ScoreKind]] = []
    for end, kind in incoming.parts:
        reached = start + int(np.searchsorted(left, end))
        if reached > (tail[-1][0] if tail else start):
            tail.append((reached, kind))
    return tuple(tail)


def surrogate_scores(n: int) -> list[float]:
    """Strictly decreasing scores for `n` ranks: trec_eval sorts by score and breaks ties its own way."""
    return [float(n - place) for place in range(n)]


def _check(doc_ids: list[str], scores: Scores) -> None:
    if np.isnan(scores).any():
        raise ValueError(f"returned NaN for document '{doc_ids[int(np.argmax(np.isnan(scores)))]}'")
    if len(set(doc_ids)) != len(doc_ids):
        seen: set[str] = set()
        twice = next(doc_id for doc_id in doc_ids if doc_id in seen or seen.add(doc_id))  # type: ignore[func-returns-value]
        raise ValueError(f"returned document '{twice}' twice")
