"""Values by key in one bounded file that processes share: found at once, written after the answer, never failing.

What kinds of values there are, and what their keys are made of, is the business of who builds on it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from orchestrator.errors import ConfigError
from orchestrator.kept.entries import Entries, Entry, today
from orchestrator.kept.write_behind import WriteBehind
from orchestrator.log import get_logger

log = get_logger()

_MB = 1 << 20
_DAY_S = 86_400
_READ_BUSY_S = 0.05
_WRITE_BUSY_S = 5.0
_MOST_WAITING = 2000
"""Look-ups and answers waiting to be written: some hundred thousand rows, where the disk is that slow."""
_FLUSH_S = 30.0
_FULL_SHARE = 0.9
"""How full the file is left when entries had to go."""

Change: TypeAlias = Callable[[], tuple[list[Entry], list[bytes]]]
"""Gives what is to be written, and keys to remove."""


class KeptFile:
    """One file of values. Safe between threads, processes, and after a kill; never a reason to fail.

    Args:
        path: of the file; made at first use.
        max_mb: the entries used least recently go when the file grows beyond it; None for no limit.
        remote_days: how long an entry that expires is used.
        read_busy_s: how long a look-up waits for somebody who is opening or replacing the file.
    """

    def __init__(self, path: Path, max_mb: float | None, remote_days: float, read_busy_s: float = _READ_BUSY_S) -> None:
        self.path = path
        self._most_bytes = math.inf if max_mb is None else max_mb * _MB
        self._remote_s = remote_days * _DAY_S
        told: set[str] = set()
        self._reading = Entries(self.path, read_busy_s, told)
        self._writing = Entries(self.path, _WRITE_BUSY_S, told)
        self._behind: WriteBehind[Change] = WriteBehind(self._write, _MOST_WAITING)

    def load(self) -> None:
        """Open the file now, so that the first look-up need not; not needed otherwise."""
        self._reading.find([])

    def flush(self) -> None:
        """Wait until what was kept so far is on disk, half a minute at most."""
        self._behind.flush(_FLUSH_S)

    def close(self) -> None:
        """Write what waits, and let go of the file; a later use opens it again."""
        self.flush()
        self._reading.close()
        self._writing.close()

    def _find(self, keys: Sequence[bytes], fits: Callable[[bytes], bool]) -> dict[bytes, bytes]:
        """Key -> value of those that are kept, whole, as `fits` expects them, and not too old."""
        found, now, day = self._reading.find(list(dict.fromkeys(keys))), time.time(), today()
        usable = [
            entry
            for entry in found.entries
            if fits(entry.value) and (not entry.kept or abs(now - entry.kept) <= self._remote_s)
        ]
        unused = [entry._replace(used=day) for entry in usable if entry.used != day]
        if unused or found.damaged:
            self._behind.put(lambda: (unused, found.damaged))
        return {entry.key: entry.value for entry in usable}

    def _write(self, changes: Sequence[Change]) -> None:
        made = [change() for change in changes]
        entries = list(chain.from_iterable(entries for entries, _ in made))
        removed = list(chain.from_iterable(removed for _, removed in made))
        self._writing.write(entries, removed)
        if removed:
            self._writing.check()  # where rows are damaged, what leads to them may be too
        if self._writing.n_bytes() > self._most_bytes:
            dropped = self._writing.shrink(self._most_bytes * _FULL_SHARE)
            log.debug("cache.evicted", path=str(self.path), rows=dropped)


def entries_of(keys: Iterable[bytes], values: Iterable[bytes], *, expires: bool) -> list[Entry]:
    """Rows for today; those that expire remember when they were made."""
    kept, day = int(time.time()) if expires else 0, today()
    return [Entry(key, value, kept, day) for key, value in zip(keys, values, strict=True)]


def check_above_zero(path: str, value: object, more: str = "", *, may_be_none: bool = False) -> None:
    """Nothing, where `value` is a number above 0.

    Args:
        path: of the value in the configuration.
        value: what stands there.
        more: what else may stand there, at the end of the message.
        may_be_none: whether None is allowed too.

    Raises:
        ConfigError: it is none.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (is_number and value > 0) and not (may_be_none and value is None):  # type: ignore[operator]
        raise ConfigError(path, f"found {value!r}; expected a number above 0{more}")
