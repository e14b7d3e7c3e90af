"""Scores and ranks of earlier stages, one row a candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.types import RankedList

from .tokens import Floats

_RRF_K = 60
"""Cormack et al., SIGIR 2009."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What one earlier stage said of the candidates.

    Attributes:
        score: float64 [n_candidates], NaN where the stage did not score the candidate.
        rank: float64 [n_candidates], from 1, NaN where the candidate is not in the stage's list; in a list that the
            stage passed on without scoring all of it, the place is that of the documents as they came.
    """

    score: Floats
    rank: Floats


def of_lists(lists: Mapping[str, RankedList], inputs: Sequence[str]) -> tuple[list[str], dict[str, Columns]]:
    """The union of `lists`, each document once in the order of first appearance, and a Columns for each input."""
    place: dict[str, int] = {}
    for ranked in lists.values():
        for doc_id in ranked.doc_ids:
            place.setdefault(doc_id, len(place))
    return list(place), {name: _of_list(lists.get(name), name, place) for name in inputs}


def _of_list(ranked: RankedList | None, name: str, place: Mapping[str, int]) -> Columns:
    columns = Columns(np.full(len(place), np.nan), np.full(len(place), np.nan))
    if ranked is not None:
        rows = np.fromiter(map(place.__getitem__, ranked.doc_ids), dtype=np.intp, count=len(ranked))
        if name in ranked.stage_scores:  # else the list holds what another stage scored, a stand-in or the one before
            columns.score[rows] = ranked.stage_scores[name]
        columns.rank[rows] = np.arange(1, len(ranked) + 1)
    return columns


def of_candidates(candidates: RankedList, inputs: Sequence[str]) -> dict[str, Columns]:
    """A Columns for each input, from the score columns that the list carries; all NaN for a stage it lacks.

    The rank is among these candidates, ties in their order.
    """
    nothing = np.full(len(candidates), np.nan)
    return {name: _ranked(candidates.stage_scores.get(name, nothing)) for name in inputs}


def _ranked(score: Floats) -> Columns:
    rank = np.full(len(score), np.nan)
    held = np.flatnonzero(~np.isnan(score))
    rank[held[np.argsort(-score[held], kind="stable")]] = np.arange(1, len(held) + 1)
    return Columns(score, rank)


def stage_names(name: str) -> list[str]:
    """Names of the features of one stage, in order."""
    return [f"{name}.{feature}" for feature in ("score", "normalised", "rank", "reciprocal_rank", "missing")]


def stage_features(columns: Columns) -> list[Floats]:
    """The features of one stage, float64 [n_candidates] each, in the order of `stage_names`."""
    missing = np.isnan(columns.rank)
    reciprocal = np.where(missing, 0.0, 1.0 / np.where(missing, 1.0, columns.rank))
    return [columns.score, normalised(columns.score), columns.rank, reciprocal, missing.astype(np.float64)]


def list_features(columns: Sequence[Columns], n: int) -> tuple[Floats, Floats]:
    """How many stages hold a candidate, and the sum of 1 / (60 + rank) over them: float64 [n_candidates] both."""
    held, fused = np.zeros(n), np.zeros(n)
    for column in columns:
        held += ~np.isnan(column.rank)
        fused += np.nan_to_num(1.0 / (_RRF_K + column.rank))
    return held, fused


def normalised(values: Floats) -> Floats:
    """float64 [n]: 0 for the least and 1 for the greatest of the query's candidates; 1 when all are equal; NaN kept."""
    held = values[~np.isnan(values)]
    if not len(held):
        return values
    least, most = held.min(), held.max()
    scaled = (values - least) / (most - least) if most > least else np.ones(len(values))
    return np.where(np.isnan(values), np.nan, scaled)
