"""Document vectors, computed once per text and model and kept; the memory-mapped rows are the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from orchestrator import storage
from orchestrator.errors import CallCancelledError, StageError
from orchestrator.keys import Keys, text_keys
from orchestrator.rows.row_file import Column
from orchestrator.rows.text_rows import TextRows, TextSource
from orchestrator.stage import Embed, Json, Progress, no_progress
from orchestrator.types import Call, Vectors

_FORMAT = 1
_WINDOW = 1024
"""Texts embedded between two appends: what a kill can lose, and how far texts are sorted by length."""

_BATCH = 256
"""Texts in one call of the embedder: how often progress moves."""

_BLOCK = 128
"""The same, where a question waits: what a cancelled one can lose."""


class Placed(TextSource, Protocol):
    """A corpus whose documents are also found by id."""

    def ordinals(self, doc_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """int64 [n]: the place of each id."""


def open_vectors(root: Path, embedder: Embed) -> VectorStore:
    """The store of `embedder`'s vectors under `root`, one object a process. The embedder is loaded."""
    store = _shared_store(root, embedder.model_id, embedder.dim)
    store._rows.note_model(embedder)
    return store


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
    """

    def __init__(self, root: Path, model_id: str, dim: int) -> None:
        name = f"{storage.slug(model_id)[:40]}-{storage.stable_hash(model_id, 12)}"
        meta: dict[str, Json] = {"format": _FORMAT, "model_id": model_id, "dim": dim}
        columns = {"vectors": Column("vectors.f32", np.float32, dim)}
        self.model_id, self.dim = model_id, dim
        self._rows = TextRows(root / "vectors" / name, meta, columns)

    @property
    def directory(self) -> Path:
        """The folder of this store."""
        return self._rows.directory

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, keys: Keys) -> npt.NDArray[np.int64]:
        """int64 [n_keys]: the row of each key, -1 where there is none."""
        return self._rows.find(keys)

    def append(self, keys: Keys, vectors: Vectors) -> None:
        """Keep `vectors` under `keys`; a key that is there already keeps its row.

        Args:
            keys: uint8 [n, 16].
            vectors: float32 [n, dim].

        Raises:
            StageError: the vectors have the wrong shape or are not finite.
        """
        self._refuse_unusable(len(keys), vectors)
        self._rows.append(keys, {"vectors": vectors})

    def ensure(self, source: Placed, embedder: Embed, progress: Progress = no_progress) -> CorpusVectors:
        """Vectors of all documents of `source`; missing ones are embedded first, each text once.

        Args:
            source: the corpus.
            embedder: the loaded model of this store.
            progress: told ("embed", texts done, texts that were missing).
        """

        def compute(keys: Keys, texts: list[str], done: Callable[[int], None]) -> None:
            self.append(keys, self._embed(texts, embedder, done))

        def take(rows: npt.NDArray[np.int64]) -> CorpusVectors:
            return CorpusVectors(source, self._rows.file["vectors"], rows)

        return self._rows.fill(source, _WINDOW, compute, progress, take)

    def vectors_for_texts(self, texts: Sequence[str], embedder: Embed, call: Call | None = None) -> Vectors:
        """float32 [n_texts, dim] for texts that need not be in any corpus; missing ones are embedded and kept.

        Raises:
            CallCancelledError: nobody waits for `call` any more; what was embedded until then is kept.
        """
        keys, asked = text_keys(texts), call or Call()

        def add(missing: npt.NDArray[np.int64]) -> None:
            for start in range(0, len(missing), _BLOCK):
                if asked.cancelled:
                    raise CallCancelledError(f"the call was cancelled; {start} of {len(missing)} texts were embedded")
                places = missing[start : start + _BLOCK]
                wanted = [texts[place] for place in places.tolist()]
                self.append(keys[places], embedder.embed(wanted, kind="document", call=asked))

        return self._rows.filled(keys, add, lambda rows: np.asarray(self._rows.file["vectors"][rows]))

    def verify(self) -> str | None:
        """What is wrong with the rows, every one of them read again; None when nothing is.

        Damaged rows are dropped, so that they are computed again when next needed.
        """
        return self._rows.verify()

    def _embed(self, texts: Sequence[str], embedder: Embed, done: Callable[[int], None]) -> Vectors:
        """Vectors in the order of `texts`, computed shortest first, so that each batch holds like lengths."""
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(texts), _BATCH):
            places = by_length[start : start + _BATCH]
            batch = embedder.embed([texts[place] for place in places], kind="document", call=Call())
            self._refuse_unusable(len(places), batch)
            vectors[places] = batch
            done(start + len(places))
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

    def __init__(self, source: Placed, vectors: Vectors, rows: npt.NDArray[np.int64]) -> None:
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
