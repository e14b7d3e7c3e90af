"""The parts of the page between the headline and the single queries: fronts, effects of swept keys, costs of stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from orchestrator.report.study.bars import spread_bar
from orchestrator.report.study.scatter import scatter
from orchestrator.report.study.stack import key, stack
from orchestrator.study.effects import Effect, Value
from orchestrator.study.entry import Entry
from orchestrator.study.front import Axis, axes_of, front, points
from orchestrator.study.numbers import amount_words, difference_words, measure_words, p_words
from orchestrator.study.study import Study

_MOST_MEASURES = 5


@dataclass(frozen=True, slots=True)
class _Cost:
    """One thing that stages take."""

    name: str
    unit: str
    parts: Callable[[Entry], Mapping[str, float]]


def fronts(study: Study) -> str:
    """Quality against each cost, of which one is shown, with a choice of both axes."""
    axes = axes_of(study.comparable)
    timed = [row for row in study.comparable if any(axis.of(row) is not None for axis in axes)]
    if len(timed) < 2:
        return "<p>One configuration alone has no front: sweep over what it may cost.</p>"
    measures = [study.measure, *(name for name in study.measures if name != study.measure)][:_MOST_MEASURES]
    figures = "\n".join(
        _figure(study, measure, axis, f"front-{row}-{column}", is_shown=row + column == 0)
        for row, measure in enumerate(measures)
        for column, axis in enumerate(axes)
    )
    choices = _select("quality", measures, "front-y") + _select("cost", [axis.label for axis in axes], "front-x")
    return f'<p class="choice">{choices}</p>\n{figures}'


def _figure(study: Study, measure: str, axis: Axis, name: str, *, is_shown: bool) -> str:
    told, found = escape(f"{measure} against {axis.label}"), points(study.comparable, axis, measure)
    on_front = "; ".join(
        f"{point.entry.title} {point.quality:.4f} at {amount_words(point.cost)}" for point in front(found)
    )
    return (
        f'<figure data-group="front" id="{name}"{"" if is_shown else " hidden"}>'
        f'<div class="scroll chart" tabindex="0" role="region" aria-label="{told}">'
        f"{scatter(found, axis.label, measure)}</div>"
        f"<figcaption>{escape(f'On the front, cheapest first ({axis.label}): {on_front}.')}</figcaption></figure>"
    )


def _select(label: str, options: Sequence[str], name: str) -> str:
    items = "".join(f'<option value="{place}">{escape(option)}</option>' for place, option in enumerate(options))
    return f'<label>{label} <select id="{name}" data-shows="front">{items}</select></label> '


def effects_section(study: Study) -> str:
    """A table a swept key."""
    means = [value for effect in study.effects for row in effect.values for value in (row.low, row.high)]
    if not study.effects:
        return "<p>Nothing was swept, or all jobs with figures have the same settings.</p>"
    ends = (min(means), max(means)) if means else (0.0, 1.0)
    return "\n".join(_effect(effect, ends, study.measure) for effect in study.effects)


def _effect(effect: Effect, ends: tuple[float, float], measure: str) -> str:
    if not effect.values:
        text = f"{effect.key}: {effect.n_values} values, too many for a table of means; sort the table above by it."
        return f"<p>{escape(text)}</p>"
    heads = ("value", "jobs", f"mean {measure}", "least to greatest", "beside the best value, all else equal")
    head = "".join(f'<th scope="col"{_number(place in (1, 2))}>{escape(name)}</th>' for place, name in enumerate(heads))
    rows = "\n".join(_value_row(value, ends) for value in effect.values)
    caption = f"<caption>{escape(effect.key)}</caption>"
    table = f'<table class="effect">{caption}<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _number(is_number: bool) -> str:
    return ' class="n"' if is_number else ""


def _value_row(value: Value, ends: tuple[float, float]) -> str:
    spread = spread_bar(value.low, value.mean, value.high, ends)
    return (
        f'<tr><th scope="row">{escape(value.value or "not given")}</th><td class="n">{value.n_jobs}</td>'
        f'<td class="n">{measure_words(value.mean)}</td><td class="wide">{spread}</td>'
        f"<td>{escape(paired_words(value))}</td></tr>"
    )


def paired_words(value: Value) -> str:
    """`−0.0123 (−0.02 to +0.001 over 8 pairs), p = 0.02: beyond chance`; a dash for the best value or without pairs."""
    paired = value.paired
    if paired is None:
        return "–"
    pairs = "1 pair" if paired.n_pairs == 1 else f"{paired.n_pairs} pairs"
    reach = "" if paired.n_pairs == 1 else f"{difference_words(paired.low)} to {difference_words(paired.high)} over "
    test = (
        "" if paired.p is None else f", {p_words(paired.p)}: {'beyond' if paired.is_beyond_chance else 'within'} chance"
    )
    return f"{difference_words(paired.difference)} ({reach}{pairs}){test}"


def stage_costs(study: Study) -> str:
    """Stacked bars of what each stage takes: a table for time, one for tokens and one for money."""
    tables = "\n".join(_cost_table(study, cost) for cost in _costs(study))
    return tables or "<p>What single stages take is not known here.</p>"


def _costs(study: Study) -> Iterator[_Cost]:
    known = (
        _Cost("Time of each stage", "ms", _times),
        _Cost(
            "Tokens of each stage, a question", "tokens", lambda row: row.figures.stage_tokens if row.figures else {}
        ),
        _Cost("Money of each stage, 1,000 questions", "US dollars", _money),
    )
    return (cost for cost in known if any(any(cost.parts(row).values()) for row in study.done))


def _times(row: Entry) -> dict[str, float]:
    """The median of each stage."""
    stages = row.figures.stage_latency_ms if row.figures else {}
    return {stage: times["p50"] for stage, times in stages.items() if "p50" in times}


def _money(row: Entry) -> dict[str, float]:
    return {stage: 1000 * usd for stage, usd in row.figures.stage_usd.items()} if row.figures else {}


def _cost_table(study: Study, cost: _Cost) -> str:
    rows = [row for row in study.done if cost.parts(row)]
    longest = max(sum(cost.parts(row).values()) for row in rows)
    places = {
        stage: place for place, stage in enumerate(dict.fromkeys(name for row in rows for name in cost.parts(row)))
    }
    body = "\n".join(_cost_row(row.title, cost.parts(row), longest, places, cost.unit) for row in rows)
    median = "; medians, which need not add up to the median of the whole" if cost.unit == "ms" else ""
    caption = f"<caption><span>{escape(cost.name + median)}</span></caption>"
    return (
        f'{key(places)}<div class="scroll"><table class="stages">{caption}'
        f'<thead><tr><th scope="col">row</th><th scope="col" class="n">{escape(cost.unit)}</th>'
        f'<th scope="col">stages</th></tr></thead>\n<tbody>{body}</tbody></table></div>'
    )


def _cost_row(title: str, parts: Mapping[str, float], longest: float, places: Mapping[str, int], unit: str) -> str:
    return (
        f'<tr><th scope="row">{escape(title)}</th><td class="n">{amount_words(sum(parts.values()))}</td>'
        f'<td class="wide">{stack(parts, longest, places, unit)}</td></tr>'
    )
