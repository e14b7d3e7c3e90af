"""Sparse vectors of documents, computed once per text and model and kept, memory-mapped.

A document of 130 words takes some 0.8 kB as counts of terms, and with 200 active dimensions of SPLADE 1.6 kB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orchestrator import storage
from orchestrator.errors import StageError
from orchestrator.keys import Keys
from orchestrator.rows.row_file import Array, Column
from orchestrator.rows.text_rows import TextRows, spans_of
from orchestrator.stage import Corpus, EmbedSparse, Json, Progress, WeighsInCorpus, no_progress
from orchestrator.types import Call, SparseVector

_FORMAT = 1
_WINDOW = 1024
"""Texts between two appends: what a kill can lose, and how far texts are sorted by length."""

_BATCH = 64
"""Texts in one call of the encoder: how often progress moves."""

_STEP = 1.01
_COLUMNS = {
    "indices": Column("indices.u32", np.uint32, 0, ragged=True),
    "values": Column("values.f32", np.float32, 0, ragged=True),
}


def open_sparse(root: Path, encoder: EmbedSparse) -> SparseStore:
    """The store of `encoder`'s vectors under `root`, one object a process. The encoder is loaded."""
    store = _shared_store(root, encoder.model_id)
    store._rows.note_model(encoder)
    return store


@lru_cache(maxsize=8)
def _shared_store(root: Path, model_id: str) -> SparseStore:
    return SparseStore(root, model_id)


class SparseStore:
    """Sparse vectors of one model by text. Safe between threads and processes.

    Args:
        root: where state lives; the store is a folder of `root/vectors`.
        model_id: names the model; another one is another folder.
    """

    def __init__(self, root: Path, model_id: str) -> None:
        meta: dict[str, Json] = {"format": _FORMAT, "model_id": model_id, "kind": "sparse"}
        name = f"sparse-{storage.slug(model_id)[:40]}-{storage.stable_hash(meta, 12)}"
        self._model_id = model_id
        self._rows = TextRows(root / "vectors" / name, meta, _COLUMNS)

    @property
    def directory(self) -> Path:
        """The folder of this store."""
        return self._rows.directory

    def __len__(self) -> int:
        return len(self._rows)

    def ensure(self, corpus: Corpus, encoder: EmbedSparse, progress: Progress = no_progress) -> CorpusSparse:
        """Vectors of all documents of `corpus`; missing ones are computed first, each text once.

        Args:
            corpus: whose documents.
            encoder: the loaded model of this store.
            progress: told ("embed", texts done, texts that were missing).
        """

        def compute(keys: Keys, texts: list[str], done: Callable[[int], None]) -> None:
            self._append(keys, self._encode(texts, encoder, done))

        def take(rows: npt.NDArray[np.int64]) -> CorpusSparse:
            file = self._rows.file
            return CorpusSparse(file["indices"], file["values"], spans_of(file.ends, rows), encoder)

        return self._rows.fill(corpus, _WINDOW, compute, progress, take)

    def verify(self) -> str | None:
        """What is wrong with the rows, every one of them read again; None when nothing is.

        Damaged rows are dropped, so that they are computed again when next needed.
        """
        return self._rows.verify()

    def _encode(self, texts: Sequence[str], encoder: EmbedSparse, done: Callable[[int], None]) -> list[SparseVector]:
        """In the order of `texts`, computed shortest first, so that each batch holds like lengths."""
        by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: dict[int, SparseVector] = {}
        for start in range(0, len(texts), _BATCH):
            places = by_length[start : start + _BATCH]
            batch = encoder.embed_sparse([texts[place] for place in places], kind="document", call=Call())
            found |= zip(places, batch, strict=True)
            done(start + len(places))
        return [found[place] for place in range(len(texts))]

    def _append(self, keys: Keys, encoded: Sequence[SparseVector]) -> None:
        for vector in encoded:
            self._refuse_unusable(vector)
        columns: dict[str, list[Array]] = {
            "indices": [vector.indices for vector in encoded],
            "values": [vector.values for vector in encoded],
        }
        self._rows.append_ragged(keys, columns)

    def _refuse_unusable(self, vector: SparseVector) -> None:
        shapes = [list(vector.indices.shape), list(vector.values.shape)]
        if vector.indices.ndim != 1 or shapes[0] != shapes[1]:
            found = f"a text became indices and values of shapes {shapes[0]} and {shapes[1]}"
            raise StageError(self._model_id, None, f"{found}; expected [n] and [n]")
        if not np.isfinite(vector.values).all():
            raise StageError(self._model_id, None, "sparse vectors with NaN or infinity")
        if (np.diff(vector.indices.astype(np.int64)) <= 0).any():
            raise StageError(self._model_id, None, "sparse vectors whose indices are not ascending, each once")


class CorpusSparse:
    """The sparse vectors of one corpus in corpus order, as an index is filled with them.

    Args:
        indices: uint32 [n_values] of all kept texts.
        values: float32 [n_values].
        spans: int64 [n_documents, 2]: where the values of each document start and end.
        encoder: that made them; one that weighs in the corpus does so here.

    Attributes:
        average: of the sums of a document's kept values: its length, where they are counts. To half a per cent, in
            steps of one, so that a few changed documents leave the weights of all others as they are.
    """

    def __init__(
        self,
        indices: npt.NDArray[np.uint32],
        values: npt.NDArray[np.float32],
        spans: npt.NDArray[np.int64],
        encoder: EmbedSparse,
    ) -> None:
        self._indices, self._values, self._spans = indices, values, spans
        self._weighing = encoder if isinstance(encoder, WeighsInCorpus) else None
        self.average = _stepped(self._mean()) if self._weighing else 0.0

    def __len__(self) -> int:
        return len(self._spans)

    def blocks(self, size: int) -> Iterator[tuple[int, list[SparseVector]]]:
        """(ordinal of the first, at most `size` vectors) over the whole corpus."""
        for start in range(0, len(self), size):
            yield start, self.rows(np.arange(start, min(start + size, len(self)), dtype=np.int64))

    def rows(self, ordinals: npt.NDArray[np.int64]) -> list[SparseVector]:
        """The vectors in the order of `ordinals`."""
        return [self._vector(int(start), int(end)) for start, end in self._spans[ordinals]]

    def _vector(self, start: int, end: int) -> SparseVector:
        vector = SparseVector(self._indices[start:end], self._values[start:end])
        return vector if self._weighing is None else self._weighing.weighted(vector, self.average)

    def _mean(self) -> float:
        sums = (float(self._values[start:end].sum()) for start, end in self._spans.tolist())
        return math.fsum(sums) / len(self) if len(self) else 0.0


def _stepped(average: float) -> float:
    return _STEP ** round(math.log(average, _STEP)) if average > 0 else 1.0
