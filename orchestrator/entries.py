"""Small values by key in one sqlite file that several processes share, and that nobody has to trust.

Every row carries a checksum over its key and value. A file that is no database, or damaged, or of another version, is
renamed to `<name>.damaged` and begun anew, also while other processes have it open: they notice that the name leads to
another file, and open that one. What else may go wrong (no right to write, no room, somebody else holds the file for
long) costs the entries, never the answer.

Rows stand in the order of their last use, so that those to drop stand together and free whole pages.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from orchestrator import storage
from orchestrator.errors import ConfigError
from orchestrator.forks import keep_through_forks
from orchestrator.log import get_logger

log = get_logger()

DAMAGED = ".damaged"
_FORMAT = 1
_APPLICATION = 0x52724F63
"""Marks a sqlite file as ours: RrOc."""
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE entries(
    place INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL, kept INTEGER NOT NULL,
    used INTEGER NOT NULL);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_FORMAT};
COMMIT;
"""
_DAY_S = 86_400
_SUM_BYTES = 4
_OPEN_S = 1.0
_PAUSE_S = 60.0
"""How long a file is left alone that could not be opened, read or written for other reasons than damage."""
_SLICE = 2000
"""Rows dropped in one transaction: what others may have to wait for."""

_BROKEN = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
    | {sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_EMPTY}
)
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_SCHEMA})
_SHORT_READ = sqlite3.SQLITE_IOERR_SHORT_READ
_MOVED = sqlite3.SQLITE_READONLY_DBMOVED

T = TypeVar("T")


class Entry(NamedTuple):
    """One row.

    Attributes:
        key: 16 bytes.
        value: what is kept, without its checksum.
        kept: when it was made, in seconds since 1970, for what expires; else 0.
        used: day of its last use, since 1970.
    """

    key: bytes
    value: bytes
    kept: int
    used: int


class Found(NamedTuple):
    """What a look-up brought.

    Attributes:
        entries: those that are whole.
        damaged: keys of rows that are not what was written.
    """

    entries: list[Entry]
    damaged: list[bytes]


def today() -> int:
    """Days since 1970."""
    return int(time.time()) // _DAY_S


class Entries:
    """One connection to the file, opened at first use. Safe between threads, processes, and through forks.

    Args:
        path: of the file.
        busy_s: how long to wait for another process that holds it.
        told: kinds of trouble that were logged already; each is logged once.
    """

    def __init__(self, path: Path, busy_s: float, told: set[str]) -> None:
        self.path = path
        self._busy_s, self._told = busy_s, told
        self.fork_lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._left_alone_until = 0.0
        keep_through_forks(self)

    def begin_anew(self) -> None:
        """In a forked process: its parent's connection is neither used nor closed, as sqlite demands."""
        if self._connection is not None:
            _parents.append(self._connection)
        self._connection = None

    def find(self, keys: Sequence[bytes]) -> Found:
        """Rows under `keys`, in any order; nothing where the file cannot be read."""

        def look(connection: sqlite3.Connection) -> Found:
            at_once = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
            rows: list[tuple[object, ...]] = []
            for start in range(0, len(keys), at_once):
                wanted = keys[start : start + at_once]
                marks = ",".join("?" * len(wanted))
                rows += connection.execute(f"SELECT key, value, kept, used FROM entries WHERE key IN ({marks})", wanted)
            return _sorted_out(rows)

        return self._do(look, Found([], []))

    def write(self, entries: Iterable[Entry], removed: Iterable[bytes] = ()) -> None:
        """Drop the rows under `removed`, then write `entries`, each in place of the one before; all or nothing."""
        sealed = [(entry.key, _sealed(entry), entry.kept, entry.used) for entry in entries]

        def put(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.executemany("DELETE FROM entries WHERE key = ?", ((key,) for key in removed))
                connection.executemany("INSERT OR REPLACE INTO entries(key, value, kept, used) VALUES(?,?,?,?)", sealed)

        self._do(put, None)

    def n_bytes(self) -> int:
        """Of the pages that hold something."""
        return self._do(_live_bytes, 0)

    def __len__(self) -> int:
        return self._do(lambda connection: int(connection.execute("SELECT count(*) FROM entries").fetchone()[0]), 0)

    def shrink(self, most_bytes: float) -> int:
        """Drop the rows used least recently until the rest takes at most `most_bytes`; returns how many went."""
        return self._drop("", (), most_bytes)

    def drop_unused(self, since_day: int) -> int:
        """Drop the rows that were last used before `since_day`; returns how many."""
        return self._drop("WHERE used < ?", (since_day,), -1.0)

    def vacuum(self) -> None:
        """Give free pages back to the file system."""

        def rewrite(connection: sqlite3.Connection) -> None:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        self._do(rewrite, None)

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self.fork_lock:
            self._close()

    def _drop(self, where: str, values: tuple[int, ...], down_to: float) -> int:
        chosen = f"SELECT place FROM entries {where} ORDER BY place LIMIT {_SLICE}"

        def drop(connection: sqlite3.Connection) -> int:
            if _live_bytes(connection) <= down_to:
                return 0
            with _transaction(connection):
                return connection.execute(f"DELETE FROM entries WHERE place IN ({chosen})", values).rowcount

        dropped = 0
        while (n_rows := self._do(drop, 0)) > 0:
            dropped += n_rows
        return dropped

    def _do(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What `work` makes of the connection; `otherwise` where something went wrong."""
        with self.fork_lock:
            if time.monotonic() < self._left_alone_until:
                return otherwise
            try:
                return work(self._opened())
            except sqlite3.Error as error:
                self._failed(error)
            except TimeoutError:
                pass  # somebody else is opening or replacing it
            except (OSError, ConfigError, MemoryError) as error:
                self._leave_alone(error)
            return otherwise

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None or _inode(self.path) != self._inode:
            self._close()
            with storage.locked(self._lock, _OPEN_S):
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
            return _connect(self.path, self._busy_s)
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise
            self._set_aside(str(error))
        return _connect(self.path, self._busy_s)

    def _failed(self, error: sqlite3.Error) -> None:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code == _MOVED:
            self._close()
        elif _is_damage(error):
            self._replace(str(error))
        elif code & 0xFF not in _BUSY:
            self._leave_alone(error)

    def _replace(self, found: str) -> None:
        """Set the file aside that this connection has open, unless somebody else did already."""
        try:
            with storage.locked(self._lock, _OPEN_S):
                if _inode(self.path) == self._inode:
                    self._set_aside(found)
        except (OSError, ConfigError) as error:
            self._leave_alone(error)
        self._close()  # only now: closing the last connection to a file that still has its name writes into it

    def _set_aside(self, found: str) -> None:
        aside = self.path.with_name(self.path.name + DAMAGED)
        if aside.is_dir() or (aside.exists() and self.path.is_dir()):
            aside = aside.with_name(f"{aside.name}-{time.time_ns()}")
        self.path.replace(aside)
        _remove_companions(self.path)
        self._tell("cache.rebuilt", path=str(self.path), reason=found, set_aside=str(aside))

    def _leave_alone(self, error: Exception) -> None:
        self._close()
        self._left_alone_until = time.monotonic() + _PAUSE_S
        self._tell("cache.off", path=str(self.path), reason=str(error), for_s=_PAUSE_S)

    def _tell(self, event: str, **facts: object) -> None:
        if event not in self._told:
            self._told.add(event)
            log.warning(event, **facts)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                pass  # it is damaged; what it holds open goes with the object

    @property
    def _lock(self) -> Path:
        return self.path.with_suffix(".lock")


_parents: list[sqlite3.Connection] = []
"""Connections of a parent process: closing them here would release its locks."""


def _connect(path: Path, busy_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        connection.text_factory = bytes  # a damaged row may hold text that is no UTF-8
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute(f"PRAGMA journal_size_limit = {16 << 20}")
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            connection.executescript(_SCHEMA)
        _check_version(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_version(connection: sqlite3.Connection) -> None:
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if application != _APPLICATION:
        raise sqlite3.DatabaseError("a database of another program")
    if version != _FORMAT:
        raise sqlite3.DatabaseError(f"written by another version: format {version}, expected {_FORMAT}")
    connection.execute("SELECT place, key, value, kept, used FROM entries LIMIT 0")


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF in _BROKEN or code == _SHORT_READ


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _live_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _sealed(entry: Entry) -> bytes:
    return entry.value + _checksum(entry.key, entry.value, entry.kept)


def _checksum(key: bytes, value: bytes, kept: int) -> bytes:
    return zlib.crc32(b"%d" % kept, zlib.crc32(value, zlib.crc32(key))).to_bytes(_SUM_BYTES, "little")


def _sorted_out(rows: Iterable[tuple[object, ...]]) -> Found:
    found = Found([], [])
    for key, sealed, kept, used in rows:
        if not isinstance(key, bytes):
            continue
        if isinstance(sealed, bytes) and isinstance(kept, int) and isinstance(used, int):
            value, checksum = sealed[:-_SUM_BYTES], sealed[-_SUM_BYTES:]
            if checksum == _checksum(key, value, kept):
                found.entries.append(Entry(key, value, kept, used))
                continue
        found.damaged.append(key)
    return found


def _inode(path: Path) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _remove_companions(path: Path) -> None:
    """What a database leaves beside it; without it, or under another name, they would be taken for a new one's."""
    for ending in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
