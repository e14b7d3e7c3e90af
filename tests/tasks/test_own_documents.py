"""Files as corpora and questions from files and standard input, as a person types them."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCRIPT = Path(sys.executable).parent / "orchestrate"
BM25 = "pipeline=bm25"
TABLE = "key,name,body,parent,year\n1,Eye,glaucoma harms the nerve,book,1999\n2,Heart,it pumps blood,book,2000\n"
COLUMNS = ["corpus.columns={id: key, title: name, parent: parent, metadata: [year]}"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "docs.csv").write_text(TABLE)
    return tmp_path / "docs.csv"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "eye.md").write_text(
        "# Eye\n\n## Glaucoma\n\nIt harms the nerve.\n\n## Cataract\n\nThe lens is cloudy.\n"
    )
    (folder / "heart.txt").write_text("It pumps blood. It never rests, by day or by night.")
    return folder


def lines_of(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_table_answers_with_its_columns(orchestrate: Callable, table: Path) -> None:
    done = orchestrate("run", "nerve", BM25, f"corpus.path={table}", *COLUMNS, "format=json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["results"]
    shown = {key: row[key] for key in ("doc_id", "title", "text", "metadata")}
    assert shown == {
        "doc_id": "1",
        "title": "Eye",
        "text": "glaucoma harms the nerve",
        "metadata": {"year": "1999", "parent_id": "book"},
    }
    (kept,) = Path("outputs").glob("*/*-run-*/results.jsonl")
    assert json.loads(kept.read_text())["results"][0]["metadata"]["parent_id"] == "book"


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_other_files_answer_alike(suffix: str, orchestrate: Callable, tmp_path: Path) -> None:
    rows = [{"id": n, "text": text} for n, text in ((1, "glaucoma harms the nerve"), (2, "it pumps blood"))]
    file = tmp_path / f"docs{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = orchestrate("run", "nerve", BM25, f"corpus.path={file}", "format=trec")
    assert done.out.split()[:3] == ["q1", "Q0", "1"], done.err


def test_a_pattern_and_a_delimiter_are_typed_as_they_are(orchestrate: Callable, tmp_path: Path) -> None:
    for name, text in (("a", "nerve"), ("b", "blood")):
        (tmp_path / f"part {name}.csv").write_text(f"id;text\n{name};{text}\n")
    for delimiter in (";", "';'"):
        words = [f"corpus.path={tmp_path}/part *.csv", f"corpus.csv.delimiter={delimiter}", "format=trec"]
        done = orchestrate("run", "blood", BM25, *words)
        assert done.out.split()[:3] == ["q1", "Q0", "b"], done.err
    (tmp_path / "tabs.csv").write_text("id\ttext\nt\tblood\n")
    done = orchestrate(
        "run", "blood", BM25, f"corpus.path={tmp_path}/tabs.csv", r"corpus.csv.delimiter=\t", "format=trec"
    )
    assert done.out.split()[:3] == ["q1", "Q0", "t"], done.err


def test_a_folder_is_cut_into_chunks_and_only_changes_are_built(orchestrate: Callable, notes: Path) -> None:
    words = ["run", "lens", BM25, "corpus=files", f"corpus.path={notes}", "corpus.chunk.max_chars=40", "format=json"]
    (row,) = json.loads(orchestrate(*words).out)["results"]
    assert (row["doc_id"], row["title"], row["text"]) == ("eye.md#2", "Eye > Cataract", "The lens is cloudy.")
    assert row["metadata"] == {"parent_id": "eye.md", "chunk": 2}
    assert "index.building" not in orchestrate(*words).err
    (notes / "new.md").write_text("A lens bends light.")
    found = json.loads(orchestrate(*words).out)["results"]
    assert {row["doc_id"] for row in found} == {"eye.md#2", "new.md#1"}


def test_chunks_are_judged_by_their_documents(orchestrate: Callable, notes: Path, tmp_path: Path) -> None:
    (tmp_path / "questions.txt").write_text("nerve\nblood\n")
    (tmp_path / "judged.tsv").write_text("q1\teye.md\t1\nq2\theart.txt\t1\n")
    words = [BM25, "corpus=files", f"corpus.path={notes}", "corpus.chunk.max_chars=30"]
    words += [f"corpus.queries={tmp_path}/questions.txt", f"corpus.qrels={tmp_path}/judged.tsv"]
    done = orchestrate("evaluate", *words, "latency_queries=0", "format=json", "measures=[RR@10,R@100]")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert figures["metrics"] == figures["served"] == {"RR@10": 1.0, "R@100": 1.0}
    assert "corpus.judged_by_parent" in done.err
    (run,) = Path("outputs").glob("*/*-evaluate-*/run.trec")
    assert [line.split()[2] for line in run.read_text().splitlines()] == ["eye.md", "heart.txt"]
    shown = orchestrate("run", *words, "corpus.max_queries=2")
    assert shown.out.count("✓") == 4, "two heads of a column, two relevant documents"


def test_a_file_of_questions_is_answered_whole(orchestrate: Callable, table: Path, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("id,question\nx,nerve\ny,blood\n")
    words = [BM25, f"corpus.path={table}", *COLUMNS, f"queries={tmp_path}/q.csv"]
    done = orchestrate("run", *words, "format=trec")
    assert [line.split()[::2][:2] for line in done.out.splitlines()] == [["x", "1"], ["y", "2"]], done.err
    assert "blood" in orchestrate(*words).out, "run is the default verb"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "x", "queries=q.txt"], "queries: found 'q.txt' beside the question 'x'; choose one of the two"),
        (["run", "queries=nope.txt"], "queries: nope.txt: found nothing there; expected a file of questions"),
        (["corpus.path=TABLE"], "corpus.columns.id: TABLE: no _id or id or doc_id; columns: key, name, body, "),
        (["corpus.path=TABLE", "corpus.columns.id=kye"], "no column 'kye'; columns: key, "),
        (["corpus.path=TABLE", "corpus.columns.id=key", "corpus.columns.title=nam"], "Did you mean 'name'?"),
        (["corpus.path=TABLE", "corpus.columns.id=key"], "corpus.queries: missing, and TABLE holds documents alone"),
        (["corpus.path=TABLE", "corpus.columns.text=null"], "corpus.columns.text: found None; expected a name"),
        (["corpus.path=TABLE", "corpus.columns.txt=body"], "Did you mean 'text'?"),
        (["corpus.path=TABLE", "corpus.format=xml"], "corpus.format"),
        (["corpus.path=TABLE", "corpus.chunk.max_chars=0"], "corpus.chunk.max_chars: found 0; expected 1 or more"),
        (["run", "x", "corpus=files"], "corpus.path: missing; set it to a file or folder of documents"),
    ],
)
def test_mistakes_are_named_with_the_choices(
    words: list[str], message: str, orchestrate: Callable, table: Path
) -> None:
    done = orchestrate(BM25, *(word.replace("TABLE", str(table)) for word in words))
    assert done.code == 2, done.err
    assert message.replace("TABLE", str(table)) in done.err
    assert "Traceback" not in done.err


def script(*words: str, root: Path, cwd: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "ORCHESTRATOR_HOME": str(root)}
    pipe = subprocess.PIPE
    return subprocess.Popen([SCRIPT, *words], cwd=cwd, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)


def test_standard_input_is_answered_line_by_line_as_it_comes(table: Path, storage_root: Path, tmp_path: Path) -> None:
    words = ["run", "queries=-", BM25, f"corpus.path={table}", *COLUMNS, "format=json"]
    with script(*words, root=storage_root, cwd=tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"what harms the nerve?\n")
        process.stdin.flush()
        assert select.select([process.stdout], [], [], 60)[0], "answered while the input is still open"
        first = json.loads(process.stdout.readline())
        process.stdin.write(b'{"_id": "x", "text": "blood"}\n' + "青光眼 = ${x}\n".encode())
        process.stdin.close()
        rest = lines_of(process.stdout.read().decode())
    assert process.returncode == 0
    assert first["query"] == {"query_id": "q1", "text": "what harms the nerve?"}
    assert [line["query"] for line in rest] == [
        {"query_id": "x", "text": "blood"},
        {"query_id": "q3", "text": "青光眼 = ${x}"},
    ]
    assert rest[0]["results"][0]["doc_id"] == "2"  # type: ignore[index]


def test_bad_input_stops_after_what_came_before_it(table: Path, storage_root: Path, tmp_path: Path) -> None:
    words = ["queries=-", BM25, f"corpus.path={table}", *COLUMNS, "format=trec"]
    out, err = script(*words, root=storage_root, cwd=tmp_path).communicate(b"nerve\n{bad\n", timeout=60)
    assert out.split()[:3] == [b"q1", b"Q0", b"1"]
    assert b"orchestrate: <stdin>:2: is no JSON" in err
    out, err = script(*words, root=storage_root, cwd=tmp_path).communicate(b"", timeout=60)
    assert (out, b"<stdin>: holds no queries" in err) == (b"", True)
