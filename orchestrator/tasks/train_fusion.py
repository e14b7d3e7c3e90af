"""`orchestrate train fusion`: let a stage of the pipeline learn from judged queries, and say whether that helped."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.job import plain
from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.evaluation.measures import Measures, Rankings
from orchestrator.learned.manifest import Manifest
from orchestrator.learned.trained import ModelPlace, query_hashes
from orchestrator.learning import training
from orchestrator.learning.contributions import QUERIES, Contributions, contributions_of, joined
from orchestrator.learning.model_search import Choice, Exam, Search, choose
from orchestrator.learning.promotion import Trial, promote_if_better
from orchestrator.learning.seen import without_seen
from orchestrator.learning.training_queries import TrainingQueries, training_queries
from orchestrator.learning.verdict import judge
from orchestrator.pipeline import Pipeline
from orchestrator.stage import Json
from orchestrator.tasks import fusion_told
from orchestrator.tasks.fusion_told import Outcome
from orchestrator.tasks.progress import ProgressBars, say_building
from orchestrator.tasks.training_candidates import candidates, splits_of, told_before

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True, slots=True)
class Material:
    """What a training has to work with: the stage, candidates, queries, and how rankings are judged."""

    place: ModelPlace
    pool: training.Pool
    topics: TrainingQueries
    measures: Measures
    parents: training.Parents | None


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
        seen = pipeline.seen(topics.queries, place.node.name)
        topics = without_seen(topics, seen, cfg.task.seen)
        pool = candidates(cfg, pipeline, runner, collector, topics, seen, progress)
        material = Material(place, pool, topics, measures, parents)
        outcome = replace(_train(cfg, material, progress), before=told_before(cfg, topics, seen))
        folder, outcome = _write(cfg, pipeline, material, outcome, output)
    if output is not None:
        fusion_told.keep(output, outcome)
    fusion_told.show(cfg.format.name, topics, outcome, folder, output)
    return outcome.verdict.means[place.node.name][measures.names[0]] if outcome.verdict.means else float("nan")


def _check_options(cfg: DictConfig, place: ModelPlace) -> None:
    with _named("task.learner"):
        place.stage.check_options(_options(cfg))
    with _named("task.search"):
        search_of(cfg).checked(place.stage, _options(cfg), cfg.task.seed)


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Puts `path` before that of a ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{path}.{error.path}", error.detail) from error


def search_of(cfg: DictConfig) -> Search:
    """What `task.search` says.

    Raises:
        ConfigError: a value under it is wrong; its path is below `task.search`.
    """
    found = plain(cfg.task.search)
    return Search(found["rounds"], found["folds"], tuple(found["grids"]))


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


def _train(cfg: DictConfig, material: Material, progress: ProgressBars) -> Outcome:
    task, stage, pool, topics = cfg.task, material.place.stage, material.pool, material.topics
    splits, options, search = splits_of(cfg, topics), _options(cfg), search_of(cfg)
    texts = {query.query_id: query.text for query in topics.queries}
    exam = Exam(topics.qrels, material.measures, task.depth, material.parents, task.validation, texts, task.seed)
    learned, held_out, choices = Rankings(), list[str](), list[Choice]()
    explained: list[Contributions | None] = []
    for split in splits:
        if search.rounds:
            choices.append(choose(stage, pool, split, options, search, exam, progress))
        fitted = training.fit(stage, pool, split, choices[-1].options if choices else options, progress)
        learned |= training.ordered(stage, pool, split.held_out, task.depth, material.parents)
        explained.append(contributions_of(stage, pool, split.held_out, max(QUERIES // len(splits), 1)))
        held_out += split.held_out
    name = material.place.node.name
    verdict = judge(name, learned, pool.rankings, topics.qrels, held_out, material.measures, task.seed)
    last = splits[-1]
    useless = len(last.train) + len(last.validation) - len(pool.useful((*last.train, *last.validation)))
    return Outcome(fitted, verdict, tuple(splits), useless, learned, joined(explained), tuple(choices))


def _options(cfg: DictConfig) -> dict[str, Json]:
    return {**{str(key): plain(value) for key, value in cfg.task.learner.items()}, "seed": cfg.task.seed}


def _write(
    cfg: DictConfig, pipeline: Pipeline, material: Material, outcome: Outcome, output: Path | None
) -> tuple[Path, Outcome]:
    """Put the model in its place, or only into the folder of the run where it is to be better and is not."""
    place, topics = material.place, material.topics
    manifest = _manifest(cfg, place, pipeline, topics, outcome)
    if cfg.task.promote == "always":
        return place.write(manifest), outcome
    trial = Trial(
        outcome.verdict,
        outcome.learned,
        material.pool,
        topics.qrels,
        topics.queries,
        material.measures,
        cfg.task.depth,
        material.parents,
        cfg.task.seed,
    )
    candidate = (output or Path(tempfile.mkdtemp())).absolute() / "candidate"
    promotion = promote_if_better(place, manifest, trial, candidate, pipeline.loaded)
    return place.folder, replace(outcome, promotion=promotion)


def _manifest(
    cfg: DictConfig, place: ModelPlace, pipeline: Pipeline, topics: TrainingQueries, outcome: Outcome
) -> Manifest:
    last, corpus = outcome.splits[-1], pipeline.corpus
    own = {"rerank-orchestrator": importlib.metadata.version("rerank-orchestrator")}
    learned_from = {*last.train, *last.validation}
    about: dict[str, Json] = {
        "versions": {**own, **outcome.fitted.versions},
        "parameters": dict(outcome.choices[-1].options) if outcome.choices else _options(cfg),
        "rounds": outcome.fitted.rounds,
        "validation": outcome.fitted.validation,
        "queries": {"told": topics.told, "train": len(last.train), "validation": len(last.validation)},
        "query_hashes": query_hashes(query for query in topics.queries if query.query_id in learned_from),
        "held_out": outcome.verdict.as_json(),
        "importances": dict(outcome.fitted.importances),
    }
    return Manifest(place.settings(pipeline.loaded), corpus.name, corpus.content_hash, len(corpus), about=about)
