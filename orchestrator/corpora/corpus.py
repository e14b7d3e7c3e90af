"""A corpus on disk: documents in any of the formats that are read, queries and judgements."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from orchestrator import storage
from orchestrator.corpora.chunks import Chunker
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.corpora.documents import DocumentStore
from orchestrator.corpora.ingest import Cut, Reading, StoreState, open_documents, stored_documents
from orchestrator.corpora.judgements import Topics, UnknownQrels, load_topics, qrels_splits, topic_files
from orchestrator.corpora.locate import Source, locate, resolve
from orchestrator.corpora.readers import Reader, reader_for
from orchestrator.corpora.readers.columns import PARENT
from orchestrator.errors import DataError
from orchestrator.stage import Embed, Json, Progress, no_progress
from orchestrator.types import Document, Query

if TYPE_CHECKING:
    from orchestrator.keys import Keys
    from orchestrator.rows.vectors import CorpusVectors


def open_corpus(spec: CorpusSpec, root: Path, progress: Progress = no_progress) -> DiskCorpus:
    """The corpus that `spec` names, its documents read into the store under `root` where they are not yet.

    Args:
        spec: what to open.
        root: where state lives.
        progress: told ("read", bytes read, bytes in all) while the files are read.

    Raises:
        ConfigError: the path names nothing, or a column is not there.
        DataError: a file is missing, empty or wrong.
    """
    source = _locate(spec)
    key = _key(spec, source)
    store, state = open_documents(_reading(spec, source), root / "corpora" / key, progress)
    return DiskCorpus(spec, source, root, key, store, state)


def stored_corpus(spec: CorpusSpec, root: Path) -> DiskCorpus | None:
    """The corpus that `spec` names, where it lies in the store under `root`; else None. Reads none of its files.

    Raises:
        ConfigError: the path names nothing.
        DataError: the folder holds no documents.
    """
    source = _locate(spec)
    key = _key(spec, source)
    found = stored_documents(_reading(spec, source), root / "corpora" / key)
    return None if found is None else DiskCorpus(spec, source, root, key, *found)


def corpus_format(spec: CorpusSpec) -> str:
    """The format of the corpus's files, one of `locate.FORMATS`.

    Raises:
        ConfigError: the path names nothing.
        DataError: the folder holds no documents.
    """
    return _locate(spec).format


def corpus_key(spec: CorpusSpec) -> str:
    """What names the corpus in folder names: its name, and a hash of where it lies and how it is read.

    Raises:
        ConfigError: the path names nothing.
        DataError: the folder holds no documents.
    """
    return _key(spec, _locate(spec))


def _locate(spec: CorpusSpec) -> Source:
    own = [resolve(path, f"corpus.{key}") for key, path in (("queries", spec.queries), ("qrels", spec.qrels)) if path]
    return locate(spec.path, spec.format, [path for path in own if path is not None])


def _key(spec: CorpusSpec, source: Source) -> str:
    """The same files read otherwise are another corpus."""
    settings: dict[str, Json] = {"columns": asdict(spec.columns), "csv": asdict(spec.csv), "chunk": asdict(spec.chunk)}
    return f"{storage.slug(spec.name)}-{storage.stable_hash([source.identity, source.format, settings], 12)}"


def _reading(spec: CorpusSpec, source: Source) -> Reading:
    def reader() -> Reader:
        return reader_for(source.format, spec.columns, spec.csv, several=len(source.names) > 1)

    def cut() -> Cut:
        chunker = Chunker(spec.chunk)
        return lambda file, document: chunker(document, is_markdown=file.is_markdown)

    return Reading(source, reader, cut if spec.chunk.max_chars is not None else None, spec.on_bad_line)


class DiskCorpus:
    """Documents, queries and judgements of one corpus; made by `open_corpus`. Implements `stage.Corpus`.

    Safe to use from several threads.

    Attributes:
        spec: what was asked for.
        source: the files of its documents.
        root: where state lives.
        key: names the corpus in folder names: its name and a hash of where it lies and how it is read.
    """

    def __init__(
        self, spec: CorpusSpec, source: Source, root: Path, key: str, store: DocumentStore, state: StoreState
    ) -> None:
        self.spec, self.source, self.root, self.key = spec, source, root, key
        self._store, self._skipped, self._content_hash = store, state.skipped, state.content_hash
        self._topics: Topics | None = None
        self._vectors: dict[str, CorpusVectors] = {}
        self._lock = threading.RLock()

    @property
    def name(self) -> str:
        """Short name, as in the configuration."""
        return self.spec.name

    @property
    def language(self) -> str:
        """ISO 639-1 code declared for the corpus."""
        return self.spec.language

    @property
    def content_hash(self) -> str:
        """Changes when any document, or their order, changes."""
        return self._content_hash

    @property
    def text_keys(self) -> Keys:
        """uint8 [n_documents, 16]: the key of each document's full text."""
        return self._store.text_keys

    def __len__(self) -> int:
        return len(self._store)

    def documents(self) -> Iterator[Document]:
        """All documents, one at a time, in corpus order."""
        return self._store.documents()

    def at(self, ordinals: npt.NDArray[np.int64]) -> list[Document]:
        """Documents in the order of `ordinals`."""
        return self._store.get(ordinals)

    def sample(self, n: int) -> list[Document]:
        """At most `n` documents at even distances, the first and the last among them."""
        return self.at(np.unique(np.linspace(0, len(self) - 1, n).astype(np.int64))) if len(self) else []

    def get(self, doc_ids: Sequence[str]) -> list[Document]:
        """Documents in the order of `doc_ids`, read all at once.

        Raises:
            DataError: an id is not in the corpus.
        """
        return self._store.get(self.ordinals(doc_ids))

    def ordinals(self, doc_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """int64 [n]: the place of each id in the corpus.

        Raises:
            DataError: an id is not in the corpus.
        """
        found = self.find(doc_ids)
        if (found < 0).any():
            missing = [doc_ids[row] for row in np.flatnonzero(found < 0).tolist()]
            some = ", ".join(f"'{doc_id}'" for doc_id in missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise DataError(f"corpus '{self.name}'", None, f"{len(missing)} of {len(doc_ids)} ids unknown: {some}")
        return found

    def find(self, doc_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """int64 [n]: the place of each id in the corpus, -1 for an id that it does not hold."""
        return self._store.ordinals(doc_ids)

    def doc_ids(self, ordinals: npt.NDArray[np.int64]) -> list[str]:
        """Ids in the order of `ordinals`."""
        return self._store.doc_ids(ordinals)

    def vectors(self, embedder: Embed, progress: Progress = no_progress) -> CorpusVectors:
        """The corpus's vectors under `embedder`; missing ones are embedded and kept first."""
        from orchestrator.rows.vectors import open_vectors

        with self._lock:
            embedder.load()
            known = self._vectors.get(embedder.model_id)
            if known is None:
                known = open_vectors(self.root, embedder).ensure(self, embedder, progress)
                self._vectors[embedder.model_id] = known
            return known

    def forget_vectors(self) -> None:
        """Look for vectors on disk again when they are next asked for."""
        with self._lock:
            self._vectors.clear()

    @property
    def topics(self) -> Topics:
        """Queries and judgements; read at the first use.

        Raises:
            ConfigError: no file of questions is named, or `corpus.split` names no qrels file.
            DataError: the queries or the qrels file is missing or wrong.
        """
        with self._lock:
            if self._topics is None:
                self._topics = load_topics(topic_files(self.spec, self.source), self.spec.on_bad_line, self)
            return self._topics

    def queries(self) -> list[Query]:
        """Queries in file order: only the judged ones where there are judgements; at most `max_queries`."""
        return list(self.topics.queries[: self.spec.max_queries])

    def qrels(self) -> dict[str, dict[str, int]]:
        """Judgements of the queries that `queries()` gives, by query_id and doc_id; empty without a qrels file.

        Documents that the corpus lacks stay in, as trec_eval counts them: nothing can find them.
        """
        judged = self.topics.qrels
        return {query.query_id: judged[query.query_id] for query in self.queries() if query.query_id in judged}

    def judged(self, split: str) -> Topics:
        """Queries and judgements of another split.

        Raises:
            ConfigError: there is no such split.
            DataError: a file is wrong.
        """
        return load_topics(topic_files(replace(self.spec, split=split), self.source), self.spec.on_bad_line, self)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the qrels files of a BEIR folder, sorted; empty where there are none to choose from."""
        if self.spec.qrels is not None or self.source.format != "beir":
            return ()
        return qrels_splits(self.source.folder)

    @property
    def unknown_qrels(self) -> UnknownQrels:
        """How many ids of the judgements no line of the corpus has."""
        return self.topics.unknown

    @property
    def skipped(self) -> int:
        """How many bad lines were left out so far: of the corpus file, and of the others once they are read."""
        return self._skipped + (self._topics.skipped if self._topics else 0)

    def judged_ids(self, doc_ids: Sequence[str]) -> list[str]:
        """`doc_ids` as the judgements name them: themselves, or the documents that they are chunks of, each once.

        A document stands where its best chunk stood (MaxP of Dai and Callan, "Deeper Text Understanding for IR with
        Contextual Neural Language Modeling", SIGIR 2019).
        """
        return list(dict.fromkeys(self.parents(doc_ids) if self.topics.by_parent else doc_ids))

    def parents(self, doc_ids: Sequence[str]) -> list[str]:
        """The document that each id is a chunk of, or the id itself, in the order of `doc_ids`."""
        return [str(document.metadata.get(PARENT, document.doc_id)) for document in self.get(doc_ids)]

    def has_documents(self, doc_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each id is a document's: bool [n]."""
        return self.find(doc_ids) >= 0

    def has_parents(self, doc_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each id is that of a document which some chunk is part of: bool [n]."""
        parents = self._store.metadata_values(PARENT)
        return np.array([doc_id in parents for doc_id in doc_ids], dtype=np.bool_)

    def close(self) -> None:
        """Let go of the files."""
        self._store.close()
        self._vectors.clear()
