"""Cuts the corpus `sample` out of MedQuAD, the same rows each time (and the same bytes, with the same zlib).

    python benchmarks/make_sample.py MEDQUAD_DIR orchestrator/sample

MEDQUAD_DIR: MedQuAD in BEIR layout, ids `mq-<source>-<focus>-<n>` for answers and `q-<source>-<focus>-<n>` for
questions, where a focus is one disease, condition or drug. Every choice is by rule or by seeded draw, never by score:

1. Questions: of the test split, from six sources that put several plain questions about one focus, worded without
   MedQuAD's template marks ("What is (are) X?"). 60 are drawn; the draw's order is the file's order, so that the first
   n of them are a fair sample too.
2. Documents: every answer about the focuses of these questions (the answers to the other questions are the hard
   negatives), every judged answer, and all answers about further focuses of the same sources, drawn until there are
   700. In the order of the source file.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

SOURCES = ("CDC", "CancerGov", "NHLBI", "NIDDK", "NIHSeniorHealth", "NINDS")
WORDINGS = (
    "How to diagnose ",
    "How to prevent ",
    "What are the complications of ",
    "What are the symptoms of ",
    "What are the treatments for ",
    "What causes ",
    "What is the outlook for ",
    "Who is at risk for ",
)
N_QUERIES, N_DOCUMENTS, SEED = 60, 700, 0

Row = dict[str, str]
Qrels = Mapping[str, Mapping[str, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("medquad_dir", type=Path)
    parser.add_argument("sample_dir", type=Path)
    arguments = parser.parse_args()
    source, target = arguments.medquad_dir, arguments.sample_dir
    qrels = read_qrels(source / "qrels" / "test.tsv")
    draw = random.Random(SEED)
    queries = drawn_queries(read_rows(source / "queries.jsonl.gz"), qrels, draw)
    judged = {row["_id"]: qrels[row["_id"]] for row in queries}
    documents = drawn_documents(read_rows(source / "corpus.jsonl.gz"), judged, draw)
    write_rows(target / "corpus.jsonl.gz", documents)
    write_rows(target / "queries.jsonl.gz", queries)
    write_qrels(target / "qrels" / "test.tsv", judged)
    n_judged = sum(map(len, judged.values()))
    print(f"{len(documents)} documents, {len(queries)} queries, {n_judged} judgements")


def drawn_queries(queries: list[Row], qrels: Qrels, draw: random.Random) -> list[Row]:
    """N_QUERIES judged questions in the order drawn."""
    return draw.sample([row for row in queries if row["_id"] in qrels and reads_well(row)], N_QUERIES)


def reads_well(query: Row) -> bool:
    """True for a question of SOURCES in one of WORDINGS, without brackets or a colon in the name of the focus."""
    plain = not set("():") & set(query["text"])
    return plain and query["_id"].split("-")[1] in SOURCES and query["text"].startswith(WORDINGS)


def drawn_documents(documents: list[Row], qrels: Qrels, draw: random.Random) -> list[Row]:
    """About N_DOCUMENTS answers, whole focuses only, in file order."""
    by_focus: dict[str, list[str]] = {}
    for row in documents:
        by_focus.setdefault(focus(row["_id"]), []).append(row["_id"])
    judged = {doc_id for row in qrels.values() for doc_id in row}
    wanted = dict.fromkeys(focus(row_id) for row_id in [*qrels, *sorted(judged)])
    kept = {doc_id for name in wanted for doc_id in by_focus[name]}
    others = [name for name in by_focus if name not in wanted and name.split("-")[0] in SOURCES]
    draw.shuffle(others)
    for name in others:
        if len(kept) + len(by_focus[name]) <= N_DOCUMENTS:
            kept.update(by_focus[name])
    return [row for row in documents if row["_id"] in kept]


def focus(row_id: str) -> str:
    """`NIDDK-0000108` of `q-NIDDK-0000108-2`."""
    return row_id.split("-", 1)[1].rsplit("-", 1)[0]


def read_rows(path: Path) -> list[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        query_id, doc_id, score = line.split("\t")
        qrels.setdefault(query_id, {})[doc_id] = int(score)
    return qrels


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """One JSON object a line, gzip without time stamp or file name."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(lines.encode(), compresslevel=9, mtime=0))


def write_qrels(path: Path, qrels: Qrels) -> None:
    lines = [f"{query_id}\t{doc_id}\t{score}\n" for query_id, row in qrels.items() for doc_id, score in row.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
