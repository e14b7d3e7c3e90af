"""How much of a rerank's gain is there when it reads only the first N candidates: `balanced` over N of RRF's 100.

    python benchmarks/rerank_depth.py DATA_DIR [SET ...] > benchmarks/results/rerank_depth.txt

DATA_DIR holds one folder a collection in BEIR layout; all judged queries of the split `test` are asked. Every column is
nDCG@10 of the ranking in which late interaction and the learned rerank read the first N candidates and leave the rest
as they came. `share` is the mean gain over RRF at that depth against the mean gain at 100; each set has the same
weight. `spread` is the standard deviation over queries of a query's difference at 100, below it pooled over the sets.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from offline import header

from orchestrator import Pipeline
from orchestrator.evaluation.measures import Measures

SETS = ("cacm", "cisi", "cranfield", "dbpedia-mini", "rag-product-docs", "vaswani")
DEPTHS = (10, 20, 50, 100)
MEASURE = "nDCG@10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("sets", nargs="*", default=SETS)
    arguments = parser.parse_args()
    print(header())
    print(f"\n{'set':18} {'queries':>7} {'RRF':>8} " + " ".join(f"{depth:>8}" for depth in DEPTHS) + "   spread")
    gains, differences = [], []
    for name in arguments.sets:
        before, by_depth = measured(arguments.data_dir / name)
        means = [float(values.mean()) for values in by_depth]
        spread = (by_depth[-1] - before).std(ddof=1)
        print(
            f"{name:18} {len(before):>7} {before.mean():8.4f} "
            + " ".join(f"{mean:8.4f}" for mean in means)
            + f" {spread:8.3f}"
        )
        sys.stdout.flush()
        gains.append([mean - float(before.mean()) for mean in means])
        differences.append(by_depth[-1] - before)
    mean_gains = np.array(gains).mean(axis=0)
    print(f"{'mean gain':18} {'':>7} {'':>8} " + " ".join(f"{gain:+8.4f}" for gain in mean_gains))
    print(f"{'share':18} {'':>7} {'':>8} " + " ".join(f"{gain / mean_gains[-1]:8.2f}" for gain in mean_gains))
    pooled = np.sqrt(np.mean([values.var(ddof=1) for values in differences]))
    print(f"{'pooled':18} {'':>7} {'':>8} " + " ".join(f"{'':>8}" for _ in DEPTHS) + f" {pooled:8.3f}")


def measured(folder: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """float64 [n_queries] of RRF, and the same for each of `DEPTHS`."""
    before, found = np.empty(0), []
    for depth in DEPTHS:
        before, after = both(folder, depth)
        found.append(after)
    return before, found


def both(folder: Path, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """float64 [n_queries] of RRF and of the whole stack, whose reranks read `depth` candidates."""
    measures = Measures([MEASURE])
    words = ["+scenario=balanced", f"pipeline.stages.fused.top_k={depth}", f"pipeline.stages.shortlist.top_k={depth}"]
    words += ["log.level=warning", f"corpus.path={folder}", "corpus.split=test", "budget_ms=null"]
    with Pipeline.compose(words) as pipeline:
        topics = pipeline.corpus.topics
        qrels = {key: grades for key, grades in topics.qrels.items() if any(grade > 0 for grade in grades.values())}
        queries = [query for query in topics.queries if query.query_id in qrels]
        rankings: dict[str, dict[str, tuple[str, ...]]] = {"fused": {}, "precise": {}}
        for start in range(0, len(queries), 32):
            for result in pipeline.search_many(queries[start : start + 32], read_documents=False):
                for stage, ranked in rankings.items():
                    ranked[result.query.query_id] = result.uncut(100, stage)
        rows = {stage: measures.per_query(qrels, ranked) for stage, ranked in rankings.items()}
    columns = [np.array([rows[stage][query.query_id][MEASURE] for query in queries]) for stage in rankings]
    return columns[0], columns[1]


if __name__ == "__main__":
    main()
