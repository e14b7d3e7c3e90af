"""What can be known to be wasteful or doubtful about a graph before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.graph import Node, StageGraph


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark of the lint: the YAML path, and what was found, expected, and could be done."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def lint(graph: StageGraph, language: str) -> list[Finding]:
    """Remarks on a graph that runs but may not do what its author wants.

    Args:
        graph: the stages.
        language: ISO 639-1 code of the corpus.
    """
    findings: list[Finding] = []
    for node in graph.nodes:
        findings += _top_k_grows(node, graph)
        findings += _cannot_change_result(node, graph)
        findings += _wrong_language(node, language)
        findings += _filter_leaks(node, graph)
    return findings


def _reach(node: Node, graph: StageGraph) -> int:
    """How many documents `node` can receive at most."""
    return sum(graph[name].top_k for name in node.inputs)


def _top_k_grows(node: Node, graph: StageGraph) -> Iterator[Finding]:
    if node.kind == "recall":
        return
    reach = _reach(node, graph)
    if node.top_k > reach:
        names = ", ".join(f"{name} ({graph[name].top_k})" for name in node.inputs)
        yield Finding(
            f"{node.path}.top_k",
            f"{node.top_k} is more than its input can pass on: {names}. Expected at most {reach}",
        )


def _cannot_change_result(node: Node, graph: StageGraph) -> Iterator[Finding]:
    if node.kind != "rerank":
        return
    if _reach(node, graph) == 1:
        yield Finding(node.path, f"cannot change the result: '{node.inputs[0]}' passes on one document only")
    readers = [other for other in graph.nodes if node.name in other.inputs]
    rescored = [other for other in readers if other.behaviour == "pointwise" and "scores" not in other.needs]
    if rescored and len(rescored) == len(readers) and node.top_k >= _reach(node, graph):
        yield Finding(
            node.path,
            f"cannot change the result: it drops nothing (top_k {node.top_k}), and "
            f"'{rescored[0].name}' scores the same documents again. Lower its top_k or drop it",
        )


def _filter_leaks(node: Node, graph: StageGraph) -> Iterator[Finding]:
    if node.kind != "fusion":
        return
    recalls = {name: graph[name] for name in graph.ancestors(node.name) if graph[name].kind == "recall"}
    filtered = [name for name, recall in recalls.items() if getattr(recall.stage, "filter", None)]
    for name in recalls.keys() - set(filtered) if filtered else ():
        yield Finding(
            graph[name].path,
            f"brings documents that the filter of '{filtered[0]}' leaves out: '{node.name}' merges both. A filter that "
            f"must hold for every result needs a pipeline in which each recall has it",
        )


def _wrong_language(node: Node, language: str) -> Iterator[Finding]:
    owner = getattr(node.stage, "embedder", node.stage)
    languages = tuple(getattr(owner, "languages", ()))
    if languages and "multilingual" not in languages and language.split("-")[0] not in languages:
        yield Finding(
            f"{node.path}.use",
            f"its model knows {', '.join(languages)}, the corpus is '{language}' (corpus.language). "
            f"Choose a model for that language or a multilingual one, for example "
            f"model@models.reranker=bge_reranker_v2_m3 or model@models.embedder=bge_m3",
        )
