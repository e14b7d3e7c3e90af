"""How much of a question's time each stage may take."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Iterator, Mapping

from orchestrator.running.deadline import GRACE_S, Clock, TimeIsUpError, allowance_s
from orchestrator.running.pace import Pace
from orchestrator.stack.graph import Node, StageGraph

_UNKNOWN = 0.1
"""Share of what is left that is kept for a stage that cannot be cut and has never been timed."""
_MOST_LEFT_BEHIND = 2
"""Calls of one stage that were left behind and still run: with so many it is not asked again until one has ended."""


class Limits:
    """Allowances of the stages of one graph.

    Args:
        graph: the stages.
        paces: stage name -> what it takes on this machine; stand-ins under their own names.
        reading: what reading the documents of the answer takes.
        are_kept: whether anything is limited at all.
    """

    def __init__(self, graph: StageGraph, paces: Mapping[str, Pace], reading: Pace, *, are_kept: bool = True) -> None:
        self._graph, self._paces, self.reading, self._are_kept = graph, paces, reading, are_kept
        self._left: dict[str, list[Callable[[], bool]]] = {}
        self._lock = threading.Lock()
        self._absent: Collection[str] = ()
        self._aside: Collection[str] = ()

    def lifted(self) -> Limits:
        """The same paces, and no limit."""
        return Limits(self._graph, self._paces, self.reading, are_kept=False)

    def without(self, absent: Collection[str], aside: Collection[str] = ()) -> Limits:
        """The same for one question, for which some stages do not run: nothing is kept for them.

        Args:
            absent: their names.
            aside: of those, the routes that it does not take: they pass on all that they are given.
        """
        if not absent:
            return self
        other = copy.copy(self)  # what is still running is the same to both
        other._absent, other._aside = absent, aside
        return other

    def pace(self, node: Node) -> Pace:
        """What the stage takes."""
        return self._paces[node.name]

    def note_left(self, node: Node, error: TimeIsUpError) -> None:
        """Remember a call of the stage that hears nothing and still runs."""
        if error.still_runs():
            with self._lock:
                self._left.setdefault(node.name, []).append(error.still_runs)

    def is_stuck(self, node: Node) -> bool:
        """Whether so many calls of the stage still run that nobody waits for, that another would only be one more."""
        if node.name not in self._left:
            return False
        with self._lock:
            self._left[node.name] = [still_runs for still_runs in self._left[node.name] if still_runs()]
            return len(self._left[node.name]) >= _MOST_LEFT_BEHIND

    def allowed_s(self, node: Node, clock: Clock, n_in: int, spent_s: float = 0.0) -> float | None:
        """Seconds that a stage may take from now on; None where nothing limits it.

        Args:
            node: the stage, or one that stands in for it.
            clock: of the question.
            n_in: documents that it was given; of a recall, its `top_k`.
            spent_s: what the stage that it stands in for took of its `max_ms`.
        """
        if not self._are_kept:
            return None
        most = None if node.max_ms is None else max(0.0, node.max_ms / 1000 - spent_s)
        left = clock.left_s
        if left is None:
            return most
        fixed, flexible = self._later_s(node, n_in, left)
        own = self.pace(node).stage_seconds(n_in)
        allowed = allowance_s(left, own, fixed, flexible, can_be_cut=node.can_be_cut)
        return allowed if most is None else min(allowed, most)

    def _later_s(self, node: Node, n_in: int, left: float) -> tuple[float, float]:
        """What is still to come after `node`: seconds of what cannot be cut, and of what can.

        The moment that it is given to stop, where it has to, is part of the first. Nothing is kept for what does not
        fit anyway: it would be missing where it could be used.
        """
        careful = node.kind != "recall"  # whatever comes later needs what it finds: it is not left behind for a doubt
        fixed, flexible = GRACE_S + self.reading.stage_seconds(self._graph.result.top_k, careful=careful), 0.0
        for stand_in in self._stand_ins_after(node):
            fixed += self._kept_s(stand_in, n_in, left, careful=careful)
        reach = {name: 0 for name in self._absent if self._graph[name].kind == "recall"}
        reach[node.stands_for or node.name] = min(node.top_k, n_in)
        for later in self._after(node):
            given = sum(reach.get(name, self._graph[name].top_k) for name in later.inputs)
            reach[later.name] = given if later.name in self._aside else min(later.top_k, given)
            if later.name in self._absent:
                continue
            if later.can_be_cut:
                flexible += self.pace(later).stage_seconds(given)
            elif fixed + (needed := self._kept_s(later, given, left, careful=careful)) <= left:
                fixed += needed
        return fixed, flexible

    def _kept_s(self, later: Node, n_in: int, left: float, *, careful: bool) -> float:
        pace = self.pace(later)
        expected = pace.stage_seconds(n_in, careful=careful)
        return expected if pace.is_known else max(expected, left * _UNKNOWN)

    def _stand_ins_after(self, node: Node) -> Iterator[Node]:
        """Those that would still be tried where `node` fails, or takes all of its time."""
        stands_for = self._graph[node.stands_for or node.name]
        names = [other.name for other in stands_for.fallbacks]
        yield from stands_for.fallbacks[names.index(node.name) + 1 if node.stands_for else 0 :]

    def _after(self, node: Node) -> list[Node]:
        """The stages that run after `node`. Recalls begin together: none of them is after another."""
        name = node.stands_for or node.name
        place = next(place for place, other in enumerate(self._graph.nodes) if other.name == name)
        return [later for later in self._graph.nodes[place + 1 :] if later.kind != "recall"]
