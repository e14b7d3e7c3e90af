"""The quality pass of `orchestrate evaluate` in batches beside one query at a time: seconds, and the same figures.

    python benchmarks/batched.py DATA_DIR [SET ...] > benchmarks/results/batched.txt

DATA_DIR holds one folder a collection in BEIR layout; the sample that ships is measured too. No kept score is used, no
budget enforced; indexes and vectors are there before. Rounds alternate between the two, the median counts.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator import Pipeline
from orchestrator.evaluation.measures import Measures
from orchestrator.evaluation.quality import Quality, measure_quality

SETS = ("cranfield",)
STACKS = {
    "lexical, rrf": ["pipeline=lexical", "fusion@pipeline.stages.fused.use=rrf"],
    "low_latency": ["+scenario=low_latency"],
    "balanced": ["+scenario=balanced"],
}
MEASURES = ["nDCG@10", "RR@10", "R@100", "AP"]
BATCH = 32
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("sets", nargs="*", default=list(SETS))
    arguments = parser.parse_args()
    names = ("rerank-orchestrator", "onnxruntime", "bm25s", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {versions}")
    print(f"batches of {BATCH}, median of {ROUNDS} rounds\n")
    columns = f"{'collection':12} {'queries':>7} {'stack':14} {'one by one s':>12} {'batched s':>9}"
    print(f"{columns} {'ratio':>6} {'nDCG@10':>8}  figures")
    for name in ("sample", *arguments.sets):
        corpus = [] if name == "sample" else [f"corpus.path={arguments.data_dir / name}"]
        for stack, words in STACKS.items():
            compare(name, stack, [*words, *corpus, "log.level=warning"])


def compare(name: str, stack: str, words: Sequence[str]) -> None:
    with Pipeline.compose(words) as pipeline:
        pipeline.load()
        measured(pipeline, BATCH)
        rounds = [(measured(pipeline, 1), measured(pipeline, BATCH)) for _ in range(ROUNDS)]
    alone, together = (statistics.median(pair[side][0] for pair in rounds) for side in (0, 1))
    first, second = rounds[-1][0][1], rounds[-1][1][1]
    print(
        f"{name:12} {first.n_queries:>7} {stack:14} {alone:>12.2f} {together:>9.2f} {alone / together:>6.1f} "
        f"{second.metrics['nDCG@10']:>8.4f}  {agreement(first, second)}",
        flush=True,
    )


def measured(pipeline: Pipeline, batch: int) -> tuple[float, Quality]:
    started = time.perf_counter()
    quality = measure_quality(
        lambda queries: pipeline.search_many(queries, read_documents=False, enforce_budget=False, use_kept=False),
        pipeline.corpus.queries(),
        pipeline.corpus.qrels(),
        Measures(MEASURES),
        batch_queries=batch,
    )
    return time.perf_counter() - started, quality


def agreement(first: Quality, second: Quality) -> str:
    """Whether every measure of every query and stage is the same."""
    pairs = [
        (value, second.systems[stage].per_query[query_id][measure])
        for stage, system in first.systems.items()
        for query_id, row in system.per_query.items()
        for measure, value in row.items()
    ]
    differing = [abs(one - other) for one, other in pairs if one != other]
    if not differing:
        return f"all {len(pairs)} equal"
    return f"{len(differing)} of {len(pairs)} differ, by at most {max(differing):.1e}"


if __name__ == "__main__":
    main()
