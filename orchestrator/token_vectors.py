"""Token vectors of documents, computed once per text and model and kept, memory-mapped: what late interaction reads.

A document of 130 tokens and 384 dimensions takes 200 kB in float32 and 50 kB in int8; a lower dimension divides both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from orchestrator import storage
from orchestrator.errors import IndexStateError, StageError
from orchestrator.keys import Keys, text_keys
from orchestrator.log import get_logger
from orchestrator.row_file import Array, Column, RowFile
from orchestrator.stage import Corpus, EmbedTokens, Json, Progress, no_progress
from orchestrator.text_rows import TextRows
from orchestrator.types import Call, TokenVectors, Vectors

log = get_logger()

Precision: TypeAlias = Literal["int8", "float32"]

_FORMAT = 1
_WINDOW = 256
"""Texts between two appends: at 384 dimensions in float32 some 50 MB, and what a kill can lose."""

_BATCH = 64
"""Texts in one call of the encoder: how often progress moves."""

_SAMPLE = 256
"""Texts that a projection is fitted on."""

_PROJECTION = "projection.npy"


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


def open_tokens(root: Path, encoder: EmbedTokens, precision: Precision, dim: int | None, corpus: str) -> TokenStore:
    """The store of `encoder`'s vectors under `root`, one object a process. The encoder is loaded.

    Args:
        root: where state lives.
        encoder: whose vectors they are.
        precision: in which they are kept.
        dim: of the kept vectors; None keeps the encoder's own.
        corpus: key of the corpus that a lower dimension is fitted to; all corpora share a store of the encoder's own.
    """
    return _shared_store(root, encoder.model_id, encoder.dim, precision, dim, corpus if dim is not None else "")


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

    Raises:
        IndexStateError: the folder holds something else, or is damaged.
    """

    def __init__(
        self, root: Path, model_id: str, own_dim: int, precision: Precision, dim: int | None, corpus: str
    ) -> None:
        self.precision, self.own_dim, self.dim = precision, own_dim, dim or own_dim
        meta: dict[str, Json] = {"format": _FORMAT, "model_id": model_id, "precision": precision, "dim": self.dim}
        name = f"tokens-{storage.slug(model_id)[:40]}-{storage.stable_hash([meta, corpus], 12)}"
        self._model_id = model_id
        self._rows = TextRows(RowFile(root / "vectors" / name, meta, _columns(precision, self.dim)))
        self._projection: Vectors | None = None

    @property
    def directory(self) -> Path:
        """The folder of this store."""
        return self._rows.directory

    def __len__(self) -> int:
        return len(self._rows)

    def ensure(self, corpus: Corpus, encoder: EmbedTokens, progress: Progress = no_progress) -> npt.NDArray[np.int64]:
        """int64 [n_documents]: the row of each document of `corpus`; missing ones are encoded first, each text once.

        Args:
            corpus: whose documents.
            encoder: the loaded model of this store.
            progress: told ("embed", texts done, texts that were missing).
        """
        if self.dim < self.own_dim:
            self._fit(corpus, encoder)

        def compute(keys: Keys, texts: list[str], done: Callable[[int], None]) -> None:
            self._append(keys, self._encode(texts, encoder, Call(), done))

        return self._rows.fill(corpus, _WINDOW, compute, progress)

    def rows(self, texts: Sequence[str], encoder: EmbedTokens, call: Call) -> npt.NDArray[np.int64]:
        """int64 [n_texts]: the row of each text; missing ones are encoded and kept."""
        keys = text_keys(texts)
        found = self._rows.find(keys)
        if (found < 0).any():
            missing = self._rows.missing(keys)
            wanted = [texts[place] for place in missing.tolist()]
            self._append(keys[missing], self._encode(wanted, encoder, call))
            found = self._rows.find(keys)
        return found

    def take(self, rows: npt.NDArray[np.int64]) -> KeptTokens:
        """Token vectors of the documents in `rows`, a copy, in that order."""
        file = self._rows.file
        with self._rows.lock:
            ends, vectors, scales = file.ends, file["vectors"], file["scales"] if self.precision == "int8" else None
        places = rows.tolist()
        spans = [slice(int(ends[row - 1]) if row else 0, int(ends[row])) for row in places]
        return KeptTokens(
            np.concatenate([vectors[span] for span in spans]),
            None if scales is None else np.concatenate([scales[span] for span in spans]),
            np.array([span.stop - span.start for span in spans], dtype=np.int64),
        )

    def project(self, vectors: Vectors) -> Vectors:
        """float32 [n_tokens, dim]: vectors of a query as they are compared with the kept ones.

        Raises:
            IndexStateError: the axes of a lower dimension are missing or damaged.
        """
        if self.dim == self.own_dim:
            return vectors
        projected: Vectors = vectors @ self._axes()
        return projected

    def document_frequencies(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """int64 [highest token id + 1]: how many of the documents in `rows` hold each token."""
        with self._rows.lock:
            ends, ids = self._rows.file.ends, self._rows.file["token_ids"]
        counts = np.zeros(1 + int(ids.max(initial=0)), dtype=np.int64)
        for row in rows.tolist():
            held = np.unique(ids[int(ends[row - 1]) if row else 0 : int(ends[row])])
            counts[held] += 1
        return counts

    def verify(self) -> None:
        """Read every row again and compare with the checksums kept when it was written.

        Raises:
            IndexStateError: rows changed since they were written.
        """
        self._rows.verify()

    def check_axes(self) -> None:
        """See that the axes of a lower dimension are there.

        Raises:
            IndexStateError: they are missing or damaged.
        """
        if self.dim < self.own_dim:
            self._axes()

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
        for text in encoded:
            self._refuse_unusable(text.vectors)
            kept: Array = self.project(text.vectors)
            if self.precision == "int8":
                kept, scales = _quantized(kept)
                columns["scales"].append(scales)
            columns["vectors"].append(kept)
        self._rows.append_ragged(keys, columns)

    def _refuse_unusable(self, vectors: Vectors) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.own_dim or not len(vectors):
            found = f"a text became token vectors of shape {list(vectors.shape)}"
            raise StageError(self._model_id, None, f"{found}; expected [1 or more, {self.own_dim}]")
        if not np.isfinite(vectors).all():
            raise StageError(self._model_id, None, "token vectors with NaN or infinity")

    def _fit(self, corpus: Corpus, encoder: EmbedTokens) -> None:
        """Make the axes of a lower dimension, once; whoever comes second takes what is there."""
        path = self.directory / _PROJECTION
        with storage.locked(self.directory / "fit.lock"):
            if path.is_file():
                return
            places = np.unique(np.linspace(0, len(corpus) - 1, min(_SAMPLE, len(corpus))).astype(np.int64))
            encoded = self._encode([document.full_text for document in corpus.at(places)], encoder, Call())
            axes, share = _principal_axes(np.concatenate([text.vectors for text in encoded]), self.dim)
            storage.write_atomic(path, axes.tobytes())
        log.info("tokens.reduced", dim=self.dim, own_dim=self.own_dim, kept_share=round(share, 3), sample=len(places))

    def _axes(self) -> Vectors:
        if self._projection is None:
            path = self.directory / _PROJECTION
            data = path.read_bytes() if path.is_file() else b""
            if len(data) != self.own_dim * self.dim * 4:
                how = "remove the folder; its vectors are computed again when next needed"
                raise IndexStateError(f"{path}: {len(data)} bytes; expected {self.own_dim * self.dim * 4}; {how}")
            self._projection = np.frombuffer(data, dtype=np.float32).reshape(self.own_dim, self.dim)
        return self._projection


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


def _principal_axes(vectors: Vectors, dim: int) -> tuple[Vectors, float]:
    """float32 [own_dim, dim], orthonormal columns, and the share of the squared length that they keep."""
    moment = vectors.T.astype(np.float64) @ vectors.astype(np.float64)
    values, axes = np.linalg.eigh(moment)
    kept = axes[:, ::-1][:, :dim]
    return np.ascontiguousarray(kept, dtype=np.float32), float(values[::-1][:dim].sum() / values.sum())
