"""What a sweep found, as HTML: fronts of quality against cost, and the effects of swept keys."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from orchestrator.report.study.bars import spread_bar
from orchestrator.report.study.scatter import scatter
from orchestrator.report.study.table import MOST_ON_ONE_LINE
from orchestrator.study.effects import Effect, Value
from orchestrator.study.front import Axis, axes_of, front, points
from orchestrator.study.numbers import amount_words, difference_words, measure_words, p_words
from orchestrator.study.study import Study

_MOST_MEASURES = 5


def fronts(study: Study) -> str:
    """Quality against each cost, of which one is shown, with a choice of both axes."""
    axes = [axis for axis in axes_of(study.comparable) if len(points(study.comparable, axis, study.measure)) > 1]
    if not axes:
        return "<p>Of fewer than two rows it is known what they cost, so that there is no front.</p>"
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
    told = escape(f"Effect of {effect.key}")
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{told}">{table}</div>'


def _number(is_number: bool) -> str:
    return ' class="n"' if is_number else ""


def _value_row(value: Value, ends: tuple[float, float]) -> str:
    spread = spread_bar(value.low, value.mean, value.high, ends)
    css = ' class="long"' if len(value.value) > MOST_ON_ONE_LINE else ""
    return (
        f'<tr><th scope="row"{css}>{escape(value.value or "not given")}</th><td class="n">{value.n_jobs}</td>'
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
    chance = "beyond" if paired.is_beyond_chance else "within"
    test = "" if paired.p is None else f", {p_words(paired.p)}: {chance} chance"
    return f"{difference_words(paired.difference)} ({reach}{pairs}){test}"
