"""The offline stacks beside each other: BM25, dense, RRF, late interaction, and `+scenario=balanced` as a whole.

    python benchmarks/offline.py DATA_DIR [SET ...] > benchmarks/results/offline.txt

DATA_DIR holds one folder a collection in BEIR layout; all judged queries of the split `test` are asked. Every column is
nDCG@10 of the ranking as it is after that stage, with nothing left out for lack of time. `p` is that of the paired
randomization test of the whole stack against BM25, dense and RRF, Holm-corrected over the three; + marks what the stack
beats beyond chance, - what beats it. The mean gives each set the same weight, and so does its test. Sets that anything
in the stack learned from, or that share documents with such a set, stand apart and are not in the mean.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from orchestrator import Pipeline
from orchestrator.evaluation.measures import Measures
from orchestrator.evaluation.significance import holm, paired_randomization

UNTOUCHED = (
    *("cacm", "chunkeval", "cisi", "covidqa", "cranfield", "dbpedia-mini", "financebench"),
    *("policyqa", "pubmedqa", "rag-product-docs", "vaswani"),
)
APART = {
    "msmarco-dl-mini": "all-MiniLM-L6-v2 was trained on MS MARCO",
    "liveqa-med": "its documents are answers of MedQuAD, of which the learned rerank saw a slice",
    "rag-code": "code, not English prose",
    "nq-qed": "the learned rerank was trained on it",
    "xquad-en": "the learned rerank was trained on it",
}
MEASURE = "nDCG@10"
COLUMNS = {"bm25": "BM25", "dense": "dense", "fused": "RRF", "shortlist": "late int.", "precise": "balanced"}
RIVALS = ("bm25", "dense", "fused")
Values = dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("sets", nargs="*", default=[*UNTOUCHED, *APART])
    parser.add_argument("--words", nargs="*", default=[], help="further overrides of every run")
    arguments = parser.parse_args()
    print(header())
    print(f"\n{'set':18} {'queries':>7}  " + " ".join(f"{name:>9}" for name in COLUMNS.values()) + "   p of the three")
    found: dict[str, Values] = {}
    for name in arguments.sets:
        found[name] = measured(arguments.data_dir / name, arguments.words)
        show(name, found[name])
        if name in UNTOUCHED and set(found) & set(UNTOUCHED) == set(arguments.sets) & set(UNTOUCHED):
            show_mean({key: found[key] for key in found if key in UNTOUCHED})


def header() -> str:
    names = ("rerank-orchestrator", "onnxruntime", "xgboost-cpu", "bm25s", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {versions}"


def measured(folder: Path, words: Sequence[str]) -> Values:
    """Stage -> float64 [n_queries]."""
    measures = Measures([MEASURE])
    stack = ["+scenario=balanced", f"corpus.path={folder}", "corpus.split=test", "log.level=warning", "budget_ms=null"]
    with Pipeline.compose([*stack, *words]) as pipeline:
        topics = pipeline.corpus.topics
        qrels = {key: grades for key, grades in topics.qrels.items() if any(grade > 0 for grade in grades.values())}
        queries = [query for query in topics.queries if query.query_id in qrels]
        rankings: dict[str, dict[str, tuple[str, ...]]] = {stage: {} for stage in COLUMNS}
        for start in range(0, len(queries), 32):
            for result in pipeline.search_many(queries[start : start + 32], read_documents=False):
                for stage, ranked in rankings.items():
                    ranked[result.query.query_id] = result.uncut(100, stage)
        asked = {query.query_id: qrels[query.query_id] for query in queries}
        rows = {stage: measures.per_query(asked, ranked) for stage, ranked in rankings.items()}
    return {stage: np.array([row[key][MEASURE] for key in asked]) for stage, row in rows.items()}


def show(name: str, values: Values) -> None:
    differences = {rival: values["precise"] - values[rival] for rival in RIVALS}
    why = f"   ({APART[name]})" if name in APART else ""
    line(
        name, str(len(values["precise"])), {stage: float(row.mean()) for stage, row in values.items()}, differences, why
    )


def show_mean(found: Mapping[str, Values]) -> None:
    """Each set weighs the same: a query of a small set counts for more, in the mean and in its test."""
    means = {stage: float(np.mean([values[stage].mean() for values in found.values()])) for stage in COLUMNS}
    n = sum(len(values["precise"]) for values in found.values())
    weighted = {
        rival: np.concatenate([(v["precise"] - v[rival]) * n / len(found) / len(v["precise"]) for v in found.values()])
        for rival in RIVALS
    }
    line("mean, untouched", str(n), means, weighted)
    best = max(RIVALS, key=means.__getitem__)
    print(f"balanced against {COLUMNS[best]}, the best of the three: {means['precise'] - means[best]:+.4f}", flush=True)


def line(
    name: str, queries: str, means: Mapping[str, float], differences: Mapping[str, np.ndarray], why: str = ""
) -> None:
    corrected = holm([paired_randomization(differences[rival], seed=7) for rival in RIVALS])
    marks = {
        rival: ("+" if differences[rival].mean() > 0 else "-") if p < 0.05 else " "
        for rival, p in zip(RIVALS, corrected, strict=True)
    }
    figures = " ".join(f"{means[stage]:8.4f}{marks.get(stage, ' ')}" for stage in COLUMNS)
    print(f"{name:18} {queries:>7}  {figures}   {' '.join(f'{p:.2g}' for p in corrected)}{why}", flush=True)


if __name__ == "__main__":
    main()
