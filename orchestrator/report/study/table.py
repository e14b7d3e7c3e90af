"""The table of all rows, as HTML: measures with their intervals and marks, times, tokens, money, and what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape

from orchestrator.study.entry import Entry
from orchestrator.study.marks import Mark
from orchestrator.study.numbers import difference_words, measure_words, p_words, share_words, tokens_words, usd_words
from orchestrator.study.study import Study

MOST_ON_ONE_LINE = 36
PERCENTILES = ("p50", "p95", "p99")
SYMBOLS = {"better": "▲", "worse": "▼", "same": "≈"}
LEGEND = "▲ better, ▼ worse than the reference beyond chance, ≈ not told apart from it"


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        head: its name.
        cell: HTML of a row's cell.
        value: what a click on the head sorts by; None stands last.
        is_number: whether it is set to the right.
    """

    head: str
    cell: Callable[[Entry], str]
    value: Callable[[Entry], float | str | None]
    is_number: bool = True


def table(study: Study) -> str:
    """The whole `<table>`, each column sorted by a click on its head; rows to compare with stay below."""
    columns = list(_columns(study))
    head = "".join(_head(column) for column in columns)
    body = "\n".join(_row(study, row, columns) for row in study.rows)
    foot = "\n".join(_row(study, row, columns) for row in study.beside)
    beside = f'<tbody class="beside">\n{foot}\n</tbody>' if foot else ""
    caption = f"<caption><span>{escape(_caption(study))}</span></caption>"
    return f'<table class="rows">{caption}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody>{beside}</table>'


def _caption(study: Study) -> str:
    told = "Measures of the uncut ranking, means over queries, with 95 % intervals where they are known"
    if study.reference is None or not study.marks:
        return f"{told}."
    test = "paired randomization test, Holm-corrected within each measure, p < 0.05"
    return f"{told}. {LEGEND}: {study.reference.title} ({test}). The best of a column is bold."


def _columns(study: Study) -> Iterator[Column]:
    yield Column("row", lambda row: escape(row.name), _name_value, is_number=False)
    for key in study.keys:
        yield Column(key, _setting_cell(key), _setting(key), is_number=False)
    if any(map(note, (*study.rows, *study.beside))):
        yield Column("note", lambda row: escape(note(row)), note, is_number=False)
    for measure in study.measures:
        yield Column(measure, _measure_cell(study, measure), _mean(measure))
    if study.marks:
        yield Column(f"Δ {study.measure}", _difference_cell(study), lambda row: _difference(study, row))
    for depth in unjudged_depths(study):
        yield Column(f"unjudged@{depth}", _share_cell(depth), _unjudged(depth))
    yield from _cost_columns(study)


def _cost_columns(study: Study) -> Iterator[Column]:
    if any(row.latency() is not None for row in study.done):
        for name in PERCENTILES:
            best = min(row.latency(name) or float("inf") for row in study.done)
            yield Column(f"{name} ms", _time_cell(name, best), _latency(name))
    if any(row.tokens for row in study.done):
        yield Column("tokens a question", lambda row: tokens_words(row.tokens), lambda row: row.tokens)
    if any(row.usd for row in study.done):
        yield Column("per 1,000 questions", lambda row: usd_words(row.usd), lambda row: row.usd)


def _head(column: Column) -> str:
    css = ' class="n"' if column.is_number else ""
    return f'<th scope="col"{css}><button type="button">{escape(column.head)}</button></th>'


def _row(study: Study, row: Entry, columns: list[Column]) -> str:
    kinds = [row.kind, *(["best"] if row.name == study.best.name else []), *(["failed"] if row.failure else [])]
    kinds += ["reference"] if study.reference is not None and row.name == study.reference.name else []
    cells = "".join(_cell(column, row, place) for place, column in enumerate(columns))
    return f'<tr class="{" ".join(kinds)}">{cells}</tr>'


def _cell(column: Column, row: Entry, place: int) -> str:
    value = column.value(row)
    sort = "" if value is None else f' data-v="{escape(str(value))}"'
    css = _css(column, value)
    tag = 'th scope="row"' if place == 0 else "td"
    return f"<{tag}{css}{sort}>{column.cell(row)}</{tag.split()[0]}>"


def _css(column: Column, value: float | str | None) -> str:
    if column.is_number:
        return ' class="n"'
    is_long = len(str(value)) > MOST_ON_ONE_LINE
    return ' class="long"' if column.head == "note" or is_long else ""


def _name_value(row: Entry) -> float | str:
    return float(row.name) if row.name.isdigit() else row.name


def _mean(measure: str) -> Callable[[Entry], float | None]:
    return lambda row: row.mean(measure)


def _latency(name: str) -> Callable[[Entry], float | None]:
    return lambda row: row.latency(name)


def unjudged_depths(study: Study) -> list[str]:
    """The depths at which some row has documents that nobody judged."""
    shares = [row.figures.unjudged for row in study.done if row.figures]
    return list(dict.fromkeys(depth for of in shares for depth, share in of.items() if share > 0))


def _unjudged(depth: str) -> Callable[[Entry], float | None]:
    return lambda row: row.figures.unjudged.get(depth) if row.figures else None


def _share_cell(depth: str) -> Callable[[Entry], str]:
    return lambda row: share_words(_unjudged(depth)(row))


def _setting_cell(key: str) -> Callable[[Entry], str]:
    return lambda row: escape(row.settings.get(key, ""))


def _setting(key: str) -> Callable[[Entry], float | str]:
    def value(row: Entry) -> float | str:
        text = row.settings.get(key, "")
        try:
            return float(text)
        except ValueError:
            return text

    return value


def _measure_cell(study: Study, measure: str) -> Callable[[Entry], str]:
    values = {row.mean(measure) or 0.0 for row in study.comparable}
    best = max(values) if len(values) > 1 else None

    def cell(row: Entry) -> str:
        mean = row.mean(measure)
        if mean is None:
            return ""
        number = f"<b>{measure_words(mean)}</b>" if mean == best and row in study.rows else measure_words(mean)
        ends = row.figures.intervals.get(measure) if row.figures else None
        interval = f"<br><small>{ends[0]:.3f}–{ends[1]:.3f}</small>" if ends else ""
        return f"{number}{_symbol(study.marks.get(row.name, {}).get(measure))}{interval}"

    return cell


def _symbol(mark: Mark | None) -> str:
    """A mark with what it means for those who do not see it."""
    if mark is None:
        return '<span class="m"></span>'
    css = {"better": "up", "worse": "down", "same": "same"}[mark.word]
    told = {"better": "better", "worse": "worse", "same": "not told apart"}[mark.word]
    tip = escape(f"{told}: {difference_words(mark.difference)}, {p_words(mark.p)}")
    return f'<span class="m {css}" role="img" title="{tip}" aria-label="{tip}">{SYMBOLS[mark.word]}</span>'


def _difference(study: Study, row: Entry) -> float | None:
    mark = study.marks.get(row.name, {}).get(study.measure)
    return None if mark is None else mark.difference


def _difference_cell(study: Study) -> Callable[[Entry], str]:
    def cell(row: Entry) -> str:
        if study.reference is not None and row.name == study.reference.name:
            return "reference"
        mark = study.marks.get(row.name, {}).get(study.measure)
        if mark is None:
            return ""
        counts = f"{mark.wins}/{mark.ties}/{mark.losses}"
        p = escape(p_words(mark.p))
        return f"{difference_words(mark.difference)}<br><small>{p}, {counts}</small>"

    return cell


def _time_cell(name: str, best: float) -> Callable[[Entry], str]:
    def cell(row: Entry) -> str:
        value = row.latency(name)
        text = "" if value is None else f"{value:,.1f}"
        return f"<b>{text}</b>" if text and value == best else text

    return cell


def note(row: Entry) -> str:
    """What a row says beside its figures: what it is, why it failed, or what its answers lack."""
    if row.failure:
        return f"failed: {row.failure}"
    told = [row.words] if row.words else []
    if row.figures is not None and row.figures.whole is not None and row.figures.whole < 1:
        told.append(f"{1 - row.figures.whole:.0%} of the answers fell short")
    return "; ".join(told)
