"""Which queries a model learns from, which say when to stop, which judge it; the same words never on two sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.errors import ConfigError, DataError
from orchestrator.evaluation.measures import Qrels
from orchestrator.learning import training
from orchestrator.learning.training_queries import TrainingQueries, training_queries
from orchestrator.types import Query


@dataclass(frozen=True, slots=True)
class Plan:
    """Who does what.

    Attributes:
        train: judged queries to learn from; none where triples serve for that.
        validation: they say when to stop.
        held_out: the verdict is given on these.
        qrels: the judgements of all of them.
        by_parent: the judgements name the documents that the corpus's chunks are part of.
        told: in words, which queries these are.
    """

    train: tuple[Query, ...] = ()
    validation: tuple[Query, ...] = ()
    held_out: tuple[Query, ...] = ()
    qrels: Qrels | None = None
    by_parent: bool = False
    told: str = "no judged queries"

    @property
    def queries(self) -> tuple[Query, ...]:
        """All of them."""
        return (*self.train, *self.validation, *self.held_out)


def plan_queries(
    corpus: DiskCorpus,
    *,
    held_out: float | str,
    validation: float,
    max_queries: int | None,
    max_held_out: int | None,
    seed: int,
    triples: bool,
) -> Plan:
    """The queries of one training, drawn by `seed`.

    Args:
        corpus: opened.
        held_out: a share, or the name of a split.
        validation: share of the rest that decides when to stop.
        max_queries: at most so many to learn and to stop by.
        max_held_out: at most so many for the verdict.
        seed: of the drawing.
        triples: what is learned from comes from a file: no judged query is learned from, and a corpus without
            judgements will do.

    Raises:
        ConfigError: there is no such split, or nothing is judged.
    """
    try:
        topics = training_queries(corpus, held_out, max_queries, seed)
    except (ConfigError, DataError):
        unjudged = corpus.spec.split == "auto" and not corpus.splits and corpus.spec.qrels is None
        if triples and not isinstance(held_out, str) and unjudged:
            return Plan()
        raise
    split = _split_of_triples(topics, validation, seed) if triples else _split(topics, held_out, validation, seed)
    split = replace(split, held_out=_draw(split.held_out, max_held_out, seed))
    texts = {query.query_id: query.text for query in topics.queries}
    split = training.apart(split, texts)
    watched = {training.same_words(texts[query_id]) for query_id in split.validation}
    train = [query_id for query_id in split.train if training.same_words(texts[query_id]) not in watched]
    by_id = {query.query_id: query for query in topics.queries}
    parts = [tuple(by_id[query_id] for query_id in part) for part in (train, split.validation, split.held_out)]
    return Plan(parts[0], parts[1], parts[2], topics.qrels, topics.by_parent, topics.told)


def _split(topics: TrainingQueries, held_out: float | str, validation: float, seed: int) -> training.Split:
    share = 0.0 if isinstance(held_out, str) else held_out
    (split,) = training.split_queries(topics.learn, share, validation, seed)
    return replace(split, held_out=topics.test) if topics.test else split


def _split_of_triples(topics: TrainingQueries, validation: float, seed: int) -> training.Split:
    (split,) = training.split_queries(topics.learn, 0.0, validation, seed)
    return training.Split((), split.validation, topics.test or split.train)


def _draw(query_ids: Sequence[str], count: int | None, seed: int) -> tuple[str, ...]:
    if count is None or len(query_ids) <= count:
        return tuple(query_ids)
    places = np.random.default_rng(seed).choice(len(query_ids), size=count, replace=False)
    return tuple(query_ids[place] for place in np.sort(places))
