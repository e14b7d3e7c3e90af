"""Two rows query by query, as HTML: the bar picture, and the queries that changed most with their first documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from orchestrator.report.study.bars import difference_bars
from orchestrator.study.changes import Changed, Pair, Shown
from orchestrator.study.entry import Entry
from orchestrator.study.numbers import difference_words, measure_words
from orchestrator.study.study import Study

TEXT_CHARS = 220
_LABEL_CHARS = 60


def pairs(study: Study) -> str:
    """A choice of the pairs, and one section a pair, of which the first is shown."""
    sections = "\n".join(_section(study, pair, place) for place, pair in enumerate(study.pairs))
    if len(study.pairs) < 2:
        return sections
    options = "".join(
        f'<option value="pair{place}">{escape(_short(pair.after))} beside {escape(_short(pair.before))}</option>'
        for place, pair in enumerate(study.pairs)
    )
    return f'<p class="choice"><label>Rows <select data-shows="pair">{options}</select></label></p>\n{sections}'


def _short(row: Entry) -> str:
    title = row.title
    return title if len(title) <= _LABEL_CHARS else f"{title[: _LABEL_CHARS - 1]}…"


def _section(study: Study, pair: Pair, place: int) -> str:
    hidden = " hidden" if place else ""
    told = f"{pair.tally.wins} queries won, {pair.tally.ties} tied, {pair.tally.losses} lost"
    means = [measure_words(row.mean(study.measure)) for row in (pair.after, pair.before)]
    head = f"{pair.after.title}: {means[0]}, beside {pair.before.title}: {means[1]}"
    changed = "\n".join(_query(study, change) for change in pair.changed)
    return (
        f'<section class="pair" id="pair{place}" data-group="pair"{hidden}>\n<h3>{escape(head)}</h3>\n'
        f"<p>{escape(told)}. {escape(study.measure)} of each query, the greatest gain first:</p>\n"
        f"{difference_bars(pair.differences)}\n{changed}\n</section>"
    )


def _query(study: Study, change: Changed) -> str:
    text = study.queries.get(change.query_id, "")
    css = "up" if change.difference > 0 else "down"
    numbers = f"{measure_words(change.before)} → {measure_words(change.after)}"
    head = (
        f'<h4><span class="{css}">{difference_words(change.difference)}</span> '
        f"{escape(text or change.query_id)}</h4>\n"
        f'<p class="numbers">{escape(change.query_id) if text else ""} {escape(numbers)}</p>'
    )
    if not change.documents_before and not change.documents_after:
        return f'<article class="query">{head}</article>'
    lists = "".join(
        f"<div><h5>{name}</h5>{_documents(shown, study.documents, other)}</div>"
        for name, other, shown in (
            ("before", "after", change.documents_before),
            ("after", "before", change.documents_after),
        )
    )
    return f'<article class="query">{head}<div class="sides">{lists}</div></article>'


def _documents(shown: Sequence[Shown], texts: Mapping[str, str], other: str) -> str:
    if not shown:
        return "<p>no document, or its ranking is not known</p>"
    return f"<ol>{''.join(_items(shown, texts, other))}</ol>"


def _items(shown: Sequence[Shown], texts: Mapping[str, str], other: str) -> Iterator[str]:
    for document in shown:
        text = texts.get(document.doc_id, "")
        cut = f"{text[: TEXT_CHARS - 1].rstrip()}…" if len(text) > TEXT_CHARS else text
        css = ' class="relevant"' if document.grade else ""
        name = f"<b>{escape(document.doc_id)}</b> {judgement(document.grade)} <small>{moved(document, other)}</small>"
        yield f"<li{css}>{name}<br>{escape(cut)}</li>" if cut else f"<li{css}>{name}</li>"


def judgement(grade: int | None) -> str:
    """How a document was judged, for the eye and in words; nothing where nobody judged it."""
    if grade is None:
        return ""
    if grade <= 0:
        return '<span class="x">✗ not relevant</span>'
    return f'<span class="tick">✓ relevant{f", grade {grade}" if grade > 1 else ""}</span>'


def moved(document: Shown, other: str) -> str:
    """Where the document stands in the `other` ranking, before or after."""
    if document.other_rank is None:
        return f"{other}: not among the ranked"
    return "same rank" if document.other_rank == document.rank else f"{other}: {document.other_rank}"
