"""Which rows nothing beats in quality and cost at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from orchestrator.study.entry import Entry


@dataclass(frozen=True, slots=True)
class Point:
    """One row in a plane of cost and quality.

    Attributes:
        entry: the row.
        cost: lower is better.
        quality: higher is better.
    """

    entry: Entry
    cost: float
    quality: float


@dataclass(frozen=True, slots=True)
class Axis:
    """What a row may cost.

    Attributes:
        key: short, for file names and ids.
        label: with its unit.
        of: the value of a row; None where it is not known.
    """

    key: str
    label: str
    of: Callable[[Entry], float | None]


AXES = (
    Axis("p95", "p95 ms", lambda entry: entry.latency("p95")),
    Axis("p50", "p50 ms", lambda entry: entry.latency("p50")),
    Axis("p99", "p99 ms", lambda entry: entry.latency("p99")),
    Axis("usd", "US dollars per 1,000 questions", lambda entry: None if entry.usd is None else entry.usd * 1000),
    Axis("tokens", "tokens a question", lambda entry: entry.tokens),
)


def axes_of(entries: Iterable[Entry]) -> tuple[Axis, ...]:
    """Those of AXES along which some of `entries` cost something."""
    entries = list(entries)
    return tuple(axis for axis in AXES if any(axis.of(entry) for entry in entries))


def points(entries: Iterable[Entry], axis: Axis, measure: str) -> list[Point]:
    """The rows whose cost and quality are known, in their order."""
    found = []
    for entry in entries:
        cost, quality = axis.of(entry), entry.mean(measure)
        if cost is not None and quality is not None:
            found.append(Point(entry, cost, quality))
    return found


def front(found: Sequence[Point]) -> list[Point]:
    """The Pareto front of `found`, cheapest first: no other point is as cheap and as good and better in one of the two.

    Of points that are the same in both, the first alone.
    """
    kept: list[Point] = []
    for point in sorted(found, key=lambda point: (point.cost, -point.quality)):
        if not kept or point.quality > kept[-1].quality:
            kept.append(point)
    return kept
