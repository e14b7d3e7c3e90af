"""Lexical recall: BM25 over the tokens of title and body, on bm25s."""

from __future__ import annotations

import importlib
import logging
import math
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from orchestrator.analysis import Analyzer, Segmenter, analyzer
from orchestrator.checks import check_choice
from orchestrator.errors import ConfigError, IndexStateError, MissingExtraError
from orchestrator.stage import Corpus, Json, Progress
from orchestrator.types import Call, Need, Query, Scored, ScoreKind

Variant = Literal["lucene", "robertson", "atire", "bm25l", "bm25+"]
Backend = Literal["numpy", "numba"]

# Lv and Zhai: SIGIR 2011 (BM25L), CIKM 2011 (BM25+). The other variants have no delta.
_DELTA: Mapping[str, float] = {"bm25l": 0.5, "bm25+": 1.0}
_FORMAT = 1
_PROGRESS_EVERY = 500


class BM25Recall:
    """Finds documents that share words with the query.

    The score of a document is the sum over the query's tokens (repeats count again) of idf * tf part. Variant
    `lucene`: idf = ln(1 + (N - df + 0.5) / (df + 0.5)), tf part = tf / (tf + k1 * (1 - b + b * dl / avgdl)), without
    the constant factor k1 + 1, as in Lucene 8 and later. The variants are those of Kamphuis et al., "Which BM25 do you
    mean?", ECIR 2020, as bm25s computes them (float32).

    Args:
        language: which analyzer cuts documents and queries, see `orchestrator.analysis`.
        k1: at least 0; how fast repeats of a term stop counting.
        b: 0 to 1; how much a document longer than average is held back.
        variant: `lucene`, `robertson`, `atire`, `bm25l` or `bm25+`.
        delta: at least 0; only `bm25l` and `bm25+` have it. None: the papers' 0.5 and 1.0.
        segmenter: how scripts without spaces are cut, `pairs` of characters or `jieba`; None for the language's own.
        backend: `numpy`, or `numba`, whose queries are a fifth faster after a second or more of compilation on opening.

    Raises:
        ConfigError: a value is out of its range.
    """

    score_kind: ScoreKind = "bm25"
    needs: frozenset[Need] = frozenset()
    cost_kind = "bm25"

    def __init__(
        self,
        language: str,
        k1: float = 0.9,
        b: float = 0.4,
        variant: Variant = "lucene",
        delta: float | None = None,
        backend: Backend = "numpy",
        segmenter: Segmenter | None = None,
    ) -> None:
        self._analyzer = analyzer(language, segmenter)
        self._k1, self._b = _in_range("k1", k1), _in_range("b", b, upper=1.0)
        check_choice("variant", variant, get_args(Variant))
        check_choice("backend", backend, get_args(Backend))
        self._variant, self._backend = variant, backend
        self._delta = _DELTA.get(variant, 0.0) if delta is None else _in_range("delta", delta)
        self._index: _Index | None = None
        self._corpus: Corpus | None = None

    @property
    def optional_modules(self) -> Mapping[str, str]:
        """Module -> extra that installs it, of the backend."""
        return {"numba": "numba"} if self._backend == "numba" else {}

    def load(self) -> None:
        """Bring bm25s and the analyzer's dictionary into memory.

        Raises:
            MissingExtraError: the backend is numba, which is not installed.
        """
        import bm25s  # noqa: F401

        if self._backend == "numba":
            _require_numba()
        # bm25s sets its logger to DEBUG, which no root level can hold back.
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        self._analyzer.load()

    def close(self) -> None:
        """Let go of the index."""
        self._index = self._corpus = None

    def index_settings(self) -> Mapping[str, Json]:
        """Analyzer, variant and its constants: all are baked into the index."""
        settings: dict[str, Json] = {"format": _FORMAT, "variant": self._variant, "k1": self._k1, "b": self._b}
        if self._variant in _DELTA:
            settings["delta"] = self._delta
        return settings | {"analyzer": self._analyzer.settings()}

    def index(self, corpus: Corpus, directory: Path, progress: Progress) -> None:
        """Build the index of `corpus` inside `directory`, holding four bytes a token and no document."""
        import bm25s

        tokens = _Tokens.of(corpus, self._analyzer, progress)
        progress("weigh", 0, len(corpus))
        # numpy: numba's compilation costs more than it saves for one index of this size.
        engine = bm25s.BM25(self._k1, self._b, self._delta, self._variant, backend="numpy")
        # A corpus of no token at all has average length 0.
        with np.errstate(invalid="ignore"):
            engine.index(tokens, create_empty_token=False, show_progress=False)
        engine.save(directory, show_progress=False)
        progress("weigh", len(corpus), len(corpus))

    def open(self, corpus: Corpus, directory: Path) -> None:
        """Map the index in `directory` into memory.

        Raises:
            IndexStateError: files are missing or damaged, or belong to another corpus.
        """
        self._index = _Index.open(directory, len(corpus), self._backend)
        self._corpus = corpus

    def retrieve(self, query: Query, top_k: int, call: Call) -> Scored:
        """The `top_k` best (doc_id, score), best first, ties in corpus order; only documents with a score above 0.

        A document that shares no token with the query is never returned, whatever `top_k`.

        Raises:
            IndexStateError: no index is open.
        """
        if self._index is None or self._corpus is None:
            raise IndexStateError("BM25: no index is open; expected open() before retrieve()")
        ordinals, scores = self._index.best(self._analyzer(query.text), top_k)
        return list(zip(self._corpus.doc_ids(ordinals), scores.tolist(), strict=True))


class _Tokens:
    """Token ids of all documents in one flat array; bm25s takes it for its own `Tokenized`.

    Attributes:
        vocab: token -> id. Id 0 is a token that no text has, so that no corpus leaves the vocabulary empty.
        ids: the collection itself; iterating it gives one array of ids a document.
    """

    def __init__(self) -> None:
        self.vocab: dict[str, int] = {"": 0}
        self._flat, self._ends = array("i"), array("q", [0])

    @classmethod
    def of(cls, corpus: Corpus, analyze: Analyzer, progress: Progress) -> _Tokens:
        """The tokens of `corpus`, read one document at a time."""
        tokens = cls()
        for ordinal, document in enumerate(corpus.documents()):
            if ordinal % _PROGRESS_EVERY == 0:
                progress("analyze", ordinal, len(corpus))
            tokens.add(analyze(document.full_text))
        progress("analyze", len(corpus), len(corpus))
        return tokens

    def add(self, words: list[str]) -> None:
        """Append one document."""
        vocab = self.vocab
        self._flat.extend([vocab.setdefault(word, len(vocab)) for word in words])
        self._ends.append(len(self._flat))

    @property
    def ids(self) -> _Tokens:
        return self

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[array[int]]:
        for start, end in zip(self._ends, self._ends[1:], strict=False):
            yield self._flat[start:end]


class _Engine(Protocol):
    """The part of bm25s.BM25 that is used here."""

    vocab_dict: dict[str, int]
    nonoccurrence_array: npt.NDArray[np.float32] | None
    scores: dict[str, Any]

    def get_scores_from_ids(self, query_tokens_ids: list[int]) -> npt.NDArray[np.float32]: ...


class _Index:
    """An index that is open. Safe to use from several threads."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, directory: Path, n_documents: int, backend: Backend) -> _Index:
        """The index in `directory`, its arrays memory-mapped; compiled where the backend is numba."""
        import bm25s

        try:
            engine = bm25s.BM25.load(directory, mmap=True, show_progress=False, backend=backend)
            _check(engine, n_documents)
        except (OSError, ValueError, TypeError, LookupError, AttributeError, EOFError) as error:
            raise IndexStateError(
                f"BM25 index in {directory}: {error}; expected an index of {n_documents} documents written by bm25s. "
                "Build it again."
            ) from error
        if backend == "numba":
            # bm25s 0.3.16 compiles by itself only where NUMBA_DISABLE_JIT is set: its test is the wrong way round.
            engine.activate_numba_scorer()
            engine.get_scores_from_ids([0])
        return cls(engine)

    def best(self, words: list[str], top_k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """(ordinals, scores) of the `top_k` best documents above the score of a document without any of `words`."""
        vocab = self._engine.vocab_dict
        ids = [vocab[word] for word in words if word in vocab]
        if not ids:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scores = self._engine.get_scores_from_ids(ids)
        ordinals = _best(scores, self._floor(ids), top_k)
        return ordinals, scores[ordinals]

    def _floor(self, ids: list[int]) -> np.float32:
        # BM25L and BM25+ give every document something for a term it lacks.
        absent = self._engine.nonoccurrence_array
        return np.float32(0) if absent is None else absent[ids].sum()


def _best(scores: npt.NDArray[np.float32], floor: np.float32, top_k: int) -> npt.NDArray[np.int64]:
    """Ordinals of the `top_k` highest scores above `floor`, best first, equal scores by ordinal."""
    matched = np.flatnonzero(scores > floor)
    if len(matched) > top_k:
        found = scores[matched]
        least = np.partition(found, -top_k)[-top_k]
        ties = matched[found == least]
        above = matched[found > least]
        matched = np.concatenate([above, ties[: top_k - len(above)]])
    return matched[np.argsort(-scores[matched], kind="stable")][:top_k]


def _check(engine: _Engine, n_documents: int) -> None:
    """Raise ValueError unless the parts of the index fit each other and the corpus.

    A damaged posting would only show at some query, and compiled code would write past the scores.
    """
    data, indices, indptr = (np.asarray(engine.scores[name]) for name in ("data", "indices", "indptr"))
    if engine.scores["num_docs"] != n_documents:
        raise ValueError(f"{engine.scores['num_docs']} documents")
    if not len(data) == len(indices) == indptr[-1] or len(indptr) != len(engine.vocab_dict) + 1:
        parts = f"{len(data)} weights, {len(indices)} postings, {indptr[-1]} in {len(indptr) - 1} lists"
        raise ValueError(f"{parts}, {len(engine.vocab_dict)} terms")
    if np.any(np.diff(indptr) < 0) or not 0 <= indices.min(initial=0) <= indices.max(initial=0) < n_documents:
        raise ValueError("postings outside the corpus")
    # Plain arrays over the same mapped memory: slicing a np.memmap is several times slower.
    engine.scores.update(data=data, indices=indices, indptr=indptr)


def _require_numba() -> None:
    try:
        importlib.import_module("numba")
    except ModuleNotFoundError as error:
        raise MissingExtraError("numba", "numba") from error


def _in_range(name: str, value: float, upper: float | None = None) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (upper is not None and value > upper):
        limits = "0 or more" if upper is None else f"0 to {upper:g}"
        raise ConfigError(name, f"found {value!r}; expected a number, {limits}")
    return float(value)
