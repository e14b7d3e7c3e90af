"""Qdrant Edge shards: built from memory-mapped vectors, opened once a process, searched exactly."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import IndexStateError
from orchestrator.stage import DocumentVectors, Progress
from orchestrator.types import Vectors

from .exact_scan import Hits, Similarity

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from qdrant_edge import EdgeShard

EDGE_CONFIG = "shard/edge_config.json"
"""Edge writes it anew at each load."""

_BATCH = 1024

_open: dict[tuple[int, str], EdgeSearch] = {}
_mutex = threading.Lock()


def build_shard(directory: Path, vectors: DocumentVectors, similarity: Similarity, progress: Progress) -> None:
    """Make `directory/shard` of `vectors`; a point's id is its row.

    Without a write-ahead log, which takes many times the room of the vectors: the folder becomes visible only when
    it is complete.
    """
    import qdrant_edge as edge

    distance = edge.Distance.Cosine if similarity == "cosine" else edge.Distance.Dot
    parameters = edge.EdgeVectorParams(size=vectors.dim, distance=distance)
    shard = edge.EdgeShard.create(str(directory / "shard"), edge.EdgeConfig(vectors=parameters, wal_enabled=False))
    try:
        for start, block in vectors.blocks(_BATCH):
            points = [edge.Point(id=start + row, vector=vector) for row, vector in enumerate(block)]
            shard.update(edge.UpdateOperation.upsert_points(points))
            progress("insert", start + len(block), len(vectors))
        shard.flush()
    finally:
        shard.close()
    # The first load replays a journal and removes it (0.9.0); after it the files stay as they are.
    _load_shard(directory, len(vectors)).close()


def open_shard(directory: Path, n_points: int) -> EdgeSearch | None:
    """The shard in `directory`, shared by all that open it in this process; None when another process has it.

    Raises:
        IndexStateError: it is damaged or does not hold `n_points`.
    """
    # The process id is part of the key: after a fork the parent's shard is not the child's to use.
    key = (os.getpid(), str(directory.resolve()))
    with _mutex:
        if key not in _open:
            lock = _try_lock(directory / "shard.lock")
            if lock is None:
                return None
            _open[key] = _load(key, directory, n_points, lock)
        _open[key].users += 1
        return _open[key]


class EdgeSearch:
    """Exact search in an open shard. Safe to use from several threads. Made by `open_shard`."""

    def __init__(self, key: tuple[int, str], shard: EdgeShard, lock: BaseFileLock, n_points: int) -> None:
        self.users = 0
        self._key, self._shard, self._lock, self._n_points = key, shard, lock, n_points

    def nearest(self, vector: Vectors, top_k: int) -> Hits:
        """The `top_k` points nearest to `vector` (float32 [dim]), best first, equal scores by ordinal.

        Edge returns equal scores in an order of its own, and any of them at the end of its list (0.9.0). So ever
        more are asked for until the last score is below the one at `top_k`.
        """
        limit = top_k + 1
        hits = self._query(vector, limit)
        while len(hits) == limit < self._n_points and hits[-1][1] == hits[top_k - 1][1]:
            limit *= 2
            hits = self._query(vector, limit)
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:top_k]

    def close(self) -> None:
        """Let go; the last one that does so closes the shard for this process."""
        with _mutex:
            self.users -= 1
            if self.users == 0:
                _open.pop(self._key, None)
                self._shard.close()
                self._lock.release()

    def _query(self, vector: Vectors, limit: int) -> Hits:
        import qdrant_edge as edge

        query = edge.Query.Nearest(vector.tolist())
        request = edge.QueryRequest(query=query, limit=limit, with_payload=False, with_vector=False)
        return [(int(point.id), point.score) for point in self._shard.query(request)]


def _try_lock(path: Path) -> BaseFileLock | None:
    from filelock import FileLock, Timeout

    # Not thread-local: whichever thread closes last has to release it.
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _load(key: tuple[int, str], directory: Path, n_points: int, lock: BaseFileLock) -> EdgeSearch:
    try:
        return EdgeSearch(key, _load_shard(directory, n_points), lock, n_points)
    except BaseException:
        lock.release()
        raise


def _load_shard(directory: Path, n_points: int) -> EdgeShard:
    import qdrant_edge as edge

    try:
        shard = edge.EdgeShard.load(str(directory / "shard"))
        found = shard.count(edge.CountRequest(exact=True))
    except BaseException as error:
        # A panic inside Edge arrives as PanicException, which is no Exception.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise IndexStateError(f"{directory}: Qdrant Edge cannot open the shard ({error})") from error
    if found != n_points:
        shard.close()
        raise IndexStateError(f"{directory}: the shard holds {found} vectors; expected {n_points}")
    return shard
