"""Document vectors, computed once per text and model and kept; the memory-mapped rows are the truth."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from orchestrator import storage
from orchestrator.errors import StageError
from orchestrator.keys import Keys, KeyTable, first_of_each, text_keys
from orchestrator.stage import Embed, Progress, no_progress
from orchestrator.types import Call, Document, Vectors
from orchestrator.vector_file import VectorFile

_WINDOW = 1024
"""Texts embedded between two appends: what a kill can lose, and how far texts are sorted by length."""

_BATCH = 256
"""Texts in one call of the embedder: how often progress moves."""


class TextSource(Protocol):
    """What a corpus offers for embedding."""

    @property
    def text_keys(self) -> Keys:
        """uint8 [n_documents, 16]: the key of each document's full text."""

    def at(self, ordinals: npt.NDArray[np.int64]) -> list[Document]:
        """Documents in the order of `ordinals`."""

    def ordinals(self, doc_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """int64 [n]: the place of each id."""


def open_vectors(root: Path, embedder: Embed) -> VectorStore:
    """The store of `embedder`'s vectors under `root`, one object a process. The embedder is loaded."""
    return _shared_store(root, embedder.model_id, embedder.dim)


def vectors_for_texts(root: Path, embedder: Embed, texts: Sequence[str], call: Call | None = None) -> Vectors:
    """float32 [n_texts, dim] for texts that need not be in any corpus; missing ones are embedded and kept."""
    return open_vectors(root, embedder).vectors_for_texts(texts, embedder, call)


@lru_cache(maxsize=8)
def _shared_store(root: Path, model_id: str, dim: int) -> VectorStore:
    return VectorStore(root, model_id, dim)


class VectorStore:
    """Vectors of one model by text. Safe between threads and processes.

    Args:
        root: where state lives; the store is a folder of `root/vectors`.
        model_id: names the model; another one is another folder.
        dim: length of a vector.

    Raises:
        IndexStateError: the folder holds vectors of something else, or is damaged.
    """

    def __init__(self, root: Path, model_id: str, dim: int) -> None:
        name = f"{storage.slug(model_id)[:40]}-{storage.stable_hash(model_id, 12)}"
        self.model_id, self.dim = model_id, dim
        self._file = VectorFile(root / "vectors" / name, model_id, dim)
        self._table: KeyTable | None = None
        self._lock = threading.RLock()

    @property
    def directory(self) -> Path:
        """The folder of this store."""
        return self._file.directory

    def __len__(self) -> int:
        return len(self._file.keys)

    def find(self, keys: Keys) -> npt.NDArray[np.int64]:
        """int64 [n_keys]: the row of each key, -1 where there is none."""
        with self._lock:
            self._refresh()
            start = _start_of_run(self._file.keys, keys) if self._table is None else None
            if start is not None:
                return np.arange(start, start + len(keys), dtype=np.int64)
            self._table = self._table or KeyTable(self._file.keys)
            return self._table.find(keys)

    def append(self, keys: Keys, vectors: Vectors) -> None:
        """Keep `vectors` under `keys`; a key that is there already keeps its row.

        Args:
            keys: uint8 [n, 16].
            vectors: float32 [n, dim].

        Raises:
            StageError: the vectors have the wrong shape or are not finite.
        """
        self._refuse_unusable(len(keys), vectors)
        with self._lock, storage.locked(self._file.write_lock):
            new = first_of_each(keys)
            new = new[self.find(keys[new]) < 0]
            if len(new):
                self._file.append(keys[new], vectors[new])
                self._table = None

    def ensure(self, source: TextSource, embedder: Embed, progress: Progress = no_progress) -> CorpusVectors:
        """Vectors of all documents of `source`; missing ones are embedded first, each text once.

        Finished windows stay when the process is killed. Processes that want the same vectors share the work,
        window by window.

        Args:
            source: the corpus.
            embedder: the loaded model of this store.
            progress: told ("embed", texts done, texts that were missing).
        """
        keys = source.text_keys
        missing = self._missing(keys)
        for start in range(0, len(missing), _WINDOW):
            report = _Shifted(progress, start, len(missing))
            self._embed_window(source, keys, missing[start : start + _WINDOW], embedder, report)
        with self._lock:
            rows = self.find(keys)
            return CorpusVectors(source, self._file.vectors, rows)

    def vectors_for_texts(self, texts: Sequence[str], embedder: Embed, call: Call | None = None) -> Vectors:
        """float32 [n_texts, dim] for texts that need not be in any corpus; missing ones are embedded and kept."""
        keys = text_keys(texts)
        missing = self._missing(keys)
        if len(missing):
            wanted = [texts[place] for place in missing.tolist()]
            self.append(keys[missing], embedder.embed(wanted, kind="document", call=call or Call()))
        with self._lock:
            rows = self.find(keys)
            return np.asarray(self._file.vectors[rows])

    def verify(self) -> None:
        """Read every row again and compare with the checksums kept when it was written.

        Raises:
            IndexStateError: rows changed since they were written.
        """
        with self._lock:
            self._file.verify()

    def _refresh(self) -> None:
        if self._file.refresh():
            self._table = None

    def _missing(self, keys: Keys) -> npt.NDArray[np.int64]:
        absent = np.flatnonzero(self.find(keys) < 0)
        return absent[first_of_each(keys[absent])]

    def _embed_window(
        self,
        source: TextSource,
        keys: Keys,
        window: npt.NDArray[np.int64],
        embedder: Embed,
        progress: _Shifted,
    ) -> None:
        with storage.locked(self.directory / "embed.lock"):
            absent = window[self.find(keys[window]) < 0]
            if len(absent):
                texts = [document.full_text for document in source.at(absent)]
                self.append(keys[absent], self._embed(texts, embedder, progress))
        progress(len(window))

    def _embed(self, texts: Sequence[str], embedder: Embed, progress: _Shifted) -> Vectors:
        """Vectors in the order of `texts`, computed shortest first, so that each batch holds like lengths."""
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(texts), _BATCH):
            places = by_length[start : start + _BATCH]
            batch = embedder.embed([texts[place] for place in places], kind="document", call=Call())
            self._refuse_unusable(len(places), batch)
            vectors[places] = batch
            progress(start + len(places))
        return vectors

    def _refuse_unusable(self, n_rows: int, vectors: Vectors) -> None:
        if vectors.shape != (n_rows, self.dim):
            found = f"embedding gave an array of shape {list(vectors.shape)}"
            raise StageError(self.model_id, None, f"{found}; expected [{n_rows}, {self.dim}]")
        n_bad = int((~np.isfinite(vectors).all(axis=1)).sum())
        if n_bad:
            raise StageError(self.model_id, None, f"embedding gave NaN or infinity for {n_bad} of {n_rows} texts")


class CorpusVectors:
    """The vectors of one corpus under one model; row i belongs to document i. Implements `DocumentVectors`."""

    def __init__(self, source: TextSource, vectors: Vectors, rows: npt.NDArray[np.int64]) -> None:
        self._source, self._vectors, self._rows = source, vectors, rows

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        return len(self._rows)

    def blocks(self, size: int) -> Iterator[tuple[int, Vectors]]:
        """(ordinal of the first row, float32 [<= size, dim]) in corpus order; a view where rows stand together."""
        for start in range(0, len(self._rows), size):
            rows = self._rows[start : start + size]
            together = bool((np.diff(rows) == 1).all())
            yield start, self._vectors[int(rows[0]) : int(rows[-1]) + 1] if together else self._vectors[rows]

    def rows(self, ordinals: npt.NDArray[np.int64]) -> Vectors:
        """float32 [n, dim], a copy, in the order of `ordinals`."""
        return np.asarray(self._vectors[self._rows[ordinals]])

    def take(self, doc_ids: Sequence[str]) -> Vectors:
        """float32 [n, dim], a copy, in the order of `doc_ids`.

        Raises:
            DataError: an id is not in the corpus.
        """
        return self.rows(self._source.ordinals(doc_ids))


class _Shifted:
    """A Progress for one window of a longer job."""

    def __init__(self, progress: Progress, done_before: int, total: int) -> None:
        self._progress, self._done_before, self._total = progress, done_before, total

    def __call__(self, done: int) -> None:
        self._progress("embed", self._done_before + done, self._total)


def _start_of_run(stored: Keys, wanted: Keys) -> int | None:
    """Where `wanted` stands in `stored` as one run, as an unchanged corpus does: found without sorting."""
    if not len(wanted) or len(wanted) > len(stored):
        return None
    heads = stored.view(np.uint64)[:, 0]
    first = np.flatnonzero(heads == wanted[:1].view(np.uint64)[0, 0])[:1].tolist()
    if first and np.array_equal(stored[first[0] : first[0] + len(wanted)], wanted):
        return int(first[0])
    return None
