"""What can be known to be wasteful, doubtful or absent about a pipeline before anything runs. No model is loaded.

One idea a file: `depths` (how many documents pass), `gates`, `languages` (of questions and models), `scores` (whose
scores are compared with what), `policy` (failures), `budget` (time), `models` (files, keys, libraries), `reading` (long
documents), `collection` (the documents themselves), `caches`. Each has one function of (graph, facts) that gives
findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orchestrator.lint import budget, caches, collection, depths, gates, languages, models, policy, reading, scores
from orchestrator.lint.facts import CorpusFacts, Facts
from orchestrator.lint.finding import Finding, Severity
from orchestrator.stack.graph import StageGraph

__all__ = ["CorpusFacts", "Facts", "Finding", "Severity", "lint"]

_CHECKS: tuple[Callable[[StageGraph, Facts], Iterator[Finding]], ...] = (
    collection.findings,
    models.findings,
    depths.findings,
    gates.findings,
    languages.findings,
    scores.findings,
    policy.findings,
    budget.findings,
    reading.findings,
    caches.findings,
)


def lint(graph: StageGraph, facts: Facts) -> list[Finding]:
    """Everything that looks wrong in a graph that holds together, in the order of the checks, then of the stages.

    Args:
        graph: the stages.
        facts: what is known beside them.
    """
    return [finding for check in _CHECKS for finding in check(graph, facts)]
