"""What a kept score costs: looking up and writing 100 of 100,000, in one process and beside another one that writes.

    python benchmarks/cache.py

The texts are as long as passages are, 700 characters. A hit saves what scoring would have cost: some 19 ms a document
for a small cross-encoder in float32 on two threads, less in int8 or with shorter texts.
"""

from __future__ import annotations

import platform
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from orchestrator.running.score_cache import FILE, ScoreCache, list_key, pair_keys
from orchestrator.types import Document, Query

KEPT, ASKED, ROUNDS = 100_000, 100, 200
SCORING_MS = 19.0
"""Of a document, from below: MiniLM of 6 layers, float32 on two threads (see benchmarks/cross_encoder.py)."""

Pair = tuple[Query, Document]


def pair(number: int, word: str = "passage") -> Pair:
    text = f"{word} {number} " * 60
    return Query("q", f"what is question {number // 100} about?"), Document(f"d{number}", text[:700], f"title {number}")


def times_ms(work: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1e3)
    return times


def line(what: str, times: list[float]) -> None:
    ordered = sorted(times)
    p95 = ordered[int(0.95 * len(ordered))]
    print(f"{what:<58} {statistics.median(times):>8.2f} {p95:>8.2f} {ordered[0]:>8.2f}", flush=True)


def fill(cache: ScoreCache) -> float:
    started = time.perf_counter()
    for first in range(0, KEPT, 1000):
        some = [pair(number) for number in range(first, first + 1000)]
        cache.keep_scores("a model", some, np.arange(first, first + 1000.0), expires=False)
        cache.flush()
    return time.perf_counter() - started


def measure(root: Path) -> None:
    cache = ScoreCache(root, max_mb=None)
    seconds = fill(cache)
    cache.close()
    size = (root / FILE).stat().st_size
    print(
        f"{KEPT:,} scores: {size / 1e6:.1f} MB, {size / KEPT:.0f} bytes each; written in {seconds:.1f} s, 1,000 at once"
    )
    print(f"{'milliseconds':<58} {'median':>8} {'p95':>8} {'least':>8}")
    drawn = random.Random(1)
    held = [[pair(number) for number in drawn.sample(range(KEPT), ASKED)] for _ in range(ROUNDS)]
    missing = [[pair(number, "another") for number in drawn.sample(range(KEPT), ASKED)] for _ in range(ROUNDS)]
    turns = iter(held)
    line(f"keys of {ASKED} pairs", times_ms(lambda: pair_keys("a model", held[0])))
    line(f"key of one list of {ASKED}", times_ms(lambda: list_key("a model", held[0][0][0], [d for _, d in held[0]])))
    line(f"look-up of {ASKED} that are kept, keys included", times_ms(lambda: cache.scores("a model", next(turns))))
    turns = iter(missing)
    line(f"look-up of {ASKED} that are not", times_ms(lambda: cache.scores("a model", next(turns))))
    turns = iter(missing)
    line(
        f"handing {ASKED} over to be written (what an answer waits for)",
        times_ms(lambda: cache.keep_scores("a model", next(turns), np.ones(ASKED), expires=False)),
    )
    cache.flush()
    turns = iter([[pair(number, "third") for number in range(n, n + ASKED)] for n in range(0, ROUNDS * ASKED, ASKED)])

    def written() -> None:
        cache.keep_scores("a model", next(turns), np.ones(ASKED), expires=False)
        cache.flush()

    line(f"writing {ASKED}, until sqlite has them", times_ms(written))
    other = subprocess.Popen([sys.executable, __file__, str(root)])
    time.sleep(2)
    turns = iter(held)
    beside = times_ms(lambda: cache.scores("a model", next(turns)))
    other.kill()
    other.wait()
    line(f"look-up of {ASKED} beside a process that writes all the time", beside)
    cache.close()
    print(f"scoring {ASKED} documents anew, at least: {SCORING_MS * ASKED:,.0f} ms")


def write_for_ever(root: Path) -> None:
    cache, number = ScoreCache(root, max_mb=None), 0
    while True:
        some = [pair(number + place, "beside") for place in range(ASKED)]
        cache.keep_scores("a model", some, np.ones(ASKED), expires=False)
        cache.flush()
        number += ASKED


def main() -> None:
    if len(sys.argv) > 1:
        write_for_ever(Path(sys.argv[1]))
    print(
        f"Python {platform.python_version()}, sqlite {sqlite3.sqlite_version}, {platform.machine()}, of {ROUNDS} rounds"
    )
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder))


if __name__ == "__main__":
    main()
