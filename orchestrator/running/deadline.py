"""One deadline for a whole question: how much of it is left, who may have how much, and work that is left behind."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from orchestrator.errors import CallCancelledError, TransientError
from orchestrator.log import get_logger
from orchestrator.types import Call

T = TypeVar("T")

log = get_logger()

GRACE_S = 0.005
"""How long a stage that was told to stop is waited for, so that it lets go of the processor before others need it."""
_KEPT_FOR_LATER = 0.25
"""Of what can be shared out, the most that is kept from a stage that cannot be cut for later ones that can use it."""


class TimeIsUpError(Exception):
    """Work was stopped, or left behind, because its time was over. Never leaves the runner.

    Attributes:
        still_runs: asks whether it hears nothing, and goes on.
    """

    def __init__(self, still_runs: Callable[[], bool] = lambda: False) -> None:
        self.still_runs = still_runs
        super().__init__()


def call_for(seconds: float | None, *, is_remote: bool) -> Call:
    """A Call for work that is waited for `seconds`.

    One on somebody else's machine is given a little less, so that it says itself that its time is over: then the
    service's breaker hears of it, which a call that nobody waits for any more tells nothing.
    """
    return Call(seconds if seconds is None or not is_remote else max(0.0, seconds - GRACE_S))


class Clock:
    """The time of one question.

    Args:
        budget_s: seconds from now in which it is to be answered; None is any number.
    """

    def __init__(self, budget_s: float | None = None) -> None:
        self._started = time.perf_counter()
        self._budget_s = budget_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since the question came."""
        return time.perf_counter() - self._started

    @property
    def left_s(self) -> float | None:
        """Seconds that are left, 0 where none are; None without a budget."""
        return None if self._budget_s is None else max(0.0, self._budget_s - self.elapsed_s)


def allowance_s(left_s: float, own_s: float, fixed_s: float, flexible_s: float, *, can_be_cut: bool) -> float:
    """How many of the seconds that are left a stage may take.

    What later stages need that cannot be cut is put aside. The rest is shared: where all fit, the stage may take all
    that later ones do not need; where not, a stage that can be cut gets its share in proportion to what it would need,
    and one that cannot be cut leaves later ones a quarter at most: what it would have
    given is worth more to them than a few more documents.

    Args:
        left_s: seconds left of the budget.
        own_s: what the stage is expected to take, whole.
        fixed_s: what later stages are expected to take that cannot be cut.
        flexible_s: what later stages would take, whole, that can be cut.
        can_be_cut: whether the stage can stop early and still give something.
    """
    shared = max(0.0, left_s - fixed_s)
    if own_s + flexible_s <= shared:
        return shared - flexible_s
    if can_be_cut:
        return shared * own_s / (own_s + flexible_s) if own_s else shared
    return shared - min(flexible_s, shared * _KEPT_FOR_LATER)


class Waited(Generic[T]):
    """Work that runs in a thread of its own, so that it can be left behind.

    Args:
        call: of the work; cancelled when it is left behind.
        work: what runs.
        ended: set when it has ended, for whoever waits for the first of several.
        in_turn: run it at once in this thread: nobody means to leave it behind.

    Attributes:
        seconds: how long it took; 0 while it runs.
        error: what it raised.
    """

    def __init__(
        self, call: Call, work: Callable[[], T], ended: threading.Event | None = None, *, in_turn: bool = False
    ) -> None:
        self.seconds = 0.0
        self._call, self._work, self._ended = call, work, ended
        self._done = threading.Event()
        self._result: T
        self.error: BaseException | None = None
        if in_turn:
            self._run()
            if isinstance(self.error, KeyboardInterrupt | SystemExit):
                raise self.error
            return
        context = contextvars.copy_context()
        # A daemon: a stage that hears nothing must not keep the process alive that no longer waits for it.
        threading.Thread(target=context.run, args=(self._run,), name="orchestrator-stage", daemon=True).start()

    @property
    def is_done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._done.is_set()

    def wait(self, seconds: float | None) -> bool:
        """Whether it has ended within `seconds`; None waits for the end."""
        try:
            return self._done.wait(seconds)
        except BaseException:  # Ctrl-C in the thread that waits
            self._call.cancel()
            raise

    def leave(self) -> None:
        """Tell it that nobody waits any more, and give it a moment to stop."""
        self._call.cancel()
        self._done.wait(GRACE_S)

    def result(self) -> T:
        """What it gave.

        Raises:
            TimeIsUpError: it was left behind; whatever it raises once it was told to stop is of no interest any more.
            BaseException: whatever it raised.
        """
        if not self.is_done:
            raise TimeIsUpError(lambda: not self.is_done)
        if self._call.cancelled and self.error is not None:
            if not isinstance(self.error, CallCancelledError | TransientError):
                log.info("stage.stopped", reason=f"{type(self.error).__name__}: {self.error}")
            raise TimeIsUpError
        if self.error is not None:
            raise self.error
        return self._result

    def _run(self) -> None:
        started = time.perf_counter()
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self.error = error
        finally:
            self.seconds = time.perf_counter() - started
            self._done.set()
            if self._ended is not None:
                self._ended.set()


def within(seconds: float | None, call: Call, work: Callable[[], T]) -> T:
    """What `work` gives in at most `seconds`; None is any number, and then it runs in this thread.

    Raises:
        TimeIsUpError: it took longer; it was told to stop, and goes on alone where it hears nothing.
    """
    if seconds is None:
        return work()
    waited = Waited(call, work)
    if not waited.wait(seconds):
        waited.leave()
    return waited.result()
