"""What each feature did to the scores of a learned stage: over queries held out, and to one document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from orchestrator.answers.trace import Result
from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.corpora.sources import CorpusDocuments
from orchestrator.learning.training import Collector, Pool
from orchestrator.running.runner import Runner
from orchestrator.stack.cuts import TOP_K
from orchestrator.stack.gates import ALWAYS
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stage import Explains, Json, Trainable
from orchestrator.types import Scores, Vectors

QUERIES = 100
"""So many of the queries held out are explained: exact SHAP values of all of them can take longer than the training."""
_CLEAR = 0.1
"""Most candidates are far from relevant, where a score hardly moves: a clear direction has a small correlation too."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What one feature did.

    Attributes:
        feature: its name.
        size: mean of |contribution| over the documents, in units of the score.
        direction: Pearson's correlation of value and contribution, -1 to 1; 0 where one of them never changes.
    """

    feature: str
    size: float
    direction: float

    @property
    def words(self) -> str:
        """Which way a greater value moves a document, in words; empty for a feature that does nothing."""
        if not self.size:
            return ""
        if abs(self.direction) < _CLEAR:
            return "either way"
        return "more lifts" if self.direction > 0 else "more lowers"


@dataclass(frozen=True, slots=True)
class Contributions:
    """The contributions to the scores of some documents.

    Attributes:
        names: of the features.
        features: float32 [n_documents, n_features], NaN where a value is not known.
        values: float64 [n_documents, n_features], what each added to the score.
        n_queries: how many queries the documents are candidates of.
    """

    names: tuple[str, ...]
    features: Vectors
    values: Scores
    n_queries: int

    def effects(self) -> list[Effect]:
        """One for each feature, the greatest first."""
        sizes = np.abs(self.values).mean(axis=0)
        found = [
            Effect(name, float(size), _direction(self.features[:, place], self.values[:, place]))
            for place, (name, size) in enumerate(zip(self.names, sizes, strict=True))
        ]
        return sorted(found, key=lambda effect: -effect.size)

    def as_json(self) -> dict[str, Json]:
        """The content of shap.json."""
        rows: list[Json] = [
            {"feature": effect.feature, "mean_abs_shap": effect.size, "direction": effect.direction}
            for effect in self.effects()
        ]
        return {"queries": self.n_queries, "documents": len(self.values), "features": rows}


def contributions_of(stage: Trainable, pool: Pool, query_ids: Sequence[str], most: int) -> Contributions | None:
    """The contributions by the model that `stage` serves with; None where it tells none, or there is no document.

    Args:
        stage: has learned.
        pool: the candidates.
        query_ids: whose candidates; those that the model did not learn from.
        most: so many of these queries, spread evenly.
    """
    found = [pool.examples[key] for key in query_ids if key in pool.examples and len(pool.examples[key].doc_ids)]
    if not isinstance(stage, Explains) or not found:
        return None
    places = np.unique(np.linspace(0, len(found) - 1, num=min(most, len(found))).astype(int))
    chosen = [found[place].features for place in places]
    values = [np.asarray(stage.contributions(features), dtype=np.float64)[:, :-1] for features in chosen]
    return Contributions(tuple(stage.feature_names()), np.concatenate(chosen), np.concatenate(values), len(chosen))


def joined(parts: Sequence[Contributions | None]) -> Contributions | None:
    """Those of several models over different queries as one; None where there are none."""
    held = [part for part in parts if part is not None]
    if not held:
        return None
    features, values = np.concatenate([p.features for p in held]), np.concatenate([p.values for p in held])
    return Contributions(held[0].names, features, values, sum(part.n_queries for part in held))


def _direction(features: Vectors, values: Scores) -> float:
    known = ~np.isnan(features)
    value, moved = features[known], values[known]
    if len(value) < 2 or np.ptp(value) == 0 or np.ptp(moved) == 0:
        return 0.0
    return float(np.corrcoef(value.astype(np.float64), moved)[0, 1])


@dataclass(frozen=True, slots=True)
class Told:
    """What each feature added to the score of one document for one query.

    Attributes:
        stage: the learned stage that scored it.
        start: where every score starts.
        features: feature -> (its value, what it added); the greatest first. All of them and the start sum to the score.
    """

    stage: str
    start: float
    features: Mapping[str, tuple[float, float]]

    @property
    def score(self) -> float:
        """The score that all this comes to."""
        return self.start + sum(added for _, added in self.features.values())

    def as_json(self) -> dict[str, Json]:
        """One entry of `contributions` in the JSON of `explain`; null for a value that is not known."""
        rows: list[Json] = [
            {"feature": name, "value": None if np.isnan(value) else value, "added": added}
            for name, (value, added) in self.features.items()
        ]
        return {"stage": self.stage, "score": self.score, "start": self.start, "features": rows}


def told_of(result: Result, corpus: DiskCorpus, doc_id: str) -> list[Told]:
    """What made the score of `doc_id` at every learned stage that scored it; the stages before are not asked again.

    Args:
        result: an answer of a pipeline over `corpus`, its stages still loaded.
        corpus: where the documents are.
        doc_id: of the document.
    """
    ran = {trace.stage for trace in result.trace.stages if trace.skipped is None}
    nodes = [node for node in result.graph.nodes if isinstance(node.stage, Trainable) and node.name in ran]
    told = [_told(node, result, corpus, doc_id) for node in nodes]
    return [one for one in told if one is not None]


def _told(node: Node, result: Result, corpus: DiskCorpus, doc_id: str) -> Told | None:
    stage = node.stage
    passed = {trace.stage: trace.n_out for trace in result.trace.stages}
    lists = {name: [result.outputs[name].head(passed[name])] for name in node.inputs}
    if not isinstance(stage, Explains) or not any(doc_id in ranked.doc_ids for (ranked,) in lists.values()):
        return None
    collector = Collector(cast(Trainable, stage), {})
    alone = replace(node, stage=collector, fallbacks=(), when=ALWAYS, cut=TOP_K)
    Runner(StageGraph((alone,)), CorpusDocuments(corpus)).run([result.query], lists, read_documents=False)
    example = collector.examples[result.query.query_id]
    row = example.doc_ids.index(doc_id)
    *added, start = np.asarray(stage.contributions(example.features), dtype=np.float64)[row].tolist()
    values = zip(example.features[row].tolist(), added, strict=True)
    pairs = sorted(zip(stage.feature_names(), values, strict=True), key=lambda pair: -abs(pair[1][1]))
    return Told(node.name, start, dict(pairs))
