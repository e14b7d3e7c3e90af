"""What a training came to, in sentences: for the terminal and for the model card."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from orchestrator.finetune.learning import Learned
from orchestrator.finetune.lessons import Lessons
from orchestrator.finetune.negatives import Rules
from orchestrator.finetune.queries import Plan
from orchestrator.learning.verdict import Verdict
from orchestrator.models import Model


def tuning_words(verdict: Verdict, before: str) -> tuple[str, bool | None]:
    """Whether the model is better than it was, in a sentence and as a fact; None where that cannot be said."""
    if not verdict.comparisons:
        return "Whether tuning helped is not known: no query was held out.", None
    other = next((comparison for comparison in verdict.comparisons if comparison.other == before), None)
    if other is None:
        return "The model had no trained head before, so that there is no 'before' to compare with.", None
    figures = f"{verdict.measure} {other.mean:.4f} after, {other.other_mean:.4f} before"
    counts = f"{other.wins} queries won, {other.ties} tied, {other.losses} lost; p {other.p_holm:.2g}, corrected"
    if other.is_better:
        return f"Tuning won: {figures} ({counts}).", True
    if other.is_worse:
        return f"Tuning made it worse: {figures} ({counts}). Keep the model as it was.", False
    return f"Tuning did not win: {figures} ({counts}): no more than chance.", False


def told(
    plan: Plan,
    lessons: Lessons,
    rules: Rules,
    learned: Learned,
    source: str,
    count: int,
    triples_left_out: int | None = None,
) -> list[str]:
    """Lines on queries, negatives and steps."""
    lines = [
        f"Queries: {plan.told}. {len(plan.train)} to learn from, {len(plan.validation)} to stop by, "
        f"{len(plan.held_out)} held out for the verdict."
    ]
    if triples_left_out is not None:
        lines[0] += f" Learned from triples; {triples_left_out} ask what a query of the other parts asks: left out."
    if lessons.useless:
        lines.append(f"Queries that taught nothing, since no relevant document is known for them: {lessons.useless}.")
    negatives = f"{len(lessons.rows)} lessons with {rules.per_query} negatives each"
    if lessons.dropped:
        margin = "" if rules.margin is None else f", {lessons.dropped['margin']} scored above {rules.margin:g} of the "
        margin += "relevant document" if margin else ""
        negatives += f"; left alone as likely relevant: {lessons.dropped['skip']} among the first {rules.skip}{margin}"
    if lessons.filled:
        negatives += f"; {lessons.filled} negatives came from other queries, for want of candidates"
    lines.append(negatives + ".")
    lines.append(_steps(learned))
    if plan.held_out:
        lines.append(f"Judged: the first {count} candidates of '{source}' put in order by the model; the rest behind.")
    return lines


def _steps(learned: Learned) -> str:
    text = f"{learned.steps} steps in {learned.seconds:.0f} s"
    if learned.resumed_from is not None:
        text += f", gone on from step {learned.resumed_from}"
    if not learned.checks:
        return f"{text}; no query to stop by, so the last step is kept."
    best = learned.checks.get(learned.best_step, float("nan"))
    kept = f"step {learned.best_step} kept, nDCG@10 {best:.4f} on the queries to stop by"
    return f"{text}; {kept}, {learned.checks.get(0, float('nan')):.4f} before the first step."


def warnings(known: Mapping[str, int]) -> list[str]:
    """Stages that learned from queries of the verdict."""
    return [
        f"Stage '{stage}' learned from {count} of the queries held out: its scores are better on them than on new ones."
        for stage, count in known.items()
        if count
    ]


def use_words(words: Sequence[str], card: Model, folder: str) -> list[str]:
    """The words of a command line that serves with the model in `folder`."""
    key = f"{card.key}.path"
    return [*(word for word in words if word.partition("=")[0].lstrip("+") != key), f"{key}={folder}"]


def command(verb: Sequence[str], words: Sequence[str]) -> str:
    """A command line as a shell reads it."""
    return shlex.join(["orchestrate", *verb, *words])
