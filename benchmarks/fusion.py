"""Weighted fusion of two lists of 1000: columns of numpy against a dictionary: python benchmarks/fusion.py."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from orchestrator.plugins.fusion.rrf import ReciprocalRankFusion
from orchestrator.plugins.fusion.weighted import WeightedFusion
from orchestrator.testing import ranked
from orchestrator.types import Call, Query, RankedList

N = 1000


def by_dictionary(lists: dict[str, RankedList]) -> list[tuple[str, float]]:
    """Min-max and sum, one document at a time."""
    scales = {name: (each.scores.min(), each.scores.max()) for name, each in lists.items()}
    totals: dict[str, float] = {}
    for name, each in lists.items():
        low, high = scales[name]
        for doc_id, score in zip(each.doc_ids, each.scores.tolist(), strict=True):
            totals[doc_id] = totals.get(doc_id, 0.0) + (score - low) / (high - low)
    return list(totals.items())


def median_us(call: Callable[[], object], rounds: int = 300) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1e6)
    return statistics.median(times)


def main() -> None:
    rng = np.random.default_rng(3)
    ids = [f"doc-{place:06d}" for place in range(1500)]
    lists = {
        name: ranked(rng.permutation(ids)[:N].tolist(), np.sort(rng.random(N))[::-1], "cosine", name) for name in "ab"
    }
    query, call = Query("q", "x"), Call()
    print(f"{'min-max, dictionary':30}{median_us(lambda: by_dictionary(lists)):8.0f} us")
    for name in ("min_max", "z_score", "rank", "distribution"):
        fusion = WeightedFusion(name)
        print(f"{'weighted, ' + name:30}{median_us(lambda fusion=fusion: fusion.fuse(query, lists, call)):8.0f} us")
    rrf = ReciprocalRankFusion()
    print(f"{'rrf':30}{median_us(lambda: rrf.fuse(query, lists, call)):8.0f} us")


if __name__ == "__main__":
    main()
