"""SPLADE's sparse vectors on ONNX Runtime, equal to sentence-transformers' own to 1e-4."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from orchestrator.checks import check_counts, check_counts_or_null
from orchestrator.models.card import Model, check_role
from orchestrator.models.onnx import OnnxModel, load_onnx
from orchestrator.models.resolve import is_local
from orchestrator.models.sparse_head import StaticQueries, sparse_rows, strongest
from orchestrator.models.tokens import token_batches
from orchestrator.storage import stable_hash
from orchestrator.types import Call, ScoreKind, SparseVector, TextKind


@dataclass(frozen=True)
class _Loaded:
    model: OnnxModel
    prompts: dict[TextKind, str]
    static: StaticQueries | None
    most: int | None
    model_id: str


class SpladeEmbed:
    """An `EmbedSparse` that needs no torch once its model is exported. A dimension is an entry of the vocabulary.

    Reads what sentence-transformers 6 calls a SparseEncoder, as far as it is a masked language model with
    SpladePooling: the same for queries and documents, or with static weights for queries behind a Router, so that a
    query costs no network at all. A bare masked language model gets max pooling, as there.

    Args:
        model: card of a sparse encoder.
        max_active_dims: so many weights of a text are kept, the greatest; None is what the model says, or all.
        threads: of one call; None is one a physical core.
        batch_tokens: padded tokens of one batch. Each has a logit for every entry of the vocabulary until they are
            pooled: with BERT's vocabulary 512 tokens take some 110 MB, and 1024 are no faster.

    Raises:
        ConfigError: an argument is wrong.
    """

    score_kind: ScoreKind = "dot"
    uses_idf = False

    def __init__(
        self, model: Model, max_active_dims: int | None = None, threads: int | None = None, batch_tokens: int = 512
    ) -> None:
        check_role(model, "sparse")
        check_counts(batch_tokens=batch_tokens)
        check_counts_or_null(max_active_dims=max_active_dims, threads=threads)
        self.model = model
        self.max_active_dims = max_active_dims
        self.threads = threads
        self.batch_tokens = batch_tokens
        self._loading = threading.Lock()
        self._loaded: _Loaded | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes of the card; `multilingual` means any."""
        return self.model.languages

    @property
    def model_id(self) -> str:
        """Weights, tokenizer, pooling, prompts, length, kept dimensions and backend in one digest."""
        return self._ready.model_id

    @property
    def max_length_tokens(self) -> int | None:
        """Where texts are cut, special tokens included; None is nowhere."""
        return self._ready.model.max_length_tokens

    def at_hand(self) -> bool:
        """Whether the model's files lie on this machine, or should: a path given is never passed over. Asks no hub."""
        return self.model.path is not None or is_local(self.model)

    def load(self) -> None:
        """Bring the model into memory, exporting it first where it never was; does nothing the second time."""
        with self._loading:
            if self._loaded is None:
                self._loaded = _load(self.model, self.max_active_dims, self.threads)

    def close(self) -> None:
        """Let go of the model; others who share it keep it."""
        self._loaded = None

    def embed_sparse(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> list[SparseVector]:
        """The weights of each text, in the order of `texts`.

        Raises:
            CallCancelledError: nobody waits for the call any more.
        """
        loaded = self._ready
        prompted = [loaded.prompts[kind] + text for text in texts]
        if kind == "query" and loaded.static is not None:
            found = loaded.static.embed(prompted)
        else:
            found = self._run(loaded, prompted, call)
        return [strongest(vector, loaded.most) for vector in found]

    def _run(self, loaded: _Loaded, texts: Sequence[str], call: Call) -> list[SparseVector]:
        encoder = loaded.model.encoder
        found: dict[int, SparseVector] = {}
        for places, rows in token_batches(encoder, texts, batch_tokens=self.batch_tokens, call=call):
            weights = loaded.model.session.run(encoder.batch(rows), call)
            found.update(zip(places.tolist(), sparse_rows(weights), strict=True))
        return [found[place] for place in range(len(texts))]

    @property
    def _ready(self) -> _Loaded:
        if self._loaded is None:
            raise RuntimeError(f"SpladeEmbed of {self.model.label}: call load() first")
        return self._loaded


def _load(card: Model, max_active_dims: int | None, threads: int | None) -> _Loaded:
    model = load_onnx(card, threads=threads)
    (splade,) = model.manifest.modules
    own, override = model.manifest.prompts, card.prompts or {}
    prompts: dict[TextKind, str] = {kind: override.get(kind, own[kind]) for kind in ("query", "document")}
    most = max_active_dims or cast("int | None", splade["max_active_dims"])
    identity = stable_hash(
        {
            "sources": dict(model.manifest.sources),
            "prompts": {str(kind): prompt for kind, prompt in prompts.items()},
            "max_length_tokens": model.max_length_tokens,
            "max_active_dims": most,
            "backend": "onnx-fp32-splade",
        }
    )
    static = None if splade["query"] is None else StaticQueries(model.folder)
    return _Loaded(model, prompts, static, most, identity)
