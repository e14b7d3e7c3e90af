"""Each row beside the row of reference, query by query: better, worse, or not told apart by these queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from orchestrator.evaluation.differences import tally
from orchestrator.evaluation.significance import ALPHA, Values, holm, randomization
from orchestrator.study.entry import Entry

_COLLECTION = ("name", "split")

Word = Literal["better", "worse", "same"]


@dataclass(frozen=True, slots=True)
class Mark:
    """One row beside the row of reference, by one measure.

    Attributes:
        difference: of the means; above 0 where the row is better.
        wins: queries on which the row is better; `ties`, `losses` likewise.
        p: of the paired randomization test, corrected (Holm) for all rows tested beside this reference; what
            `evaluate` prints of the same pair is corrected for the stages and baselines of the one run.
        word: `better` or `worse` beyond chance (p below 0.05), or `same`: not told apart.
    """

    difference: float
    wins: int
    ties: int
    losses: int
    p: float
    word: Word


Marks = Mapping[str, Mapping[str, Mark]]
"""Row -> measure -> how it stands to the reference; a row that cannot be tested is missing."""


def marks(reference: Entry, others: Sequence[Entry], measures: Sequence[str]) -> Marks:
    """The marks of all of `others` that were judged on the queries of `reference`."""
    testable = [other for other in others if is_paired(reference, other) and other.name != reference.name]
    found: dict[str, dict[str, Mark]] = {other.name: {} for other in testable}
    for measure in measures:
        base = column(reference, measure)
        rows = {other.name: values for other in testable if (values := column(other, measure))}
        if base and rows:
            ordered = sorted(base)  # as `evaluate` has them, so that it draws the same
            theirs = np.array([[values[query_id] for query_id in ordered] for values in rows.values()])
            differences = theirs.T - np.array([base[query_id] for query_id in ordered])[:, np.newaxis]
            p_values = holm(randomization(differences).tolist())
            for place, (name, p) in enumerate(zip(rows, p_values, strict=True)):
                found[name][measure] = _mark(differences[:, place], p)
    return found


def _mark(differences: Values, p: float) -> Mark:
    mean = float(differences.mean())
    word: Word = "same" if p >= ALPHA or mean == 0 else "better" if mean > 0 else "worse"
    return Mark(mean, *tally(differences), p, word)


def is_paired(one: Entry, other: Entry) -> bool:
    """Whether both were judged on the same queries of one collection."""
    return bool(one.per_query) and one.per_query.keys() == other.per_query.keys() and is_of_one_collection(one, other)


def is_of_one_collection(one: Entry, other: Entry) -> bool:
    """Whether name and split of what both ranked are the same, where both are known: ids of queries may be numbers."""
    ours, theirs = (row.figures.corpus if row.figures else {} for row in (one, other))
    return all(ours[key] == theirs[key] for key in _COLLECTION if ours.get(key) and theirs.get(key))


def column(entry: Entry, measure: str) -> dict[str, float]:
    """Query id -> value; empty where some query lacks the measure."""
    found = {query_id: values[measure] for query_id, values in entry.per_query.items() if measure in values}
    return found if len(found) == len(entry.per_query) else {}
