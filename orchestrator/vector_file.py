"""Rows of vectors in files that only grow: a kill at any moment leaves all finished appends and nothing else.

    vectors.f32   float32 rows
    keys.bin      the 16-byte key of each row's text
    blocks.bin    one record per append: first row, number of rows, checksum of both; checksum of the record
    meta.json     format, model, dimension

An append writes vectors and keys, syncs them, and only then writes its record. What no record covers does not exist:
readers never see it, the next append cuts it off.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from orchestrator import storage
from orchestrator.errors import IndexStateError
from orchestrator.keys import KEY_BYTES, Keys
from orchestrator.stage import Json
from orchestrator.types import Vectors

_FORMAT = 1
_Number = TypeVar("_Number", np.uint8, np.float32)
_RECORD = struct.Struct("<QQI")
_RECORD_BYTES = _RECORD.size + 4


class _Block(NamedTuple):
    first: int
    n_rows: int
    checksum: int


class VectorFile:
    """Append-only rows of one model. Not safe between threads; safe between processes.

    Args:
        directory: the folder; made by the first append.
        model_id: names the model.
        dim: length of a vector.

    Attributes:
        keys: uint8 [n, 16], as of the last `refresh`.
        vectors: float32 [n, dim], mapped; stays valid when more rows come.

    Raises:
        IndexStateError: the folder holds vectors of something else, or is damaged.
    """

    def __init__(self, directory: Path, model_id: str, dim: int) -> None:
        self.directory, self.dim = directory, dim
        self.keys: Keys = np.empty((0, KEY_BYTES), dtype=np.uint8)
        self.vectors: Vectors = np.empty((0, dim), dtype=np.float32)
        self._meta: dict[str, Json] = {"format": _FORMAT, "model_id": model_id, "dim": dim}
        self._blocks: list[_Block] = []
        self._inode = 0
        self._check_meta()
        self.refresh()

    def refresh(self) -> bool:
        """Map what was appended since, by whomever; True when there was something."""
        if not self._read_blocks():
            return False
        n_rows = self._blocks[-1].first + self._blocks[-1].n_rows if self._blocks else 0
        self.keys = self._map("keys.bin", np.uint8, n_rows, KEY_BYTES)
        self.vectors = self._map("vectors.f32", np.float32, n_rows, self.dim)
        return True

    def append(self, keys: Keys, vectors: Vectors) -> None:
        """Add rows. The caller holds `locked(self.write_lock)` and has refreshed since."""
        self._write_meta()
        first, n_blocks = len(self.keys), len(self._blocks)
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        _write_tail(self.directory / "vectors.f32", first * self.dim * 4, vectors.tobytes())
        _write_tail(self.directory / "keys.bin", first * KEY_BYTES, keys.tobytes())
        body = _RECORD.pack(first, len(keys), _checksum(vectors, keys))
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
            if _checksum(self.vectors[rows], self.keys[rows]) != checksum:
                raise self._damaged(f"rows {rows.start} to {rows.stop - 1} are not what was written")

    def _read_blocks(self) -> bool:
        """Add the records that are new to `_blocks`; True when there were any, or the folder was removed."""
        path = self.directory / "blocks.bin"
        stat = path.stat() if path.is_file() else None
        # Records are only added in place: another inode means that somebody removed the folder meanwhile.
        removed = bool(self._blocks) and (stat is None or stat.st_ino != self._inode)
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

    def _map(self, name: str, dtype: type[_Number], n_rows: int, width: int) -> npt.NDArray[_Number]:
        path = self.directory / name
        if not n_rows:
            return np.empty((0, width), dtype)
        expected = n_rows * width * np.dtype(dtype).itemsize
        found = path.stat().st_size if path.is_file() else 0
        if found < expected:
            raise self._damaged(f"{name} has {found} bytes; expected at least {expected}")
        return np.asarray(np.memmap(path, dtype, "r", shape=(n_rows, width)))

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


def _checksum(vectors: Vectors, keys: Keys) -> int:
    return zlib.crc32(np.ascontiguousarray(keys).data, zlib.crc32(np.ascontiguousarray(vectors).data))


def _write_tail(path: Path, start: int, data: bytes) -> None:
    """Cut `path` to `start` bytes, add `data`, and wait until the disk has it."""
    with open(path, "ab") as file:
        file.truncate(start)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
