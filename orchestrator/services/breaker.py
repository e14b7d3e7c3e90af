"""A circuit breaker: a service that fails again and again is left alone for a while, so that no query pays for it.

closed: calls go through. `failures` transient failures in a row open it.
open: calls fail at once with a CircuitOpenError, until the cool-down is over.
half-open: one call at a time goes through as a probe, the others fail at once. When it gets its answer the breaker
closes; when it fails, the breaker opens again for twice as long.

What a call that ends says about the service:
- a result: it works;
- a TransientError, after the call's own retries: it failed;
- a PermanentError with an HTTP status, 401 or 400: it works. It answers, and its callers are to hear what it says:
  behind an open breaker a wrong key would be passed over as if it were a busy server;
- a PermanentError without one (no money left) and whatever else, for example a call that nobody waits for any more:
  nothing. A probe that ends so gives its right back to the next call.
- an OutOfTimeError, when the caller had no more time: it failed for callers that have as little. A remote that never
  fits the budget must not cost every query its whole allowance; but a call with more than twice the time of those that
  failed has a chance that they had not, and is let through. Where some of its requests were answered, it works.

A result takes back only failures of calls that could have waited for it: of those that ran out of time sooner it says
nothing. Calls that were under way when the breaker opened or closed say nothing any more.

Source of the states: Nygard, "Release It!", 2007, chapter 5.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestrator.errors import CircuitOpenError, OutOfTimeError, PermanentError, TransientError
from orchestrator.log import get_logger

log = get_logger()

_FAILURES = 3
_SHORTEST_S, _LONGEST_S = 1.0, 60.0
_LONGEST_ASKED_S = 3600.0
"""A service that asks to be left alone for longer is asked again after an hour: who mends it does not know of us."""
_MORE_TIME = 2.0


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A call that was let through: as a probe or not, when, and how often the state had changed before."""

    probe: bool
    at: float
    change: int


class CircuitBreaker:
    """The breaker of one service. Safe to use from several threads.

    Args:
        service: what messages call it.
        failures: in a row, until it opens.
        shortest_s: the first cool-down; doubled by each failed probe. Up to a quarter is taken off at random, so that
            many processes do not probe at once.
        longest_s: of a cool-down, where the service does not ask for more itself.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        service: str,
        failures: int = _FAILURES,
        shortest_s: float = _SHORTEST_S,
        longest_s: float = _LONGEST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = service
        self._shortest_s, self._longest_s, self._clock = shortest_s, longest_s, clock
        self._lock = threading.Lock()
        self._waits: deque[float] = deque(maxlen=failures)  # of the failures in a row: how long each could wait
        self._opened_at: float | None = None
        self._next_at = 0.0
        self._cool_down_s = shortest_s
        self._held_s = 0.0  # calls with more time than this are not held back
        self._reason = ""
        self._probing = False
        self._changes = 0

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        with self._lock:
            if self._opened_at is None:
                return "closed"
            return "open" if self._clock() < self._next_at else "half-open"

    @contextlib.contextmanager
    def guarded(self, remaining_s: float | None) -> Iterator[None]:
        """Around one whole call, with its retries; how the block ends tells how the service is.

        Args:
            remaining_s: what the call may take; None without a budget.

        Raises:
            CircuitOpenError: the service is left alone.
        """
        admitted = self._enter(math.inf if remaining_s is None else remaining_s)
        try:
            yield
        except TransientError as error:
            self._leave(admitted, error)
            raise
        except PermanentError as error:
            if error.status is not None:
                self._leave(admitted)
            raise
        else:
            self._leave(admitted)
        finally:
            self._give_back(admitted)

    def _enter(self, remaining_s: float) -> _Admitted:
        with self._lock:
            now = self._clock()
            probe = self._opened_at is not None and remaining_s <= self._held_s
            if probe and (self._probing or now < self._next_at):
                raise self._refusal(now)
            self._probing = self._probing or probe
            return _Admitted(probe, now, self._changes)

    def _leave(self, admitted: _Admitted, error: TransientError | None = None) -> None:
        with self._lock:
            if admitted.change != self._changes:
                return
            if error is None or (isinstance(error, OutOfTimeError) and error.answered):
                self._answered(admitted)
            else:
                self._failed(admitted, error)

    def _give_back(self, admitted: _Admitted) -> None:
        with self._lock:
            if admitted.probe and admitted.change == self._changes:
                self._probing = False

    def _answered(self, admitted: _Admitted) -> None:
        took_s = self._clock() - admitted.at
        sooner = [held_s for held_s in self._waits if held_s < _MORE_TIME * took_s]
        self._waits = deque(sooner, self._waits.maxlen)
        if self._opened_at is not None and (admitted.probe or self._held_s >= _MORE_TIME * took_s):
            log.info("remote.closed", service=self.service, after_s=round(self._clock() - self._opened_at, 3))
            self._opened_at, self._held_s = None, 0.0
            self._waits.clear()
            self._change()

    def _failed(self, admitted: _Admitted, error: TransientError) -> None:
        held_s = _MORE_TIME * error.had_s if isinstance(error, OutOfTimeError) else math.inf
        self._waits.append(held_s)
        if admitted.probe:
            self._open(error, 2 * self._cool_down_s, held_s)
        elif len(self._waits) == self._waits.maxlen and min(self._waits) > self._held_s:
            self._open(error, self._shortest_s, min(self._waits))

    def _open(self, error: TransientError, cool_down_s: float, held_s: float) -> None:
        now = self._clock()
        self._cool_down_s, self._held_s = min(cool_down_s, self._longest_s), held_s
        asked_s = min(error.retry_after_s or 0.0, _LONGEST_ASKED_S)
        wait_s = max(self._cool_down_s * random.uniform(0.75, 1.0), asked_s)
        self._opened_at = now if self._opened_at is None else self._opened_at
        self._next_at, self._reason = now + wait_s, error.detail
        log.warning("remote.opened", service=self.service, wait_s=round(wait_s, 3), reason=error.detail)
        self._change()

    def _change(self) -> None:
        self._changes += 1
        self._probing = False

    def _refusal(self, now: float) -> CircuitOpenError:
        open_for_s = now - (now if self._opened_at is None else self._opened_at)
        return CircuitOpenError(self.service, self._reason, open_for_s, max(0.0, self._next_at - now))


def breaker_of(service: str) -> CircuitBreaker:
    """The one breaker of this process for a service: all stages that name model and address alike share it."""
    with _registry_lock:
        return _registry.setdefault(service, CircuitBreaker(service))


def forget() -> None:
    """Start anew with closed breakers, as a test does, and a forked child: locks may be held by threads it lacks."""
    global _registry_lock, _registry
    _registry_lock, _registry = threading.Lock(), {}


_registry_lock = threading.Lock()
_registry: dict[str, CircuitBreaker] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)
