"""Questions from files and streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.corpora.queries import read_queries, read_stream
from orchestrator.errors import ConfigError, DataError
from orchestrator.lines import BadLines
from orchestrator.tasks.waiting import as_they_come
from orchestrator.trec import trec_lines
from orchestrator.types import Query

Open = Callable[..., DiskCorpus]
WriteCorpus = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("q.txt", 'what is it?\n\n  why, "so"?  \n', [Query("q1", "what is it?"), Query("q2", 'why, "so"?')]),
        ("questions", '{"not": "json lines"}\n', [Query("q1", '{"not": "json lines"}')]),
        (
            "q.jsonl",
            '{"_id": 7, "text": "a", "language": "de"}\n{"query": "b"}\n{"qid": "x", "question": "c"}\n',
            [Query("7", "a", "de"), Query("q2", "b"), Query("x", "c")],
        ),
        ("q.csv", 'query,id\n"a, b",1\n"c\nd",2\n', [Query("1", "a, b"), Query("2", "c\nd")]),
        ("q.tsv", "question\nwhat?\n", [Query("q1", "what?")]),
        ("q.tsv", "100\twhat is it\n200\twhy\n", [Query("100", "what is it"), Query("200", "why")]),
    ],
)
def test_questions_are_read_from_every_format(name: str, content: str, expected: list[Query], tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert list(read_queries(tmp_path / name, BadLines())) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.txt", "\n", "q.txt: holds no queries; expected text, query or question"),
        ("q.csv", "", "q.csv: is empty"),
        ("q.csv", "id,words\n1,a\n", "q.csv:1: found columns id, words; expected one of text, query, question"),
        ("q.csv", "id,text\n1,a\n1,b\n", "q.csv: "),
        ("q.csv", "id,text\n1,a\n2\n", "q.csv:3: found 1 fields"),
        ("q.jsonl", '{"_id": 1, "text": "a"}\n{"_id": 1, "text": "b"}\n', "q.jsonl:2: id '1' stands above already"),
        ("q.jsonl", '{"_id": 1, "text": " "}\n', "q.jsonl:1: found an empty text as text"),
        ("q.jsonl", '{"_id": 1, "words": "x"}\n', "q.jsonl:1: found no text; keys: _id, words"),
    ],
)
def test_wrong_questions_are_named(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as error:
        list(read_queries(tmp_path / name, BadLines()))
    assert message.rstrip(": ") in str(error.value)


def test_a_stream_mixes_text_and_json_and_skips_what_is_bad() -> None:
    lines = [b"\xef\xbb\xbfwhat?\n", b'{"_id": "x", "text": "why?"}\r\n', b"\n", b"{bad\n", b"caf\xe9\n", b"last"]
    with pytest.raises(DataError, match=r"<stdin>:4: is no JSON"):
        list(read_stream("<stdin>", lines, BadLines()))
    with structlog.testing.capture_logs():
        found = list(read_stream("<stdin>", lines, BadLines("skip")))
    assert found == [Query("q1", "what?"), Query("x", "why?"), Query("q3", "last")]


def test_what_is_there_is_answered_without_waiting_for_more() -> None:
    go_on = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        go_on.wait()
        yield from range(2, 7)
        raise ValueError("in the end")

    batches = as_they_come(slow(), 3)
    assert next(batches) == [1]
    go_on.set()
    found: list[int] = []
    while len(found) < 5:
        batch = next(batches)
        assert 1 <= len(batch) <= 3
        found += batch
    assert found == [2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="in the end"):
        next(batches)


def test_own_questions_and_judgements_stand_beside_a_beir_folder(
    write_corpus: WriteCorpus, opened: Open, tmp_path: Path
) -> None:
    folder = write_corpus([{"_id": "a", "text": "x"}], [{"_id": "q0", "text": "theirs"}], {"test": "q0\ta\t1\n"})
    (tmp_path / "mine.txt").write_text("mine\n")
    (tmp_path / "mine.qrels").write_text("q1 0 a 2\n")
    corpus = opened(folder, queries=str(tmp_path / "mine.txt"), qrels=str(tmp_path / "mine.qrels"))
    assert corpus.queries() == [Query("q1", "mine")]
    assert corpus.qrels() == {"q1": {"a": 2}}


def test_documents_alone_say_how_questions_are_given(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "docs.csv").write_text("id,text\n1,a\n")
    with pytest.raises(ConfigError, match=r"corpus\.queries: missing, .*corpus\.queries=FILE, or ask one yourself"):
        opened(tmp_path / "docs.csv").queries()
    with pytest.raises(ConfigError, match=r"corpus\.split: found 'dev', but .*corpus\.qrels=FILE"):
        opened(tmp_path / "docs.csv", split="dev").queries()
    with pytest.raises(ConfigError, match=r"corpus\.split: found .dev. beside corpus\.qrels="):
        opened(tmp_path / "docs.csv", split="dev", qrels=str(tmp_path / "docs.csv")).queries()
    with pytest.raises(ConfigError, match=r"corpus\.queries: .*nothing there; expected a file"):
        opened(tmp_path / "docs.csv", queries="nowhere.txt")
    with pytest.raises(ConfigError, match=r"corpus\.qrels: .*found a folder; expected a file"):
        opened(tmp_path / "docs.csv", qrels=str(tmp_path))


def test_ids_with_spaces_are_one_column_of_a_run() -> None:
    assert trec_lines("q", ["a b\t/c.md"]).split()[2] == "a%20b%09/c.md"
