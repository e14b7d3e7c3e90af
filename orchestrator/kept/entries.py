"""Small values by key in one sqlite file that several processes share.

Every row carries a checksum over its key and value. Rows stand in the order of their last use, so that those to drop
stand together and free whole pages.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.kept.sqlite_file import Layout, SqliteFile, transaction

_LAYOUT = Layout(
    1,
    "CREATE TABLE entries(place INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL,"
    " kept INTEGER NOT NULL, used INTEGER NOT NULL)",
    "SELECT place, key, value, kept, used FROM entries LIMIT 0",
)
_DAY_S = 86_400
_SUM_BYTES = 4
_SLICE = 2000
"""Rows dropped in one transaction: what others may have to wait for."""


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
    """The rows, through a connection of its own. Safe between threads, processes, and through forks.

    Args:
        path: of the file; made at first use.
        busy_s: how long to wait for another process that holds it.
        told: kinds of trouble that were logged already; each is logged once.
    """

    def __init__(self, path: Path, busy_s: float, told: set[str]) -> None:
        self.file = SqliteFile(path, _LAYOUT, busy_s, told)

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

        found = self.file.do(look, Found([], []))
        if found.damaged:
            self.file.tell("cache.damaged_rows", rows=len(found.damaged), done="removed")
        return found

    def write(self, entries: Iterable[Entry], removed: Iterable[bytes] = ()) -> None:
        """Drop the rows under `removed`, then write `entries`, each in place of the one before; all or nothing."""
        sealed = [(entry.key, _sealed(entry), entry.kept, entry.used) for entry in entries]

        def put(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany("DELETE FROM entries WHERE key = ?", ((key,) for key in removed))
                connection.executemany("INSERT OR REPLACE INTO entries(key, value, kept, used) VALUES(?,?,?,?)", sealed)

        self.file.do(put, None)

    def n_bytes(self) -> int:
        """Of the pages that hold something."""
        return self.file.do(_live_bytes, 0)

    def __len__(self) -> int:
        return self.file.do(lambda connection: int(connection.execute("SELECT count(*) FROM entries").fetchone()[0]), 0)

    def shrink(self, most_bytes: float) -> int:
        """Drop the rows used least recently until the rest takes at most `most_bytes`; returns how many went."""
        return self._drop("", (), most_bytes)

    def drop_unused(self, since_day: int) -> int:
        """Drop the rows that were last used before `since_day`; returns how many."""
        return self._drop("WHERE used < ?", (since_day,), -1.0)

    def drop_expired(self, after_s: float) -> int:
        """Drop the rows that expire and were made more than `after_s` seconds ago; returns how many."""
        return self._drop("WHERE kept > 0 AND kept < ?", (int(time.time() - after_s),), -1.0)

    def count_unused(self, since_day: int) -> int:
        """How many rows `drop_unused` would drop."""
        count = "SELECT count(*) FROM entries WHERE used < ?"
        return self.file.do(lambda connection: int(connection.execute(count, (since_day,)).fetchone()[0]), 0)

    def vacuum(self) -> None:
        """Give free pages back to the file system."""

        def rewrite(connection: sqlite3.Connection) -> None:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        self.file.do(rewrite, None)

    def check(self) -> None:
        """Read the whole file; one whose parts do not fit each other is replaced. A second for some 100 MB."""

        def verify(connection: sqlite3.Connection) -> None:
            fault = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if fault != b"ok":
                raise sqlite3.DatabaseError(fault.decode(errors="replace").replace("\n", " "))

        self.file.do(verify, None)

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        self.file.close()

    def _drop(self, where: str, values: tuple[int, ...], down_to: float) -> int:
        chosen = f"SELECT place FROM entries {where} ORDER BY place LIMIT ?"

        def drop(connection: sqlite3.Connection) -> int:
            live = _live_bytes(connection)
            if live <= down_to:
                return 0
            n = _SLICE if down_to < 0 else _rows_in(connection, live - down_to, live)
            with transaction(connection):
                return connection.execute(f"DELETE FROM entries WHERE place IN ({chosen})", (*values, n)).rowcount

        dropped = 0
        while (n_rows := self.file.do(drop, 0)) > 0:
            dropped += n_rows
        return dropped


def open_entries(path: Path) -> Entries:
    """The rows for somebody who looks after them: waits for writers."""
    return Entries(path, 5.0, set())


def _live_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _rows_in(connection: sqlite3.Connection, n_bytes: float, live: int) -> int:
    """About how many rows take `n_bytes` of the `live` ones: 1 at least, a slice at most."""
    n_rows = int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])
    return max(1, min(_SLICE, round(n_rows * n_bytes / live)))


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
