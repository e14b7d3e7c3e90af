"""Figures of `orchestrate evaluate` beside trec_eval's, ranx' and the formulas, query by query.

    python benchmarks/metrics.py DATA_DIR [SET ...] > benchmarks/results/metrics.txt

DATA_DIR holds one folder a collection in BEIR layout; the sample that ships is measured too. For each collection the
uncut rankings of a lexical pipeline's three stages are scored by our `Measures`, by pytrec_eval (trec_eval itself), by
ranx and, where there is a short formula, by that formula. Each line is the largest difference over all queries and
stages; the exit code is 1 where one is above 1e-6.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytrec_eval
import ranx

from orchestrator import Pipeline
from orchestrator.evaluation.measures import Measures
from orchestrator.evaluation.quality import Quality, measure_quality

SETS = ("cranfield", "dbpedia-mini")
STACK = ["pipeline=lexical", "fusion@pipeline.stages.fused.use=rrf", "log.level=warning", "budget_ms=null"]
STACK += ["pipeline.stages.pairs.use.b=0"]  # in English it would rank as the other BM25 does
TOLERANCE = 1e-6
DEPTH = 100

TREC: Mapping[str, str] = {
    "nDCG@10": "ndcg_cut_10",
    "nDCG@20": "ndcg_cut_20",
    "nDCG": "ndcg",
    "AP": "map",
    "RR": "recip_rank",
    "R@5": "recall_5",
    "R@100": "recall_100",
    "P@10": "P_10",
    "Success@5": "success_5",
    "Rprec": "Rprec",
    "Bpref": "bpref",
    "infAP": "infAP",
}
"""Ours -> trec_eval's name."""
RANX: Mapping[str, str] = {
    "nDCG@10": "ndcg@10",
    "nDCG@20": "ndcg@20",
    "AP": "map",
    "RR": "mrr",
    "RR@10": "mrr@10",
    "R@5": "recall@5",
    "R@100": "recall@100",
    "P@10": "precision@10",
    "Success@5": "hit_rate@5",
    "Rprec": "r-precision",
}

Grades = Mapping[str, int]
PerQuery = Mapping[str, float]


def ndcg(ranking: Sequence[str], judged: Grades, cutoff: int) -> float:
    """Järvelin and Kekäläinen, TOIS 2002, with linear gains and log2(rank + 1), as trec_eval has it."""
    gains = [max(judged.get(doc_id, 0), 0) for doc_id in ranking[:cutoff]]
    ideal = sorted((max(grade, 0) for grade in judged.values()), reverse=True)[:cutoff]
    best = sum(gain / math.log2(rank + 1) for rank, gain in enumerate(ideal, start=1))
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1)) / best if best else 0.0


def average_precision(ranking: Sequence[str], judged: Grades) -> float:
    n_relevant, hits, total = sum(grade > 0 for grade in judged.values()), 0, 0.0
    for rank, doc_id in enumerate(ranking, start=1):
        if judged.get(doc_id, 0) > 0:
            hits += 1
            total += hits / rank
    return total / n_relevant if n_relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], judged: Grades, cutoff: int) -> float:
    return next((1 / rank for rank, doc in enumerate(ranking[:cutoff], start=1) if judged.get(doc, 0) > 0), 0.0)


def judged_share(ranking: Sequence[str], judged: Grades, cutoff: int) -> float:
    first = ranking[:cutoff]
    return sum(doc_id in judged for doc_id in first) / len(first) if first else 0.0


FORMULAS: Mapping[str, Callable[[Sequence[str], Grades], float]] = {
    "nDCG@10": lambda ranking, judged: ndcg(ranking, judged, 10),
    "nDCG@20": lambda ranking, judged: ndcg(ranking, judged, 20),
    "AP": average_precision,
    "RR@10": lambda ranking, judged: reciprocal_rank(ranking, judged, 10),
    "Judged@10": lambda ranking, judged: judged_share(ranking, judged, 10),
}
NAMES = list(dict.fromkeys([*TREC, *RANX, *FORMULAS]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("sets", nargs="*", default=list(SETS))
    arguments = parser.parse_args()
    names = ("rerank-orchestrator", "ir-measures", "pytrec-eval-terrier", "ranx")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"Python {platform.python_version()}; {versions}")
    print(
        "largest difference of ours over all queries and the stages bm25, pairs, fused; – where it has no such measure"
    )
    worst = show("sample", [])
    for name in arguments.sets:
        worst = max(worst, show(name, [f"corpus.path={arguments.data_dir / name}"]))
    print(f"\nlargest difference of all: {worst:.1e}; expected at most {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


def show(name: str, words: Sequence[str]) -> float:
    quality = measured(words)
    print(f"\n{name}: {quality.n_queries} queries, {sum(map(len, quality.qrels.values()))} judgements")
    print(f"{'measure':12} {'mean (fused)':>12} {'trec_eval':>10} {'ranx':>10} {'formula':>10}")
    sides = [{stage: side(quality, stage) for stage in quality.systems} for side in (by_trec_eval, by_ranx, by_formula)]
    worst = 0.0
    for measure in NAMES:
        found = [difference(quality, measure, theirs) for theirs in sides]
        worst = max([worst, *(value for value in found if value is not None)])
        shown = " ".join(f"{'–' if value is None else f'{value:.1e}':>10}" for value in found)
        print(f"{measure:12} {quality.metrics[measure]:12.4f} {shown}", flush=True)
    return worst


def measured(words: Sequence[str]) -> Quality:
    with Pipeline.compose([*STACK, *words]) as pipeline:
        corpus = pipeline.corpus
        return measure_quality(
            lambda batch: pipeline.search_many(batch, read_documents=False),
            corpus.queries(),
            corpus.qrels(),
            Measures(NAMES),
            depth=DEPTH,
        )


def difference(quality: Quality, measure: str, theirs: Mapping[str, Mapping[str, PerQuery]]) -> float | None:
    """The largest over all queries and stages; None where the other side has no such measure."""
    found = []
    for stage, system in quality.systems.items():
        if measure not in theirs[stage]:
            return None
        values = theirs[stage][measure]
        found += [abs(row[measure] - values.get(query_id, 0.0)) for query_id, row in system.per_query.items()]
    return max(found)


def scores(ranking: Sequence[str]) -> dict[str, float]:
    return {doc_id: float(len(ranking) - place) for place, doc_id in enumerate(ranking)}


def by_trec_eval(quality: Quality, stage: str) -> dict[str, PerQuery]:
    qrels = {query_id: dict(judged) for query_id, judged in quality.qrels.items()}
    run = {query_id: scores(ranking) for query_id, ranking in quality.systems[stage].rankings.items()}
    asked = {re.sub(r"_(\d+)$", r".\1", name) for name in TREC.values()}  # ndcg_cut_10 is asked for as ndcg_cut.10
    found = pytrec_eval.RelevanceEvaluator(qrels, asked).evaluate(run)
    return {ours: {query: row[name] for query, row in found.items()} for ours, name in TREC.items()}


def by_ranx(quality: Quality, stage: str) -> dict[str, PerQuery]:
    rankings, names = quality.systems[stage].rankings, _Names()
    # Documents of grade 0 are left out: what is not in the qrels is not relevant either.
    relevant = {
        query_id: {names[doc_id]: grade for doc_id, grade in judged.items() if grade > 0}
        for query_id, judged in quality.qrels.items()
        if rankings.get(query_id)
    }
    kept = {names[query_id]: judged for query_id, judged in relevant.items() if judged}
    ids = {names[query_id]: query_id for query_id in relevant}
    run = ranx.Run({name: scores([names[doc_id] for doc_id in rankings[ids[name]]]) for name in kept})
    ranx.evaluate(ranx.Qrels(kept), run, list(RANX.values()))
    return {
        ours: {ids[name]: float(value) for name, value in run.scores[theirs].items()} for ours, theirs in RANX.items()
    }


class _Names(dict[str, str]):
    """Id -> a name of eight letters: ranx compiles itself anew for every length of ids, which takes minutes."""

    def __missing__(self, identifier: str) -> str:
        return self.setdefault(identifier, f"x{len(self):07}")


def by_formula(quality: Quality, stage: str) -> dict[str, PerQuery]:
    rankings = quality.systems[stage].rankings
    return {
        name: {query_id: formula(rankings.get(query_id, ()), judged) for query_id, judged in quality.qrels.items()}
        for name, formula in FORMULAS.items()
    }


if __name__ == "__main__":
    sys.exit(main())
