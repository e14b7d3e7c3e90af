"""What late interaction costs and loses: disk, milliseconds and nDCG@10 by precision and dimension of the kept vectors.

    python benchmarks/late_interaction.py DATA_DIR [SET ...] > benchmarks/results/late_interaction.txt

DATA_DIR holds one folder a collection in BEIR layout; queries of the split `test`, at most 300. The stage reads the top
100 of BM25 and MiniLM merged by RRF. `ms` is one query at a time, warm, vectors kept: the whole stage, then its part
without encoding the query (documents looked up, gathered and compared), p50. `rho` is Spearman's correlation of its
scores with those of float32 at full dimension, mean over the queries.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from orchestrator import Pipeline
from orchestrator.evaluation.measures import Measures
from orchestrator.types import Call

SETS = ("policyqa", "cranfield")
KEPT = (("float32", None), ("int8", None), ("int8", 192), ("int8", 128), ("int8", 64))
TIMED = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("sets", nargs="*", default=list(SETS))
    arguments = parser.parse_args()
    names = ("rerank-orchestrator", "onnxruntime", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {versions}")
    print(f"\n{'set':12} {'kept as':14} {'kB a doc':>8} {'nDCG@10':>8} {'rho':>6} {'ms':>7} {'compare ms':>11}")
    for name in arguments.sets:
        exact: list[np.ndarray] = []
        for precision, dim in KEPT:
            use = "pipeline.stages.shortlist.use"
            more = [f"{use}.precision={precision}", f"{use}.dim={'null' if dim is None else dim}"]
            show(arguments.data_dir / name, more, f"{precision} x {dim or 'all'}", exact)


def show(folder: Path, more: list[str], label: str, exact: list[np.ndarray]) -> None:
    stack = ["pipeline=bi_encoder", "rerank@pipeline.stages.shortlist.use=late_interaction", "log.level=warning"]
    stack += [f"pipeline.stages.{stage}.top_k=100" for stage in ("bm25", "dense", "fused", "shortlist")]
    stack += [f"corpus.path={folder}", "corpus.split=test", "corpus.max_queries=300", *more]
    with Pipeline.compose(stack) as pipeline:
        topics = pipeline.corpus.topics
        queries = topics.queries[:300]
        results = pipeline.search_many(queries)
        ranked = {result.query.query_id: result.uncut(100) for result in results}
        qrels = {query.query_id: topics.qrels.get(query.query_id, {}) for query in queries}
        measures = Measures(["nDCG@10"])
        quality = measures.mean(measures.per_query(qrels, ranked))["nDCG@10"]
        scores = [np.array([c.scores["shortlist"] for c in sorted(r.ranked, key=lambda c: c.doc_id)]) for r in results]
        rho = float(np.mean([spearmanr(a, b).statistic for a, b in zip(exact or scores, scores, strict=True)]))
        exact.extend([] if exact else scores)
        stage: Any = pipeline.graph["shortlist"].stage
        size = sum(file.stat().st_size for file in stage._store.directory.iterdir()) / len(stage._store) / 1000
        whole, compare = timed(stage, results[:TIMED])
    print(f"{folder.name:12} {label:14} {size:8.1f} {quality:8.4f} {rho:6.3f} {whole:7.1f} {compare:11.1f}", flush=True)


def timed(stage: Any, results: list[Any]) -> tuple[float, float]:
    """p50 in milliseconds of the stage, and of the stage without encoding the query."""
    whole, encoding = [], []
    for result in results:
        pairs = [(result.query, result.documents[doc_id]) for doc_id in result.doc_ids]
        stage.score(pairs, Call())
        started = time.perf_counter()
        stage.score(pairs, Call())
        whole.append(time.perf_counter() - started)
        started = time.perf_counter()
        stage.encoder.embed_tokens([result.query.text], kind="query", call=Call())
        encoding.append(time.perf_counter() - started)
    differences = [all_ - query for all_, query in zip(whole, encoding, strict=True)]
    return statistics.median(whole) * 1000, statistics.median(differences) * 1000


if __name__ == "__main__":
    main()
