"""Qdrant's own BM25 vectors, those of fastembed's `Qdrant/bm25` and of a server's `qdrant/bm25`. Needs no weights.

For collections that were filled with them; for one that we fill, `BM25Sparse` cuts words better and knows the corpus's
average length.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.errors import ConfigError
from orchestrator.storage import stable_hash
from orchestrator.types import Call, ScoreKind, SparseVector, TextKind

if TYPE_CHECKING:
    import qdrant_edge as edge

LANGUAGES: Mapping[str, str] = {
    "ar": "arabic",
    "az": "azerbaijani",
    "bn": "bengali",
    "ca": "catalan",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "eu": "basque",
    "fi": "finnish",
    "fr": "french",
    "he": "hebrew",
    "hu": "hungarian",
    "id": "indonesian",
    "it": "italian",
    "ja": "japanese",
    "kk": "kazakh",
    "ne": "nepali",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sl": "slovene",
    "sv": "swedish",
    "tg": "tajik",
    "tr": "turkish",
    "zh": "chinese",
}
"""ISO 639-1 code -> Qdrant's name of its stop words and stemmer."""


class QdrantBM25:
    """An `EmbedSparse` by Qdrant Edge's BM25 model; a term's dimension is its murmur3 hash.

    Args:
        language: ISO 639-1 code of the stop words and the stemmer that the collection was filled with.
        k1: how fast repeats of a term stop counting; only documents that we encode have a use for it, nor for the next.
        b: 0 to 1; how much a document longer than average is held back.
        average_length_tokens: of a document, as Qdrant's models assume it: no corpus is asked.

    Raises:
        ConfigError: Qdrant has no such language.
    """

    score_kind: ScoreKind = "bm25"
    uses_idf = True

    def __init__(self, language: str, k1: float = 1.2, b: float = 0.75, average_length_tokens: float = 256) -> None:
        code = language.replace("_", "-").lower().split("-")[0]
        if code not in LANGUAGES:
            raise ConfigError("language", f"found '{language}'; Qdrant's BM25 knows {', '.join(sorted(LANGUAGES))}")
        self._k1, self._b, self._average = k1, b, average_length_tokens
        self._language = LANGUAGES[code]
        self._model: edge.Bm25 | None = None

    @property
    def model_id(self) -> str:
        """Language, constants and the version of Edge."""
        version = importlib.metadata.version("qdrant-edge-py")
        return f"qdrant-bm25-{self._language}-{stable_hash([self._k1, self._b, self._average, version], 12)}"

    def load(self) -> None:
        """Make the model; does nothing the second time.

        Raises:
            ConfigError: Edge refuses a constant.
        """
        import qdrant_edge as edge

        if self._model is None:
            try:
                config = edge.Bm25Config(k=self._k1, b=self._b, avg_len=self._average, language=self._language)
                self._model = edge.Bm25(config)
            except (ValueError, TypeError) as error:
                raise ConfigError("models.sparse", f"Qdrant's BM25: {error}") from error

    def embed_sparse(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> list[SparseVector]:
        """A query's terms weigh 1, a document's as BM25's tf part times k1 + 1."""
        if self._model is None:
            raise RuntimeError("QdrantBM25: call load() first")
        embed = self._model.embed_query if kind == "query" else self._model.embed_document
        return [_ascending(embed(text)) for text in texts]


def _ascending(vector: edge.SparseVector) -> SparseVector:
    indices = np.array(vector.indices, dtype=np.uint32)
    order = np.argsort(indices)
    return SparseVector(indices[order], np.array(vector.values, dtype=np.float32)[order])
