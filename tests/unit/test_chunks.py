"""Long documents become chunks that know their document; judgements of documents count for their chunks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.corpora.chunks import Chunker, Chunking
from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.errors import ConfigError, MissingExtraError
from orchestrator.types import Document

WriteCorpus = Callable[..., Path]
Open = Callable[..., DiskCorpus]
SENTENCES = [f"Sentence number {n} says something." for n in range(40)]


def cut(document: Document, max_chars: int, overlap_chars: int = 0, *, is_markdown: bool = False) -> list[Document]:
    return list(Chunker(Chunking(max_chars, overlap_chars))(document, is_markdown=is_markdown))


def test_chunks_are_whole_sentences_with_the_id_of_their_document() -> None:
    chunks = cut(Document("d", " ".join(SENTENCES), "T", {"year": 1}), 100)
    assert [chunk.doc_id for chunk in chunks] == [f"d#{n}" for n in range(1, len(chunks) + 1)]
    assert [chunk.metadata for chunk in chunks] == [
        {"year": 1, "parent_id": "d", "chunk": n} for n in range(1, len(chunks) + 1)
    ]
    assert {chunk.title for chunk in chunks} == {"T"}
    assert " ".join(chunk.text for chunk in chunks) == " ".join(SENTENCES)
    assert all(len(chunk.text) <= 100 and chunk.text.endswith(".") for chunk in chunks)


def test_chunks_overlap_by_whole_sentences() -> None:
    chunks = cut(Document("d", " ".join(SENTENCES)), 120, 40)
    for before, after in itertools.pairwise(chunks):
        shared = after.text.split(". ")[0]
        assert shared in before.text
        assert len(shared) <= 40


@given(st.text(max_size=300), st.integers(1, 50), st.data())
def test_no_character_is_lost_and_no_chunk_is_too_long(text: str, max_chars: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, max_chars - 1))
    for is_markdown in (False, True):
        chunks = cut(Document("d", text), max_chars, overlap, is_markdown=is_markdown)
        assert chunks
        if text.strip() and not is_markdown:
            kept = iter("".join(chunk.text for chunk in chunks))
            assert all(char in kept for char in text if not char.isspace())
            assert max(len(chunk.text) for chunk in chunks) <= max_chars


def test_a_short_or_empty_document_is_one_chunk() -> None:
    assert cut(Document("d", "short"), 100) == [Document("d#1", "short", "", {"parent_id": "d", "chunk": 1})]
    assert cut(Document("d", ""), 100) == [Document("d#1", "", "", {"parent_id": "d", "chunk": 1})]
    assert [chunk.text for chunk in cut(Document("d", "# A"), 1, is_markdown=True)] == ["# A"]


def test_chinese_is_cut_at_its_own_full_stops() -> None:
    text = "青光眼是一种眼病。它会损害视神经，导致失明！" * 10
    assert all(chunk.text[-1] in "。！" for chunk in cut(Document("d", text), 50))


def test_chunks_of_a_chunk_keep_its_document() -> None:
    chunks = cut(Document("d-3", "One sentence. Another one.", "", {"parent_id": "d"}), 15)
    assert [(chunk.doc_id, chunk.metadata["parent_id"]) for chunk in chunks] == [("d-3#1", "d"), ("d-3#2", "d")]


MARKDOWN = """Lead.

## Care

Drops.

### Night

Sleep well.

## Causes

{long}

### Rare

Few.
"""


def test_markdown_is_cut_at_headings_whose_path_is_the_title() -> None:
    text = MARKDOWN.format(long=" ".join(SENTENCES[:6]))
    chunks = cut(Document("d", text, "Eye"), 80, is_markdown=True)
    assert [(chunk.title, chunk.text) for chunk in chunks] == [
        ("Eye", "Lead."),
        ("Eye > Care", "Drops.\n\n### Night\n\nSleep well."),
        ("Eye > Causes", " ".join(SENTENCES[:2])),
        ("Eye > Causes", " ".join(SENTENCES[2:4])),
        ("Eye > Causes", " ".join(SENTENCES[4:6])),
        ("Eye > Causes > Rare", "Few."),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0, 0), r"corpus\.chunk\.max_chars: found 0; expected 1 or more"),
        ((10, 10), r"corpus\.chunk\.overlap_chars: found 10; expected 0 or more, and less than .*10"),
        ((10, -1), r"corpus\.chunk\.overlap_chars: found -1"),
        ((None, 5), r"corpus\.chunk\.overlap_chars: found 5, but documents are not cut"),
    ],
)
def test_wrong_settings_are_refused(settings: tuple[int | None, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Chunking(*settings)


def test_without_the_splitter_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "semantic_text_splitter", None)
    with pytest.raises(MissingExtraError, match=r"rerank-orchestrator\[chunks\]"):
        Chunker(Chunking(10))


DOCUMENTS = [{"_id": name, "text": " ".join(SENTENCES[start : start + 4])} for name, start in (("a", 0), ("b", 9))]
QUERIES = [{"_id": "q1", "text": "number"}]


def test_other_lengths_read_the_documents_anew(write_corpus: WriteCorpus, opened: Open) -> None:
    folder = write_corpus(DOCUMENTS)
    whole, halves = opened(folder), opened(folder, chunk=Chunking(80))
    assert [document.doc_id for document in whole.documents()] == ["a", "b"]
    assert [document.doc_id for document in halves.documents()] == ["a#1", "a#2", "b#1", "b#2"]
    assert opened(folder, chunk=Chunking(80)).content_hash == halves.content_hash


def test_judgements_of_documents_count_for_their_chunks(write_corpus: WriteCorpus, opened: Open) -> None:
    corpus = opened(write_corpus(DOCUMENTS, QUERIES, {"test": "q1\ta\t1\nq1\tgone\t1\n"}), chunk=Chunking(80))
    assert corpus.topics.by_parent
    assert corpus.unknown_qrels.doc_ids == 1
    assert corpus.judged_ids(["b#2", "a#2", "b#1", "a#1"]) == ["b", "a"]


def test_judgements_of_chunks_count_for_chunks(write_corpus: WriteCorpus, opened: Open) -> None:
    corpus = opened(write_corpus(DOCUMENTS, QUERIES, {"test": "q1\ta#2\t1\n"}), chunk=Chunking(80))
    assert not corpus.topics.by_parent
    assert corpus.judged_ids(["b#2", "a#2"]) == ["b#2", "a#2"]


def test_a_parent_column_is_judged_by_too(write_corpus: WriteCorpus, opened: Open) -> None:
    rows = [{"_id": f"c{n}", "text": "x", "parent_id": n // 2} for n in range(4)]
    corpus = opened(write_corpus(rows, QUERIES, {"test": "q1\t1\t1\n"}))
    assert [document.metadata for document in corpus.documents()] == [{"parent_id": str(n // 2)} for n in range(4)]
    assert corpus.judged_ids(["c3", "c0", "c2"]) == ["1", "0"]
