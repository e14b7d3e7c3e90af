"""Filtered search in Qdrant Edge, with and without a payload index, beside vectors alone.

    python benchmarks/edge_filter.py [n_documents]

Random vectors of 384 numbers, a filter that selects a sixth of the documents, the 100 nearest, 15 queries. Seconds to
build, milliseconds a query (smallest and median).
"""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orchestrator.plugins.qdrant.edge_shard import ShardBuilder, open_shard
from orchestrator.plugins.qdrant.options import checked_options
from orchestrator.types import Call, Document, Vectors

ONLY = {"must": [{"key": "year", "range": {"gte": 25}}]}
WAYS: dict[str, tuple[object, object]] = {
    "vectors alone": (None, None),
    "filtered": (ONLY, None),
    "filtered, payload index": (ONLY, {"year": "integer"}),
}


class Vectors384:
    """Random rows, as a corpus offers them."""

    dim = 384

    def __init__(self, n: int) -> None:
        self.rows = np.random.default_rng(0).standard_normal((n, self.dim)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self, size: int) -> Iterator[tuple[int, Vectors]]:
        for start in range(0, len(self.rows), size):
            yield start, self.rows[start : start + size]


class Documents:
    """Documents made up when asked for."""

    def at(self, rows: npt.NDArray[np.int64]) -> list[Document]:
        return [Document(f"d{row}", "text", f"title {row}", {"year": row % 30}) for row in rows.tolist()]


def measure(name: str, vectors: Vectors384) -> None:
    only, indexes = WAYS[name]
    options = checked_options(None, only, indexes, False, None, None, None)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        ShardBuilder(Documents(), options).build(Path(folder), vectors, "cosine", lambda *_: None)  # type: ignore[arg-type]
        build_s = time.perf_counter() - started
        search = open_shard(Path(folder), len(vectors), "", options.filter)
        assert search is not None
        times = sorted(query_ms(search.nearest, vectors.rows[row]) for row in range(15))
        search.close()
    print(f"{name:26}{build_s:8.2f} s{times[0]:10.2f} ms{times[7]:10.2f} ms")


def query_ms(nearest: object, vector: Vectors) -> float:
    started = time.perf_counter()
    nearest(vector, 100, Call(), "q")  # type: ignore[operator]
    return (time.perf_counter() - started) * 1000


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print(f"{platform.machine()}, Python {platform.python_version()}, {n} documents")
    print(f"{'':26}{'build':>10}{'min':>13}{'median':>13}")
    vectors = Vectors384(n)
    for name in WAYS:
        measure(name, vectors)


if __name__ == "__main__":
    main()
