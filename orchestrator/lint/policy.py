"""What failures do: policies that stand against the budget, and fallbacks that would fail with their stage."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from orchestrator.lint.facts import Facts, fallbacks
from orchestrator.lint.finding import Finding
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stage import Rerank


def findings(graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """Remote stages whose failure ends the question, and fallbacks of no use."""
    n_recalls = sum(node.kind == "recall" for node in graph.nodes)
    for node in graph.nodes:
        alone = node.kind == "recall" and n_recalls == 1
        if node.on_error.how == "fail" and _is_remote(node.stage) and facts.budget_ms is not None and not alone:
            yield Finding(
                f"{node.path}.on_error",
                f"fail, on somebody else's machine: one that does not answer ends the question, though budget_ms "
                f"{facts.budget_ms:g} asks for the best answer in time. Expected skip (its default), or a fallback",
            )
        for path, stand_in in fallbacks(node):
            yield from _of_no_use(node, path, stand_in)


def _of_no_use(node: Node, path: str, fallback: Rerank) -> Iterator[Finding]:
    service = _service(fallback)
    if _same_model(node.stage, fallback):
        found = "is the same class with the same model as the stage: what fails there fails here"
    elif _is_remote(fallback) and service is not None and service == _service(node.stage):
        found = f"asks {service}, as the stage does: where one gets no answer, the other may get none either"
    else:
        return
    advice = "Expected a stage that needs neither, for example bi_encoder"
    yield Finding(path, f"{found}. {advice}")


def _is_remote(stage: object) -> bool:
    return bool(getattr(stage, "is_remote", False))


def _same_model(stage: object, other: object) -> bool:
    return type(stage) is type(other) and _runs(stage) == _runs(other)


def _runs(stage: object) -> tuple[object, ...]:
    """The model, and where it runs."""
    label = getattr(getattr(stage, "model", None), "label", None)
    return label, _service(stage), getattr(stage, "backend", None), getattr(stage, "device", None)


def _service(stage: object) -> str | None:
    """Where a remote stage asks: host and port; of one with no address of its own, that it is its class's default."""
    if not hasattr(stage, "base_url"):
        return None
    return urlsplit(str(stage.base_url or "")).netloc or "the service's own address"
