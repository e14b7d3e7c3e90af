"""Which judged queries a training learns from, and which it is judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.corpora.judgements import Topics, UnknownQrels
from orchestrator.errors import ConfigError
from orchestrator.evaluation.measures import Qrels
from orchestrator.types import Query


@dataclass(frozen=True, slots=True)
class TrainingQueries:
    """The judged queries of one training.

    Attributes:
        queries: all of them, in file order, those to learn from first.
        qrels: their judgements.
        learn: ids to learn from.
        test: ids of the queries of another split that serve for the verdict; empty where a share is held out.
        told: in words, which queries these are.
        by_parent: the judgements name the documents that the corpus's chunks are part of.
    """

    queries: tuple[Query, ...]
    qrels: Qrels
    learn: tuple[str, ...]
    test: tuple[str, ...]
    told: str
    by_parent: bool = False


def training_queries(corpus: DiskCorpus, held_out: float | str, max_queries: int | None, seed: int) -> TrainingQueries:
    """The queries to learn from, and those of another split for the verdict.

    Args:
        corpus: opened.
        held_out: a share, or the name of a split.
        max_queries: at most so many to learn from.
        seed: of the drawing.

    Raises:
        ConfigError: there is no such split, or nothing is judged.
    """
    split = "train" if corpus.spec.split == "auto" and "train" in corpus.splits else corpus.spec.split
    own = corpus.topics if split == corpus.spec.split else corpus.judged(split)
    if not own.qrels:
        found = f"corpus '{corpus.name}' has no judgements"
        raise ConfigError("corpus.split", f"{found}; expected qrels/train.tsv or another split in its folder")
    queries = list(own.queries[: corpus.spec.max_queries])
    other = corpus.judged(held_out) if isinstance(held_out, str) else Topics((), {}, UnknownQrels(0, 0), 0)
    test_ids = {query.query_id for query in other.queries}
    test_texts = {query.text for query in other.queries}
    own_only = [query for query in queries if query.query_id not in test_ids and query.text not in test_texts]
    n_shared = len(queries) - len(own_only)
    drawn = _draw(own_only, max_queries, seed)
    told = f"{len(drawn)} of {len(own.queries)} judged queries of {_named(split)}"
    told += f", {len(test_ids)} of split '{held_out}' for the verdict" if test_ids else ""
    told += f" ({n_shared} stand in both and were left out of the learning)" if n_shared else ""
    return TrainingQueries(
        (*drawn, *other.queries),
        {**own.qrels, **other.qrels},
        tuple(query.query_id for query in drawn),
        tuple(query.query_id for query in other.queries),
        told,
        own.by_parent or other.by_parent,
    )


def _named(split: str) -> str:
    return "the corpus's only or first split" if split == "auto" else f"split '{split}'"


def _draw(queries: Sequence[Query], max_queries: int | None, seed: int) -> Sequence[Query]:
    if max_queries is None or len(queries) <= max_queries:
        return queries
    places = np.random.default_rng(seed).choice(len(queries), size=max_queries, replace=False)
    return [queries[place] for place in np.sort(places)]
