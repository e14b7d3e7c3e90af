"""One stage for one question, inside the time that it may take: in pieces, stopped, left out, or replaced."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from orchestrator import ranking
from orchestrator.deadline import Clock, TimeIsUpError, call_for, within
from orchestrator.errors import CircuitOpenError, TransientError
from orchestrator.graph import Node
from orchestrator.limits import Limits
from orchestrator.pieces import Pieces
from orchestrator.steps import Answer, Asked, QueryVectors, Steps, WindowsRead, scored_answer
from orchestrator.trace import Degraded, Shortfall
from orchestrator.types import Call, Query, RankedList
from orchestrator.windows import PASSES, STRIDE, WINDOW, n_windows, reach_of

T = TypeVar("T")

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
    """

    answer: Answer
    call: Call
    degraded: tuple[Degraded, ...] = ()
    allowed_s: float | None = None
    started_s: float = 0.0
    seconds: float = 0.0
    error: TransientError | None = None


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
        """The documents as they came."""
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
        outcome = self._attempt(node, inputs, vectors, clock)
        for other in node.fallbacks:
            if not _did_nothing(outcome):
                break
            told, before = outcome.degraded, outcome
            outcome = self._attempt(other, inputs, vectors, clock)
            outcome.call.add(before.call)
            outcome.started_s, outcome.seconds = before.started_s, before.seconds + outcome.seconds
            outcome.degraded = (*told, *outcome.degraded)
            outcome.call.note(f"{type(other.stage).__name__} stood in for it")
        return outcome

    def _attempt(self, node: Node, inputs: Mapping[str, RankedList], vectors: QueryVectors, clock: Clock) -> Outcome:
        started, n_in = clock.elapsed_s, sum(map(len, inputs.values()))
        # Lists that nobody merges are no answer, so a fusion is waited for.
        allowed = None if node.kind == "fusion" else self._limits.allowed_s(node, clock, n_in)
        attempt = _Try(node, inputs, allowed)
        answer, short = self._step(attempt, vectors)
        return Outcome(answer, attempt.call, tuple(short), allowed, started, attempt.seconds)

    def _step(self, attempt: _Try, vectors: QueryVectors) -> tuple[Answer, list[Degraded]]:
        step = {"pointwise": self._score, "window": self._order}.get(attempt.node.behaviour, self._whole)
        try:
            (query,) = self._queries(attempt, vectors)
            return step(attempt, Asked(query, attempt.inputs))
        except TimeIsUpError:  # before anything was scored
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
        if attempt.left_s is not None and pace.stage_seconds(n) > attempt.left_s:
            pace.was_left_out()
            return attempt.nothing(), [no_time(attempt, pace.stage_seconds(n))]
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
        short: list[Degraded] = []
        try:
            reason = pieces.run()
        except TransientError as error:
            pieces.salvage()
            short, reason = [failed(attempt, error, len(scoring.scored))], None
        if pieces.n_done:
            pace.observe_stage(pieces.n_done, pieces.units_done, read_s)
        n = len(scoring.scored)
        if reason is not None:
            short = [no_time(attempt, pieces.expected_s) if reason == "no_time" and not n else stopped(attempt, n)]
        return scored_answer(node, attempt.incoming, scoring, 0, attempt.n_in), short

    def _order(self, attempt: _Try, asked: Asked) -> tuple[Answer, list[Degraded]]:
        """A window rerank: over as much of the head of the list as there is time for."""
        node, n, pace = attempt.node, attempt.n_in, self._limits.pace(attempt.node)
        head = self._head(attempt)
        if head == 0 and n:
            pace.was_left_out()
            return attempt.nothing(), [no_time(attempt, pace.seconds(1))]
        windows, begun = self._steps.windows(node, asked, attempt.call, head), attempt.seconds
        try:
            attempt.within(windows.order)
        except TimeIsUpError:
            pace.observe_at_least(windows.n_windows + 1, attempt.seconds - begun)
            seen = _seen(attempt, windows, head)
            return windows.answer() if seen else attempt.nothing(), [stopped(attempt, seen)]
        except TransientError as error:
            seen = _seen(attempt, windows, head)
            return windows.answer() if seen else attempt.nothing(), [failed(attempt, error, seen)]
        if windows.n_windows and not windows.hits:
            pace.observe(windows.n_windows, attempt.seconds - begun)
            pace.observe_stage(head, windows.n_windows, begun)
        return windows.answer(), [] if head == n else [stopped(attempt, head)]

    def _head(self, attempt: _Try) -> int:
        """How many of the documents are gone over: all where the time is enough for it, 0 where not for one window."""
        n, pace, shape = attempt.n_in, self._limits.pace(attempt.node), _shape(attempt.node)
        if attempt.allowed_s is None or not pace.is_known or not n:
            return n
        wanted = n_windows(n, *shape)
        if pace.careful_seconds(wanted) <= attempt.allowed_s:
            return n
        fitting = next((k for k in range(wanted, 0, -1) if pace.seconds(k) <= attempt.allowed_s), 0)
        return min(n, reach_of(fitting, *shape))


def failure_kind(error: TransientError) -> Shortfall:
    """What a failure that may pass is called in an answer."""
    return "circuit_open" if isinstance(error, CircuitOpenError) else "error"


def _shape(node: Node) -> tuple[int, int, int]:
    window, stride, passes = (getattr(node.stage, name, usual) for name, usual in _WINDOW_SHAPE.items())
    return window, stride, passes


def _seen(attempt: _Try, windows: WindowsRead, head: int) -> int:
    """How many documents stood in a whole window."""
    window, stride, _ = _shape(attempt.node)
    return min(head, window + (windows.n_windows - 1) * stride) if windows.n_windows else 0


def _did_nothing(outcome: Outcome) -> bool:
    return bool(outcome.degraded) and outcome.degraded[-1].scored == 0


def stopped(attempt: _Try, n: int) -> Degraded:
    """A stage whose time was over after `n` documents."""
    allowed = f"{(attempt.allowed_s or 0) * 1000:.0f} ms"
    return Degraded(attempt.node.name, "deadline", f"stopped when its {allowed} were over", n, attempt.n_in)


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
    node, out_of_time = attempt.node, attempt.allowed_s is not None and not attempt.call.remaining_s
    if out_of_time:
        return stopped(attempt, n)
    if node.stands_for is None and not node.on_error.carries_on(is_remote=node.is_remote):
        raise error
    return Degraded(node.name, failure_kind(error), str(error), n, attempt.n_in)
