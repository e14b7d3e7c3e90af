"""`orchestrate train fusion`: let a stage of the pipeline learn from judged queries, and say whether that helped."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import chart, report, training
from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.evaluate import Measures, Rankings
from orchestrator.manifest import Manifest
from orchestrator.pipeline import Pipeline
from orchestrator.stage import Fitted, Json
from orchestrator.storage import write_atomic
from orchestrator.tasks.progress import ProgressBars, say_building
from orchestrator.trained import ModelPlace, query_hashes
from orchestrator.training_queries import TrainingQueries, training_queries
from orchestrator.verdict import Verdict, judge

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one training came to.

    Attributes:
        fitted: the model that is kept.
        verdict: on the queries held out.
        splits: one a training; the last one's model is kept.
        useless: how many queries to learn from have no relevant candidate.
        known_before: stage before this one that learned too -> how many of all these queries it learned from.
    """

    fitted: Fitted
    verdict: Verdict
    splits: tuple[training.Split, ...]
    useless: int
    known_before: Mapping[str, int] = field(default_factory=dict)


def run(cfg: DictConfig, output: Path | None) -> float:
    """Train, print figures and verdict, write the model; keep comparison and importances in `output`.

    Returns:
        The first of `task.measures` on the queries held out, for a sweeper to maximise.
    """
    measures = Measures(cfg.task.measures)
    with Pipeline.from_config(cfg) as pipeline, ProgressBars() as progress:
        place = _place(pipeline, cfg.task.stage)
        _check_options(cfg, place)
        corpus = pipeline.open_corpus(progress)
        topics = training_queries(corpus, cfg.task.held_out, cfg.task.max_queries, cfg.task.seed)
        parents = corpus.parents if topics.by_parent else None
        collector = training.Collector(place.stage, topics.qrels, parents)
        runner = pipeline.upstream(place.node.name, collector, progress, say_building)
        pool = training.collect(
            runner,
            collector,
            topics.queries,
            depth=cfg.task.depth,
            batch_queries=cfg.task.batch_queries,
            progress=progress,
        )
        outcome = _train(cfg, place, pool, topics, measures, parents, progress)
        outcome = replace(outcome, known_before=pipeline.learned_from(topics.queries))
        folder = place.write(_manifest(cfg, place, pipeline, topics, outcome))
    if output is not None:
        _keep(output, outcome)
    _show(cfg, topics, outcome, folder, output)
    return outcome.verdict.means[place.node.name][measures.names[0]] if outcome.verdict.means else float("nan")


def _check_options(cfg: DictConfig, place: ModelPlace) -> None:
    try:
        place.stage.check_options(_options(cfg))
    except ConfigError as error:
        raise ConfigError(f"task.learner.{error.path}", error.detail) from error


def _place(pipeline: Pipeline, name: str | None) -> ModelPlace:
    places = {node.name: pipeline.place_of_model(node.name) for node in pipeline.graph.nodes}
    learn = {stage: place for stage, place in places.items() if place is not None}
    if name is not None and name not in learn:
        choices = f"{', '.join(learn) or 'none'}.{did_you_mean(name, learn)}"
        raise ConfigError("task.stage", f"'{name}' is no stage that learns; stages that do: {choices}")
    if not learn:
        raise ConfigError(
            "pipeline.stages",
            "no stage learns; for example: +scenario=learned, fusion@pipeline.stages.fused.use=xgboost, "
            "rerank@pipeline.stages.shortlist.use=ltr",
        )
    if name is None and len(learn) > 1:
        found = f"missing, and several stages learn: {', '.join(learn)}"
        raise ConfigError("task.stage", f"{found}; train them one by one, in that order")
    return learn[name or next(iter(learn))]


def _train(
    cfg: DictConfig,
    place: ModelPlace,
    pool: training.Pool,
    topics: TrainingQueries,
    measures: Measures,
    parents: training.Parents | None,
    progress: ProgressBars,
) -> Outcome:
    task, learned = cfg.task, Rankings()
    held_out: list[str] = []
    share = 0.0 if topics.test else task.held_out
    splits = training.split_queries(topics.learn, share, task.validation, task.seed, task.folds)
    if topics.test:
        splits = [replace(splits[0], held_out=topics.test)]
    texts = {query.query_id: query.text for query in topics.queries}
    splits = [training.apart(split, texts) for split in splits]
    options = _options(cfg)
    for split in splits:
        fitted = training.fit(place.stage, pool, split, options, progress)
        learned |= training.ordered(place.stage, pool, split.held_out, task.depth, parents)
        held_out += split.held_out
    verdict = judge(place.node.name, learned, pool.rankings, topics.qrels, held_out, measures, task.seed)
    last = splits[-1]
    useless = len(last.train) + len(last.validation) - len(pool.useful((*last.train, *last.validation)))
    return Outcome(fitted, verdict, tuple(splits), useless)


def _options(cfg: DictConfig) -> dict[str, Json]:
    return {**{str(key): value for key, value in cfg.task.learner.items()}, "seed": cfg.task.seed}


def _manifest(
    cfg: DictConfig, place: ModelPlace, pipeline: Pipeline, topics: TrainingQueries, outcome: Outcome
) -> Manifest:
    last, corpus = outcome.splits[-1], pipeline.corpus
    own = {"rerank-orchestrator": importlib.metadata.version("rerank-orchestrator")}
    learned_from = {*last.train, *last.validation}
    about: dict[str, Json] = {
        "versions": {**own, **outcome.fitted.versions},
        "parameters": _options(cfg),
        "rounds": outcome.fitted.rounds,
        "validation": outcome.fitted.validation,
        "queries": {"told": topics.told, "train": len(last.train), "validation": len(last.validation)},
        "query_hashes": query_hashes(query for query in topics.queries if query.query_id in learned_from),
        "held_out": outcome.verdict.as_json(),
        "importances": dict(outcome.fitted.importances),
    }
    return Manifest(place.settings(pipeline.loaded), corpus.name, corpus.content_hash, len(corpus), about=about)


def _keep(output: Path, outcome: Outcome) -> None:
    write_atomic(output / "comparison.json", json.dumps(outcome.verdict.as_json(), indent=2) + "\n")
    write_atomic(output / "comparison.csv", outcome.verdict.as_csv())
    write_atomic(output / "importances.json", json.dumps(dict(outcome.fitted.importances), indent=2) + "\n")
    chart.bars(outcome.fitted.importances, "share of the model's gain", output / "importances.svg")


def _show(cfg: DictConfig, topics: TrainingQueries, outcome: Outcome, folder: Path, output: Path | None) -> None:
    if cfg.format.name == "json":
        line: dict[str, Json] = {**outcome.verdict.as_json(), "told": " ".join(_told(topics, outcome))}
        line |= {"importances": dict(outcome.fitted.importances), "model": str(folder)}
        sys.stdout.write(json.dumps(line) + "\n")
        return
    console = report.console()
    for told in _told(topics, outcome):
        console.print(told, markup=False)
    console.print(report.importances_table(outcome.fitted.importances))
    console.print(report.comparison_table(outcome.verdict))
    console.print(outcome.verdict.words(), markup=False, style="green" if outcome.verdict.wins else "yellow")
    console.print(f"model: {folder}", markup=False, soft_wrap=True)
    if output is not None:
        console.print(f"comparison and importances: {output}", markup=False, soft_wrap=True)


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
    for stage, known in outcome.known_before.items():
        if known:
            lines.append(
                f"Stage '{stage}' before it learned from {known} of these queries: its scores are better on them than "
                f"on new ones, and the verdict is too kind. Train the two on different queries (corpus.split)."
            )
    if outcome.useless:
        lines.insert(
            1, f"Queries that taught nothing, since no stage found a relevant document for them: {outcome.useless}."
        )
    return lines
