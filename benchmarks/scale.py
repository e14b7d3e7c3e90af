"""Index 100,000 short documents and search them: seconds a phase, memory, and milliseconds a query.

    python benchmarks/scale.py DIR [--documents 100000] [--queries 200] [--scenario low_latency] [--storage-root DIR]

DIR is a folder in BEIR layout. The documents are its sentences, put together anew with a fixed seed; the queries are
its own. Everything runs through the pipeline that `orchestrate` runs. Memory is the peak of this process, mapped files
included; what the model takes is measured apart, and its export (once a machine) happens in another process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.corpora.locate import find_file
from orchestrator.corpora.queries import read_queries
from orchestrator.corpora.readers.jsonl import json_object
from orchestrator.learned.indexes import open_index
from orchestrator.lines import BadLines, read_rows
from orchestrator.pipeline import Pipeline
from orchestrator.stage import Embed, Indexed
from orchestrator.types import Call

SEED = 11
SENTENCE = re.compile(r"(?<=[.!?])\s+")


def write_corpus(source: Path, folder: Path, n_documents: int) -> None:
    """`n_documents` of two sentences each, every pair at random, and the queries of `source`."""
    rows = read_rows(find_file(source, "corpus.jsonl"), json_object)
    texts = [str(row["text"]) for _, row in rows]
    sentences = sorted({part.strip() for text in texts for part in SENTENCE.split(text) if 20 < len(part) < 200})
    pairs = np.random.default_rng(SEED).integers(0, len(sentences), (n_documents, 2)).tolist()
    with open(folder / "corpus.jsonl", "w", encoding="utf-8") as file:
        for place, (first, second) in enumerate(pairs):
            text = f"{sentences[first]} {sentences[second]}"
            file.write(json.dumps({"_id": f"d{place}", "text": text}, ensure_ascii=False) + "\n")
    queries = read_queries(find_file(source, "queries.jsonl"), BadLines())
    lines = [json.dumps({"_id": query.query_id, "text": query.text}) for query in queries]
    (folder / "queries.jsonl").write_text("\n".join(lines), encoding="utf-8")


def peak_mb() -> float:
    """Most memory that this process ever had in use, in MB (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Print what the block took."""
    before, started = peak_mb(), time.perf_counter()
    yield
    seconds, after = time.perf_counter() - started, peak_mb()
    print(f"{name:<34}{seconds:>9.2f} s   peak {after:>7.0f} MB ({after - before:+.0f})", flush=True)


def embedders(pipeline: Pipeline) -> list[Embed]:
    """The pipeline's embedders, each once."""
    found = [getattr(node.stage, "embedder", None) for node in pipeline.graph.nodes]
    return list({id(embedder): embedder for embedder in found if embedder is not None}.values())


def export_models(overrides: list[str]) -> None:
    """Have the ONNX files on disk; runs in a process of its own, since exporting needs torch."""
    for embedder in embedders(Pipeline.compose(overrides)):
        embedder.load()


def build_indexes(pipeline: Pipeline, corpus: DiskCorpus) -> None:
    """Build what `Pipeline.load` would build, one stage at a time."""
    for node in pipeline.graph.nodes:
        if isinstance(node.stage, Indexed):
            with phase(f"index {node.name}"):
                node.stage.load() if hasattr(node.stage, "load") else None
                open_index(node.stage, corpus, pipeline.storage_root, node.name)


def time_queries(pipeline: Pipeline, corpus: DiskCorpus, n_queries: int) -> None:
    """Print the latency of queries asked one at a time, and what each stage took of the median one."""
    queries = corpus.queries()[:n_queries]
    for query in queries[:5]:
        pipeline.search(query)
    totals, stages = [], []
    for query in queries:
        started = time.perf_counter()
        result = pipeline.search(query)
        totals.append(1e3 * (time.perf_counter() - started))
        stages.append([stage.ms for stage in result.trace.stages])
    p50, p95 = np.percentile(totals, [50, 95])
    print(f"query, of {len(queries)}: p50 {p50:.1f} ms, p95 {p95:.1f} ms; median of each stage:", end=" ")
    names = [stage.stage for stage in result.trace.stages]
    medians = np.median(np.array(stages), axis=0)
    print(", ".join(f"{name} {ms:.2f}" for name, ms in zip(names, medians, strict=True)))


def measure(overrides: list[str], n_queries: int) -> None:
    """All phases, in the order in which a first run has them."""
    with Pipeline.compose(overrides) as pipeline:
        with phase("load model"):
            for embedder in embedders(pipeline):
                embedder.load()
                embedder.embed(["a text of some length " * 40] * 8, kind="document", call=Call())
        model_mb = peak_mb()
        with phase("read documents"):
            corpus = pipeline.open_corpus()
        for embedder in embedders(pipeline):
            with phase("embed documents"):
                corpus.vectors(embedder)
        build_indexes(pipeline, corpus)
        with phase("open everything again"):
            pipeline.load()
        time_queries(pipeline, corpus, n_queries)
        print(f"peak {peak_mb():.0f} MB, of which {model_mb:.0f} MB were there with the model loaded")


def main() -> None:
    """Read the arguments and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--scenario", default="low_latency")
    parser.add_argument("--storage-root", type=Path, help="keeps what is built; default: a temporary folder")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "corpus")
        folder.mkdir()
        write_corpus(options.source, folder, options.documents)
        size_mb = (folder / "corpus.jsonl").stat().st_size / 1e6
        print(f"{options.documents} documents, {size_mb:.0f} MB, +scenario={options.scenario}")
        root = options.storage_root or Path(scratch, "storage")
        overrides = [f"+scenario={options.scenario}", f"corpus.path={folder}", "corpus.name=scale"]
        overrides += [f"storage.root={root}", "corpus.split=auto"]
        exporter = multiprocessing.get_context("spawn").Process(target=export_models, args=(overrides,))
        exporter.start()
        exporter.join()
        measure(overrides, options.queries)


if __name__ == "__main__":
    main()
