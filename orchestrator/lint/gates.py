"""Gates that hold always, or never; what they say of languages is in `languages`."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.lint.facts import Facts
from orchestrator.lint.finding import Finding
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stack.routes import given_by, reach


def findings(graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """Conditions that decide nothing, or leave the stage out for every question."""
    for node in graph.nodes:
        if not node.when.conditions:
            continue
        if node.kind == "rerank":
            yield from _of_candidates(node, reach(node, graph))
            yield from _of_margin(node, graph)
        yield from _of_time(node, facts)


def _at(node: Node, key: str, message: str) -> Finding:
    return Finding(f"{node.path}.when.{key}", message)


def _of_candidates(node: Node, most: int) -> Iterator[Finding]:
    gate = node.when
    if gate.min_candidates is not None and gate.min_candidates > most:
        found = f"{gate.min_candidates} is more than the {most} documents that its input can pass on"
        yield _at(node, "min_candidates", f"{found}: the stage never runs. Expected at most {most}")
    if gate.max_candidates is not None and gate.max_candidates >= most:
        found = f"{gate.max_candidates} is no less than the {most} documents that its input can pass on"
        yield _at(node, "max_candidates", f"{found}: it always holds. Expected at most {most - 1}, or null")


def _of_margin(node: Node, graph: StageGraph) -> Iterator[Finding]:
    gate, most, above = node.when, reach(node, graph), graph[given_by(node, graph)[0]]
    if gate.max_margin is None:
        return
    least = gate.margin_rank + (gate.margin == "relative")
    if most < least:
        found = f"is {gate.margin_rank}, and the input passes on {most}: with margin={gate.margin} it takes {least}"
        rest = f"documents, so that the stage always runs. Expected at most {gate.margin_rank - least + most}"
        yield _at(node, "margin_rank", f"{found} {rest}")
    if above.stage.score_kind == "rank":
        found = f"reads the margin of '{above.name}', which gives ranks: their distances are always the same"
        scoring = [other.name for other in graph.nodes if other.kind != "rerank" and other.stage.score_kind != "rank"]
        yield _at(node, "max_margin", f"{found}. Expected an input with scores: {', '.join(scoring) or 'a recall'}")


def _of_time(node: Node, facts: Facts) -> Iterator[Finding]:
    left, budget = node.when.min_left_ms, facts.budget_ms
    if left is None:
        return
    if budget is None:
        found = f"{left:g} asks for what is left of a budget, and budget_ms is null: it always holds"
    elif left >= budget:
        found = f"{left:g} is no less than budget_ms {budget:g}: the stage never runs. Expected less"
    else:
        return
    yield _at(node, "min_left_ms", found)
