"""Late interaction: every token of the query against every token of a document, whose vectors were computed before."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self, cast, get_args

import numpy as np
import numpy.typing as npt

from orchestrator.checks import check_choice, check_counts_or_null
from orchestrator.errors import CallCancelledError, ConfigError, IndexStateError
from orchestrator.models.card import Model
from orchestrator.rows.token_vectors import Precision, TokenStore, open_tokens
from orchestrator.stage import Corpus, EmbedTokens, Json, Progress, Tunable, is_remote
from orchestrator.storage import default_root
from orchestrator.types import Call, Document, Need, Query, ScoreKind, TokenVectors

from ..late_interaction.maxsim import maxsim
from ..late_interaction.token_weights import TokenWeights, Weights

_FORMAT = 1
_QUESTIONS_HELD = 16
"""Questions whose token vectors stay in memory: as many as may be asked at once."""

_BLOCK, _BLOCK_IN_TIME = 64, 4
"""Documents compared together, without a limit of time and with one: between two blocks a call may end, and what stands
of it counts. While vectors are brought from disk nothing else of the process runs, so that large blocks end late."""


class LateInteractionRerank:
    """A `PointwiseRerank` by MaxSim over token vectors.

    Document vectors are computed once a text and kept on disk, mapped into memory; a text that is not there yet is
    encoded and added. Scores are means of cosines, in [-1, 1].

    Args:
        encoder: whose token vectors they are.
        query_weights: `idf` counts a query's tokens by how rare they are in the corpus; `equal` counts them alike, as
            ColBERT does; `auto` is `equal` for encoders that fill queries up with mask tokens, else `idf`. Documents
            that a caller brings are weighed by the corpus's index where it has been built, else alike, and the call
            notes it.
        precision: `int8` keeps a quarter of `float32`.
        dim: of the kept vectors, fitted to a sample of the corpus; None keeps the encoder's own.
        storage_root: where vectors are kept; None is `storage.default_root()`.

    Raises:
        ConfigError: an argument is wrong.
    """

    score_kind: ScoreKind = "maxsim"
    needs: frozenset[Need] = frozenset({"text"})
    tunes = "late_interaction"
    cost_kind = "late_interaction"

    def __init__(
        self,
        encoder: EmbedTokens,
        query_weights: Weights = "auto",
        precision: Precision = "int8",
        dim: int | None = None,
        storage_root: Path | None = None,
    ) -> None:
        self._weights = TokenWeights(query_weights, encoder)
        check_choice("precision", precision, get_args(Precision))
        check_counts_or_null(dim=dim)
        self.encoder = encoder
        self.query_weights: Weights = query_weights
        self.precision: Precision = precision
        self.dim = dim
        self._root = storage_root if storage_root is not None else default_root()
        self._store: TokenStore | None = None
        self._asked: dict[str, TokenVectors] = {}
        self._asked_lock = threading.Lock()

    @property
    def is_remote(self) -> bool:
        """Whether the encoder waits for somebody else's machine."""
        return is_remote(self.encoder)

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes of the encoder's card; `multilingual` means any."""
        return tuple(getattr(self.encoder, "languages", ()))

    @property
    def model_id(self) -> str:
        """Encoder, weighting and what is kept. Known after `load()`."""
        return f"{self.encoder.model_id}-{self._weights.kind}-{self.precision}-{self.dim or self.encoder.dim}"

    def tuned_card(self) -> Model:
        """The card of the encoder.

        Raises:
            ConfigError: the encoder has no checkpoint that can be trained.
        """
        return self._tunable.tuned_card()

    def with_model(self, card: Model) -> Self:
        """The same settings with another model in the encoder, not loaded."""
        encoder = cast(EmbedTokens, self._tunable.with_model(card))
        return type(self)(encoder, self.query_weights, self.precision, self.dim, self._root)

    @property
    def _tunable(self) -> Tunable:
        if not isinstance(self.encoder, Tunable):
            raise ConfigError("encoder", f"{type(self.encoder).__name__} has no checkpoint that can be trained")
        return self.encoder

    def load(self) -> None:
        """Load the encoder.

        Raises:
            ConfigError: `dim` is more than the encoder's own.
        """
        self.encoder.load()
        if self.dim is not None and self.dim > self.encoder.dim:
            raise ConfigError("dim", f"found {self.dim}; the encoder's vectors have {self.encoder.dim}")

    def close(self) -> None:
        """Let go of encoder and vectors."""
        self._store = None
        self._asked.clear()
        self._weights.forget()
        close = getattr(self.encoder, "close", None)
        if close is not None:
            close()

    def index_settings(self) -> Mapping[str, Json]:
        """What token frequencies and vectors depend on."""
        return {
            "engine": "token vectors",
            "format": _FORMAT,
            "model_id": self.encoder.model_id,
            "precision": self.precision,
            "dim": self.dim or self.encoder.dim,
        }

    def index(self, corpus: Corpus, directory: Path, progress: Progress) -> None:
        """Have the vectors of all documents, and write how many documents hold each token into `directory`."""
        store = self._open_store(corpus.key)
        frequencies = store.ensure(corpus, self.encoder, progress).document_frequencies()
        TokenWeights.write(directory, frequencies, len(corpus))

    def open(self, corpus: Corpus, directory: Path) -> None:
        """Serve `corpus` with the frequencies in `directory`.

        Raises:
            IndexStateError: files are missing or damaged.
        """
        self._weights.read(directory)
        store = self._open_store(corpus.key)
        _ = store.axes  # missing ones are told now, when the index can still be built again
        if missing := store.n_missing(corpus):
            raise IndexStateError(f"{store.directory}: the token vectors of {missing} documents are not kept any more")
        self._store = store

    def verify_index(self, corpus: Corpus, directory: Path) -> str | None:
        """What was wrong with the kept vectors, which are computed again; None when nothing was."""
        return self._open_store(corpus.key).verify()

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> npt.NDArray[np.float32]:
        """float32 [n_pairs], in [-1, 1], in the order of `pairs`.

        Raises:
            CallCancelledError: nobody waits for the call any more.
        """
        scores = np.empty(len(pairs), dtype=np.float32)
        if not pairs:
            return scores
        store = self._store_for(call)
        texts = [document.full_text for _, document in pairs]
        distinct = dict.fromkeys(texts)
        held = store.rows(list(distinct), self.encoder, call)
        row_of = {text: row for row, text in enumerate(distinct)}
        places: dict[str, list[int]] = {}
        for place, (query, _) in enumerate(pairs):
            places.setdefault(query.text, []).append(place)
        encoded = self._encoded(list(places), call)
        for query_tokens, mine in zip(encoded, places.values(), strict=True):
            weights, projected = self._weights.of(query_tokens, call), held.project(query_tokens.vectors)
            size = _BLOCK if call.remaining_s is None else _BLOCK_IN_TIME
            for start in range(0, len(mine), size):
                if call.cancelled:
                    raise CallCancelledError("the call was cancelled; its results are dropped")
                rows = mine[start : start + size]
                kept = held.take(np.array([row_of[texts[place]] for place in rows], dtype=np.int64))
                scores[rows] = maxsim(projected, weights, kept)
                call.report(rows, scores[rows].tolist())
        return scores

    def _encoded(self, queries: Sequence[str], call: Call) -> list[TokenVectors]:
        """The token vectors of queries. A question that is asked in pieces, to keep its budget, is encoded once."""
        with self._asked_lock:
            known = {text: self._asked[text] for text in queries if text in self._asked}
        if missing := [text for text in queries if text not in known]:
            found = self.encoder.embed_tokens(missing, kind="query", call=call)
            known |= dict(zip(missing, found, strict=True))
            with self._asked_lock:
                self._asked |= {text: known[text] for text in missing[-_QUESTIONS_HELD:]}
                for text in list(self._asked)[:-_QUESTIONS_HELD]:
                    del self._asked[text]
        return [known[text] for text in queries]

    def _store_for(self, call: Call) -> TokenStore:
        """Of the corpus that is open; else one for documents of a caller, of the encoder's own dimension."""
        if self._store is not None:
            return self._store
        if self.dim not in (None, self.encoder.dim):
            call.note(f"dim {self.dim} is fitted to a corpus, and none is open: {self.encoder.dim} dimensions compared")
        return open_tokens(self._root, self.encoder, self.precision, None, "")

    def _open_store(self, corpus: str) -> TokenStore:
        dim = self.dim if self.dim != self.encoder.dim else None
        return open_tokens(self._root, self.encoder, self.precision, dim, corpus)
