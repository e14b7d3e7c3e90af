"""A pointwise rerank inside its time: pairs are scored piece by piece, the best incoming documents first."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.answers.trace import Shortfall
from orchestrator.running.cutting import Span
from orchestrator.running.deadline import TimeIsUpError, call_for, within
from orchestrator.running.pace import Pace
from orchestrator.running.passage_scores import PairsRead
from orchestrator.running.scoring import Rows, Scoring
from orchestrator.stack.graph import Node
from orchestrator.types import Call

_PIECE = 0.5
"""Where not all fits, a piece is as large as half of the time that is left: what is stopped in the end is small."""


class Pieces:
    """The scoring of one question's pairs.

    Args:
        node: the stage.
        scoring: the pairs, and the scores that they have.
        pace: of the stage; learns from each piece.
        call: of the stage; counts what the pieces spend.
        allowed_s: how long all of it may take; None is any time.

    Attributes:
        n_done: pairs that the stage scored itself, in pieces that were not stopped.
        units_done: their size.
        expected_s: what a piece was expected to take that was not begun.
        left_behind: pieces that were stopped.
    """

    def __init__(self, node: Node, scoring: Scoring, pace: Pace, call: Call, allowed_s: float | None) -> None:
        self._node, self._scoring, self._pace, self._call = node, scoring, pace, call
        self._ends_at = None if allowed_s is None else time.perf_counter() + allowed_s
        self._begun: tuple[Rows, PairsRead] | None = None
        self.n_done, self.units_done, self.expected_s = 0, 0.0, 0.0
        self.left_behind: list[TimeIsUpError] = []

    def run(self) -> Shortfall | None:
        """Score what is missing as far as the time goes; says why not all of it was."""
        rows = self._scoring.missing
        units = self._scoring.sizes(rows)
        while len(rows):
            left = None if self._ends_at is None else self._ends_at - time.perf_counter()
            n = self._next(units, left)
            if n == 0:
                return "deadline" if self.n_done else "no_time"
            if not self._one(rows[:n], sum(units[:n]), left):
                return "deadline"
            rows, units = rows[n:], units[n:]
        return None

    def salvage(self) -> None:
        """Take what was told of a piece that was stopped, or failed, in the middle."""
        if self._begun is not None:
            rows, read = self._begun
            places, scores, spans = read.reported()
            self._scoring.take(rows[places], scores, spans)
            self._begun = None

    def _next(self, units: Sequence[float], left: float | None) -> int:
        """How many of the next pairs are scored together: all where they fit, none where not even the first does."""
        if left is None:
            return len(units)
        whole = sum(units)
        pace, later = self._pace, self.n_done > 0
        self.expected_s = pace.seconds(whole if self._node.is_remote else units[0], later=later)
        if left <= 0 or self.expected_s > left:
            if left > 0:
                pace.was_left_out()
            return 0
        if self._node.is_remote or pace.careful_seconds(whole, doubted=False, later=later) <= left:
            return len(units) if self._node.is_remote or pace.is_known else 1
        n, total = 1, units[0]
        while n < len(units) and pace.seconds(total + units[n], doubted=False, later=later) <= left * _PIECE:
            total += units[n]
            n += 1
        return n

    def _one(self, rows: Rows, units: float, left: float | None) -> bool:
        """Score one piece; False where it was stopped, and then what it had told by then counts."""
        part, started = call_for(left, is_remote=self._node.is_remote), time.perf_counter()

        def work() -> tuple[npt.NDArray[np.floating], Sequence[Span | None], frozenset[int]]:
            read = self._scoring.read(rows, part)
            self._begun = (rows, read)
            return *read.scored(), read.not_to_keep

        try:
            scores, spans, not_to_keep = within(left, part, work)
        except TimeIsUpError as error:
            self.left_behind.append(error)
            self._pace.observe_at_least(units, time.perf_counter() - started)
            self.salvage()
            return False
        finally:
            self._call.add(part)
        taken = time.perf_counter() - started
        self._begun = None
        self._scoring.take(rows, scores, spans, not_to_keep)
        self._pace.observe(units, taken, later=self.n_done > 0)
        self.n_done, self.units_done = self.n_done + len(rows), self.units_done + units
        return True
