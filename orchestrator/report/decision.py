"""A decision as people and programs read it: what was asked, all stacks beside each other, the reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.deciding.worth import expectation
from orchestrator.report.terminal import plain_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.costs.cost import Predicted
    from orchestrator.deciding.decide import Candidate, Choice, Decision
    from orchestrator.deciding.need import Need
    from orchestrator.deciding.options import Expected, Option

_NONE = "–"


def need_line(need: Need) -> str:
    """What a decision is for, in one line."""
    budget = "no budget given" if need.latency_ms is None else f"{need.latency_ms:g} ms"
    candidates = "the stack's own" if need.candidates is None else need.candidates
    tokens = f"{need.lengths.document(100):.0f}"
    as_if = "" if need.searched == need.documents else f" (fewer than candidates: reckoned as {need.searched:,})"
    return (
        f"for: {budget}, {candidates} candidates of {need.documents:,} documents{as_if} of {tokens} tokens, "
        f"language {need.language}, priority {need.priority}, device {need.device}, "
        f"allowed: {', '.join(sorted(need.allow)) or 'nothing beyond this machine'}"
    )


def candidates_table(decision: Decision) -> RenderableType:
    """All stacks of the rules: how deep, how long, how good, on what grounds; the choice is marked."""
    from rich.text import Text

    gain = f"nDCG@10 to\n{decision.reference}"
    right = ("reads", "p50 ms", "p95 ms", gain)
    table = plain_table("  stack", "reads", "p50 ms", "p95 ms", "fits", gain, "basis", right=right)
    for column in table.columns[1:]:
        column.no_wrap = True
    table.columns[0].min_width = max(len(one.name) for one in decision.candidates) + 2
    for one in decision.candidates:
        style = "bold" if one.is_choice else "" if one.option else "dim"
        table.add_row(Text(_name(one)), *_figures(one), style=style)
    return table


def _name(one: Candidate) -> str:
    models = "".join(f"\n    {model.name}" for model in one.option.models.values()) if one.option else ""
    return f"{'* ' if one.is_choice else '  '}{one.name}{models}"


def _figures(one: Candidate) -> list[str]:
    option = one.option
    if option is None:
        return [_NONE, _NONE, _NONE, _NONE, _NONE, ""]
    times = [f"{value:,.0f}" if value >= 10 else f"{value:.1f}" for value in _times(option.predicted)]
    expected, fits = expectation(option.expected.estimate), "yes" if one.fits else "no"
    return [str(option.reads or _NONE), *times, fits, expected, option.expected.basis]


def _times(predicted: Predicted) -> tuple[float, float]:
    return predicted.p50_ms, predicted.p95_ms


def reasons_table(choice: Choice) -> RenderableType:
    """The stack chosen, what it should cost, and why."""
    from rich.text import Text

    table = plain_table("choice", choice.name)
    table.add_row("stack", choice.stack)
    table.add_row("predicted", f"p50 {choice.predicted.p50_ms:,.1f} ms, p95 {choice.predicted.p95_ms:,.1f} ms")
    for place, reason in enumerate(choice.reasons):
        table.add_row("" if place else "why", Text(f"- {reason}"))
    return table


def rejected_table(decision: Decision) -> RenderableType:
    """Every other stack with the one reason against it."""
    from rich.text import Text

    table = plain_table("not", "because")
    for other in decision.rejected:
        table.add_row(other.name, Text(other.reason))
    return table


def decision_json(decision: Decision) -> dict[str, object]:
    """The content of decision.yaml and of `format=json`."""
    choice = decision.choice
    shown = {
        "name": choice.name,
        "overrides": list(choice.overrides),
        "command": choice.command,
        "predicted_ms": _ms(choice.predicted),
        "expected": _expected(choice.expected),
        "misses_by_ms": None if choice.misses_by_ms is None else round(choice.misses_by_ms, 1),
        "reasons": list(choice.reasons),
    }
    return {
        "choice": shown,
        "rejected": [{"name": other.name, "reason": other.reason} for other in decision.rejected],
        "stacks": [_candidate(one) for one in decision.candidates],
        "reference": decision.reference,
        "do_not_rerank": decision.advice.is_measured,
    }


def _ms(predicted: Predicted) -> dict[str, float]:
    p50, p95 = _times(predicted)
    return {"p50": round(p50, 1), "p95": round(p95, 1)}


def _expected(expected: Expected) -> dict[str, object]:
    """In nDCG@10, against the reference."""
    estimate, own = expected.estimate, expected.own
    figures = {"difference": round(estimate.mean, 4), "sd": round(estimate.sd, 4), "basis": expected.basis}
    return {**figures, "own_queries": None if own is None else len(own.differences)}


def _candidate(one: Candidate) -> dict[str, object]:
    option = one.option
    facts: dict[str, object] = {"name": one.name, "fits": one.fits, "chosen": one.is_choice}
    return facts if option is None else {**facts, **_option(option)}


def _option(option: Option) -> dict[str, object]:
    return {
        "models": {slot: model.name for slot, model in option.models.items()},
        "top_k": dict(option.top_ks),
        "reads": option.reads,
        "predicted_ms": _ms(option.predicted),
        "measured_ms": None if option.measured is None else _ms(option.measured),
        "expected": _expected(option.expected),
    }
