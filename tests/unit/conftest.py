"""A small deterministic embedder and corpora in BEIR layout, written to disk."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from orchestrator.corpora.corpus import DiskCorpus, open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.types import Call, TextKind, Vectors


class TrigramEmbed:
    """Counts of hashed character trigrams, scaled to length 1. Keeps every text it was asked for in `seen`."""

    def __init__(self, dim: int = 32, model_id: str = "trigrams") -> None:
        self.dim, self.model_id, self.similarity = dim, model_id, "cosine"
        self.seen: list[str] = []
        self.fail_after: int | None = None

    def load(self) -> None:
        """Nothing to load."""

    def embed(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> Vectors:
        """float32 [n_texts, dim]."""
        if self.fail_after is not None and len(self.seen) >= self.fail_after:
            raise KeyboardInterrupt
        self.seen += texts
        return np.stack([self.vector(text) for text in texts])

    def vector(self, text: str) -> Vectors:
        """float32 [dim] of one text."""
        counts = np.zeros(self.dim, dtype=np.float32)
        for start in range(len(text) - 2):
            counts[zlib.crc32(text[start : start + 3].encode()) % self.dim] += 1
        return counts / max(float(np.sqrt((counts * counts).sum())), 1.0)


@pytest.fixture
def embedder() -> TrigramEmbed:
    return TrigramEmbed()


@pytest.fixture
def make_embedder() -> Callable[..., TrigramEmbed]:
    return TrigramEmbed


Lines = Sequence[Mapping[str, object] | str]
WriteCorpus = Callable[..., Path]


@pytest.fixture
def write_corpus(tmp_path: Path) -> WriteCorpus:
    """Writes DIR/corpus.jsonl, queries.jsonl and qrels/<split>.tsv; a str stands for a line as it is."""

    def write(
        documents: Lines, queries: Lines | None = None, qrels: Mapping[str, str] | None = None, name: str = "beir"
    ) -> Path:
        folder = tmp_path / name
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        _write_lines(folder / "corpus.jsonl", documents)
        if queries is not None:
            _write_lines(folder / "queries.jsonl", queries)
        for split, text in (qrels or {}).items():
            (folder / "qrels" / f"{split}.tsv").write_text(text, encoding="utf-8")
        return folder

    return write


def _write_lines(path: Path, rows: Lines) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., DiskCorpus]]:
    """Opens corpora with their state under one folder of the test, and closes them at its end."""
    corpora: list[DiskCorpus] = []

    def open_(folder: Path | str, **spec: object) -> DiskCorpus:
        corpora.append(open_corpus(CorpusSpec("test", str(folder), **spec), tmp_path / "storage"))  # type: ignore[arg-type]
        return corpora[-1]

    yield open_
    for corpus in corpora:
        corpus.close()
