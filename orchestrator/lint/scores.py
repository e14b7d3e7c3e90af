"""Whose scores are compared with what: where only a warning is possible, since the graph already refuses the rest."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.errors import ConfigError
from orchestrator.lint.facts import Facts, fallbacks
from orchestrator.lint.finding import Finding
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.types import ScoreKind


def findings(graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """Thresholds whose kind is known only when a model is loaded, and fallbacks whose scores are of another kind."""
    for node in graph.nodes:
        yield from _kind_known_later(node)
        for path, stand_in in fallbacks(node):
            yield from _fallback_kind(node, graph, path, stand_in.score_kind)


def _kind_known_later(node: Node) -> Iterator[Finding]:
    kinds = getattr(node.stage, "score_kinds", ())
    if node.cut.how == "threshold" and len(kinds) > 1:
        yield Finding(
            f"{node.path}.cut.kind",
            f"{node.cut.kind}; whether the scores are {' or '.join(kinds)}, the model says when it is loaded. Where "
            f"they are not {node.cut.kind}, nothing is cut below top_k {node.top_k}",
            "remark",
        )


def _fallback_kind(node: Node, graph: StageGraph, path: str, kind: ScoreKind) -> Iterator[Finding]:
    if kind == node.stage.score_kind:
        return
    if node.cut.settings:
        yield Finding(
            path,
            f"scores {kind}, and `cut` judges {node.stage.score_kind}: where the fallback answers, nothing is cut "
            f"below top_k {node.top_k}. Expected a fallback of the same kind, or a top_k that is right for both",
        )
    for reader in graph.nodes:
        if node.name in reader.inputs:
            yield from _of_reader(reader, node, graph, path, kind)


def _of_reader(reader: Node, node: Node, graph: StageGraph, path: str, kind: ScoreKind) -> Iterator[Finding]:
    if reader.when.max_margin is not None and reader.when.margin == "absolute":
        yield Finding(
            path,
            f"scores {kind}, and '{reader.name}' has an absolute max_margin of {node.stage.score_kind}: where the "
            f"fallback answers, it means something else. Expected margin=relative, or a fallback of the same kind",
        )
    mixes = getattr(reader.stage, "check_score_kinds", None)
    if mixes is None:
        return
    kinds = {name: graph[name].stage.score_kind for name in reader.inputs} | {node.name: kind}
    try:
        mixes(kinds)
    except ConfigError as error:
        yield Finding(path, f"scores {kind}, with which '{reader.name}' would stop: {error.path}: {error.detail}")
