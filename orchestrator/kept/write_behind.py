"""A daemon thread that does what was put off, several things at a time."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from orchestrator.kept.forks import keep_through_forks
from orchestrator.log import get_logger

log = get_logger()

_GATHER_S = 0.05
"""What comes within this time is done together: one transaction for many queries."""

_IDLE_S = 2.0
"""The thread ends when nothing came for so long; the next thing starts another one."""

_AT_EXIT_S = 5.0

T = TypeVar("T")


class WriteBehind(Generic[T]):
    """Things to do, done in order by a daemon thread. Safe between threads and through forks.

    Args:
        work: does some of them, oldest first; a failure is logged and forgets these.
        most: so many may wait; what comes beyond that is dropped.
    """

    def __init__(self, work: Callable[[Sequence[T]], None], most: int) -> None:
        self._work, self._most, self._told = work, most, False
        self.in_child()
        keep_through_forks(self)
        _to_finish.add(self)

    def before_fork(self) -> None:
        """Nothing: what waits is written by this process."""

    def in_child(self) -> None:
        """Begin with nothing waiting; what did is the parent's."""
        self.fork_lock = threading.Lock()
        self._changed = threading.Condition(self.fork_lock)
        self._waiting: deque[T] = deque()
        self._n_open, self._hurry = 0, False
        self._thread: threading.Thread | None = None

    def put(self, thing: T) -> bool:
        """Do `thing` soon; False when too much waits already, and it is dropped.

        Where no thread can be started, it waits for the next `put` or `flush`, which try again.
        """
        with self._changed:
            if len(self._waiting) >= self._most:
                return False
            self._waiting.append(thing)
            self._n_open += 1
            self._start()
            self._changed.notify_all()
            return True

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was put is done; False when that took longer than `timeout_s`."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            try:
                if self._waiting and not self._start():
                    return False
                return self._changed.wait_for(lambda: not self._n_open, timeout_s)
            finally:
                self._hurry = False

    def _start(self) -> bool:
        """Start the thread where there is none; False where the system has none left, told once."""
        if self._thread is not None and self._thread.is_alive():
            return True
        thread = threading.Thread(target=self._run, name="write-behind", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # it runs out of threads, or the program is ending
            if not self._told:
                self._told = True
                log.warning("cache.not_written", reason=str(error), waiting=len(self._waiting))
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        while things := self._take():
            try:
                self._work(things)
            except Exception as error:  # noqa: BLE001 - a cache is never a reason to fail
                log.warning("cache.not_written", reason=f"{type(error).__name__}: {error}")
            with self._changed:
                self._n_open -= len(things)
                self._changed.notify_all()

    def _take(self) -> list[T]:
        """What waits, once no more comes or somebody is in a hurry; nothing ends the thread."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting, _IDLE_S):
                self._thread = None
                return []
            until = time.monotonic() + _GATHER_S
            while not self._hurry and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            things = list(self._waiting)
            self._waiting.clear()
            return things


_to_finish: weakref.WeakSet[WriteBehind[Any]] = weakref.WeakSet()


@atexit.register
def _finish() -> None:
    for behind in list(_to_finish):
        behind.flush(_AT_EXIT_S)
