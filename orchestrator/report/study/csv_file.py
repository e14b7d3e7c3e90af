"""The report as CSV: one row a configuration, every figure in full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping

from orchestrator.study.entry import Entry
from orchestrator.study.figures import Figures
from orchestrator.study.front import axes_of, front, points
from orchestrator.study.study import Study

Cell = str | float | int | None


def csv_text(study: Study) -> str:
    """The whole file. A column that no row has a value in is left out; a value that is not known is empty."""
    fronts = _fronts(study)
    rows = [dict(_cells(study, row, fronts)) for row in study.rows]
    columns = dict.fromkeys(column for row in rows for column in row)
    known = [column for column in columns if any(row.get(column) not in (None, "") for row in rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(known)
    writer.writerows([["" if row.get(column) is None else row[column] for column in known] for row in rows])
    return text.getvalue()


def _fronts(study: Study) -> dict[str, frozenset[str]]:
    """Axis -> names of the rows that nothing beats in quality and that cost."""
    rows = study.comparable
    kept = ((axis.key, front(points(rows, axis, study.measure))) for axis in axes_of(rows))
    return {key: frozenset(point.entry.name for point in on_front) for key, on_front in kept}


def _cells(study: Study, row: Entry, fronts: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, Cell]]:
    yield "row", row.name
    yield from ((key, row.settings.get(key, "")) for key in study.keys)
    yield "kind", row.kind
    yield "status", "failed" if row.failure else "done"
    if row.figures is not None:
        yield from _measured(study, row.figures)
        yield from _costs(row.figures)
    mark = study.marks.get(row.name, {}).get(study.measure)
    if mark is not None and study.reference is not None:
        beside = f"{study.measure} beside {study.reference.name}"
        yield f"{beside}: difference", mark.difference
        yield from zip(
            (f"{beside}: {name}" for name in ("won", "tied", "lost", "p")),
            (mark.wins, mark.ties, mark.losses, mark.p),
            strict=True,
        )
    yield from ((f"on the front by {axis}", int(row.name in names)) for axis, names in fronts.items())
    yield "seconds", row.seconds
    yield "folder", str(row.folder)
    yield "reason", row.failure


def _measured(study: Study, figures: Figures) -> Iterator[tuple[str, Cell]]:
    for measure in study.measures:
        low, high = figures.intervals.get(measure, (None, None))
        yield measure, figures.metrics.get(measure)
        yield f"{measure} low", low
        yield f"{measure} high", high
        yield f"served {measure}", figures.served.get(measure)
        yield f"null {measure}", figures.null.get(measure)
        yield f"oracle {measure}", figures.oracle.get(measure)
    yield "n_queries", figures.n_queries
    yield "whole answers", figures.whole
    yield from ((f"unjudged@{depth}", share) for depth, share in figures.unjudged.items())


def _costs(figures: Figures) -> Iterator[tuple[str, Cell]]:
    yield from ((f"{name} ms", value) for name, value in figures.latency_ms.items())
    yield "tokens a query", figures.tokens
    yield "usd a query", figures.usd
    for stage, times in figures.stage_latency_ms.items():
        yield from ((f"{stage} {name} ms", value) for name, value in times.items())
    yield from ((f"{stage} tokens", tokens) for stage, tokens in figures.stage_tokens.items())
    yield from ((f"{stage} usd", usd) for stage, usd in figures.stage_usd.items())
