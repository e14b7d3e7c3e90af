"""Read the same 100,000 documents from JSON lines, CSV and Parquet, and as chunks: documents a second, and memory.

    python benchmarks/ingest.py [--documents 100000] [--words 120]

Each format is read into a store in a process of its own. Memory is the most that the process ever had in use, and how
much of it came with the reading: the imports, pyarrow among them, and 100 documents are read before. The Parquet file
is one row group, as pandas writes it. Times include hashing the file and syncing the store to disk.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from orchestrator.corpora.chunks import Chunking
from orchestrator.corpora.corpus import open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec

SEED = 5
VOCABULARY = 20_000

Result = TypeVar("Result")


def texts(n_documents: int, n_words: int) -> Iterator[str]:
    """Sentences of ten words drawn at random, with a fixed seed."""
    generator = np.random.default_rng(SEED)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(generator.choice(letters, size)) for size in generator.integers(2, 11, VOCABULARY)]
    for _ in range(n_documents):
        drawn = [words[place] for place in generator.integers(0, VOCABULARY, n_words)]
        yield " ".join(" ".join(drawn[at : at + 10]) + "." for at in range(0, n_words, 10))


def write(folder: Path, n_documents: int, n_words: int) -> None:
    """The same documents as docs.jsonl, docs.csv and docs.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[str]] = {"id": [], "title": [], "text": []}
    for place, text in enumerate(texts(n_documents, n_words)):
        for name, value in (("id", f"d{place}"), ("title", f"Document {place}"), ("text", text)):
            columns[name].append(value)
    rows = list(zip(*columns.values(), strict=True))
    with open(folder / "docs.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
    with open(folder / "docs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([tuple(columns), *rows])
    pq.write_table(pa.table(columns), folder / "docs.parquet", row_group_size=n_documents)


def peak_mb() -> float:
    """Most memory that this process ever had in use, in MB (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def measure(small: Path, file: Path, chunk: Chunking) -> tuple[int, float, float, float]:
    """Documents kept, seconds, peak MB, and MB more than after reading the file `small`."""
    with tempfile.TemporaryDirectory() as root:
        open_corpus(CorpusSpec("small", str(small), chunk=chunk), Path(root)).close()
        before, started = peak_mb(), time.perf_counter()
        corpus = open_corpus(CorpusSpec("docs", str(file), chunk=chunk), Path(root))
        return len(corpus), time.perf_counter() - started, peak_mb(), peak_mb() - before


def apart(function: Callable[..., Result], *arguments: object) -> Result:
    """What `function` returns, run in a process of its own. One begins with its parent's peak, so this stays small."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=120)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{options.documents:,} documents of {options.words} words\n")
    print(f"{'format':<22}{'file MB':>9}{'kept':>10}{'s':>8}{'documents/s':>13}{'peak MB':>9}{'reading MB':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for name, n_documents in (("small", 100), ("large", options.documents)):
            (Path(folder) / name).mkdir()
            apart(write, Path(folder) / name, n_documents, options.words)
        whole, cut = Chunking(), Chunking(300, 60)
        for suffix, chunk in (("jsonl", whole), ("csv", whole), ("parquet", whole), ("jsonl", cut)):
            small, file = (Path(folder) / name / f"docs.{suffix}" for name in ("small", "large"))
            kept, seconds, peak, more = apart(measure, small, file, chunk)
            label = suffix if chunk == whole else f"{suffix}, chunks of {chunk.max_chars}"
            size, rate = file.stat().st_size / 1e6, options.documents / seconds
            print(f"{label:<22}{size:>9.0f}{kept:>10,}{seconds:>8.1f}{rate:>13,.0f}{peak:>9.0f}{more:>12.0f}")


if __name__ == "__main__":
    main()
