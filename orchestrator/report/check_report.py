"""What `orchestrate check` shows of a graph: a table, or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from orchestrator.costs.cost import NOTHING, Predicted
from orchestrator.lint.budget import around, predictions, together
from orchestrator.stack.routes import given_by

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.lint import Facts, Finding
    from orchestrator.stack.graph import Node, StageGraph

_COUNTED = (("missing", "missing"), ("warning", "warning(s)"), ("remark", "remark(s)"))


def graph_table(graph: StageGraph, facts: Facts) -> RenderableType:
    """The stages of a graph: what each is and runs, what it reads, how many it passes on, what it should cost."""
    from rich import box
    from rich.table import Table

    costs = predictions(graph, facts)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("stage", "kind", "class", "model", "reads"):
        table.add_column(column, overflow="fold")
    for column in ("top_k", "ms"):
        table.add_column(column, justify="right", no_wrap=True)
    for node in graph.nodes:
        reads = ", ".join(given_by(node, graph)) or "corpus"
        cost = f"{costs[node.name].p50_ms:,.1f}" if node.name in costs else "–"
        table.add_row(node.name, node.kind, _what(node), _model(node.stage) or "–", reads, str(node.top_k), cost)
    if costs:
        table.add_section()
        if (beside := around(graph, facts)) != NOTHING:
            table.add_row("beside them", "", "", "", "", "", f"{beside.p50_ms:,.1f}")
        table.add_row("predicted", "", "", "", "", "", f"{together(costs, graph, facts).p50_ms:,.1f}")
    return table


def figures_line(facts: Facts) -> str:
    """What the predicted milliseconds are."""
    return f"ms: what half of the questions take at most, by {facts.figures}"


def summary(findings: Sequence[Finding]) -> str:
    """How many findings of which severity, in one line."""
    counts = [(sum(finding.severity == severity for finding in findings), word) for severity, word in _COUNTED]
    return ", ".join(f"{count} {word}" for count, word in counts if count) or "no findings"


def check_json(graph: StageGraph, facts: Facts, findings: Sequence[Finding]) -> dict[str, object]:
    """The stages as they are declared, what they should cost, and the findings."""
    costs = predictions(graph, facts)
    return {
        "stages": [_stage_json(node, costs) for node in graph.nodes],
        "language": facts.language,
        "budget_ms": facts.budget_ms,
        "predicted_ms": _ms(together(costs, graph, facts)) if costs else None,
        "figures": facts.figures,
        "findings": [asdict(finding) for finding in findings],
    }


def _stage_json(node: Node, costs: Mapping[str, Predicted]) -> dict[str, object]:
    passages = asdict(node.passages) if node.passages.cuts else None
    on_error = node.on_error
    return {
        "stage": node.name,
        "kind": node.kind,
        "class": type(node.stage).__name__,
        "model": _model(node.stage),
        "backend": getattr(node.stage, "backend", None),
        "score_kind": node.stage.score_kind,
        "inputs": list(node.inputs),
        "top_k": node.top_k,
        "passages": passages,
        "when": node.when.conditions,
        "cut": node.cut.settings or None,
        "on_error": on_error.how,
        "fallbacks": [type(stand_in).__name__ for stand_in in on_error.fallbacks],
        "max_ms": node.max_ms,
        "cache": node.cache,
        "predicted_ms": _ms(costs[node.name]) if node.name in costs else None,
    }


def _ms(predicted: Predicted) -> dict[str, float]:
    return {"p50": round(predicted.p50_ms, 1), "p95": round(predicted.p95_ms, 1)}


def _what(node: Node) -> str:
    """The class with its backend, and what the graph declares beside it that is not the default."""
    backend = getattr(node.stage, "backend", None)
    policies: list[str] = [node.passages.how] if node.passages.cuts else []
    gate = [_condition(key, value) for key, value in node.when.conditions.items() if not key.startswith("margin")]
    policies += [f"when {', '.join(gate)}"] if gate else []
    policies += [f"cut {node.cut.how}"] if node.cut.settings else []
    return "; ".join([type(node.stage).__name__, *([backend] if backend else []), *policies])


def _condition(key: str, value: object) -> str:
    """A condition by its key; languages also by their codes, which say whose route a stage is."""
    return f"{key} {', '.join(value)}" if isinstance(value, list) else key


def _model(stage: object) -> str | None:
    """The model that a stage runs, or the one of its embedder or encoder."""
    for owner in (stage, getattr(stage, "embedder", None), getattr(stage, "encoder", None)):
        label = getattr(getattr(owner, "model", None), "label", None)
        if label is not None:
            return str(label)
    return None
