"""The recalls of one question, side by side: one that is late is left behind once another has found something."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.deadline import Clock, TimeIsUpError, Waited, call_for
from orchestrator.errors import OutOfTimeError, TransientError, naming
from orchestrator.graph import Node
from orchestrator.limited import Outcome, failure_kind
from orchestrator.limits import Limits
from orchestrator.steps import Answer, Asked, QueryVectors, Steps
from orchestrator.trace import Degraded, Shortfall
from orchestrator.types import RankedList


class Recalls:
    """Asks the recalls of one graph.

    Args:
        steps: how stages are asked.
        limits: how much time they may take.
    """

    def __init__(self, steps: Steps, limits: Limits) -> None:
        self._steps, self._limits = steps, limits

    def ask(self, nodes: Sequence[Node], vectors: QueryVectors, query_id: str, clock: Clock) -> dict[str, Outcome]:
        """Stage name -> outcome.

        Where nothing limits them they run one after another, each with the whole machine. Otherwise side by side; those
        that have not ended when their time is over are left behind, as long as one found something. Without any
        document there is no answer: where none did, those that were late are asked again, and waited for.

        Raises:
            StageError: all of them failed, or one with which the question is to fail, or that broke its contract.
        """
        allowed = {node.name: self._limits.allowed_s(node, clock, node.top_k) for node in nodes}
        if len(nodes) == 1:
            allowed = dict.fromkeys(allowed)
        outcomes = self._run(nodes, vectors, query_id, clock, allowed)
        late = [node for node in nodes if any(lack.reason == "late" for lack in outcomes[node.name].degraded)]
        if late and not any(len(outcome.answer.ranked) for outcome in outcomes.values()):
            outcomes |= self._run(late, vectors, query_id, clock, dict.fromkeys(allowed))
        _raise_failure(nodes, outcomes, query_id)
        self._learn(nodes, outcomes)
        return outcomes

    def _run(
        self,
        nodes: Sequence[Node],
        vectors: QueryVectors,
        query_id: str,
        clock: Clock,
        allowed: Mapping[str, float | None],
    ) -> dict[str, Outcome]:
        ended = threading.Event()
        running: list[_Recall] = []
        for node in nodes:
            running.append(_Recall(self._steps, node, vectors, clock, allowed[node.name], ended))
            if all(seconds is None for seconds in allowed.values()):
                _wait_for(running, ended)
        _wait_for(running, ended)
        outcomes = {}
        for recall in running:
            with naming(recall.node.name, query_id):
                outcomes[recall.node.name] = recall.outcome()
        return outcomes

    def _learn(self, nodes: Sequence[Node], outcomes: Mapping[str, Outcome]) -> None:
        for node in nodes:
            pace, outcome = self._limits.pace(node), outcomes[node.name]
            if not outcome.degraded:
                pace.observe(node.top_k, outcome.seconds)
                pace.observe_stage(node.top_k, node.top_k, 0.0)
            elif outcome.degraded[0].reason == "late":
                pace.observe_at_least(node.top_k, outcome.seconds)


class _Recall:
    """One recall that runs."""

    def __init__(
        self,
        steps: Steps,
        node: Node,
        vectors: QueryVectors,
        clock: Clock,
        allowed_s: float | None,
        ended: threading.Event,
    ) -> None:
        self.node, self.call = node, call_for(allowed_s, is_remote=node.is_remote)
        self._allowed_s, self._clock, self._started_s = allowed_s, clock, clock.elapsed_s

        def work() -> Answer:
            (as_needed,) = vectors.of(node, self.call)
            return steps.ask(node, [Asked(as_needed, {})], self.call)[0]

        self.waited = Waited(self.call, work, ended)

    @property
    def left_s(self) -> float | None:
        """Seconds until it is late; None is never."""
        return None if self._allowed_s is None else self._started_s + self._allowed_s - self._clock.elapsed_s

    @property
    def found(self) -> bool:
        """Whether it has brought any document."""
        return self.waited.is_done and self.waited.error is None and len(self.waited.result().ranked) > 0

    def outcome(self) -> Outcome:
        """What came of it; where it has not ended, it is left behind."""
        if not self.waited.is_done:
            self.waited.leave()
        outcome = Outcome(nothing_found(self.node), self.call, (), self._allowed_s, self._started_s)
        try:
            outcome.answer = self.waited.result()
        except (TimeIsUpError, OutOfTimeError):
            outcome.degraded = (self._short("late", f"left behind after {(self._allowed_s or 0) * 1000:.0f} ms"),)
        except TransientError as error:
            outcome.error = error
            outcome.degraded = (self._short(failure_kind(error), str(error)),)
        outcome.seconds = self.waited.seconds or self._clock.elapsed_s - self._started_s
        return outcome

    def _short(self, reason: Shortfall, detail: str) -> Degraded:
        return Degraded(self.node.name, reason, detail, 0, self.node.top_k)


def nothing_found(node: Node) -> Answer:
    """The answer of a recall that brought nothing."""
    none = np.empty(0)
    return Answer(RankedList((), none, node.stage.score_kind, {node.name: none}))


def _wait_for(running: Sequence[_Recall], ended: threading.Event) -> None:
    """Wait until all have ended; once one has found something, for the others only until they are late."""
    try:
        while pending := [recall for recall in running if not recall.waited.is_done]:
            left = [recall.left_s for recall in pending]
            seconds = None
            if any(recall.found for recall in running) and None not in left:
                seconds = max(value for value in left if value is not None)
                if seconds <= 0:
                    return
            ended.wait(seconds)
            ended.clear()
    except BaseException:  # Ctrl-C
        for recall in running:
            recall.call.cancel()
        raise


def _raise_failure(nodes: Sequence[Node], outcomes: Mapping[str, Outcome], query_id: str) -> None:
    """Raise what a recall failed with, where the question is to fail with it, or no recall is left."""
    failed = [node for node in nodes if outcomes[node.name].error is not None]
    for node in failed:
        error = outcomes[node.name].error
        carries_on = node.on_error.carries_on(is_remote=node.is_remote)
        if error is not None and (not carries_on or len(failed) == len(nodes)):
            with naming(node.name, query_id):
                raise error
