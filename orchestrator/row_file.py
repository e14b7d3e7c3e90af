"""Rows by text in files that only grow: a kill at any moment leaves all finished appends and nothing else.

    keys.bin      the 16-byte key of each row's text
    <columns>     one file a column: fixed-width values, one row a text, or for ragged columns several
    ends.i64      for ragged columns: where each text's values end
    blocks.bin    one record per append: first row, number of rows, checksum of all of it; checksum of the record
    meta.json     format, model, dimension

An append writes columns and keys, syncs them, and only then writes its record. What no record covers does not exist:
readers never see it, the next append cuts it off.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from orchestrator import storage
from orchestrator.errors import IndexStateError
from orchestrator.keys import KEY_BYTES, Keys
from orchestrator.stage import Json

_RECORD = struct.Struct("<QQI")
_RECORD_BYTES = _RECORD.size + 4

Array: TypeAlias = npt.NDArray[Any]


class Column(NamedTuple):
    """What one file holds.

    Attributes:
        file: its name.
        dtype: of a value.
        width: values in a row; 0 makes a flat array of one value a row.
        ragged: a text has any number of rows, all ragged columns the same.
    """

    file: str
    dtype: type[np.generic]
    width: int
    ragged: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (self.width,) if self.width else ()

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return max(self.width, 1) * np.dtype(self.dtype).itemsize


_KEYS = Column("keys.bin", np.uint8, KEY_BYTES)
_ENDS = Column("ends.i64", np.int64, 0)


class _Block(NamedTuple):
    first: int
    n_rows: int
    checksum: int


class RowFile:
    """Append-only rows. Not safe between threads; safe between processes.

    Args:
        directory: the folder; made by the first append.
        meta: what the rows are; another content of meta.json is refused.
        columns: name -> what it holds.

    Attributes:
        keys: uint8 [n, 16], as of the last `refresh`.
        ends: int64 [n]: a text's values of ragged columns are those from the end of the text before it.

    Raises:
        IndexStateError: the folder holds something else, or is damaged.
    """

    def __init__(self, directory: Path, meta: Mapping[str, Json], columns: Mapping[str, Column]) -> None:
        self.directory = directory
        self.keys: Keys = np.empty((0, KEY_BYTES), dtype=np.uint8)
        self.ends: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._columns = dict(columns)
        self._mapped: dict[str, Array] = {name: _nothing(column) for name, column in columns.items()}
        self._is_ragged = any(column.ragged for column in columns.values())
        self._meta = dict(meta)
        self._blocks: list[_Block] = []
        self._inode = 0
        self._check_meta()
        self.refresh()

    def __getitem__(self, name: str) -> Array:
        """The mapped column, as of the last `refresh`; stays valid when more rows come."""
        return self._mapped[name]

    def refresh(self) -> bool:
        """Map what was appended since, by whomever; True when there was something."""
        if not self._read_blocks():
            return False
        n_rows = self._blocks[-1].first + self._blocks[-1].n_rows if self._blocks else 0
        self.keys = self._map(_KEYS, n_rows)
        self.ends = self._map(_ENDS, n_rows) if self._is_ragged else self.ends
        n_values = int(self.ends[-1]) if len(self.ends) else 0
        for name, column in self._columns.items():
            self._mapped[name] = self._map(column, n_values if column.ragged else n_rows)
        return True

    def append(self, keys: Keys, columns: Mapping[str, Array], lengths: Sequence[int] = ()) -> None:
        """Add rows. The caller holds `locked(self.write_lock)` and has refreshed since.

        Args:
            keys: uint8 [n, 16].
            columns: name -> values; of a ragged column those of all texts, one after another.
            lengths: of each text, for ragged columns.
        """
        self._write_meta()
        first, n_blocks = len(self.keys), len(self._blocks)
        first_value = int(self.ends[-1]) if len(self.ends) else 0
        written = {
            name: np.ascontiguousarray(columns[name], dtype=column.dtype) for name, column in self._columns.items()
        }
        for name, column in self._columns.items():
            self._write(column, first_value if column.ragged else first, written[name])
        ends = first_value + np.cumsum(np.asarray(lengths, dtype=np.int64))
        if self._is_ragged:
            self._write(_ENDS, first, ends)
        self._write(_KEYS, first, keys)
        checksum = _checksum([*written.values(), *([ends] if self._is_ragged else []), keys])
        body = _RECORD.pack(first, len(keys), checksum)
        record = body + zlib.crc32(body).to_bytes(4, "little")
        _write_tail(self.directory / "blocks.bin", n_blocks * _RECORD_BYTES, record)
        self.refresh()

    @property
    def write_lock(self) -> Path:
        """The file to lock around `refresh` and `append`."""
        return self.directory / "write.lock"

    def verify(self) -> None:
        """Read every row again and compare with the checksums.

        Raises:
            IndexStateError: rows changed since they were written.
        """
        self.refresh()
        for first, n_rows, checksum in self._blocks:
            rows = slice(first, first + n_rows)
            if self._checksum_of(rows) != checksum:
                raise self._damaged(f"rows {rows.start} to {rows.stop - 1} are not what was written")

    def _checksum_of(self, rows: slice) -> int:
        values = slice(0, 0)
        if self._is_ragged:
            values = slice(int(self.ends[rows.start - 1]) if rows.start else 0, int(self.ends[rows.stop - 1]))
        parts = [self[name][values if column.ragged else rows] for name, column in self._columns.items()]
        return _checksum([*parts, *([self.ends[rows]] if self._is_ragged else []), self.keys[rows]])

    def _read_blocks(self) -> bool:
        """Add the records that are new to `_blocks`; True when there were any, or the folder was removed."""
        path = self.directory / "blocks.bin"
        stat = path.stat() if path.is_file() else None
        # Records are only added in place: another inode means that somebody removed the folder meanwhile.
        removed = bool(self._blocks) and (
            stat is None or stat.st_ino != self._inode or stat.st_size < len(self._blocks) * _RECORD_BYTES
        )
        if removed:
            self._blocks.clear()
        n_known = len(self._blocks)
        if stat is not None and stat.st_size // _RECORD_BYTES > n_known:
            self._inode = stat.st_ino
            with open(path, "rb") as file:
                file.seek(n_known * _RECORD_BYTES)
                self._parse(file.read())
        return removed or len(self._blocks) > n_known

    def _parse(self, data: bytes) -> None:
        n_whole = len(data) // _RECORD_BYTES
        for number in range(n_whole):
            record = data[number * _RECORD_BYTES : (number + 1) * _RECORD_BYTES]
            block = _Block(*_RECORD.unpack(record[:-4]))
            expected = self._blocks[-1].first + self._blocks[-1].n_rows if self._blocks else 0
            if zlib.crc32(record[:-4]) != int.from_bytes(record[-4:], "little") or block.first != expected:
                if number == n_whole - 1:
                    break  # the machine went down inside the last append
                raise self._damaged(f"record {len(self._blocks)} of blocks.bin is not what was written")
            self._blocks.append(block)

    def _map(self, column: Column, n_rows: int) -> Array:
        if not n_rows:
            return _nothing(column)
        path = self.directory / column.file
        expected = n_rows * column.row_bytes
        found = path.stat().st_size if path.is_file() else 0
        if found < expected:
            raise self._damaged(f"{column.file} has {found} bytes; expected at least {expected}")
        return np.asarray(np.memmap(path, column.dtype, "r", shape=(n_rows, *column.shape)))

    def _write(self, column: Column, first: int, values: Array) -> None:
        _write_tail(self.directory / column.file, first * column.row_bytes, values.tobytes())

    def _check_meta(self) -> None:
        path = self.directory / "meta.json"
        if not path.exists() and not (self.directory / "blocks.bin").exists():
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError) as error:
            raise self._damaged(f"meta.json cannot be read ({error})") from error
        if found != self._meta:
            raise self._damaged(f"meta.json says {found}; expected {self._meta}")

    def _write_meta(self) -> None:
        path = self.directory / "meta.json"
        if not path.exists():
            storage.write_atomic(path, json.dumps(self._meta))

    def _damaged(self, found: str) -> IndexStateError:
        how = "remove the folder; its vectors are computed again when next needed"
        return IndexStateError(f"{self.directory}: {found}; {how}")


def _nothing(column: Column) -> Array:
    return np.empty((0, *column.shape), dtype=column.dtype)


def _checksum(parts: Sequence[Array]) -> int:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(np.ascontiguousarray(part).data, checksum)
    return checksum


def _write_tail(path: Path, start: int, data: bytes) -> None:
    """Cut `path` to `start` bytes, add `data`, and wait until the disk has it."""
    with open(path, "ab") as file:
        file.truncate(start)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
