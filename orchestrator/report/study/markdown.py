"""The report as Markdown, to be read in a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from orchestrator.report.study.page import summary
from orchestrator.report.study.swept import paired_words
from orchestrator.report.study.table import LEGEND, PERCENTILES, SYMBOLS, note, unjudged_depths
from orchestrator.study.effects import Effect
from orchestrator.study.entry import Entry
from orchestrator.study.front import axes_of, front, points
from orchestrator.study.headline import headline
from orchestrator.study.numbers import (
    amount_words,
    difference_words,
    measure_words,
    p_words,
    share_words,
    tokens_words,
    usd_words,
)
from orchestrator.study.study import Study

_AWKWARD = re.compile(r"([\\`*_|<>\[\]])")
_MARKS = {"good": "**", "trouble": "", "": ""}


def markdown(study: Study, title: str) -> str:
    """The whole text.

    Args:
        study: what to tell.
        title: of the report.
    """
    lines = [f"# {safe(title)}", "", safe(summary(study)), ""]
    for one in headline(study):
        lines.append(f"- {_MARKS[one.tone]}{safe(one.text)}{_MARKS[one.tone]}")
    lines += ["", "## All rows", "", *_rows(study)]
    if not study.is_single:
        lines += _fronts(study)
        lines += ["", "## What each swept key did", "", "Main effects, not causes.", ""]
        for effect in study.effects:
            lines += _effect(effect, study.measure)
    if study.gaps:
        lines += ["", "## What this report cannot tell", "", *(f"- {safe(gap)}" for gap in study.gaps)]
    return "\n".join(lines) + "\n"


def safe(text: str) -> str:
    """`text` as Markdown shows it as it stands, on one line, in a cell of a table too."""
    return _AWKWARD.sub(r"\\\1", " ".join(text.split()))


def _rows(study: Study) -> Iterator[str]:
    timed = any(row.latency() is not None for row in study.done)
    tokens, money = any(row.tokens for row in study.done), any(row.usd for row in study.done)
    noted = any(map(note, (*study.rows, *study.beside)))
    heads = ["row", *study.keys, *(["note"] if noted else []), *study.measures]
    heads += [f"Δ {study.measure}"] if study.marks else []
    depths = unjudged_depths(study)
    heads += [f"unjudged@{depth}" for depth in depths]
    heads += [f"{name} ms" for name in PERCENTILES if timed]
    heads += [*(["tokens"] if tokens else []), *(["per 1,000"] if money else [])]
    yield _line(heads)
    yield _line(["---"] * len(heads))
    for row in (*study.rows, *study.beside):
        cells = [_name(study, row), *(row.settings.get(key, "") for key in study.keys)]
        cells += [note(row)] if noted else []
        cells += [_measure(study, row, measure) for measure in study.measures]
        cells += [_difference(study, row)] if study.marks else []
        unjudged = row.figures.unjudged if row.figures else {}
        cells += [share_words(unjudged.get(depth)) for depth in depths]
        cells += [_time(row, name) for name in PERCENTILES if timed]
        cells += [*([tokens_words(row.tokens)] if tokens else []), *([usd_words(row.usd)] if money else [])]
        yield _line([safe(cell) for cell in cells])
    if study.reference is not None and study.marks:
        yield ""
        yield safe(f"{LEGEND}: {study.reference.title}. ★ is the best.")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _name(study: Study, row: Entry) -> str:
    return f"{row.name} ★" if row.name == study.best.name else row.name


def _measure(study: Study, row: Entry, measure: str) -> str:
    mean, mark = row.mean(measure), study.marks.get(row.name, {}).get(measure)
    if mean is None:
        return ""
    return f"{measure_words(mean)} {SYMBOLS[mark.word]}" if mark else measure_words(mean)


def _difference(study: Study, row: Entry) -> str:
    mark = study.marks.get(row.name, {}).get(study.measure)
    return f"{difference_words(mark.difference)}, {p_words(mark.p)}" if mark else ""


def _time(row: Entry, name: str) -> str:
    value = row.latency(name)
    return "" if value is None else f"{value:,.1f}"


def _fronts(study: Study) -> Iterator[str]:
    """The Pareto front of the first measure along time and money, as lists."""
    for axis in axes_of(study.comparable):
        if axis.key in ("p95", "usd"):
            yield ""
            yield f"## Front of {safe(study.measure)} against {axis.label}"
            yield ""
            for point in front(points(study.comparable, axis, study.measure)):
                yield f"- {safe(point.entry.title)}: {point.quality:.4f} at {amount_words(point.cost)}"


def _effect(effect: Effect, measure: str) -> Iterator[str]:
    yield f"### {safe(effect.key)}"
    yield ""
    if not effect.values:
        yield f"{effect.n_values} values, too many for a table of means."
        yield ""
        return
    yield _line(["value", "jobs", f"mean {safe(measure)}", "least to greatest", "beside the best, all else equal"])
    yield _line(["---"] * 5)
    for value in effect.values:
        reach = f"{measure_words(value.low)} to {measure_words(value.high)}"
        cells = (value.value or "not given", str(value.n_jobs), measure_words(value.mean), reach, paired_words(value))
        yield _line([safe(cell) for cell in cells])
    yield ""
