"""Routes: reranks in a row of which one at most is meant for a question, as their gates exclude each other by language.

    fused ─► precise_en ─► precise_zh ─► precise_other ─► result
             language: en  language: zh  not_language: [en, zh]

A question has one route: the stage whose gate lets its language through. The others are for that question as if they
were not there: what they are given goes on whole, so that the one that runs reads what the first of them was given, and
what it passes on is the answer. A question that no route is meant for is cut to the last one's `top_k`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from orchestrator.stack.graph import Node, StageGraph

Routes: TypeAlias = Mapping[str, Sequence[Node]]
"""Name of a stage -> the routes that it is one of, in their order, itself among them."""


def routes_of(graph: StageGraph) -> Routes:
    """The routes of a graph; a rerank that is none, or the only one, is left out.

    A rerank is another route beside the stage that it reads where that passes on to nobody else, and both, and every
    route before, exclude each other by language.
    """
    rows: list[list[Node]] = []
    ends: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.kind != "rerank" or not node.when.asked:
            continue
        above = ends.pop(node.inputs[0], [])
        goes_on = all(node.when.excludes(other.when) for other in above) and _readers(graph, node.inputs[0]) == 1
        row = above if above and goes_on else []
        if not row:
            rows.append(row)
        row.append(node)
        ends[node.name] = row
    return {node.name: row for row in rows if len(row) > 1 for node in row}


def _readers(graph: StageGraph, name: str) -> int:
    return sum(name in node.inputs for node in graph.nodes)


def left_aside(routes: Routes, language: str) -> frozenset[str]:
    """The routes that are not meant for a question in `language`; the last one is, where no other is."""
    aside = set(routes)
    for name, row in routes.items():
        if name == row[0].name:
            meant = (node.name for node in row if node.when.lets_through(language))
            aside.discard(next(meant, row[-1].name))
    return frozenset(aside)


def given_by(node: Node, graph: StageGraph) -> tuple[str, ...]:
    """The stages whose documents `node` is given: its inputs, or, of a route, those of the first one."""
    return routes_of(graph).get(node.name, (node,))[0].inputs


def reach(node: Node, graph: StageGraph) -> int:
    """How many documents `node` can be given at most."""
    routes = routes_of(graph)
    return sum(passes_on(graph[name], routes) for name in given_by(node, graph))


def passes_on(node: Node, routes: Routes) -> int:
    """How many documents reach whoever reads `node`, or the row of routes that it is one of, at most."""
    return max(other.top_k for other in routes.get(node.name, (node,)))


def of_one_question(names: Iterable[str], routes: Routes) -> list[list[str]]:
    """`names` of stages, those of one row of routes together, since only one of them runs for a question."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(routes[name][0].name if name in routes else name, []).append(name)
    return list(found.values())
