"""Scores that are to be kept on disk and cannot be, or should not."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from orchestrator.graph import StageGraph
from orchestrator.lint.facts import Facts
from orchestrator.lint.finding import Finding

_ABSENT = object()


def findings(graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """`cache: on` where nothing names the model, or where its class does not promise what a kept score needs."""
    for node in graph.nodes:
        if node.cache != "on":
            continue
        path, name = f"{node.path}.cache", type(node.stage).__name__
        # A model_id may be a property that speaks only once the model is loaded.
        if inspect.getattr_static(node.stage, "model_id", _ABSENT) is _ABSENT:
            found = f"on, but {name} has no `model_id`: scores of another model could not be told from its own"
            yield Finding(path, f"{found}. Expected auto or off, or a class that has one")
        elif not getattr(node.stage, "cacheable_scores", False):
            found = f"on, but {name} does not say that its scores depend on nothing but the model and the two texts"
            yield Finding(path, f"{found} (`cacheable_scores`). Expected auto or off, or a class that says so")
