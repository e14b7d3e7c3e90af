"""The recalls of one question, side by side: one that is late is left behind once another has found something."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.deadline import Clock, OutOfTimeError, Waited
from orchestrator.errors import TransientError, naming
from orchestrator.graph import Node
from orchestrator.limited import Outcome, failure_kind
from orchestrator.limits import Limits
from orchestrator.steps import Answer, Asked, QueryVectors, Steps
from orchestrator.trace import Degraded
from orchestrator.types import Call, RankedList


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
        that have not ended when their time is over are left behind, as long as one found something: without any
        document there is no answer, however late.

        Raises:
            StageError: all of them failed, or one with which the question is to fail, or that broke its contract.
        """
        allowed = [self._limits.allowed_s(node, clock, node.top_k) for node in nodes]
        ended = threading.Event()
        running: list[_Recall] = []
        for node, seconds in zip(nodes, allowed, strict=True):
            running.append(_Recall(self._steps, node, vectors, clock, seconds, ended))
            if all(other is None for other in allowed):
                _wait_for(running, ended)
        _wait_for(running, ended)
        outcomes = {}
        for recall in running:
            with naming(recall.node.name, query_id):
                outcomes[recall.node.name] = recall.outcome()
        _raise_failure(running, query_id)
        self._learn(nodes, outcomes)
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
        self.node, self.call = node, Call()
        self.error: TransientError | None = None
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
        seconds = self.waited.seconds or self._clock.elapsed_s - self._started_s
        answer, degraded = self._answer()
        return Outcome(answer, self.call, degraded, self._allowed_s, self._started_s, seconds)

    def _answer(self) -> tuple[Answer, tuple[Degraded, ...]]:
        try:
            return self.waited.result(), ()
        except OutOfTimeError:
            detail = f"left behind after {(self._allowed_s or 0) * 1000:.0f} ms"
            return nothing_found(self.node), (Degraded(self.node.name, "late", detail, 0, self.node.top_k),)
        except TransientError as error:
            self.error = error
            told = Degraded(self.node.name, failure_kind(error), str(error), 0, self.node.top_k)
            return nothing_found(self.node), (told,)


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


def _raise_failure(running: Sequence[_Recall], query_id: str) -> None:
    """Raise what a recall failed with, where the question is to fail with it, or no recall is left."""
    failed = [recall for recall in running if recall.error is not None]
    for recall in failed:
        carries_on = recall.node.on_error.carries_on(is_remote=recall.node.is_remote)
        if recall.error is not None and (not carries_on or len(failed) == len(running)):
            with naming(recall.node.name, query_id):
                raise recall.error
