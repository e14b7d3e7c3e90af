"""Folders of text and Markdown: ids, titles, front matter; which files are taken; changes that are noticed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import structlog

from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.corpora.markdown import outline
from orchestrator.corpora.readers.columns import Columns
from orchestrator.errors import ConfigError, DataError
from orchestrator.types import Document

Open = Callable[..., DiskCorpus]
NOTES = {
    "b.md": "# Heart *beats* `x`\n\nIt pumps.\n",
    "a/z.txt": "Plain text.\n",
    "a/front.md": "---\ntitle: From above\ntags: [x]\nday: 2020-01-02\n---\n\n# Heading\n\nBody.\n",
    "a b/青.markdown": "Before.\n\nSetext\n===\n\nAfter.\n",
    ".hidden.md": "# No\n",
    ".git/x.md": "# No\n",
    "outputs/12-00-00-run/.hydra/config.yaml": "no",
    "outputs/12-00-00-run/results.jsonl": "{}\n",
    "picture.png": "no",
}
EXPECTED = [
    Document("a b/青.markdown", "Before.\n\nSetext\n===\n\nAfter.", "Setext"),
    Document("a/front.md", "# Heading\n\nBody.", "From above", {"tags": ["x"], "day": "2020-01-02"}),
    Document("a/z.txt", "Plain text.\n"),
    Document("b.md", "It pumps.", "Heart beats x"),
]


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode(errors="surrogateescape"))
    return folder


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return write(tmp_path / "notes", NOTES)


def test_each_file_is_a_document_and_hidden_ones_are_none(notes: Path, opened: Open) -> None:
    with structlog.testing.capture_logs() as logs:
        corpus = opened(notes)
    assert list(corpus.documents()) == EXPECTED
    assert [(log["event"], log["read"], log["left_out"]) for log in logs] == [("corpus.other_files", 4, 1)]


def test_one_file_is_a_corpus_too(notes: Path, opened: Open) -> None:
    assert list(opened(notes / "b.md").documents()) == [Document("b.md", "It pumps.", "Heart beats x")]


def test_changed_added_removed_and_renamed_files_are_noticed(notes: Path, opened: Open) -> None:
    def ids_and_texts() -> list[tuple[str, str]]:
        return [(document.doc_id, document.text) for document in opened(notes).documents()]

    before = ids_and_texts()
    write(notes, {"c.md": "new"})
    assert ids_and_texts() == [*before, ("c.md", "new")]
    (notes / "c.md").rename(notes / "d.md")
    assert ids_and_texts() == [*before, ("d.md", "new")]
    write(notes, {"d.md": "wen"})
    assert ids_and_texts() == [*before, ("d.md", "wen")]
    (notes / "d.md").unlink()
    assert ids_and_texts() == before


def test_a_touched_file_is_read_but_no_new_store_is_made(notes: Path, opened: Open, tmp_path: Path) -> None:
    first = opened(notes)
    (store,) = (tmp_path / "storage").rglob("state.json")
    os.utime(notes / "b.md", ns=(1, 1))
    assert opened(notes).content_hash == first.content_hash
    assert list((tmp_path / "storage").rglob("state.json")) == [store]


def test_questions_in_the_same_folder_are_no_documents(notes: Path, opened: Open) -> None:
    write(notes, {"questions.txt": "what pumps?\nwhat sees?\n", "qrels.tsv": "q1\tb.md\t1\n"})
    corpus = opened(notes, queries=str(notes / "questions.txt"), qrels=str(notes / "qrels.tsv"))
    assert len(corpus) == len(EXPECTED)
    assert [(query.query_id, query.text) for query in corpus.queries()] == [("q1", "what pumps?")]
    assert corpus.qrels() == {"q1": {"b.md": 1}}


def test_a_folder_of_several_formats_asks_which(notes: Path, opened: Open) -> None:
    write(notes, {"x.csv": "id,text\n1,a\n"})
    with pytest.raises(ConfigError, match=r"corpus\.format: .*1 of csv, 4 of files; choose one: csv\|files"):
        opened(notes)
    assert len(opened(notes, format="files")) == 4
    assert len(opened(notes, format="csv")) == 1
    with pytest.raises(DataError, match=r"expected files of corpus\.format=parquet"):
        opened(notes, format="parquet")


def test_folders_with_nothing_to_read_say_what_they_hold(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"found an empty folder; expected a file \.jsonl"):
        opened(tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"corpus\.path: .*no file matches"):
        opened(tmp_path / "empty" / "*.md")
    with structlog.testing.capture_logs() as logs, pytest.raises(DataError, match="holds no documents"):
        opened(write(tmp_path / "blank", {"a.md": " \n", "b.txt": ""}))
    assert [log["event"] for log in logs] == ["corpus.empty_file"] * 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("bad.txt", "fine\ncaf\udce9\n", "bad.txt:2: found 0xe9, which is no UTF-8; expected UTF-8 text"),
        ("bad.md", "---\ntitle: [x\n---\ntext\n", "bad.md:1: the front matter is no YAML"),
    ],
)
def test_a_bad_file_is_named_and_can_be_left_out(notes: Path, opened: Open, name: str, text: str, message: str) -> None:
    write(notes, {name: text})
    with pytest.raises(DataError) as error:
        opened(notes)
    assert message in str(error.value)
    with structlog.testing.capture_logs():
        corpus = opened(notes, on_bad_line="skip")
    assert (len(corpus), corpus.skipped) == (4, 1)


def test_a_file_of_another_kind_is_named(notes: Path, opened: Open) -> None:
    write(notes, {"paper.txt": "%PDF-1.7"})
    with pytest.raises(DataError, match=r"paper\.txt: found a PDF file; expected UTF-8 text"):
        opened(notes)


def test_files_have_no_columns(notes: Path, opened: Open) -> None:
    with pytest.raises(ConfigError, match=r"corpus\.columns\.text: found 'body', but text and Markdown files have no"):
        opened(notes, columns=Columns(text="body"))
    documents = opened(notes, columns=Columns(metadata=("day",))).get(["a/front.md"])
    assert documents[0].metadata == {"day": "2020-01-02"}


def test_a_name_that_is_no_utf8_is_named(notes: Path, opened: Open) -> None:
    (Path(os.fsdecode(os.fsencode(notes) + b"/caf\xe9.txt"))).write_text("x")
    with pytest.raises(DataError, match=r"caf\\xe9\.txt: the name of the file is no UTF-8"):
        opened(notes)


def test_dashes_that_are_no_front_matter_stay_text(tmp_path: Path, opened: Open) -> None:
    (document,) = opened(write(tmp_path / "d", {"a.md": "---\njust text\n---\nmore\n"})).documents()
    assert document.text == "---\njust text\n---\nmore"


def test_headings_are_those_of_commonmark() -> None:
    text = "# A\r\n\r\n```\r\n# code\r\n```\r\n> # quoted\r\n\r\nB\u2028b\r\n---\r\n\r\n### C #\r\nx"
    found = outline(text)
    assert [(heading.level, heading.text) for heading in found.headings] == [(1, "A"), (2, "B b"), (3, "C")]
    assert [text[heading.start :][:3] for heading in found.headings] == ["# A", "B\u2028b", "###"]
    assert [heading.text for heading in found.path(len(text) - 1)] == ["A", "B b", "C"]
    assert found.path(text.index("# code"))[-1].text == "A"
