"""Folders that only one process may have open, shared by all that use them inside it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from filelock import BaseFileLock


class Closable(Protocol):
    """What a folder was opened as."""

    def close(self) -> None:
        """Let go of the files."""


T = TypeVar("T", bound=Closable)

_open: dict[tuple[int, str], _Opened] = {}
_mutex = threading.Lock()


class Lease(Generic[T]):
    """A use of an opened folder; made by `open_once`.

    Attributes:
        value: what the folder was opened as, the same for all leases of this process.
    """

    def __init__(self, value: T, key: tuple[int, str]) -> None:
        self.value = value
        self._key = key

    def close(self) -> None:
        """Let go; the last lease that does so closes the folder for this process."""
        with _mutex:
            opened = _open[self._key]
            opened.users -= 1
            if opened.users == 0:
                del _open[self._key]
                opened.value.close()
                opened.lock.release()


def open_once(folder: Path, load: Callable[[], T]) -> Lease[T] | None:
    """`folder` opened by `load`, or as this process has it open already; None when another process has it."""
    # The process id is part of the key: after a fork the parent's is not the child's to use.
    key = (os.getpid(), str(folder.resolve()))
    with _mutex:
        if key not in _open:
            lock = _try_lock(folder.with_name(f"{folder.name}.lock"))
            if lock is None:
                return None
            _open[key] = _load(load, lock)
        _open[key].users += 1
        return Lease(_open[key].value, key)  # type: ignore[arg-type]


class _Opened:
    def __init__(self, value: Closable, lock: BaseFileLock) -> None:
        self.value, self.lock, self.users = value, lock, 0


def _load(load: Callable[[], Closable], lock: BaseFileLock) -> _Opened:
    try:
        return _Opened(load(), lock)
    except BaseException:
        lock.release()
        raise


def _try_lock(path: Path) -> BaseFileLock | None:
    from filelock import FileLock, Timeout

    # Not thread-local: whichever thread closes last has to release it.
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
