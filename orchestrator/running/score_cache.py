"""Scores and orders that models gave before, kept on disk: found by what was scored, by what, and how."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orchestrator.kept.entries import Entry
from orchestrator.kept.kept_file import KeptFile, check_above_zero, entries_of
from orchestrator.keys import as_bytes, digest, packed
from orchestrator.running.cutting import Span
from orchestrator.types import Document, Query, Scores

FILE = "scores.sqlite"

_length = struct.Struct("<Q").pack
_SCORE = struct.Struct("<d")
_SCORE_AND_SPAN = struct.Struct("<dqq")
"""Of a pair whose document was read in windows: its score, first and one past the last character of the best one."""
_MOST_PLACES = 1 << 16


class ScoreCache(KeptFile):
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
        super().__init__(root / FILE, max_mb, remote_days)

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
        found = self._find(keys, lambda value: len(value) in (_SCORE.size, _SCORE_AND_SPAN.size))
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
            return entries_of(keys, [packed[place] for place in places], expires=expires), []

        self._behind.put(change)

    def order(self, identity: str, query: Query, documents: Sequence[Document]) -> list[int] | None:
        """Places in `documents`, best first, as they were kept for exactly this sequence; None where none is."""
        key = list_key(identity, query, documents)
        value = self._find([key], lambda kept: len(kept) == 2 * len(documents)).get(key)
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
            key = list_key(identity, query, documents)
            return entries_of([key], [places.astype("<u2").tobytes()], expires=expires), []

        self._behind.put(change)


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
    more = ", or null for no limit; cache.scores=false keeps none"
    check_above_zero(f"{path}max_mb", max_mb, more, may_be_none=True)
    check_above_zero(f"{path}remote_days", remote_days)


def pair_keys(identity: str, pairs: Iterable[tuple[Query, Document]]) -> list[bytes]:
    """The 16-byte key of each pair: other kind of entry, identity, query, title or text, other key."""
    head = packed(b"score", as_bytes(identity))
    queries: dict[str, bytes] = {}
    keys = []
    for query, document in pairs:
        start = queries.get(query.text)
        if start is None:
            start = queries[query.text] = head + packed(as_bytes(query.text))
        title = as_bytes(document.title)
        keys.append(digest(b"".join((start, _length(len(title)), title, as_bytes(document.text)))))
    return keys


def list_key(identity: str, query: Query, documents: Sequence[Document]) -> bytes:
    """The 16-byte key of a query with documents in this order."""
    texts = (text for document in documents for text in (document.title, document.text))
    return digest(packed(b"order", as_bytes(identity), as_bytes(query.text), *map(as_bytes, texts)))
