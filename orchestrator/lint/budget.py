"""Time: what stages are predicted to take beside what they may take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.costs.cost import Predicted
from orchestrator.lint.facts import Facts, n_read
from orchestrator.lint.finding import Finding
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stack.routes import given_by, of_one_question, routes_of

_SHOWN = 3


def predictions(graph: StageGraph, facts: Facts) -> dict[str, Predicted]:
    """Stage -> what it takes for one question; stages of which nothing is known are left out."""
    found = {node.name: facts.predicted_ms(node, n_read(node, graph, facts)) for node in graph.nodes}
    return {name: predicted for name, predicted in found.items() if predicted is not None}


def together(costs: Mapping[str, Predicted], graph: StageGraph, facts: Facts) -> Predicted:
    """What one question takes, its stages and beside them; of routes the dearest, since each question takes one."""
    return sum(_taken(costs, graph).values(), around(graph, facts))


def around(graph: StageGraph, facts: Facts) -> Predicted:
    """What a question takes beside its stages, as far as that was measured."""
    most = max(node.top_k if node.kind == "recall" else n_read(node, graph, facts) for node in graph.nodes)
    return facts.around_ms(most, len(graph.nodes))


def _taken(costs: Mapping[str, Predicted], graph: StageGraph) -> dict[str, Predicted]:
    rows = of_one_question(costs, routes_of(graph))
    dearest = (max(row, key=lambda name: costs[name].p50_ms) for row in rows)
    return {name: costs[name] for name in dearest}


def findings(graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """Limits that are never reached, and stages that alone or together take longer than they may."""
    for node in graph.nodes:
        if node.max_ms is not None and facts.budget_ms is not None and node.max_ms > facts.budget_ms:
            found = f"{node.max_ms:g} is more than budget_ms {facts.budget_ms:g}, which ends the stage before"
            yield Finding(f"{node.path}.max_ms", f"{found}. Expected at most {facts.budget_ms:g}, or null")
    costs = predictions(graph, facts)
    alone = [finding for node in graph.nodes if node.name in costs for finding in _alone(node, graph, facts, costs)]
    yield from alone
    if facts.budget_ms is not None and not alone:
        yield from _together(graph, facts, costs)


def _alone(node: Node, graph: StageGraph, facts: Facts, costs: Mapping[str, Predicted]) -> Iterator[Finding]:
    limits = {"max_ms": node.max_ms, "budget_ms": facts.budget_ms}
    set_limits = {name: limit for name, limit in limits.items() if limit is not None}
    if not set_limits:
        return
    name, limit = min(set_limits.items(), key=lambda item: item[1])
    p50 = costs[node.name].p50_ms
    if p50 > limit:
        read = n_read(node, graph, facts)
        done = f": of {read} documents some {int(read * limit / p50)} would be scored" if node.kind == "rerank" else ""
        runs = "where it runs, " if node.when.conditions else ""
        yield Finding(
            node.path,
            f"{runs}is predicted to take {_ms(p50)} for half of the questions, more than {name} {limit:g} allows{done}"
            f". {_advice(node, graph, name)} By {facts.figures}",
        )


def _together(graph: StageGraph, facts: Facts, costs: Mapping[str, Predicted]) -> Iterator[Finding]:
    budget = facts.budget_ms
    assert budget is not None
    costs, total = _taken(costs, graph), together(costs, graph, facts)
    if total.p95_ms <= budget:
        return
    dearest = sorted(costs, key=lambda name: -costs[name].p50_ms)[:_SHOWN]
    parts = ", ".join(f"{name} {_ms(costs[name].p50_ms)}" for name in dearest)
    half, advice = total.p50_ms > budget, _advice(graph[dearest[0]], graph, "budget_ms")
    which, over = ("half", total.p50_ms) if half else ("one in twenty", total.p95_ms)
    yield Finding(
        "budget_ms",
        f"{budget:g} is less than the stages are predicted to take together for {which} of the questions: {_ms(over)} "
        f"(for half of them: {parts}). What does not fit is left out and declared. {advice} By {facts.figures}",
        "warning" if half else "remark",
    )


def _advice(node: Node, graph: StageGraph, limit: str) -> str:
    lower = f"Lower top_k of '{given_by(node, graph)[0]}'" if node.inputs else "Choose a smaller model"
    return f"{lower}, raise {limit}, or let `orchestrate plan` choose."


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"
