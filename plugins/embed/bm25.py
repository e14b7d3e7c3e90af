"""Sparse vectors of term counts, which an index with IDF compares by BM25. Needs no weights."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.analysis import Segmenter, analyzer
from orchestrator.errors import ConfigError
from orchestrator.stage import Json
from orchestrator.storage import stable_hash
from orchestrator.types import Call, ScoreKind, SparseVector, TextKind

_FORMAT = 1
_TERMS_KEPT = 500_000


class BM25Sparse:
    """An `EmbedSparse` by words: a dimension is a term, cut and reduced by the project's own analyzers.

    Kept are counts. In a corpus a document's weight of a term is BM25's tf part, tf / (tf + k1 * (1 - b + b * dl /
    avgdl)), without the constant factor k1 + 1, as in `BM25Recall`'s variant `lucene`; the index multiplies the query
    by ln(1 + (N - n + 0.5) / (n + 0.5)). Both formulas are Lucene's, so the product is the score of `BM25Recall`, but
    for two things: avgdl is known to half a per cent (see `CorpusSparse`), and N leaves out documents without a term.
    A term that stands twice in a query counts twice, as there.

    A term's dimension is its blake2b hash of 32 bits. Two terms may share one, and then count as one: of a
    vocabulary of 100,000 terms one pair is expected to, of a million some 116.

    Args:
        language: which analyzer cuts documents and queries, see `orchestrator.analysis`.
        k1: at least 0; how fast repeats of a term stop counting.
        b: 0 to 1; how much a document longer than average is held back.
        segmenter: how scripts without spaces are cut, `pairs` of characters or `jieba`; None for the language's own.

    Raises:
        ConfigError: a value is out of its range.
    """

    score_kind: ScoreKind = "bm25"
    uses_idf = True

    def __init__(self, language: str, k1: float = 0.9, b: float = 0.4, segmenter: Segmenter | None = None) -> None:
        self._analyzer = analyzer(language, segmenter)
        self._k1, self._b = _in_range("k1", k1, math.inf), _in_range("b", b, 1.0)
        self._dimensions = _Dimensions()

    @property
    def model_id(self) -> str:
        """The analyzer: what counts depend on."""
        settings: dict[str, Json] = {"format": _FORMAT, "analyzer": self._analyzer.settings()}
        return f"bm25-{self._analyzer.language}-{stable_hash(settings, 12)}"

    @property
    def weighting(self) -> Mapping[str, Json]:
        """k1 and b."""
        return {"k1": self._k1, "b": self._b}

    def load(self) -> None:
        """Bring the analyzer's dictionary into memory; does nothing the second time."""
        self._analyzer.load()

    def embed_sparse(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> list[SparseVector]:
        """How often each term stands in each text; nothing for a text without words."""
        return [self._counts(text) for text in texts]

    def weighted(self, counts: SparseVector, average: float) -> SparseVector:
        """BM25's tf part of each count, for documents of `average` terms."""
        tf = counts.values
        norm = np.float32(self._k1 * (1 - self._b + self._b * float(tf.sum()) / average))
        return SparseVector(counts.indices, tf / (tf + norm))

    def _counts(self, text: str) -> SparseVector:
        counts: Counter[int] = Counter(map(self._dimensions.__getitem__, self._analyzer(text)))
        indices = np.array(sorted(counts), dtype=np.uint32)
        return SparseVector(indices, np.array([counts[index] for index in indices.tolist()], dtype=np.float32))


class _Dimensions(dict[str, int]):
    """Term to dimension, filled as terms are met."""

    def __missing__(self, term: str) -> int:
        if len(self) >= _TERMS_KEPT:
            self.clear()
        digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4).digest()
        index = self[term] = int.from_bytes(digest, "little")
        return index


def _in_range(name: str, value: float, upper: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not 0 <= value <= upper:
        limits = "0 or more" if math.isinf(upper) else f"0 to {upper:g}"
        raise ConfigError(name, f"found {value!r}; expected a number, {limits}")
    return float(value)
