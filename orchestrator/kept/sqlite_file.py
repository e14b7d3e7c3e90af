"""A sqlite file that several processes share and nobody has to trust: opened, found damaged, set aside, begun anew.

A file that is no database, or damaged, or of another version, is renamed to `<name>.damaged` and begun anew, also while
other processes have it open: they notice that the name leads to another file, and open that one. What else may go wrong
(no right to write, no room, somebody else holds the file for long) is told once, and costs what the file holds, never
the answer.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from orchestrator import storage
from orchestrator.errors import ConfigError
from orchestrator.kept.forks import keep_through_forks
from orchestrator.log import get_logger

log = get_logger()

DAMAGED = ".damaged"
_APPLICATION = 0x52724F63
"""Marks a sqlite file as ours: RrOc."""
_PAUSE_S = 60.0
"""How long a file is left alone that could not be opened, read or written for other reasons than damage."""
_BUSY_PAUSE_S = 1.0
"""The same, where somebody else held it for too long: not every question is to wait for that anew."""

_CREATE = """
BEGIN IMMEDIATE;
{layout.create};
PRAGMA application_id = {application};
PRAGMA user_version = {layout.version};
COMMIT;
"""

_BROKEN = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
    | {sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_EMPTY}
)
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_SCHEMA})
_SHORT_READ = sqlite3.SQLITE_IOERR_SHORT_READ
_MOVED = sqlite3.SQLITE_READONLY_DBMOVED

T = TypeVar("T")


class Layout(NamedTuple):
    """What a file of ours holds.

    Attributes:
        version: of the layout; a file of another one is set aside.
        create: statements that make the tables.
        check: a query that fails where they are not as expected.
    """

    version: int
    create: str
    check: str


class SqliteFile:
    """One connection to the file, opened at first use. Safe between threads, processes, and through forks.

    Args:
        path: of the file.
        layout: what it holds.
        busy_s: how long to wait for another process that holds it, or is about to open or replace it.
        told: kinds of trouble that were logged already; each is logged once.
    """

    def __init__(self, path: Path, layout: Layout, busy_s: float, told: set[str]) -> None:
        self.path = path
        self._layout, self._busy_s, self._told = layout, busy_s, told
        self.fork_lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._left_alone_until = 0.0
        keep_through_forks(self)

    def before_fork(self) -> None:
        """Close the connection: sqlite's must not be carried into another process, not even to be left alone there."""
        self._close()

    def in_child(self) -> None:
        """Nothing is left of the parent's."""

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self.fork_lock:
            self._close()

    def remove(self) -> None:
        """Remove the file and what was set aside; others that have it open begin anew.

        Raises:
            ConfigError: the folder cannot be written.
        """
        with self.fork_lock, storage.locked(self._lock):
            self.path.unlink(missing_ok=True)
            _remove_companions(self.path)
            self._close()
            self.remove_damaged()

    def remove_damaged(self) -> None:
        """Remove what was set aside; a folder that stood in the way is somebody's, and stays."""
        for path in self.damaged():
            path.unlink(missing_ok=True)

    def damaged(self) -> list[Path]:
        """Files that were set aside."""
        return [path for path in self.path.parent.glob(f"{self.path.name}{DAMAGED}*") if path.is_file()]

    def do(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What `work` makes of the connection; `otherwise` where something went wrong."""
        with self.fork_lock:
            if time.monotonic() < self._left_alone_until:
                return otherwise
            try:
                return work(self._opened())
            except sqlite3.Error as error:
                self._failed(error)
            except TimeoutError:  # somebody else is opening or replacing it
                self._pause(_BUSY_PAUSE_S)
            except (OSError, ConfigError, MemoryError) as error:
                self._leave_alone(error)
            return otherwise

    def tell(self, event: str, **facts: object) -> None:
        """Log a warning, once."""
        if event not in self._told:
            self._told.add(event)
            log.warning(event, path=str(self.path), **facts)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None or _inode(self.path) != self._inode:
            self._close()
            with storage.locked(self._lock, self._busy_s):
                self._connection = self._open()
                self._inode = _inode(self.path)
        return self._connection

    def _open(self) -> sqlite3.Connection:
        """A checked connection. The caller holds the lock, under which alone the name may be given to another file."""
        if self.path.exists() and not self.path.is_file():
            self._set_aside("not a file")
        if not self.path.exists():
            _remove_companions(self.path)
        try:
            return _connect(self.path, self._layout, self._busy_s)
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise
            self._set_aside(str(error))
        return _connect(self.path, self._layout, self._busy_s)

    def _failed(self, error: sqlite3.Error) -> None:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code == _MOVED:
            self._close()
        elif _is_damage(error):
            self._replace(str(error))
        elif code & 0xFF in _BUSY:
            self._pause(_BUSY_PAUSE_S)
        else:
            self._leave_alone(error)

    def _replace(self, found: str) -> None:
        """Set the file aside that this connection has open, unless somebody else did already."""
        try:
            with storage.locked(self._lock, self._busy_s):
                if _inode(self.path) == self._inode:
                    self._set_aside(found)
        except TimeoutError:  # somebody else is at it
            self._pause(_BUSY_PAUSE_S)
        except (OSError, ConfigError) as error:
            self._leave_alone(error)
        self._close()  # only now: closing the last connection to a file that still has its name writes into it

    def _set_aside(self, found: str) -> None:
        aside = self.path.with_name(self.path.name + DAMAGED)
        if aside.is_dir() or (aside.exists() and self.path.is_dir()):
            aside = aside.with_name(f"{aside.name}-{time.time_ns()}")
        self.path.replace(aside)
        _remove_companions(self.path)
        self.tell("cache.rebuilt", reason=found, set_aside=str(aside))

    def _leave_alone(self, error: Exception) -> None:
        self._close()
        self._pause(_PAUSE_S)
        self.tell("cache.off", reason=str(error), for_s=_PAUSE_S)

    def _pause(self, for_s: float) -> None:
        self._left_alone_until = time.monotonic() + for_s

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # it is damaged; what it holds open goes with the object
                connection.close()

    @property
    def _lock(self) -> Path:
        return self.path.with_suffix(".lock")


def _connect(path: Path, layout: Layout, busy_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        connection.text_factory = bytes  # a damaged row may hold text that is no UTF-8
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA cache_size = -16000")  # at most 16 MB: look-ups of a large file are random reads
        connection.execute(f"PRAGMA journal_size_limit = {16 << 20}")
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            connection.executescript(_CREATE.format(layout=layout, application=_APPLICATION))
        _check(connection, layout)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, layout: Layout) -> None:
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if application != _APPLICATION:
        raise sqlite3.DatabaseError("a database of another program")
    if version != layout.version:
        raise sqlite3.DatabaseError(f"written by another version: format {version}, expected {layout.version}")
    connection.execute(layout.check)


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF in _BROKEN or code == _SHORT_READ


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is done in the block, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _remove_companions(path: Path) -> None:
    """What a database leaves beside it; without it, or under another name, they would be taken for a new one's."""
    for ending in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
