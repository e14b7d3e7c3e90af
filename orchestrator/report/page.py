"""The rank-flow picture as one page for a browser: nothing is fetched, and everything also stands in tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from orchestrator.report.layout import lay_out
from orchestrator.report.picture import picture
from orchestrator.report.words import cut_words, moved_words, nowhere_words, shortfall_sentence, way_words

if TYPE_CHECKING:
    from orchestrator.answers.flow import FlowStage, Step, Way
    from orchestrator.report.explained import Explained

_TEMPLATE, _LOOK = "page.html", "look.css"
_TITLE_CHARS = 160
_MOST_SENTENCES = 60


def page(explained: Explained, followed: str | None = None) -> str:
    """The whole page as HTML.

    Args:
        explained: the answer.
        followed: a document that stands out from the start.
    """
    flow, query = explained.flow, explained.result.query
    layout = lay_out(flow, explained.grades, followed)
    template = Template(_resource(_TEMPLATE))
    ways = [flow.way(doc_id) for doc_id in layout.drawn]
    chosen = layout.drawn.index(followed) if followed in layout.drawn else -1
    return template.substitute(
        look=look(),
        question=escape(query.text),
        summary=escape(_summary(explained)),
        remarks="\n".join(_remarks(explained, followed)),
        picture=picture(explained, layout, followed),
        stages="\n".join(_stage_rows(explained)),
        heads="".join(_column_head(stage) for stage in flow.stages),
        documents="\n".join(_document_row(explained, way, place) for place, way in enumerate(ways)),
        others=escape(_others(len(flow.fates) - len(ways))),
        data=_script_json({"docs": [_details(explained, way) for way in ways], "followed": chosen}),
    )


def look() -> str:
    """The style that all pages share, light and dark, on screen and on paper."""
    return _resource(_LOOK)


def _resource(name: str) -> str:
    return files("orchestrator.report").joinpath(name).read_text(encoding="utf-8")


def _summary(explained: Explained) -> str:
    trace, flow = explained.result.trace, explained.flow
    if flow.answer:
        told = f"{len(flow.answer):,} of {len(flow.fates):,} documents that any stage saw"
    else:
        told = "no document found" if not flow.fates else f"none of {len(flow.fates):,} documents was passed on"
    time = f"{trace.total_ms:.1f} ms"
    if trace.budget_ms is not None:
        time += f" of {trace.budget_ms:g} ms, {'enforced' if trace.enforced else 'not enforced'}"
    return f"{explained.result.query.query_id} · {told} · {time}"


def _remarks(explained: Explained, followed: str | None) -> Iterator[str]:
    """What was left out, what was skipped, and how relevant documents and the one that is followed fared."""
    flow = explained.flow
    for shortfall in explained.result.degraded:
        kind = next((stage.kind for stage in flow.stages if stage.name == shortfall.stage), "")
        yield f'<li class="trouble">{escape(shortfall_sentence(shortfall, kind))}</li>'
    for stage in flow.stages:
        if stage.skipped is not None:
            yield f'<li class="trouble">{escape(f"{stage.name} was skipped: {stage.skipped}")}</li>'
    if followed is not None:
        told = way_words(flow, flow.way(followed)) if followed in flow.fates else nowhere_words(flow)
        yield f"<li>{escape(f'{followed}: {told}')}</li>"
    seen = [doc_id for doc_id in flow.doc_ids if doc_id in explained.grades]
    for doc_id in seen[:_MOST_SENTENCES]:
        way = flow.way(doc_id)
        css = "good" if way.rank else "trouble"
        yield f'<li class="{css}">✓ {escape(f"relevant document {doc_id}: {way_words(flow, way)}")}</li>'
    for doc_id in explained.missed[:_MOST_SENTENCES]:
        yield f'<li class="trouble">✗ {escape(f"relevant document {doc_id}: {nowhere_words(flow)}")}</li>'
    left = max(len(seen) - _MOST_SENTENCES, 0) + max(len(explained.missed) - _MOST_SENTENCES, 0)
    if left:
        yield f"<li>and {left} other relevant documents</li>"


def _stage_rows(explained: Explained) -> Iterator[str]:
    for stage in explained.flow.stages:
        dropped = len(explained.flow.dropped(stage.name))
        ms = f"{stage.trace.ms:.1f}" if stage.trace else ""
        why = cut_words(stage) if dropped else ""
        cells = [f"{stage.n_seen:,}", f"{stage.n_scored:,}", f"{stage.n_out:,}", f"{dropped:,}", ms]
        numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
        reads = ", ".join(stage.inputs)
        words = "".join(f"<td>{escape(word)}</td>" for word in (stage.kind, reads))
        yield f'<tr><th scope="row">{escape(stage.name)}</th>{words}{numbers}<td>{escape(why)}</td></tr>'


def _column_head(stage: FlowStage) -> str:
    stand_in = f"<br><small>scores of {escape(stage.stand_in)}</small>" if stage.stand_in else ""
    return f'<th scope="col" class="n">{escape(stage.name)}{stand_in}</th>'


def _document_row(explained: Explained, way: Way, place: int) -> str:
    tick = ' <span class="tick" title="relevant">✓</span>' if way.doc_id in explained.grades else ""
    title = explained.label(way.doc_id, _TITLE_CHARS)
    name = f"<b>{escape(way.doc_id)}</b>{tick}<br>{escape(title)}"
    steps = "".join(_step_cell(way.steps.get(stage.name)) for stage in explained.flow.stages)
    css = "kept" if way.rank else "lost"
    cells = f'<td class="n">{way.rank or ""}</td><td>{name}</td>{steps}<td>{escape(way.dropped_by or "")}</td>'
    return f'<tr class="{css}" data-i="{place}">{cells}</tr>'


def _step_cell(step: Step | None) -> str:
    if step is None:
        return '<td class="n">–</td>'
    moved = f' <span class="{"up" if (step.moved or 0) > 0 else "down"}">{moved_words(step.moved)}</span>'
    end = "" if step.passed else ' <span class="x" title="dropped">✗</span>'
    score = "not scored" if step.score is None else f"{step.score:.4g}"
    return f'<td class="n">{step.rank:,}{moved if step.moved else ""}{end}<br><small>{score}</small></td>'


def _others(n: int) -> str:
    return f"{n:,} other documents are counted in the bars and in the table of stages only." if n > 0 else ""


def _details(explained: Explained, way: Way) -> dict[str, object]:
    steps: list[Sequence[object]] = []
    for step in way.steps.values():
        score = "not scored" if step.score is None else f"{step.score:.4g}"
        steps.append([step.stage, step.rank, moved_words(step.moved), score, step.passed])
    title = explained.label(way.doc_id, _TITLE_CHARS)
    told = way_words(explained.flow, way)
    return {"id": way.doc_id, "title": title, "told": told, "relevant": way.doc_id in explained.grades, "steps": steps}


def _script_json(value: object) -> str:
    """JSON that can stand inside `<script>`: no text of a document ends it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
