"""Rows by text in files that only grow: a kill at any moment leaves all finished appends and nothing else.

    keys.bin      the 16-byte key of each row's text
    <columns>     one file a column: fixed-width values, one row a text, or for ragged columns several
    ends.i64      for ragged columns: where each text's values end
    blocks.bin    one record per append: first row, number of rows, checksum of all of it; checksum of the record
    meta.json     format, model, dimension

An append writes columns and keys, syncs them, and only then writes its record. What no record covers does not exist:
readers never see it, the next append cuts it off. Nothing here mends what is damaged: `row_repair` does.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from orchestrator import storage
from orchestrator.errors import IndexStateError
from orchestrator.keys import KEY_BYTES, Keys
from orchestrator.stage import Json

_RECORD = struct.Struct("<QQI")
RECORD_BYTES = _RECORD.size + 4
_RACES = 20
"""How often a reader starts over when the folder is replaced under it; one is already rare."""

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


KEYS = Column("keys.bin", np.uint8, KEY_BYTES)
ENDS = Column("ends.i64", np.int64, 0)


class Block(NamedTuple):
    """What one record of blocks.bin says."""

    first: int
    n_rows: int
    checksum: int

    @property
    def rows(self) -> slice:
        """Those it covers."""
        return slice(self.first, self.first + self.n_rows)


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
        self._blocks: list[Block] = []
        self._mapped_id = 0
        self._check_meta()
        self.refresh()

    def __getitem__(self, name: str) -> Array:
        """The mapped column, as of the last `refresh`; stays valid when more rows come."""
        return self._mapped[name]

    def refresh(self) -> bool:
        """Map what was appended since, by whomever; True when there was something, or the folder is another one."""
        for attempt in range(_RACES):
            known = self._file_id()
            if not self._read_blocks(known) and not attempt:
                return False
            self._map_all()
            if self._file_id() == known:
                self._mapped_id = known
                return True
            self._blocks.clear()  # another folder took its place while it was read
        raise self._damaged(f"replaced {_RACES} times while being read")

    def is_current(self) -> bool:
        """Whether what is mapped is still the beginning of what lies in the folder."""
        return not self._blocks or self._file_id() == self._mapped_id

    @property
    def ends_badly(self) -> bool:
        """Whether a record that does not hold follows: others may have mapped its rows before it was damaged."""
        path = self.directory / "blocks.bin"
        return _size(path) >= (len(self._blocks) + 1) * RECORD_BYTES

    def _map_all(self) -> None:
        n_rows = self._blocks[-1].rows.stop if self._blocks else 0
        self.keys = self._map(KEYS, n_rows)
        self.ends = self._map(ENDS, n_rows) if self._is_ragged else self.ends
        n_values = int(self.ends[-1]) if len(self.ends) else 0
        if n_values < 0:
            raise self._damaged(f"{ENDS.file} ends with {n_values}; expected 0 or more")
        for name, column in self._columns.items():
            self._mapped[name] = self._map(column, n_values if column.ragged else n_rows)

    def append(self, keys: Keys, columns: Mapping[str, Array], lengths: Sequence[int] = ()) -> None:
        """Add rows. The caller alone writes, has refreshed since, and the file does not end badly.

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
            self._write(ENDS, first, ends)
        self._write(KEYS, first, keys)
        checksum = checksum_of([*written.values(), *([ends] if self._is_ragged else []), keys])
        body = _RECORD.pack(first, len(keys), checksum)
        record = body + zlib.crc32(body).to_bytes(4, "little")
        _write_tail(self.directory / "blocks.bin", n_blocks * RECORD_BYTES, record)
        self.refresh()

    @property
    def n_bytes(self) -> int:
        """Of all columns, as they are mapped."""
        return sum(column.nbytes for column in self._mapped.values())

    def verify(self) -> None:
        """Read every row again and compare with the checksums.

        Raises:
            IndexStateError: rows changed since they were written.
        """
        self.refresh()
        if self.ends_badly:
            raise self._damaged("the last record of blocks.bin is not what was written")
        for block in self._blocks:
            if self._checksum_of(block.rows) != block.checksum:
                raise self._damaged(f"rows {block.rows.start} to {block.rows.stop - 1} are not what was written")

    def _checksum_of(self, rows: slice) -> int:
        values = slice(0, 0)
        if self._is_ragged:
            values = slice(int(self.ends[rows.start - 1]) if rows.start else 0, int(self.ends[rows.stop - 1]))
        parts = [self[name][values if column.ragged else rows] for name, column in self._columns.items()]
        return checksum_of([*parts, *([self.ends[rows]] if self._is_ragged else []), self.keys[rows]])

    def _read_blocks(self, file_id: int) -> bool:
        """Add the records that are new to `_blocks`; True when there were any, or the folder is another one."""
        path = self.directory / "blocks.bin"
        size = _size(path)
        replaced = bool(self._blocks) and (file_id != self._mapped_id or size < len(self._blocks) * RECORD_BYTES)
        if replaced:
            self._blocks.clear()
        n_known = len(self._blocks)
        if size // RECORD_BYTES > n_known:
            try:
                with open(path, "rb") as file:
                    file.seek(n_known * RECORD_BYTES)
                    self._parse(file.read())
            except FileNotFoundError:  # removed since its size was asked: nothing is there any more
                self._blocks.clear()
                return True
        return replaced or len(self._blocks) > n_known

    def _file_id(self) -> int:
        """Tells this folder from one that took its place: no other file has the number of one that is mapped."""
        found = _stat(self.directory / KEYS.file)
        return 0 if found is None else found.st_ino

    def _parse(self, data: bytes) -> None:
        records = list(parse_records(data))
        for number, block in enumerate(records):
            expected = self._blocks[-1].rows.stop if self._blocks else 0
            if block is None or block.first != expected:
                if number == len(records) - 1:
                    break  # the machine went down inside the last append
                raise self._damaged(f"record {len(self._blocks)} of blocks.bin is not what was written")
            self._blocks.append(block)

    def _map(self, column: Column, n_rows: int) -> Array:
        if not n_rows:
            return _nothing(column)
        path = self.directory / column.file
        expected = n_rows * column.row_bytes
        found = _size(path)
        if found < expected:
            raise self._damaged(f"{column.file} has {found} bytes; expected at least {expected}")
        try:
            return np.asarray(np.memmap(path, column.dtype, "r", shape=(n_rows, *column.shape)))
        except (FileNotFoundError, ValueError) as error:  # removed, or cut, since its size was asked
            raise self._damaged(f"{column.file} cannot be mapped ({error})") from error

    def _write(self, column: Column, first: int, values: Array) -> None:
        _write_tail(self.directory / column.file, first * column.row_bytes, values.tobytes())

    def _check_meta(self) -> None:
        path = self.directory / "meta.json"
        if self.directory.exists() and not self.directory.is_dir():
            raise self._damaged("a file; expected a folder")
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
        return IndexStateError(f"{self.directory}: {found}")


def lock_of(directory: Path, what: str) -> Path:
    """The file to lock for doing `what` with a folder; beside it, so that the folder may be replaced meanwhile."""
    return directory.with_name(f".{directory.name}.{what}.lock")


def parse_records(data: bytes) -> Iterator[Block | None]:
    """What each record of blocks.bin says; None for one that is not what was written."""
    for start in range(0, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
        body, checksum = data[start : start + _RECORD.size], data[start + _RECORD.size : start + RECORD_BYTES]
        is_whole = zlib.crc32(body) == int.from_bytes(checksum, "little")
        yield Block(*_RECORD.unpack(body)) if is_whole else None


def _nothing(column: Column) -> Array:
    return np.empty((0, *column.shape), dtype=column.dtype)


def checksum_of(parts: Sequence[Array]) -> int:
    """CRC-32 of the bytes of `parts`, one after another."""
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(np.ascontiguousarray(part).data, checksum)
    return checksum


def _size(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    found = _stat(path)
    return 0 if found is None else found.st_size


def _stat(path: Path) -> os.stat_result | None:
    """None where there is no file: asked once, since another process may remove it at any moment."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write_tail(path: Path, start: int, data: bytes) -> None:
    """Cut `path` to `start` bytes, add `data`, and wait until the disk has it."""
    with open(path, "ab") as file:
        file.truncate(start)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
