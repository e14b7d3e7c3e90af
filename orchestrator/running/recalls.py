"""The recalls of one question, side by side: one that is late is left behind once another has found something."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.answers.trace import Degraded, Shortfall
from orchestrator.errors import OutOfTimeError, TransientError, naming
from orchestrator.running.deadline import Clock, TimeIsUpError, Waited, call_for
from orchestrator.running.limited import Outcome, failure_kind
from orchestrator.running.limits import Limits
from orchestrator.running.steps import Answer, Asked, QueryVectors, Steps
from orchestrator.stack.graph import Node
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
            allowed = dict.fromkeys(allowed)  # the only one is waited for
        outcomes = self._run(
            [_Recall(node, allowed[node.name], allowed[node.name]) for node in nodes], vectors, query_id, clock
        )
        late = [node for node in nodes if any(lack.reason == "late" for lack in outcomes[node.name].degraded)]
        if late and not any(len(outcome.answer.ranked) for outcome in outcomes.values()):
            # Nothing is better than late: they are asked again, for as long as it takes, until one has found something.
            again = self._run([_Recall(node, 0.0, None) for node in late], vectors, query_id, clock)
            for name, outcome in again.items():
                outcome.call.add(outcomes[name].call)
                outcomes[name] = outcome
        _raise_failure(nodes, outcomes, query_id)
        self._learn(nodes, outcomes)
        return outcomes

    def _run(
        self, recalls: Sequence[_Recall], vectors: QueryVectors, query_id: str, clock: Clock
    ) -> dict[str, Outcome]:
        in_turn = all(recall.allowed_s is None for recall in recalls)
        outcomes: dict[str, Outcome] = {}
        ended = threading.Event()
        try:
            for recall in recalls:
                if not self._limits.is_stuck(recall.node):
                    recall.start(self._steps, vectors, clock, ended, in_turn=in_turn)
            _wait_for(recalls, ended)
            for recall in recalls:
                with naming(recall.node.name, query_id):
                    outcomes[recall.node.name] = recall.outcome(self._limits)
        finally:  # also for Ctrl-C, and where one of them failed for good
            for recall in recalls:
                recall.call.cancel()
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
    """One recall of one question.

    Args:
        node: the stage.
        allowed_s: seconds after which it is late, once another has found something; None is never.
        most_s: seconds that it is given at all.
    """

    def __init__(self, node: Node, allowed_s: float | None, most_s: float | None) -> None:
        self.node, self.allowed_s = node, allowed_s
        self.call = call_for(most_s, is_remote=node.is_remote)
        self._waited: Waited[Answer] | None = None
        self._clock, self._started_s = Clock(), 0.0

    def start(
        self, steps: Steps, vectors: QueryVectors, clock: Clock, ended: threading.Event, *, in_turn: bool
    ) -> None:
        """Begin, in a thread of its own unless they run in turn; `ended` is set when it has ended."""
        self._clock, self._started_s = clock, clock.elapsed_s

        def work() -> Answer:
            (as_needed,) = vectors.of(self.node, self.call)
            return steps.ask(self.node, [Asked(as_needed, {})], self.call)[0]

        self._waited = Waited(self.call, work, ended, in_turn=in_turn)

    @property
    def is_done(self) -> bool:
        """Whether it has ended, or was never begun."""
        return self._waited is None or self._waited.is_done

    @property
    def left_s(self) -> float | None:
        """Seconds until it is late; None is never."""
        return None if self.allowed_s is None else self._started_s + self.allowed_s - self._clock.elapsed_s

    @property
    def found(self) -> bool:
        """Whether it has brought any document."""
        waited = self._waited
        return waited is not None and waited.is_done and waited.error is None and len(waited.result().ranked) > 0

    def outcome(self, limits: Limits) -> Outcome:
        """What came of it; where it has not ended, it is left behind."""
        outcome = Outcome(nothing_found(self.node), self.call, (), self.allowed_s, self._started_s)
        if self._waited is None:
            outcome.degraded = (self._short("circuit_open", "not asked: calls of it that were left behind still run"),)
            return outcome
        if not self._waited.is_done:
            self._waited.leave()
        try:
            outcome.answer = self._waited.result()
        except (TimeIsUpError, OutOfTimeError) as error:
            if isinstance(error, TimeIsUpError):
                limits.note_left(self.node, error)
            waited_ms = (self._clock.elapsed_s - self._started_s) * 1000
            outcome.degraded = (self._short("late", f"left behind after {waited_ms:.0f} ms"),)
        except TransientError as error:
            outcome.error = error
            outcome.degraded = (self._short(failure_kind(error), str(error)),)
        outcome.seconds = self._waited.seconds or self._clock.elapsed_s - self._started_s
        return outcome

    def _short(self, reason: Shortfall, detail: str) -> Degraded:
        return Degraded(self.node.name, reason, detail, 0, self.node.top_k)


def nothing_found(node: Node) -> Answer:
    """The answer of a recall that brought nothing."""
    none = np.empty(0)
    return Answer(RankedList((), none, node.stage.score_kind, {node.name: none}))


def _wait_for(recalls: Sequence[_Recall], ended: threading.Event) -> None:
    """Wait until all have ended; once one has found something, for the others only until they are late."""
    while pending := [recall for recall in recalls if not recall.is_done]:
        left = [recall.left_s for recall in pending]
        seconds = None
        if any(recall.found for recall in recalls) and None not in left:
            seconds = max(value for value in left if value is not None)
            if seconds <= 0:
                return
        ended.wait(seconds)
        ended.clear()


def _raise_failure(nodes: Sequence[Node], outcomes: Mapping[str, Outcome], query_id: str) -> None:
    """Raise what a recall failed with, where the question is to fail with it, or no recall is left."""
    failed = [node for node in nodes if outcomes[node.name].error is not None]
    for node in failed:
        error = outcomes[node.name].error
        carries_on = node.on_error.carries_on(is_remote=node.is_remote)
        if error is not None and (not carries_on or len(failed) == len(nodes)):
            with naming(node.name, query_id):
                raise error
