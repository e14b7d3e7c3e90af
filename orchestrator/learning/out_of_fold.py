"""Scores of a stage that learned, for the queries that it learned from, by models that did not: out of fold.

What learns from such scores sees them as they will be on new queries. Source: Wolpert, "Stacked Generalization", Neural
Networks 5, 1992.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from orchestrator.errors import ConfigError
from orchestrator.learned.manifest import read_manifest
from orchestrator.learned.record import learned_hashes
from orchestrator.learned.trained import ModelPlace
from orchestrator.learning import training
from orchestrator.learning.seen import Seen
from orchestrator.learning.training_queries import TrainingQueries
from orchestrator.pipeline import Pipeline
from orchestrator.stage import Json, Progress
from orchestrator.storage import current_generation
from orchestrator.types import Query

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Gathering:
    """How candidates are collected.

    Attributes:
        collect: candidates of queries at the stage that learns, by the models that are open.
        parents: where documents are judged and chunks are ranked.
        depth: of the rankings.
        batch_queries: queries that go through the stages together.
        validation: share of the queries that decides when a training stops.
        seed: of the folds.
        progress: told about long work.
    """

    collect: Callable[[Sequence[Query]], training.Pool]
    parents: training.Parents | None
    depth: int
    batch_queries: int
    validation: float
    seed: int
    progress: Progress


def out_of_fold(pipeline: Pipeline, topics: TrainingQueries, seen: Seen, how: Gathering) -> training.Pool:
    """The candidates of all queries; where a stage before learned from a query, scored by one that did not.

    The queries that it learned from are divided into five folds; for each it is trained anew on the other four, with
    the options of its own training, and asked for the fold. Afterwards it serves with its own model again.

    Args:
        pipeline: opened as far as the stage that learns.
        topics: the queries.
        seen: what stages before learned from.
        how: to collect.

    Raises:
        ConfigError: a model before cannot be trained anew here, or several have to be.
    """
    place = _to_refit(pipeline, seen)
    known = seen[place.node.name]
    texts = {query.query_id: query.text for query in topics.queries}
    options, examples = _options(place), _examples(pipeline, place, topics, known, how)
    pool = training.Pool()
    ids = [query.query_id for query in topics.queries if query.query_id in known]
    try:
        for split in training.split_queries(ids, 0.0, how.validation, how.seed, FOLDS)[:-1]:
            training.fit(place.stage, examples, training.apart(split, texts), options, how.progress)
            _add(pool, how.collect([query for query in topics.queries if query.query_id in set(split.held_out)]))
    finally:
        place.open(pipeline.loaded, None)
    _add(pool, how.collect([query for query in topics.queries if query.query_id not in known]))
    return pool


def told(seen: Seen) -> str:
    """What was done, in a sentence."""
    (name, known), *_ = [(name, ids) for name, ids in seen.items() if ids]
    return (
        f"Stage '{name}' learned from {len(known)} of these queries; its scores of them come out of fold, from {FOLDS} "
        "trainings that each left a fifth of them out."
    )


def _to_refit(pipeline: Pipeline, seen: Seen) -> ModelPlace:
    """The one stage that can be trained anew.

    Raises:
        ConfigError: there are several, or it holds a network, or its model was trained elsewhere.
    """
    names = [name for name, ids in seen.items() if ids]
    place = pipeline.place_of_model(names[0])
    if len(names) > 1 or place is None or learned_hashes(place.stage):
        found = f"found out_of_fold, and queries are known to {', '.join(names)}"
        raise ConfigError(
            "task.seen", f"{found}; only one learned fusion or rerank can be trained anew here; choices: drop, allow"
        )
    if current_generation(place.folder) is None:
        raise ConfigError(
            "task.seen", f"found out_of_fold, and '{names[0]}' serves with a model that ships; choices: drop, allow"
        )
    return place


def _options(place: ModelPlace) -> Mapping[str, Json]:
    """The options that the model was trained with."""
    generation = current_generation(place.folder)
    manifest = read_manifest(generation) if generation is not None else None
    return cast(Mapping[str, Json], manifest.about.get("parameters") or {}) if manifest is not None else {}


def _examples(
    pipeline: Pipeline, place: ModelPlace, topics: TrainingQueries, known: frozenset[str], how: Gathering
) -> training.Pool:
    """What the stage before saw of the queries that it learned from."""
    collector = training.Collector(place.stage, topics.qrels, how.parents)
    return training.collect(
        pipeline.upstream(place.node.name, collector, how.progress),
        collector,
        [query for query in topics.queries if query.query_id in known],
        depth=how.depth,
        batch_queries=how.batch_queries,
        progress=how.progress,
    )


def _add(pool: training.Pool, part: training.Pool) -> None:
    pool.examples |= part.examples
    for system, rankings in part.rankings.items():
        pool.rankings.setdefault(system, {}).update(rankings)
