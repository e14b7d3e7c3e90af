"""Token vectors of documents, computed once per text and model and kept, memory-mapped: what late interaction reads.

A document of 130 tokens and 384 dimensions takes 200 kB in float32 and 50 kB in int8; a lower dimension divides both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from orchestrator import storage
from orchestrator.errors import StageError
from orchestrator.keys import Keys, text_keys
from orchestrator.rows.axes import AXES, Axes
from orchestrator.rows.row_file import Array, Column
from orchestrator.rows.text_rows import TextRows, spans_of
from orchestrator.stage import Corpus, EmbedTokens, Json, Progress, no_progress
from orchestrator.types import Call, TokenVectors, Vectors

Precision: TypeAlias = Literal["int8", "float32"]

_FORMAT = 1
_WINDOW = 256
"""Texts between two appends: at 384 dimensions in float32 some 50 MB, and what a kill can lose."""

_BATCH = 64
"""Texts in one call of the encoder: how often progress moves."""

_SAMPLE = 256
"""Texts that a projection is fitted on."""


@dataclass(frozen=True, slots=True)
class KeptTokens:
    """Token vectors of several documents, one document after another.

    Attributes:
        vectors: int8 or float32 [n_tokens, dim].
        scales: float32 [n_tokens], by which a row of int8 is multiplied; None for float32.
        lengths: int64 [n_documents], tokens of each, at least one.
    """

    vectors: Array
    scales: npt.NDArray[np.float32] | None
    lengths: npt.NDArray[np.int64]


class TokenRows:
    """Token vectors of some texts, as they are kept. Stays as it is, whatever happens to the store.

    Args:
        vectors: of all texts of the store.
        scales: the same; None for float32.
        ids: the same: int32, the token of each vector.
        spans: int64 [n_texts, 2]: where those of each text start and end.
        axes: float32 [own_dim, dim] that the vectors were reduced by; None for those of the encoder's own dimension.
    """

    def __init__(
        self,
        vectors: Array,
        scales: Array | None,
        ids: Array,
        spans: npt.NDArray[np.int64],
        axes: Vectors | None,
    ) -> None:
        self._vectors, self._scales, self._ids, self._spans, self.axes = vectors, scales, ids, spans, axes

    def __len__(self) -> int:
        return len(self._spans)

    def take(self, places: npt.NDArray[np.int64]) -> KeptTokens:
        """Token vectors of the texts at `places`, a copy, in that order."""
        spans = [slice(start, end) for start, end in self._spans[places].tolist()]
        return KeptTokens(
            np.concatenate([self._vectors[span] for span in spans]),
            None if self._scales is None else np.concatenate([self._scales[span] for span in spans]),
            np.array([span.stop - span.start for span in spans], dtype=np.int64),
        )

    def project(self, vectors: Vectors) -> Vectors:
        """float32 [n_tokens, dim]: vectors of a query as they are compared with these."""
        return projected(vectors, self.axes)

    def document_frequencies(self) -> npt.NDArray[np.int64]:
        """int64 [highest token id + 1]: how many of the texts hold each token."""
        counts = np.zeros(1 + int(self._ids.max(initial=0)), dtype=np.int64)
        for start, end in self._spans.tolist():
            counts[np.unique(self._ids[start:end])] += 1
        return counts


def projected(vectors: Vectors, axes: Vectors | None) -> Vectors:
    """float32 [n_tokens, dim]: `vectors` in the dimension that `axes` lead to; as they are without axes."""
    return vectors if axes is None else np.asarray(vectors @ axes)


def open_tokens(root: Path, encoder: EmbedTokens, precision: Precision, dim: int | None, corpus: str) -> TokenStore:
    """The store of `encoder`'s vectors under `root`, one object a process. The encoder is loaded.

    Args:
        root: where state lives.
        encoder: whose vectors they are.
        precision: in which they are kept.
        dim: of the kept vectors; None keeps the encoder's own.
        corpus: key of the corpus that a lower dimension is fitted to; all corpora share a store of the encoder's own.
    """
    store = _shared_store(root, encoder.model_id, encoder.dim, precision, dim, corpus if dim is not None else "")
    store._rows.note_model(encoder)
    return store


@lru_cache(maxsize=8)
def _shared_store(
    root: Path, model_id: str, own_dim: int, precision: Precision, dim: int | None, corpus: str
) -> TokenStore:
    return TokenStore(root, model_id, own_dim, precision, dim, corpus)


class TokenStore:
    """Token vectors of one model by text. Safe between threads and processes.

    int8: each row times 127 over its largest component, rounded; the scale is kept beside it. A lower dimension: rows
    times the first principal axes of the token vectors of a sample of the corpus, not centred, so that products of
    query and document lose as little as can be.

    Args:
        root: where state lives; the store is a folder of `root/vectors`.
        model_id: names the model.
        own_dim: length of the model's vectors.
        precision: of what is kept.
        dim: of what is kept; None is `own_dim`.
        corpus: part of the folder's name.
    """

    def __init__(
        self, root: Path, model_id: str, own_dim: int, precision: Precision, dim: int | None, corpus: str
    ) -> None:
        self.precision, self.own_dim, self.dim = precision, own_dim, dim or own_dim
        meta: dict[str, Json] = {"format": _FORMAT, "model_id": model_id, "precision": precision, "dim": self.dim}
        name = f"tokens-{storage.slug(model_id)[:40]}-{storage.stable_hash([meta, corpus], 12)}"
        self._model_id = model_id
        self._rows = TextRows(root / "vectors" / name, meta, _columns(precision, self.dim), [AXES])
        self._axes = Axes(self._rows, own_dim, self.dim) if self.dim < own_dim else None

    @property
    def directory(self) -> Path:
        """The folder of this store."""
        return self._rows.directory

    def __len__(self) -> int:
        return len(self._rows)

    def n_missing(self, corpus: Corpus) -> int:
        """How many documents of `corpus` have none."""
        return int((self._rows.find(corpus.text_keys) < 0).sum())

    def ensure(self, corpus: Corpus, encoder: EmbedTokens, progress: Progress = no_progress) -> TokenRows:
        """Those of all documents of `corpus`, in its order; missing ones are encoded first, each text once.

        Args:
            corpus: whose documents.
            encoder: the loaded model of this store.
            progress: told ("embed", texts done, texts that were missing).
        """

        def compute(keys: Keys, texts: list[str], done: Callable[[int], None]) -> None:
            self._fit(corpus, encoder)
            self._append(keys, self._encode(texts, encoder, Call(), done))

        self._fit(corpus, encoder)
        return self._rows.fill(corpus, _WINDOW, compute, progress, self._taken)

    def rows(self, texts: Sequence[str], encoder: EmbedTokens, call: Call) -> TokenRows:
        """Those of `texts`, in that order; missing ones are encoded and kept."""
        keys = text_keys(texts)

        def add(missing: npt.NDArray[np.int64]) -> None:
            wanted = [texts[place] for place in missing.tolist()]
            self._append(keys[missing], self._encode(wanted, encoder, call))

        return self._rows.filled(keys, add, self._taken)

    @property
    def axes(self) -> Vectors | None:
        """float32 [own_dim, dim] of a lower dimension; None for the encoder's own.

        Raises:
            IndexStateError: they are missing or damaged.
        """
        return None if self._axes is None else self._axes.read()

    @property
    def axes_id(self) -> str:
        """Another one for other axes; what keeps reduced vectors elsewhere notes whose they are. Empty without axes.

        Raises:
            IndexStateError: they are missing or damaged.
        """
        axes = self.axes
        return "" if axes is None else hashlib.blake2b(axes.tobytes(), digest_size=8).hexdigest()

    def verify(self) -> str | None:
        """What is wrong with rows and axes, all of them read again; None when nothing is.

        Damaged rows are dropped, so that they are computed again when next needed; without axes, all rows.
        """
        fault = None if self._axes is None else self._axes.verify()
        return fault or self._rows.verify()

    def _taken(self, rows: npt.NDArray[np.int64]) -> TokenRows | None:
        """None when the folder was replaced since its rows were mapped, so that its axes are other ones."""
        n_rows, axes = len(self._rows), self.axes if len(rows) else None
        file = self._rows.file
        if axes is not None and (len(self._rows) < n_rows or not file.is_current()):
            return None  # damaged axes take all rows with them
        scales = file["scales"] if self.precision == "int8" else None
        return TokenRows(file["vectors"], scales, file["token_ids"], spans_of(file.ends, rows), axes)

    def _encode(
        self, texts: Sequence[str], encoder: EmbedTokens, call: Call, done: Callable[[int], None] | None = None
    ) -> list[TokenVectors]:
        """In the order of `texts`, computed shortest first, so that each batch holds like lengths."""
        by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: dict[int, TokenVectors] = {}
        for start in range(0, len(texts), _BATCH):
            places = by_length[start : start + _BATCH]
            batch = encoder.embed_tokens([texts[place] for place in places], kind="document", call=call)
            found |= zip(places, batch, strict=True)
            if done is not None:
                done(start + len(places))
        return [found[place] for place in range(len(texts))]

    def _append(self, keys: Keys, encoded: Sequence[TokenVectors]) -> None:
        columns: dict[str, list[Array]] = {"vectors": [], "token_ids": [text.token_ids for text in encoded]}
        if self.precision == "int8":
            columns["scales"] = []
        axes = self.axes
        for text in encoded:
            self._refuse_unusable(text.vectors)
            kept: Array = projected(text.vectors, axes)
            if self.precision == "int8":
                kept, scales = _quantized(kept)
                columns["scales"].append(scales)
            columns["vectors"].append(kept)
        self._rows.append_ragged(keys, columns, lambda: axes is None or axes is self.axes)

    def _refuse_unusable(self, vectors: Vectors) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.own_dim or not len(vectors):
            found = f"a text became token vectors of shape {list(vectors.shape)}"
            raise StageError(self._model_id, None, f"{found}; expected [1 or more, {self.own_dim}]")
        if not np.isfinite(vectors).all():
            raise StageError(self._model_id, None, "token vectors with NaN or infinity")

    def _fit(self, corpus: Corpus, encoder: EmbedTokens) -> None:
        """Make the axes of a lower dimension where there are none."""
        if self._axes is None:
            return

        def sample() -> Vectors:
            places = np.unique(np.linspace(0, len(corpus) - 1, min(_SAMPLE, len(corpus))).astype(np.int64))
            encoded = self._encode([document.full_text for document in corpus.at(places)], encoder, Call())
            return np.concatenate([text.vectors for text in encoded])

        self._axes.fit(sample)


def _columns(precision: Precision, dim: int) -> dict[str, Column]:
    ids = {"token_ids": Column("token_ids.i32", np.int32, 0, ragged=True)}
    if precision == "float32":
        return {"vectors": Column("vectors.f32", np.float32, dim, ragged=True), **ids}
    scales = Column("scales.f32", np.float32, 0, ragged=True)
    return {"vectors": Column("vectors.i8", np.int8, dim, ragged=True), "scales": scales, **ids}


def _quantized(vectors: Vectors) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """int8 [n, dim] and float32 [n]: their product is `vectors` to half a step of 1/127 of each row's largest value."""
    largest = np.maximum(np.abs(vectors).max(axis=1), np.float32(1e-12))
    scales: npt.NDArray[np.float32] = (largest / np.float32(127)).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales
