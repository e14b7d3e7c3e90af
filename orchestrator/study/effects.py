"""What each swept key did: means over the jobs with each of its values, and differences with everything else equal.

Main effects, not causes: they are averages over the other settings of this sweep, and over its queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.evaluation.significance import ALPHA, Values, holm, randomization
from orchestrator.study.entry import Entry
from orchestrator.study.marks import column, is_paired

MOST_VALUES = 16
"""A key of more values than this, drawn by an optimiser for example, has no table of its own."""


@dataclass(frozen=True, slots=True)
class Paired:
    """A value of a key beside the best value of it, over pairs of jobs that are equal in all other keys.

    Attributes:
        other: the best value.
        difference: mean over the pairs; below 0 where this value is worse.
        low: least of the pairs' differences; `high` the greatest.
        n_pairs: how many pairs there are.
        p: of the paired randomization test over queries, each query's difference averaged over the pairs, corrected
            (Holm) for all such differences of a report; None where the queries are not known.
    """

    other: str
    difference: float
    low: float
    high: float
    n_pairs: int
    p: float | None = None

    @property
    def is_beyond_chance(self) -> bool:
        """Whether the corrected p is below 0.05."""
        return self.p is not None and self.p < ALPHA


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a swept key.

    Attributes:
        value: as it was typed; empty for jobs to which the key was not given.
        mean: of the measure over the jobs with it; `low` and `high` are the least and the greatest of them.
        n_jobs: how many jobs have it.
        paired: beside the best value; None for that one, or where no two jobs are equal in all else.
    """

    value: str
    mean: float
    low: float
    high: float
    n_jobs: int
    paired: Paired | None = None


@dataclass(frozen=True, slots=True)
class Effect:
    """A swept key with its values, the best first.

    Attributes:
        key: its short name.
        values: none where there are too many of them.
        n_values: how many there are.
    """

    key: str
    values: tuple[Value, ...]
    n_values: int

    @property
    def spread(self) -> float:
        """Between the best mean and the worst."""
        return self.values[0].mean - self.values[-1].mean if self.values else 0.0


def effects(entries: Sequence[Entry], keys: Sequence[str], measure: str) -> list[Effect]:
    """The effect of each of `keys` that has several values among `entries`, the greatest spread first.

    Args:
        entries: configurations that were judged on the same queries.
        keys: short names of what was swept.
        measure: that the effect is on.
    """
    judged = [entry for entry in entries if entry.mean(measure) is not None]
    found, tested = [], []
    for key in keys:
        groups = _groups(judged, key)
        if len(groups) > 1:
            values = _values(key, groups, measure) if len(groups) <= MOST_VALUES else []
            found.append((key, [value for value, _ in values], len(groups)))
            tested += [(key, value.value, vector) for value, vector in values if vector is not None]
    corrected = holm(randomization(np.stack([vector for *_, vector in tested], axis=1)).tolist()) if tested else []
    p_values = {(key, value): p for (key, value, _), p in zip(tested, corrected, strict=True)}
    told = [Effect(key, tuple(_with_p(key, values, p_values)), n) for key, values, n in found]
    return sorted(told, key=lambda effect: -effect.spread)


def _groups(entries: Sequence[Entry], key: str) -> dict[str, list[Entry]]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.settings.get(key, ""), []).append(entry)
    return groups


def _values(key: str, groups: Mapping[str, list[Entry]], measure: str) -> list[tuple[Value, Values | None]]:
    """The values, the best first, each with its differences to the best by query: float64 [n_queries], or None."""
    values = []
    for value, members in groups.items():
        means = [mean for member in members if (mean := member.mean(measure)) is not None]
        values.append(Value(value, float(np.mean(means)), min(means), max(means), len(members)))
    values.sort(key=lambda value: -value.mean)
    best = values[0].value
    found: list[tuple[Value, Values | None]] = [(values[0], None)]
    for other in values[1:]:
        pairs = list(_pairs(groups[other.value], groups[best], key))
        paired = _paired(pairs, best, measure) if pairs else None
        found.append((replace(other, paired=paired), _by_query(pairs, measure) if pairs else None))
    return found


def _pairs(members: Sequence[Entry], others: Sequence[Entry], key: str) -> Iterator[tuple[Entry, Entry]]:
    """Two jobs that are equal in all keys but `key`."""
    known = {_rest(other, key): other for other in others}
    for member in members:
        if _rest(member, key) in known:
            yield member, known[_rest(member, key)]


def _rest(entry: Entry, key: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in entry.settings.items() if name != key)


def _paired(pairs: Sequence[tuple[Entry, Entry]], best: str, measure: str) -> Paired:
    differences = [(one.mean(measure) or 0.0) - (other.mean(measure) or 0.0) for one, other in pairs]
    return Paired(best, float(np.mean(differences)), min(differences), max(differences), len(pairs))


def _by_query(pairs: Sequence[tuple[Entry, Entry]], measure: str) -> Values | None:
    """float64 [n_queries]: the difference on each query, averaged over the pairs; None where it is not known."""
    rows = []
    for one, other in pairs:
        ours, theirs = column(one, measure), column(other, measure)
        if not is_paired(one, other) or not ours or ours.keys() != theirs.keys():
            return None
        rows.append([ours[query_id] - theirs[query_id] for query_id in sorted(ours)])
    return np.mean(np.array(rows, dtype=np.float64), axis=0) if len({len(row) for row in rows}) == 1 else None


def _with_p(key: str, values: Sequence[Value], p_values: Mapping[tuple[str, str], float]) -> Iterator[Value]:
    for value in values:
        p = p_values.get((key, value.value))
        yield replace(value, paired=replace(value.paired, p=p)) if value.paired and p is not None else value
