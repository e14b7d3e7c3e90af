"""What Qdrant's sparse and multivector recalls find, beside bm25 and dense: nDCG@10, Recall@100, milliseconds.

    python benchmarks/qdrant_recall.py DATA_DIR [SET ...] [--vectors SET ...] > benchmarks/results/qdrant_recall.txt

DATA_DIR holds one folder a collection in BEIR layout with a README.md that names its language; `sample` is the packaged
one. Queries of the split `test`, at most 300. `dense` and `tokens` (recall/qdrant_multivector) are those of MiniLM, for
the sets named after --vectors. `overlap` is the share of bm25's first ten that are among the first ten here too. `ms`
is one query at a time, warm, p50, the query's encoding included.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator import Pipeline
from orchestrator.evaluation.measures import Measures

STAGES = {"bm25": "bm25", "sparse": "sparse", "dense": "dense", "tokens": "multivector"}
TIMED = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("sets", nargs="*", default=["sample"])
    parser.add_argument("--vectors", nargs="*", default=["sample"])
    arguments = parser.parse_args()
    names = ("rerank-orchestrator", "qdrant-edge-py", "bm25s", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {versions}")
    print(f"\n{'set':14} {'recall':7} {'docs':>6} {'queries':>7} {'nDCG@10':>8} {'R@100':>7} {'overlap':>7} ", end="")
    print(f"{'ms':>7}")
    for name in arguments.sets:
        first: dict[str, tuple[str, ...]] = {}
        for stage in STAGES:
            if stage in ("bm25", "sparse") or name in arguments.vectors:
                show(arguments.data_dir, name, stage, first)


def show(data_dir: Path, name: str, stage: str, first: dict[str, tuple[str, ...]]) -> None:
    """One line; `first` holds the first ten of bm25, which comes first."""
    place = [] if name == "sample" else [f"corpus.path={data_dir / name}", "corpus.split=test"]
    words = [f"pipeline={STAGES[stage]}", f"pipeline.stages.{stage}.top_k=100", "log.level=warning", *place]
    with Pipeline.compose([*words, f"corpus.language={language(data_dir, name)}"]) as pipeline:
        topics = pipeline.corpus.topics
        queries = [query for query in topics.queries if topics.qrels.get(query.query_id)][:300]
        results = pipeline.search_many(queries)
        ranked = {result.query.query_id: result.uncut(100) for result in results}
        measures = Measures(["nDCG@10", "R@100"])
        qrels = {query.query_id: topics.qrels[query.query_id] for query in queries}
        quality = measures.mean(measures.per_query(qrels, ranked))
        tops = {result.query.query_id: result.doc_ids[:10] for result in results}
        first.update({} if first else tops)
        overlap = statistics.fmean(shared(tops[key], first[key]) for key in tops)
        times = [timed(pipeline, query.text) for query in queries[:TIMED]]
        n_documents = len(pipeline.corpus)
    print(f"{name:14} {stage:7} {n_documents:6} {len(queries):7} {quality['nDCG@10']:8.4f} ", end="")
    print(f"{quality['R@100']:7.4f} {overlap:7.3f} {statistics.median(times):7.2f}", flush=True)


def language(data_dir: Path, name: str) -> str:
    """As the table of README.md says; `zh-Hant` is read as zh."""
    if name == "sample":
        return "en"
    found = re.search(rf"^\| {re.escape(name)} \| ([\w-]+)", (data_dir / "README.md").read_text(), re.MULTILINE)
    return found[1].split("-")[0] if found else "und"


def shared(found: Sequence[str], wanted: Sequence[str]) -> float:
    """The share of `wanted` that `found` has too; 1 where nothing is wanted."""
    return len(set(found) & set(wanted)) / len(wanted) if wanted else 1.0


def timed(pipeline: Pipeline, text: str) -> float:
    started = time.perf_counter()
    pipeline.search(text)
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
