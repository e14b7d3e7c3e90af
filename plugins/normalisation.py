"""Scores of one list brought to a scale on which those of others can be added to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from orchestrator.types import RankedList, Scores


def normalised(ranked: RankedList, name: str) -> Scores:
    """float64 [n], the list's scores on the scale `name`, falling from row to row as the list does.

    A list whose last stage did not run counts by the scores that it came with. One that was scored in part has parts
    whose scores do not compare: each keeps the distances within it, and takes as much of the scale as it has rows, so
    that the scale reaches from the first row to the last, however far the last stage got. `none` leaves the first part
    as it is and lays the others below it, above 0 where the first part is.
    """
    if not len(ranked):
        return np.empty(0)
    return _first_as_is(ranked) if name == "none" else NORMALISE[name][0](_stacked(ranked))


def _stacked(ranked: RankedList) -> Scores:
    """float64 [n]: the scores as they are where one stage gave them, else in [0, 1], each part below the one before."""
    if len(ranked.parts) < 2:
        return ranked.scores
    places = np.linspace(1.0, 0.0, len(ranked))
    stacked, start = np.empty(len(ranked)), 0
    for end, _ in ranked.parts:
        low, high = places[end - 1], places[start]
        stacked[start:end] = low + (high - low) * _min_max(ranked.scores[start:end])
        start = end
    return stacked


def _first_as_is(ranked: RankedList) -> Scores:
    if len(ranked.parts) < 2:
        return ranked.scores
    end = ranked.parts[0][0]
    lowest = float(ranked.scores[end - 1])
    least = 0.0 if lowest > 0 else lowest - 1.0
    return np.concatenate([ranked.scores[:end], least + (lowest - least) * _stacked(ranked)[end:]])


def _min_max(scores: Scores) -> Scores:
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.full(len(scores), 0.5)


def _z_score(scores: Scores) -> Scores:
    std = scores.std() if scores.max() > scores.min() else 0.0
    return (scores - scores.mean()) / std if std > 0 else np.zeros(len(scores))


def _rank(scores: Scores) -> Scores:
    """By position: a list is ordered; a run of equal scores gets the mean of its positions."""
    if scores.max() == scores.min():
        return np.full(len(scores), 0.5)
    _, first, inverse, sizes = np.unique(-scores, return_index=True, return_inverse=True, return_counts=True)
    positions = first + (sizes - 1) / 2
    return np.asarray(1.0 - positions[inverse] / len(scores), dtype=np.float64)


def _distribution(scores: Scores) -> Scores:
    std = scores.std(ddof=1) if scores.max() > scores.min() else 0.0
    return (scores - scores.mean()) / (6 * std) + 0.5 if std > 0 else np.full(len(scores), 0.5)


def _as_is(scores: Scores) -> Scores:
    return scores


NORMALISE: Mapping[str, tuple[Callable[[Scores], Scores], float]] = {
    "min_max": (_min_max, 0.0),
    "z_score": (_z_score, -3.0),
    "rank": (_rank, 0.0),
    "distribution": (_distribution, 0.0),
    "none": (_as_is, 0.0),
}
"""Name -> (normalisation, the floor: what a document counts that the list lacks). The table: `WeightedFusion`."""
