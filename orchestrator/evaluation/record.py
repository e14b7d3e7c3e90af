"""From a finished evaluation to the record that is kept of it for `plan`."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.evaluation.latency import Latency
from orchestrator.evaluation.quality import Quality
from orchestrator.kept.kept_evaluations import MEASURE, EvaluationRecord, StageRecord, rounded
from orchestrator.models.card import Model
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stack.stage_marks import stage_marks


def is_of_whole_stack(quality: Quality) -> bool:
    """Whether no stage fell short: figures of a stack that did without one are another stack's."""
    return quality.work.whole == 1


def record_of(
    config: Mapping[str, Any],
    graph: StageGraph,
    quality: Quality,
    latency: Latency | None,
    corpus: Mapping[str, str],
    *,
    learned: Mapping[str, frozenset[str]],
    overrides: Sequence[str],
    when: str,
) -> EvaluationRecord:
    """What is kept of an evaluation.

    Args:
        config: the composed configuration as plain values.
        graph: the stages.
        quality: of each of them.
        latency: of the whole, or None.
        corpus: its `content_hash`, `split`, and `topics`, the hash of questions and judgements.
        learned: stage -> queries that it learned from, whose values flatter it.
        overrides: words that made the pipeline.
        when: ISO 8601.
    """
    nodes = graph.nodes
    classes = {node.name: type(node.stage).__name__ for node in nodes}
    marks = stage_marks(config, {node.name: node.inputs for node in nodes}, classes=classes)
    names = next(iter(quality.systems.values())).means
    measure = MEASURE if MEASURE in names else next(iter(names))
    flattered = {node.name: _flattered(node.name, graph, learned) for node in nodes}
    stages = [_stage(node, marks[node.name], quality, measure, flattered[node.name]) for node in nodes]
    total = {} if latency is None else _times(latency.total)
    times = {} if latency is None else {name: _times(each) for name, each in latency.stages.items()}
    facts = corpus["content_hash"], corpus["split"], when, measure
    return EvaluationRecord(*facts, tuple(overrides), tuple(stages), total, times, platform.node(), corpus["topics"])


def _times(percentiles: Mapping[str, float]) -> dict[str, float]:
    return {key: round(percentiles[key], 3) for key in ("p50", "p95")}


def _flattered(name: str, graph: StageGraph, learned: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Queries that the stage, or one before it, learned from."""
    none: frozenset[str] = frozenset()
    return none.union(*(learned.get(node.name, none) for node in graph.upto(name).nodes))


def _stage(node: Node, mark: str, quality: Quality, measure: str, without: frozenset[str]) -> StageRecord:
    per_query = quality.systems[node.name].per_query
    values = rounded({query_id: by_measure[measure] for query_id, by_measure in per_query.items()}, without)
    kind = getattr(node.stage, "cost_kind", None)
    return StageRecord(node.name, node.kind, kind, node.top_k, node.inputs, mark, _model_of(node.stage), values)


def _model_of(stage: object) -> str:
    """What the model of a stage is called; empty where none is known."""
    for holder in (stage, getattr(stage, "embedder", None), getattr(stage, "encoder", None)):
        card = getattr(holder, "model", None)
        if isinstance(card, Model):
            return card.label
    return ""
