"""The axes that vectors of a lower dimension are reduced by: fitted once, kept beside the vectors, never changed."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from orchestrator import storage
from orchestrator.errors import IndexStateError
from orchestrator.log import get_logger
from orchestrator.rows.row_file import lock_of
from orchestrator.rows.text_rows import TextRows
from orchestrator.types import Vectors

log = get_logger()

AXES = "projection.npy"
_SUM_BYTES = 4


class Axes:
    """The first principal axes of a sample of vectors, not centred, so that products lose as little as can be.

    A process that has read them goes on with them when their folder is removed, and writes them there again. Rows made
    with other axes are worth nothing, so that with damaged axes all rows go.

    Args:
        rows: made with these axes.
        own_dim: of vectors before.
        dim: of vectors after.
    """

    def __init__(self, rows: TextRows, own_dim: int, dim: int) -> None:
        self._rows, self._shape = rows, (own_dim, dim)
        self._known: Vectors | None = None
        self._stamp: tuple[int, int] | None = None

    @property
    def _path(self) -> Path:
        return self._rows.directory / AXES

    def read(self) -> Vectors:
        """float32 [own_dim, dim]; the same object as long as nobody replaces them.

        Raises:
            IndexStateError: they are missing or damaged.
        """
        with self._rows.lock:
            stamp = _stamp(self._path)
            if self._known is None or stamp != self._stamp:
                self._known = self._found(stamp)
            return self._known

    def fit(self, sample: Callable[[], Vectors]) -> None:
        """Make the axes where there are none; whoever comes second takes what is there.

        Args:
            sample: gives float32 [n, own_dim].
        """
        if self._is_there():
            return
        with storage.locked(lock_of(self._rows.directory, "fit")):
            if self._is_there():
                return
            vectors = sample()
            axes, share = _principal_axes(vectors, self._shape[1])
            self._rows.discard()
            self._write(axes)
        own_dim, dim = self._shape
        log.info("tokens.reduced", dim=dim, own_dim=own_dim, kept_share=round(share, 3), sample=len(vectors))

    def verify(self) -> str | None:
        """What is wrong with them, read again; None when nothing is, or when nothing was made with them yet."""
        with self._rows.lock:
            fault = self._parsed()[1] if len(self._rows) else None
            if fault is not None:
                self._stamp = None
                self._is_there()
            return fault

    def _is_there(self) -> bool:
        try:
            self.read()
        except IndexStateError:
            return False
        return True

    def _found(self, stamp: tuple[int, int] | None) -> Vectors:
        axes, fault = self._parsed()
        if axes is not None:
            self._stamp = stamp
            return axes
        if stamp is not None:
            log.warning("vectors.rebuilt", folder=str(self._rows.directory), reason=fault, kept=0)
            self._rows.discard()
        if self._known is None:
            raise IndexStateError(f"{self._rows.directory}: {fault}")
        self._write(self._known)
        return self._known

    def _parsed(self) -> tuple[Vectors | None, str | None]:
        """The axes as they lie there, or what is wrong with them."""
        try:
            data = self._path.read_bytes()
        except OSError:
            return None, f"{AXES} is missing"
        values, expected = data[:-_SUM_BYTES], self._shape[0] * self._shape[1] * 4 + _SUM_BYTES
        if len(data) != expected:
            return None, f"{AXES} has {len(data)} bytes; expected {expected}"
        if data[-_SUM_BYTES:] != _checksum(values):
            return None, f"{AXES} is not what was written"
        return np.frombuffer(values, dtype=np.float32).reshape(self._shape), None

    def _write(self, axes: Vectors) -> None:
        with self._rows.exclusive():
            storage.write_atomic(self._path, axes.tobytes() + _checksum(axes.tobytes()))
            self._known, self._stamp = axes, _stamp(self._path)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_SUM_BYTES, "little")


def _principal_axes(vectors: Vectors, dim: int) -> tuple[Vectors, float]:
    """float32 [own_dim, dim], orthonormal columns, and the share of the squared length that they keep."""
    moment = vectors.T.astype(np.float64) @ vectors.astype(np.float64)
    values, axes = np.linalg.eigh(moment)
    kept = axes[:, ::-1][:, :dim]
    return np.ascontiguousarray(kept, dtype=np.float32), float(values[::-1][:dim].sum() / values.sum())
