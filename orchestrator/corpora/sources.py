"""Where the runner reads documents and vectors: a corpus on disk, or what the caller brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.stage import DocumentVectors, Embed, Progress, no_progress
from orchestrator.types import Call, Document, Vectors


class CorpusDocuments:
    """Documents and vectors of a corpus on disk."""

    in_corpus = True

    def __init__(self, corpus: DiskCorpus) -> None:
        self._corpus = corpus
        self._vectors: dict[int, DocumentVectors] = {}

    def prepare(self, embedder: Embed, progress: Progress = no_progress) -> None:
        """Have the corpus's vectors under `embedder` at hand; missing ones are embedded now, not in a query."""
        if id(embedder) not in self._vectors:
            self._vectors[id(embedder)] = self._corpus.vectors(embedder, progress)

    def read(self, doc_ids: Sequence[str]) -> list[Document]:
        """Documents with text, in the order of `doc_ids`."""
        return self._corpus.get(doc_ids)

    def vectors(
        self,
        embedder: Embed,
        doc_ids: Sequence[str],
        call: Call | None = None,  # noqa: ARG002 - as `Documents` has it
    ) -> Vectors:
        """float32 [n, dim], in the order of `doc_ids`; they are there once prepared, which costs no `call` anything."""
        self.prepare(embedder)
        return self._vectors[id(embedder)].rows(self._corpus.ordinals(doc_ids))


class GivenDocuments:
    """Documents that the caller brought. Their vectors are looked up by text, embedded and kept when new."""

    in_corpus = False

    def __init__(self, documents: Sequence[Document], storage_root: Path) -> None:
        self._documents = {document.doc_id: document for document in documents}
        self._root = storage_root

    def read(self, doc_ids: Sequence[str]) -> list[Document]:
        """Documents in the order of `doc_ids`."""
        return [self._documents[doc_id] for doc_id in doc_ids]

    def vectors(self, embedder: Embed, doc_ids: Sequence[str], call: Call | None = None) -> Vectors:
        """float32 [n, dim], in the order of `doc_ids`.

        Args:
            embedder: the loaded model.
            doc_ids: of documents that were brought.
            call: where tokens of new texts are counted, and which stops the embedding when it is cancelled.

        Raises:
            CallCancelledError: nobody waits any more; what was embedded until then is kept.
        """
        from orchestrator.rows.vectors import vectors_for_texts

        texts = [self._documents[doc_id].full_text for doc_id in doc_ids]
        return vectors_for_texts(self._root, embedder, texts, call)


def as_documents(given: Sequence[str | Document | Mapping[str, object]]) -> list[Document]:
    """Documents from texts, mappings or Documents; a text's id is its place, from "0".

    Raises:
        ValueError: an id stands twice, or a mapping lacks `text`.
    """
    if isinstance(given, str):
        raise TypeError("documents: found one text; expected a list of them")
    documents = [_as_document(item, place) for place, item in enumerate(given)]
    seen: set[str] = set()
    for document in documents:
        if document.doc_id in seen:
            raise ValueError(f"documents: id '{document.doc_id}' stands twice")
        seen.add(document.doc_id)
    return documents


def _as_document(item: str | Document | Mapping[str, object], place: int) -> Document:
    if isinstance(item, Document):
        return item
    if isinstance(item, str):
        return Document(str(place), item)
    if "text" not in item:
        raise ValueError(f"documents[{place}]: no 'text'; found: {', '.join(map(str, item))}")
    doc_id = item.get("doc_id", item.get("_id", place))
    given, own = item.get("metadata"), {"doc_id", "_id", "text", "title", "metadata"}
    payload = {key: value for key, value in item.items() if key not in own}
    if isinstance(given, Mapping):
        payload |= given
    return Document(str(doc_id), str(item["text"]), str(item.get("title") or ""), payload)
