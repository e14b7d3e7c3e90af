"""Scores that are to be kept on disk and should not."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.lint.facts import Facts
from orchestrator.lint.finding import Finding
from orchestrator.stack.graph import StageGraph


def findings(graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """`cache: on` where the class does not promise what a kept score needs."""
    for node in graph.nodes:
        if node.cache == "on" and not getattr(node.stage, "cacheable_scores", False):
            name = type(node.stage).__name__
            found = f"on, but {name} does not say that its scores depend on nothing but the model and the two texts"
            advice = "Expected auto or off, or a class that says so"
            yield Finding(f"{node.path}.cache", f"{found} (`cacheable_scores`). {advice}")
