"""Training of a stage that learns: candidates from the pipeline itself, split by query, judged on queries held out."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from orchestrator import ranking
from orchestrator.errors import ConfigError
from orchestrator.evaluation.measures import Qrels, Rankings
from orchestrator.running.runner import Runner
from orchestrator.stage import Fitted, Json, Progress, Trainable, no_progress
from orchestrator.types import Call, Example, Query, RankedList, Scored, ScoreKind, Scores

Parents = Callable[[Sequence[str]], Sequence[str]]
"""Ids of chunks to those of the documents they are part of, one each: what the judgements name."""

RRF = "rrf of inputs"
_RRF_K = 60.0


@dataclass(frozen=True, slots=True)
class Split:
    """Which queries do what.

    Attributes:
        train: the model learns from these.
        validation: they say when to stop.
        held_out: the model is judged on these and learns nothing from them.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass
class Pool:
    """What the stages before the one that learns found for each query.

    Attributes:
        examples: query id -> candidates with features and grades.
        rankings: system -> query id -> ids: every stage before, and reciprocal rank fusion of the inputs.
    """

    examples: dict[str, Example] = field(default_factory=dict)
    rankings: dict[str, Rankings] = field(default_factory=dict)

    def useful(self, query_ids: Iterable[str]) -> list[Example]:
        """The examples of those queries that have a relevant candidate: the others teach nothing."""
        found = [self.examples[query_id] for query_id in query_ids if query_id in self.examples]
        return [example for example in found if (example.grades > 0).any()]


class Keeper(Protocol):
    """Stands in the pipeline for a stage, and keeps what it would see.

    Attributes:
        examples: query id -> candidates with features and grades, where it keeps them.
        parents: where documents are judged and chunks are ranked.
    """

    examples: dict[str, Example]
    parents: Parents | None


class Collector:
    """Stands in the pipeline for the stage that learns: keeps what it would see, and keeps the incoming order.

    Args:
        stage: the stage that learns, loaded.
        qrels: query id -> document id -> grade; what is not there counts as 0, as does a grade below 0.
        parents: where documents are judged and chunks are ranked; every chunk then has its document's grade.
    """

    score_kind: ScoreKind = "rank"

    def __init__(self, stage: Trainable, qrels: Qrels, parents: Parents | None = None) -> None:
        self._stage, self._qrels, self.parents = stage, qrels, parents
        self.embedder = getattr(stage, "embedder", None)
        self.examples: dict[str, Example] = {}

    def fuse(self, query: Query, lists: Mapping[str, RankedList], call: Call) -> Scored:
        """Every document of the lists, in the order of first appearance."""
        doc_ids = self._keep(query, lists, call)
        return [(doc_id, -float(place)) for place, doc_id in enumerate(doc_ids)]

    def rescore(self, query: Query, candidates: RankedList, call: Call) -> Scores:
        """float64 [n_candidates]: the incoming order."""
        return -np.arange(len(self._keep(query, candidates, call)), dtype=np.float64)

    def _keep(self, query: Query, candidates: RankedList | Mapping[str, RankedList], call: Call) -> Sequence[str]:
        doc_ids, features = self._stage.features(query, candidates, call)
        judged = self._qrels.get(query.query_id, {})
        names = self.parents(doc_ids) if self.parents else doc_ids
        grades = np.array([max(judged.get(name, 0), 0) for name in names], dtype=np.float32)
        self.examples[query.query_id] = Example(query.query_id, tuple(doc_ids), features, grades)
        return doc_ids


def collect(
    runner: Runner,
    collector: Keeper,
    queries: Sequence[Query],
    *,
    depth: int,
    batch_queries: int,
    progress: Progress = no_progress,
) -> Pool:
    """Candidates and rankings of all stages for `queries`, whatever time they take.

    Args:
        runner: ends at the stage that learns, with `collector` in its place.
        collector: keeps the examples.
        queries: what to ask.
        depth: of the rankings.
        batch_queries: queries that go through the stages together.
        progress: told ("candidates", queries done, queries in all).
    """
    pool = Pool(collector.examples)
    for start in range(0, len(queries), batch_queries):
        batch = queries[start : start + batch_queries]
        for result in runner.run(batch, read_documents=False, enforce_budget=False):
            *before, last = result.graph.nodes
            for node in before:
                ranked = as_judged(result.outputs[node.name].doc_ids, depth, collector.parents)
                pool.rankings.setdefault(node.name, {})[result.query.query_id] = ranked
            if len(last.inputs) > 1:
                lists = [result.outputs[name].head(result.graph[name].top_k) for name in last.inputs]
                merged = as_judged(_reciprocal_ranks(lists), depth, collector.parents)
                pool.rankings.setdefault(RRF, {})[result.query.query_id] = merged
        progress("candidates", start + len(batch), len(queries))
    return pool


def as_judged(doc_ids: Sequence[str], depth: int, parents: Parents | None) -> tuple[str, ...]:
    """The first `depth` ids as judgements name them; a document stands where its best chunk stood."""
    return tuple(dict.fromkeys(parents(doc_ids)) if parents else doc_ids)[:depth]


def _reciprocal_ranks(lists: Sequence[RankedList]) -> tuple[str, ...]:
    """Reciprocal rank fusion with k = 60 (Cormack et al., SIGIR 2009): the control that learning has to beat."""
    totals: dict[str, float] = {}
    for ranked in lists:
        for rank, doc_id in enumerate(ranked.doc_ids, start=1):
            totals[doc_id] = totals.get(doc_id, 0.0) + 1.0 / (_RRF_K + rank)
    return ranking.ranked_from_pairs(RRF, list(totals.items()), "rrf").doc_ids


def split_queries(
    query_ids: Sequence[str], held_out: float, validation: float, seed: int, folds: int | None = None
) -> list[Split]:
    """How the queries are divided, drawn by `seed`.

    Args:
        query_ids: all of them.
        held_out: share of the queries for the verdict; 0 where other queries serve for that.
        validation: share of the rest that decides when to stop.
        seed: of the drawing.
        folds: in place of `held_out`, so many splits that hold out each query once, and a last one with all queries
            and none held out, whose model is kept.
    """
    drawn = [query_ids[place] for place in np.random.default_rng(seed).permutation(len(query_ids))]
    if folds is not None:
        parts = [drawn[place::folds] for place in range(folds)]
        rest = [[query_id for other in parts if other is not part for query_id in other] for part in parts]
        splits = [_divide(others, part, validation) for others, part in zip(rest, parts, strict=True)]
        return [*splits, _divide(drawn, [], validation)]
    n = round(held_out * len(drawn))
    return [_divide(drawn[n:], drawn[:n], validation)]


def _divide(rest: Sequence[str], held_out: Sequence[str], validation: float) -> Split:
    n = max(1, round(validation * len(rest)))
    return Split(tuple(rest[n:]), tuple(rest[:n]), tuple(held_out))


def apart(split: Split, texts: Mapping[str, str]) -> Split:
    """`split` without the queries to learn from that ask, in the same words, what a query held out asks.

    Args:
        split: which queries do what.
        texts: query id -> the question.
    """
    asked = {same_words(texts[query_id]) for query_id in split.held_out}
    train, validation = (
        tuple(query_id for query_id in part if same_words(texts[query_id]) not in asked)
        for part in (split.train, split.validation)
    )
    return Split(train, validation, split.held_out)


def same_words(text: str) -> str:
    """Equal for questions that differ in case, spaces or the way their characters are encoded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def fit(
    stage: Trainable, pool: Pool, split: Split, options: Mapping[str, Json], progress: Progress = no_progress
) -> Fitted:
    """Let `stage` learn from the training queries of `split`; it serves with the model from then on.

    Raises:
        ConfigError: too few queries have a relevant candidate, or an option does not go with what there is to learn.
    """
    train, validation = pool.useful(split.train), pool.useful(split.validation)
    for what, examples, asked in (("learn from", train, split.train), ("stop by", validation, split.validation)):
        if not examples:
            found = f"none of the {len(asked)} queries to {what} has a relevant candidate"
            raise ConfigError("corpus", f"{found}; expected more judged queries, or stages that find more")
    try:
        return stage.fit(train, validation, options, progress)
    except ConfigError as error:
        raise ConfigError(f"task.learner.{error.path}", error.detail) from error


def ordered(
    stage: Trainable, pool: Pool, query_ids: Iterable[str], depth: int, parents: Parents | None = None
) -> Rankings:
    """Query id -> the candidates in the order of the model that `stage` serves with, best first."""
    is_fusion = callable(getattr(stage, "fuse", None))
    rankings: Rankings = {}
    for query_id in query_ids:
        example = pool.examples.get(query_id)
        if example is not None:
            scores = np.asarray(stage.predict(example.features), dtype=np.float64)
            rankings[query_id] = as_judged(_order(example.doc_ids, scores, is_fusion), depth, parents)
    return rankings


def _order(
    doc_ids: tuple[str, ...], scores: np.ndarray[tuple[int], np.dtype[np.float64]], is_fusion: bool
) -> tuple[str, ...]:
    """As the runner would order them: ties of a fusion by id, of a rerank by incoming rank."""
    if is_fusion:
        return ranking.ranked_from_pairs("learned", list(zip(doc_ids, scores.tolist(), strict=True)), "ltr").doc_ids
    return tuple(doc_ids[place] for place in np.argsort(-scores, kind="stable"))
