"""How many documents pass from stage to stage: what grows, what cannot matter."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.lint.facts import Facts
from orchestrator.lint.finding import Finding
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stack.routes import given_by, reach


def findings(graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """Stages that pass on more than they get, cannot change the result, or only reorder it."""
    for node in graph.nodes:
        yield from _top_k_grows(node, graph)
        yield from _cannot_change_result(node, graph, facts)
        yield from _only_reorders(node, graph)
        yield from _cut_of_nothing(node)


def _top_k_grows(node: Node, graph: StageGraph) -> Iterator[Finding]:
    if node.kind == "recall":
        return
    most = reach(node, graph)
    if node.top_k > most:
        names = ", ".join(f"{name} ({graph[name].top_k})" for name in given_by(node, graph))
        yield Finding(
            f"{node.path}.top_k",
            f"{node.top_k} is more than its input can pass on: {names}. Expected at most {most}",
        )


def _cannot_change_result(node: Node, graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    if node.kind != "rerank":
        return
    if reach(node, graph) == 1:
        above = given_by(node, graph)[0]
        yield Finding(node.path, f"cannot change the result: '{above}' passes on one document only")
    readers = [other for other in graph.nodes if node.name in other.inputs]
    again = [other for other in readers if _always_scores_again(other, facts)]
    if again and len(again) == len(readers) and node.top_k >= reach(node, graph) and not node.cut.settings:
        yield Finding(
            node.path,
            f"cannot change the result: it drops nothing (top_k {node.top_k}), and "
            f"'{again[0].name}' scores the same documents again. Lower its top_k or drop it",
        )


def _always_scores_again(reader: Node, facts: Facts) -> bool:
    """Whether the order in which `reader` gets its documents never shows: it is never left out, and never cut off."""
    scores_all = reader.behaviour == "pointwise" and "scores" not in reader.needs
    may_be_cut_off = facts.budget_ms is not None or reader.max_ms is not None
    may_fail = reader.on_error.how == "skip" or getattr(reader.stage, "is_remote", False)
    return scores_all and not (may_be_cut_off or may_fail or reader.when.conditions)


def _only_reorders(node: Node, graph: StageGraph) -> Iterator[Finding]:
    """A rerank after the last cut: what hindsight and others call the most expensive way to change nothing."""
    most = reach(node, graph)
    if node.kind == "rerank" and node is graph.result and 1 < most <= node.top_k and not node.cut.settings:
        above = given_by(node, graph)[0]
        yield Finding(
            node.path,
            f"reorders {most} documents and drops none: '{above}' has decided which they are, so that "
            f"measures of the set (R@{node.top_k}) cannot see it. To let it choose, raise "
            f"{graph[above].path}.top_k or lower its own",
            "remark",
        )


def _cut_of_nothing(node: Node) -> Iterator[Finding]:
    if node.cut.settings and node.cut.min >= node.top_k:
        yield Finding(
            f"{node.path}.cut.min",
            f"{node.cut.min} is not below top_k {node.top_k}, so that nothing is ever cut; expected at most "
            f"{node.top_k - 1}, or no cut",
        )
