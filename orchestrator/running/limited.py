"""One stage for one question, inside the time that it may take: in pieces, stopped, left out, or replaced."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from orchestrator import ranking
from orchestrator.answers.trace import Degraded, Shortfall
from orchestrator.errors import CircuitOpenError, OutOfTimeError, TransientError
from orchestrator.running.deadline import Clock, TimeIsUpError, call_for, within
from orchestrator.running.limits import Limits
from orchestrator.running.pieces import Pieces
from orchestrator.running.steps import Answer, Asked, QueryVectors, Steps, WindowsRead, scored_answer
from orchestrator.running.windows import PASSES, STRIDE, WINDOW, n_windows, reach_of
from orchestrator.stack.graph import Node
from orchestrator.types import Call, Query, RankedList

T = TypeVar("T")

_FUSION_S = 0.01
"""What a fusion has at least, however little is left."""
_WINDOW_SHAPE = {"window": WINDOW, "stride": STRIDE, "passes": PASSES}


@dataclass
class Outcome:
    """What came of one stage for one question.

    Attributes:
        answer: what it ranked.
        call: what it spent and told.
        degraded: what it left out.
        allowed_s: how long it might take.
        started_s: when it began, after the question came.
        seconds: how long it took.
        error: what a recall failed with, in a way that may pass.
        reused: whether it was kept from before, with what it cost then.
    """

    answer: Answer
    call: Call
    degraded: tuple[Degraded, ...] = ()
    allowed_s: float | None = None
    started_s: float = 0.0
    seconds: float = 0.0
    error: TransientError | None = None
    reused: bool = False


class _Try:
    """One attempt at one stage.

    Args:
        node: the stage.
        inputs: what it is given.
        allowed_s: seconds that it may take from now on; None is any number.
    """

    def __init__(self, node: Node, inputs: Mapping[str, RankedList], allowed_s: float | None) -> None:
        self.node, self.inputs, self.allowed_s = node, inputs, allowed_s
        self.call = call_for(allowed_s, is_remote=node.is_remote)
        self._begun = time.perf_counter()

    @property
    def incoming(self) -> RankedList:
        """What a rerank is given."""
        return next(iter(self.inputs.values()))

    @property
    def n_in(self) -> int:
        """Documents that it was given."""
        return sum(map(len, self.inputs.values()))

    @property
    def seconds(self) -> float:
        """Since it was begun."""
        return time.perf_counter() - self._begun

    @property
    def left_s(self) -> float | None:
        """Seconds that it has left."""
        return None if self.allowed_s is None else max(0.0, self.allowed_s - self.seconds)

    def within(self, work: Callable[[], T]) -> T:
        """What `work` gives in the time that is left."""
        return within(self.left_s, self.call, work)

    def nothing(self) -> Answer:
        """The documents as they came; lists that were to be merged, merged by reciprocal rank."""
        if self.node.kind == "fusion":
            return Answer(ranking.by_reciprocal_rank(f"{self.node.name}~rrf", self.inputs))
        return Answer(ranking.unscored(self.incoming))


class LimitedSteps:
    """Asks the stages of one graph for one question at a time, each inside its allowance.

    Args:
        steps: how stages are asked.
        limits: how much time they may take.
    """

    def __init__(self, steps: Steps, limits: Limits) -> None:
        self._steps, self._limits = steps, limits

    def ask(self, node: Node, inputs: Mapping[str, RankedList], vectors: QueryVectors, clock: Clock) -> Outcome:
        """The outcome of a fusion or a rerank; where it fails in a way that may pass, as its `on_error` says.

        Raises:
            TransientError: it failed, and the question is to fail with it.
            Exception: whatever else the stage raised.
        """
        outcome = self._attempt(node, inputs, vectors, clock, 0.0)
        for other in node.fallbacks:
            if not _did_nothing(outcome):
                break
            before = outcome
            outcome = self._attempt(other, inputs, vectors, clock, before.seconds)
            outcome.call.add(before.call)
            outcome.started_s, outcome.allowed_s = before.started_s, before.allowed_s
            outcome.seconds += before.seconds
            if not _did_nothing(outcome):
                outcome.call.note(f"{type(other.stage).__name__} stood in for it")
            outcome.degraded = (*before.degraded, *outcome.degraded)
        return outcome

    def _attempt(
        self, node: Node, inputs: Mapping[str, RankedList], vectors: QueryVectors, clock: Clock, spent_s: float
    ) -> Outcome:
        started, n_in = clock.elapsed_s, sum(map(len, inputs.values()))
        allowed = self._limits.allowed_s(node, clock, n_in, spent_s)
        if allowed is not None and node.kind == "fusion":  # without it there is no answer: it has its time, if late
            allowed = max(allowed, 2 * self._limits.pace(node).stage_seconds(n_in, careful=True) + _FUSION_S)
        attempt = _Try(node, inputs, allowed)
        answer, short = self._step(attempt, vectors)
        return Outcome(answer, attempt.call, tuple(short), allowed, started, attempt.seconds)

    def _step(self, attempt: _Try, vectors: QueryVectors) -> tuple[Answer, list[Degraded]]:
        step = {"pointwise": self._score, "window": self._order}.get(attempt.node.behaviour, self._whole)
        if self._limits.is_stuck(attempt.node):
            return attempt.nothing(), [stuck(attempt)]
        if attempt.left_s is not None and attempt.left_s <= 0:
            return attempt.nothing(), [no_time(attempt, 0.0)]
        try:
            (query,) = self._queries(attempt, vectors)
            return step(attempt, Asked(query, attempt.inputs))
        except TimeIsUpError as error:  # before anything was scored
            self._limits.note_left(attempt.node, error)
            return attempt.nothing(), [stopped(attempt, 0)]
        except TransientError as error:
            return attempt.nothing(), [failed(attempt, error, 0)]

    def _queries(self, attempt: _Try, vectors: QueryVectors) -> list[Query]:
        """The query as the stage needs it; in another thread only where it has to be embedded first."""
        known = vectors.known(attempt.node)
        return known or attempt.within(lambda: vectors.of(attempt.node, attempt.call))

    def _whole(self, attempt: _Try, asked: Asked) -> tuple[Answer, list[Degraded]]:
        """A fusion, or a rerank that sees the whole list: all of it, or nothing."""
        node, n, pace = attempt.node, attempt.n_in, self._limits.pace(attempt.node)
        left = attempt.left_s
        if left is not None and node.kind != "fusion" and (left <= 0 or (expected := pace.seconds(n)) > left):
            if left > 0:
                pace.was_left_out()
            return attempt.nothing(), [no_time(attempt, expected if left > 0 else 0.0)]
        try:
            (answer,) = attempt.within(lambda: self._steps.ask(node, [asked], attempt.call))
        except TimeIsUpError:
            pace.observe_at_least(n, attempt.seconds)
            raise
        pace.observe(n, attempt.seconds)
        pace.observe_stage(n, n, 0.0)
        return answer, []

    def _score(self, attempt: _Try, asked: Asked) -> tuple[Answer, list[Degraded]]:
        """A pointwise rerank: best incoming documents first, as far as the time goes."""
        node, pace = attempt.node, self._limits.pace(attempt.node)
        scoring = self._steps.scoring(node, [asked])
        read_s = attempt.seconds
        pieces = Pieces(node, scoring, pace, attempt.call, attempt.left_s)
        error: TransientError | None = None
        reason: Shortfall | None = None
        try:
            reason = pieces.run()
        except TransientError as raised:
            error = raised
            pieces.salvage()
        for left_behind in pieces.left_behind:
            self._limits.note_left(node, left_behind)
        if pieces.n_done:
            pace.observe_stage(pieces.n_done, pieces.units_done, read_s)
        answer = scored_answer(node, attempt.incoming, scoring, 0, attempt.n_in)
        n = answer.ranked.n_scored if len(scoring.scored) else 0
        if error is not None:
            return answer, [failed(attempt, error, n)]
        if reason is None:
            return answer, []
        return answer, [no_time(attempt, pieces.expected_s) if reason == "no_time" and not n else stopped(attempt, n)]

    def _order(self, attempt: _Try, asked: Asked) -> tuple[Answer, list[Degraded]]:
        """A window rerank: over as much of the head of the list as there is time for."""
        node, n, pace = attempt.node, attempt.n_in, self._limits.pace(attempt.node)
        head = self._head(attempt)
        windows = self._steps.windows(node, asked, attempt.call, n)
        if head < n and not windows.is_kept():
            if head == 0:
                if (attempt.left_s or 0) > 0:
                    pace.was_left_out()
                return attempt.nothing(), [no_time(attempt, pace.seconds(1))]
            windows = self._steps.windows(node, asked, attempt.call, head)
        begun = attempt.seconds
        try:
            attempt.within(windows.order)
        except TimeIsUpError as error:
            self._limits.note_left(node, error)
            if not windows.n_windows:
                pace.observe_at_least(1.0, attempt.seconds - begun)
            answer = _done(attempt, windows)
            return answer, [stopped(attempt, answer.n_scored or 0)]
        except TransientError as error:
            answer = _done(attempt, windows)
            return answer, [failed(attempt, error, answer.n_scored or 0)]
        if windows.n_windows and not windows.hits:
            pace.observe(windows.n_windows, attempt.seconds - begun)
            pace.observe_stage(windows.n_documents, windows.n_windows, begun)
        return windows.answer(), [] if windows.n_documents == n else [stopped(attempt, windows.n_documents)]

    def _head(self, attempt: _Try) -> int:
        """How many of the documents are gone over: all where the time is enough for it, 0 where not for one window."""
        n, pace, shape = attempt.n_in, self._limits.pace(attempt.node), _shape(attempt.node)
        if attempt.allowed_s is None or not n:
            return n
        wanted = n_windows(n, *shape)
        if pace.careful_seconds(wanted) <= attempt.allowed_s:
            return n
        fitting = next((k for k in range(wanted, 0, -1) if pace.seconds(k) <= attempt.allowed_s), 0)
        head = min(n, reach_of(fitting, *shape))
        return head if head > 1 else 0


def failure_kind(error: TransientError) -> Shortfall:
    """What a failure that may pass is called in an answer."""
    return "circuit_open" if isinstance(error, CircuitOpenError) else "error"


def _shape(node: Node) -> tuple[int, int, int]:
    window, stride, passes = (getattr(node.stage, name, usual) for name, usual in _WINDOW_SHAPE.items())
    return window, stride, passes


def _done(attempt: _Try, windows: WindowsRead) -> Answer:
    """What whole windows have done; where none was done, the documents as they came."""
    places, n_done = windows.state
    if not n_done:
        return Answer(ranking.unscored(attempt.incoming), n_scored=0)
    window, stride, _ = _shape(attempt.node)
    return windows.answer(places, min(len(places), window + (n_done - 1) * stride))


def _did_nothing(outcome: Outcome) -> bool:
    return bool(outcome.degraded) and outcome.degraded[-1].scored == 0


def stopped(attempt: _Try, n: int) -> Degraded:
    """A stage whose time was over after `n` documents."""
    allowed = f"{(attempt.allowed_s or 0) * 1000:.0f} ms"
    return Degraded(attempt.node.name, "deadline", f"its {allowed} allowed no more", n, attempt.n_in)


def stuck(attempt: _Try) -> Degraded:
    """A stage that is not asked, since earlier calls of it still run."""
    detail = "not asked: calls of it that were left behind still run"
    return Degraded(attempt.node.name, "circuit_open", detail, 0, attempt.n_in)


def no_time(attempt: _Try, expected_s: float) -> Degraded:
    """A stage that was not begun."""
    left_ms = max(0.0, attempt.allowed_s or 0) * 1000
    first = " for the first document" if attempt.node.can_be_cut else ""
    needs = f"{left_ms:.0f} ms were left for it, and it usually takes {expected_s * 1000:.0f} ms{first}"
    detail = needs if expected_s * 1000 > left_ms >= 1 else "no time was left for it"
    return Degraded(attempt.node.name, "no_time", detail, 0, attempt.n_in)


def failed(attempt: _Try, error: TransientError, n: int) -> Degraded:
    """A stage that failed in a way that may pass, after `n` documents.

    Raises:
        TransientError: the question is to fail with it.
    """
    node = attempt.node
    if isinstance(error, OutOfTimeError):
        return stopped(attempt, n)
    if node.stands_for is None and not node.on_error.carries_on(is_remote=node.is_remote):
        raise error
    return Degraded(node.name, failure_kind(error), str(error), n, attempt.n_in)
