"""What each stage takes in time, tokens and money, as HTML: a table of stacked bars for each of the three."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape

from orchestrator.report.study.stack import key, stack
from orchestrator.study.entry import Entry
from orchestrator.study.numbers import amount_words
from orchestrator.study.study import Study


@dataclass(frozen=True, slots=True)
class _Cost:
    """One thing that stages take."""

    caption: str
    unit: str
    parts: Callable[[Entry], Mapping[str, float]]


def stage_costs(study: Study) -> str:
    """The tables of what is known, under one key of colours; a sentence where nothing is."""
    known = [cost for cost in _COSTS if any(any(cost.parts(row).values()) for row in study.done)]
    if not known:
        return "<p>What single stages take is not known here.</p>"
    stages = dict.fromkeys(stage for cost in known for row in study.done for stage in cost.parts(row))
    places = {stage: place for place, stage in enumerate(stages)}
    return "\n".join([key(places), *(_table(study, cost, places) for cost in known)])


def _times(row: Entry) -> dict[str, float]:
    stages = row.figures.stage_latency_ms if row.figures else {}
    return {stage: times["p50"] for stage, times in stages.items() if "p50" in times}


def _tokens(row: Entry) -> Mapping[str, float]:
    return row.figures.stage_tokens if row.figures else {}


def _money(row: Entry) -> dict[str, float]:
    return {stage: 1000 * usd for stage, usd in row.figures.stage_usd.items()} if row.figures else {}


_COSTS = (
    _Cost("Time of each stage: medians, which need not add up to the median of the whole", "ms", _times),
    _Cost("Tokens of each stage, a question", "tokens", _tokens),
    _Cost("Money of each stage, 1,000 questions", "US dollars", _money),
)


def _table(study: Study, cost: _Cost, places: Mapping[str, int]) -> str:
    rows = [row for row in study.done if any(cost.parts(row).values())]
    longest = max(sum(cost.parts(row).values()) for row in rows)
    body = "\n".join(_row(row.brief, cost.parts(row), longest, places, cost.unit) for row in rows)
    others = any(cost.parts(row) for row in study.done if row not in rows)
    caption = f"{cost.caption}; rows that take none are left out" if others else cost.caption
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(cost.unit)} of each stage">'
        f'<table class="stages"><caption><span>{escape(caption)}</span></caption>'
        f'<thead><tr><th scope="col">row</th><th scope="col" class="n">{escape(cost.unit)}</th>'
        f'<th scope="col">stages</th></tr></thead>\n<tbody>{body}</tbody></table></div>'
    )


def _row(brief: str, parts: Mapping[str, float], longest: float, places: Mapping[str, int], unit: str) -> str:
    return (
        f'<tr><th scope="row">{escape(brief)}</th><td class="n">{amount_words(sum(parts.values()))}</td>'
        f'<td class="wide">{stack(parts, longest, places, unit)}</td></tr>'
    )
