"""What `orchestrate train fusion` and `train weights` learn from: which queries do what, and their candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.learning import training
from orchestrator.learning.out_of_fold import Gathering, out_of_fold, told
from orchestrator.learning.seen import OUT_OF_FOLD, Seen
from orchestrator.learning.training_queries import TrainingQueries
from orchestrator.pipeline import Pipeline
from orchestrator.running.runner import Runner
from orchestrator.tasks.progress import ProgressBars
from orchestrator.types import Query

if TYPE_CHECKING:
    from omegaconf import DictConfig


def splits_of(cfg: DictConfig, topics: TrainingQueries) -> list[training.Split]:
    """Who learns, who stops and who judges, as `task` says; the same words never on two sides."""
    task = cfg.task
    share = 0.0 if topics.test else task.held_out
    splits = training.split_queries(topics.learn, share, task.validation, task.seed, task.folds)
    if topics.test:
        splits = [replace(splits[0], held_out=topics.test)]
    texts = {query.query_id: query.text for query in topics.queries}
    return [training.apart(split, texts) for split in splits]


def candidates(
    cfg: DictConfig,
    pipeline: Pipeline,
    runner: Runner,
    keeper: training.Keeper,
    topics: TrainingQueries,
    seen: Seen,
    progress: ProgressBars,
) -> training.Pool:
    """The candidates of all queries, as `task.seen` wants the scores of those that stages before learned from."""
    task = cfg.task

    def collect(queries: Sequence[Query]) -> training.Pool:
        return training.collect(
            runner, keeper, queries, depth=task.depth, batch_queries=task.batch_queries, progress=progress
        )

    if task.seen != OUT_OF_FOLD or not any(seen.values()):
        return collect(topics.queries)
    how = Gathering(collect, keeper.parents, task.depth, task.batch_queries, task.validation, task.seed, progress)
    return out_of_fold(pipeline, topics, seen, how)


def told_before(cfg: DictConfig, topics: TrainingQueries, seen: Seen) -> tuple[str, ...]:
    """In words, what stages before know of these queries."""
    if cfg.task.seen == OUT_OF_FOLD and any(seen.values()):
        return (told(seen),)
    ids = {query.query_id for query in topics.queries}
    known = {stage: len(ids & theirs) for stage, theirs in seen.items()}
    return tuple(
        f"Stage '{stage}' before it learned from {n} of these queries: its scores are better on them than on new ones, "
        f"and the verdict is too kind. Train the two on different queries (corpus.split), or with seen=out_of_fold."
        for stage, n in known.items()
        if n
    )
