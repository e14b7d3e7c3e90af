"""How much of a question's time each stage may take."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.deadline import Clock, allowance_s
from orchestrator.graph import Node, StageGraph
from orchestrator.pace import Pace

_UNKNOWN = 0.1
"""Share of what is left that is kept for a stand-in that has never been timed."""


class Limits:
    """Allowances of the stages of one graph.

    Args:
        graph: the stages.
        paces: stage name -> what it takes on this machine; fallbacks under their own names.
        reading: what reading the documents of the answer takes.
        are_kept: whether anything is limited at all.
    """

    def __init__(self, graph: StageGraph, paces: Mapping[str, Pace], reading: Pace, *, are_kept: bool = True) -> None:
        self._graph, self._paces, self.reading, self._are_kept = graph, paces, reading, are_kept

    def lifted(self) -> Limits:
        """The same paces, and no limit."""
        return Limits(self._graph, self._paces, self.reading, are_kept=False)

    def pace(self, node: Node) -> Pace:
        """What the stage takes."""
        return self._paces[node.name]

    def allowed_s(self, node: Node, clock: Clock, n_in: int) -> float | None:
        """Seconds that a stage may take from now on; None where nothing limits it.

        Args:
            node: the stage.
            clock: of the question.
            n_in: documents that it was given; of a recall, its `top_k`.
        """
        if not self._are_kept:
            return None
        most = None if node.max_ms is None else node.max_ms / 1000
        left = clock.left_s
        if left is None:
            return most
        fixed, flexible = self._later_s(node, n_in)
        fixed += self._stand_ins_s(node, n_in, left)
        own = self.pace(node).stage_seconds(n_in)
        allowed = allowance_s(left, own, fixed, flexible, can_be_cut=node.can_be_cut)
        return allowed if most is None else min(allowed, most)

    def _stand_ins_s(self, node: Node, n_in: int, left: float) -> float:
        """What is kept for those that stand in for `node` where it fails, or takes all of its own time."""
        paces = [self.pace(other) for other in node.fallbacks]
        return sum(pace.stage_seconds(n_in, careful=True) if pace.is_known else left * _UNKNOWN for pace in paces)

    def _later_s(self, node: Node, n_in: int) -> tuple[float, float]:
        """What is still to come after `node`: seconds of what cannot be cut, and of what can."""
        fixed, flexible = self.reading.stage_seconds(self._graph.result.top_k, careful=True), 0.0
        reach = min(node.top_k, n_in)
        for later in self._after(node):
            if later.can_be_cut:
                flexible += self.pace(later).stage_seconds(reach)
            else:
                fixed += self.pace(later).stage_seconds(reach, careful=True)
            reach = min(reach, later.top_k)
        return fixed, flexible

    def _after(self, node: Node) -> list[Node]:
        """The stages that run after `node`. Recalls begin together: none of them is after another."""
        name = node.stands_for or node.name
        place = next(place for place, other in enumerate(self._graph.nodes) if other.name == name)
        return [later for later in self._graph.nodes[place + 1 :] if later.kind != "recall"]
