"""What came of `orchestrate train fusion`: what it prints, and what it keeps in the folder of its run."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from orchestrator import report
from orchestrator.evaluation.measures import Rankings
from orchestrator.learning import training
from orchestrator.learning.contributions import Contributions
from orchestrator.learning.model_search import Choice
from orchestrator.learning.promotion import Promotion
from orchestrator.learning.training_queries import TrainingQueries
from orchestrator.learning.verdict import Verdict
from orchestrator.report import chart
from orchestrator.report.effects import effects_line, effects_table
from orchestrator.stage import Fitted, Json
from orchestrator.storage import write_atomic


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one training came to.

    Attributes:
        fitted: the model that is kept.
        verdict: on the queries held out.
        splits: one a training; the last one's model is kept.
        useless: how many queries to learn from have no relevant candidate.
        learned: query id -> its ranking, for the queries held out.
        contributions: what the features did on the queries held out, by the models that did not learn from them.
        choices: which options each training got, where they were searched for.
        before: in words, what stages before know of these queries.
        promotion: what became of the model, where that was a question.
    """

    fitted: Fitted
    verdict: Verdict
    splits: tuple[training.Split, ...]
    useless: int
    learned: Rankings
    contributions: Contributions | None = None
    choices: tuple[Choice, ...] = ()
    before: tuple[str, ...] = ()
    promotion: Promotion | None = None


def keep(output: Path, outcome: Outcome) -> None:
    """Write comparison, importances and SHAP values, with their pictures."""
    write_atomic(output / "comparison.json", json.dumps(outcome.verdict.as_json(), indent=2) + "\n")
    write_atomic(output / "comparison.csv", outcome.verdict.as_csv())
    write_atomic(output / "importances.json", json.dumps(dict(outcome.fitted.importances), indent=2) + "\n")
    chart.bars(outcome.fitted.importances, "share of the model's gain", output / "importances.svg")
    if outcome.contributions is not None:
        _keep_contributions(output, outcome.contributions)


def _keep_contributions(output: Path, contributions: Contributions) -> None:
    write_atomic(output / "shap.json", json.dumps(contributions.as_json(), indent=2) + "\n")
    order = [contributions.names.index(effect.feature) for effect in contributions.effects()]
    chart.beeswarm(
        [contributions.names[place] for place in order],
        contributions.values[:, order],
        contributions.features[:, order],
        "SHAP value: what the feature adds to the score of a document",
        output / "shap.svg",
    )


def show(form: str, topics: TrainingQueries, outcome: Outcome, folder: Path, output: Path | None) -> None:
    """Print the outcome, as a table or as one line of JSON.

    Args:
        form: of `format`.
        topics: the queries.
        outcome: of the training.
        folder: from which the stage serves.
        output: of the run.
    """
    if form == "json":
        sys.stdout.write(json.dumps(_as_json(topics, outcome, folder)) + "\n")
        return
    console, promotion, contributions = report.console(), outcome.promotion, outcome.contributions
    for told in _told(topics, outcome):
        console.print(told, markup=False)
    console.print(effects_table(contributions, outcome.fitted.importances))
    if contributions is not None:
        console.print(effects_line(contributions), markup=False, style="dim")
    console.print(report.comparison_table(outcome.verdict))
    console.print(outcome.verdict.words(), markup=False, style="green" if outcome.verdict.wins else "yellow")
    if promotion is not None:
        console.print(promotion.words, markup=False, style="green" if promotion.promoted else "yellow")
    if promotion is None or promotion.promoted:
        console.print(f"model: {folder}", markup=False, soft_wrap=True)
    else:
        use = f"pipeline.stages.{outcome.verdict.name}.use.path={promotion.candidate}"
        console.print(f"candidate, to try it: {use}", markup=False, soft_wrap=True)
    if output is not None:
        console.print(f"comparison, importances and SHAP values: {output}", markup=False, soft_wrap=True)


def _as_json(topics: TrainingQueries, outcome: Outcome, folder: Path) -> dict[str, Json]:
    line: dict[str, Json] = {**outcome.verdict.as_json(), "told": " ".join(_told(topics, outcome))}
    line |= {"importances": dict(outcome.fitted.importances), "model": str(folder)}
    line["shap"] = outcome.contributions.as_json() if outcome.contributions is not None else None
    if outcome.choices:
        line["chosen"] = [dict(choice.options) for choice in outcome.choices]
    if outcome.promotion is not None:
        line["promotion"] = outcome.promotion.as_json()
    return line


def _told(topics: TrainingQueries, outcome: Outcome) -> list[str]:
    last, fitted, folds = outcome.splits[-1], outcome.fitted, len(outcome.splits) - 1
    judged = f"{outcome.verdict.n_queries} held out"
    if folds:
        judged = f"verdict on all of them, each held out once in {folds} trainings"
    kept = f"{fitted.rounds} {fitted.unit} kept, nDCG@10 {fitted.validation:.4f}"
    kept += " among the candidates of the queries to stop by."
    lines = [
        f"Queries: {topics.told}. {len(last.train)} to learn from, {len(last.validation)} to stop by, {judged}.",
        f"{kept} Candidates that nobody judged count as not relevant.",
    ]
    lines += outcome.before
    if outcome.useless:
        lines.insert(
            1, f"Queries that taught nothing, since no stage found a relevant document for them: {outcome.useless}."
        )
    return lines + _chosen(outcome)


def _chosen(outcome: Outcome) -> list[str]:
    """Which options each training got; those of the last one made the model that is kept."""
    measure, n = outcome.verdict.measure, len(outcome.choices)
    told = [f"Fold {place}: {choice.words}." for place, choice in enumerate(outcome.choices[:-1], start=1)]
    if not n:
        return []
    head = f"Options chosen among {outcome.choices[-1].tried} by {measure} on inner folds of the queries to learn from:"
    return [head, *told, f"{'The model kept' if told else 'Chosen'}: {outcome.choices[-1].words}."]
