"""Scores and orders that models gave before, kept on disk: found by what was scored, by what, and how."""

from __future__ import annotations

import hashlib
import math
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orchestrator.cutting import Span
from orchestrator.entries import Entries, Entry, today
from orchestrator.errors import ConfigError
from orchestrator.log import get_logger
from orchestrator.types import Document, Query, Scores
from orchestrator.write_behind import WriteBehind

log = get_logger()

FILE = "scores.sqlite"
_MB = 1 << 20
_DAY_S = 86_400
_READ_BUSY_S = 0.05
_WRITE_BUSY_S = 5.0
_MOST_WAITING = 2000
"""Look-ups and answers waiting to be written: some hundred thousand rows, where the disk is that slow."""
_FLUSH_S = 30.0
_FULL_SHARE = 0.9
"""How full the file is left when entries had to go."""

_length = struct.Struct("<Q").pack
_SCORE = struct.Struct("<d")
_SCORE_AND_SPAN = struct.Struct("<dqq")
"""Of a pair whose document was read in windows: its score, first and one past the last character of the best one."""
_MOST_PLACES = 1 << 16

_Change = Callable[[], tuple[list[Entry], list[bytes]]]
"""Gives what is to be written, and keys to remove."""


class ScoreCache:
    """Scores of pairs and orders of lists. Safe between threads, processes, and after a kill; never a reason to fail.

    Args:
        root: where state lives; the file is `root/scores.sqlite`.
        max_mb: the entries used least recently go when the file grows beyond it; None for no limit.
        remote_days: how long an entry that expires is used.

    Raises:
        ConfigError: one of the two is no number above 0.
    """

    def __init__(self, root: Path, max_mb: float | None = 512, remote_days: float = 30.0) -> None:
        check_limits(max_mb, remote_days)
        self.path = root / FILE
        self._most_bytes = math.inf if max_mb is None else max_mb * _MB
        self._remote_s = remote_days * _DAY_S
        told: set[str] = set()
        self._reading = Entries(self.path, _READ_BUSY_S, told)
        self._writing = Entries(self.path, _WRITE_BUSY_S, told)
        self._behind: WriteBehind[_Change] = WriteBehind(self._write, _MOST_WAITING)

    def load(self) -> None:
        """Open the file now, so that the first look-up need not; not needed otherwise."""
        self._reading.find([])

    def scored(self, identity: str, pairs: Sequence[tuple[Query, Document]]) -> tuple[Scores, list[Span | None]]:
        """The score of each pair under `identity`, and the span of its document's best window.

        Args:
            identity: stands for everything but the two texts that a score depends on.
            pairs: what is to be scored.

        Returns:
            scores: float64 [n_pairs], NaN where none is kept.
            spans: None where a document was not read in windows.
        """
        if not pairs:
            return np.empty(0, dtype=np.float64), []
        keys = pair_keys(identity, pairs)
        found = self._find(keys, {_SCORE.size, _SCORE_AND_SPAN.size})
        read = [_read(found.get(key)) for key in keys]
        return np.array([score for score, _ in read], dtype=np.float64), [span for _, span in read]

    def keep_scores(
        self,
        identity: str,
        pairs: Sequence[tuple[Query, Document]],
        scores: npt.ArrayLike,
        spans: Sequence[Span | None] | None = None,
        *,
        expires: bool,
    ) -> None:
        """Keep `scores`, soon, in another thread. Those that are NaN or infinite are not kept.

        Args:
            identity: as `scored` is given it.
            pairs: what was scored.
            scores: float [n_pairs].
            spans: of each document's best window; None where none was read in windows.
            expires: whether they are used for `remote_days` only: a remote model may change under its name.
        """
        pairs, given = list(pairs), np.array(scores, dtype=np.float64)
        if given.shape != (len(pairs),):
            raise ValueError(f"scores of shape {given.shape} for {len(pairs)} pairs")
        values = zip(given.tolist(), spans or [None] * len(pairs), strict=True)
        packed = [_SCORE.pack(score) if span is None else _SCORE_AND_SPAN.pack(score, *span) for score, span in values]

        def change() -> tuple[list[Entry], list[bytes]]:
            places = np.flatnonzero(np.isfinite(given)).tolist()
            keys = pair_keys(identity, [pairs[place] for place in places])
            return _entries(keys, [packed[place] for place in places], expires), []

        self._behind.put(change)

    def order(self, identity: str, query: Query, documents: Sequence[Document]) -> list[int] | None:
        """Places in `documents`, best first, as they were kept for exactly this sequence; None where none is."""
        key = list_key(identity, query, documents)
        value = self._find([key], {2 * len(documents)}).get(key)
        return None if value is None else np.frombuffer(value, dtype="<u2").tolist()

    def keep_order(
        self, identity: str, query: Query, documents: Sequence[Document], order: Sequence[int], *, expires: bool
    ) -> None:
        """Keep `order`, soon, in another thread; see `keep_scores`.

        Raises:
            ValueError: it does not hold each place of `documents` once.
        """
        documents, places = list(documents), np.array(order, dtype=np.int64)
        if not np.array_equal(np.sort(places), np.arange(len(documents))):
            raise ValueError(f"an order of {len(documents)} documents that is none: {list(order)[:20]}")
        if len(documents) > _MOST_PLACES:
            return

        def change() -> tuple[list[Entry], list[bytes]]:
            return _entries([list_key(identity, query, documents)], [places.astype("<u2").tobytes()], expires), []

        self._behind.put(change)

    def flush(self) -> None:
        """Wait until what was kept so far is on disk, half a minute at most."""
        self._behind.flush(_FLUSH_S)

    def close(self) -> None:
        """Write what waits, and let go of the file; a later use opens it again."""
        self.flush()
        self._reading.close()
        self._writing.close()

    def _find(self, keys: Sequence[bytes], n_bytes: set[int]) -> dict[bytes, bytes]:
        """Key -> value of those that are kept, whole, of a length expected, and not too old."""
        found, now, day = self._reading.find(list(dict.fromkeys(keys))), time.time(), today()
        usable = [
            entry
            for entry in found.entries
            if len(entry.value) in n_bytes and (not entry.kept or abs(now - entry.kept) <= self._remote_s)
        ]
        unused = [entry._replace(used=day) for entry in usable if entry.used != day]
        if unused or found.damaged:
            self._behind.put(lambda: (unused, found.damaged))
        return {entry.key: entry.value for entry in usable}

    def _write(self, changes: Sequence[_Change]) -> None:
        made = [change() for change in changes]
        entries = list(chain.from_iterable(entries for entries, _ in made))
        removed = list(chain.from_iterable(removed for _, removed in made))
        self._writing.write(entries, removed)
        if removed:
            self._writing.check()  # where rows are damaged, what leads to them may be too
        if self._writing.n_bytes() > self._most_bytes:
            dropped = self._writing.shrink(self._most_bytes * _FULL_SHARE)
            log.debug("cache.evicted", path=str(self.path), rows=dropped)


def _read(value: bytes | None) -> tuple[float, Span | None]:
    """Score and span of a kept value; NaN where there is none."""
    if value is None:
        return math.nan, None
    if len(value) == _SCORE.size:
        return _SCORE.unpack(value)[0], None
    score, start, end = _SCORE_AND_SPAN.unpack(value)
    return score, (start, end)


def check_limits(max_mb: object, remote_days: object, path: str = "") -> None:
    """Nothing, where both are numbers above 0, or `max_mb` is None.

    Args:
        max_mb: of a cache.
        remote_days: of a cache.
        path: what stands before their names in the message.

    Raises:
        ConfigError: one is not; with its name.
    """
    for name, value in (("max_mb", max_mb), ("remote_days", remote_days)):
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not (is_number and value > 0) and not (name == "max_mb" and value is None):  # type: ignore[operator]
            more = ", or null for no limit; cache.scores=false keeps none" if name == "max_mb" else ""
            raise ConfigError(f"{path}{name}", f"found {value!r}; expected a number above 0{more}")


def pair_keys(identity: str, pairs: Iterable[tuple[Query, Document]]) -> list[bytes]:
    """The 16-byte key of each pair: other kind of entry, identity, query, title or text, other key."""
    head = _packed(b"score", _bytes(identity))
    queries: dict[str, bytes] = {}
    keys = []
    for query, document in pairs:
        start = queries.get(query.text)
        if start is None:
            start = queries[query.text] = head + _packed(_bytes(query.text))
        title = _bytes(document.title)
        keys.append(_digest(b"".join((start, _length(len(title)), title, _bytes(document.text)))))
    return keys


def list_key(identity: str, query: Query, documents: Sequence[Document]) -> bytes:
    """The 16-byte key of a query with documents in this order."""
    texts = (text for document in documents for text in (document.title, document.text))
    return _digest(_packed(b"order", _bytes(identity), _bytes(query.text), *map(_bytes, texts)))


def _packed(*parts: bytes) -> bytes:
    """The parts with their lengths before them, so that no two lists of parts give the same bytes."""
    return b"".join([piece for part in parts for piece in (_length(len(part)), part)])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _entries(keys: Sequence[bytes], values: Sequence[bytes], expires: bool) -> list[Entry]:
    kept, day = int(time.time()) if expires else 0, today()
    return [Entry(key, value, kept, day) for key, value in zip(keys, values, strict=True)]
