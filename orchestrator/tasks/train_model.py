"""`orchestrate train bi_encoder | cross_encoder | late_interaction`: tune a model of the pipeline on judged queries."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from orchestrator import report
from orchestrator.config.job import plain
from orchestrator.evaluation.measures import Measures
from orchestrator.finetune import options
from orchestrator.finetune.job import Job, Outcome
from orchestrator.finetune.tune import tune
from orchestrator.pipeline import Pipeline
from orchestrator.stage import Json
from orchestrator.storage import write_atomic
from orchestrator.tasks.progress import ProgressBars, say_building

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: DictConfig, output: Path | None) -> float:
    """Train, print figures and verdict, write the model; keep the comparison in `output`.

    Returns:
        The first of `task.measures` on the queries held out, for a sweeper to maximise.
    """
    job = job_of(cfg)
    with Pipeline.from_config(cfg) as pipeline, ProgressBars() as progress:
        outcome = tune(job, pipeline, progress, say_building)
    if output is not None:
        _keep(output, outcome)
    _show(cfg, outcome, output)
    means = outcome.verdict.means
    return means[outcome.verdict.name][job.measures.names[0]] if means else float("nan")


def job_of(cfg: DictConfig) -> Job:
    """The options of `cfg.task`, checked.

    Raises:
        ConfigError: one is wrong; the message starts with its path.
    """
    task = cfg.task
    options.check_kind(task.what, task.loss, task.teacher)
    return Job(
        kind=task.what,
        loss=task.loss,
        stage=task.stage,
        teacher=task.teacher,
        triples=task.triples,
        output=task.output,
        seed=task.seed,
        held_out=task.held_out,
        max_held_out=task.max_held_out,
        validation=task.validation,
        max_queries=task.max_queries,
        measures=Measures(task.measures),
        depth=task.depth,
        batch_queries=task.batch_queries,
        candidates=task.candidates_judged,
        rules=options.rules(cast(dict[str, Json], plain(task.negatives))),
        tuning=options.tuning(cast(dict[str, Json], plain(task.tuning))),
        words=_words(),
    )


def _words() -> Sequence[str]:
    """This command's own options, for the model card; those that choose the stack come from the pipeline."""
    from orchestrator.config.job import task_overrides

    return [word for word in task_overrides() if word.lstrip("+").startswith("task.") and "task.what=" not in word]


def _keep(output: Path, outcome: Outcome) -> None:
    write_atomic(output / "comparison.json", json.dumps(outcome.verdict.as_json(), indent=2) + "\n")
    write_atomic(output / "comparison.csv", outcome.verdict.as_csv())


def _show(cfg: DictConfig, outcome: Outcome, output: Path | None) -> None:
    if cfg.format.name == "json":
        sys.stdout.write(json.dumps(outcome.as_json(), ensure_ascii=False) + "\n")
        return
    console = report.console()
    for line in outcome.told:
        console.print(line, markup=False)
    if outcome.verdict.means:
        console.print(report.comparison_table(outcome.verdict))
        console.print(outcome.verdict.words(), markup=False)
    console.print(outcome.words, markup=False, style="green" if outcome.won else "yellow")
    console.print(f"model: {outcome.folder}", markup=False, soft_wrap=True)
    console.print(f"to use it: {outcome.use}", markup=False, soft_wrap=True)
    if output is not None:
        console.print(f"comparison: {output}", markup=False, soft_wrap=True)
