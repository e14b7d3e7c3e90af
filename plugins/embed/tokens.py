"""Token vectors for late interaction on ONNX Runtime, equal to sentence-transformers' own to 1e-4."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from orchestrator.checks import check_counts, check_counts_or_null
from orchestrator.models.card import Model, check_role
from orchestrator.models.head import TokenHead
from orchestrator.models.manifest import TOKENIZER_FILE, TokenRules
from orchestrator.models.onnx import OnnxModel, load_onnx
from orchestrator.models.resolve import is_local
from orchestrator.models.tokens import TextEncoder, token_batches
from orchestrator.storage import stable_hash
from orchestrator.types import Call, TextKind, TokenVectors


@dataclass(frozen=True)
class _Loaded:
    model: OnnxModel
    head: TokenHead
    encoders: dict[TextKind, TextEncoder]
    prompts: dict[TextKind, str]
    model_id: str


class OnnxTokenEmbed:
    """An `EmbedTokens` that needs no torch once its model is exported.

    Reads multi-vector encoders of sentence-transformers 6, PyLate and Stanford's ColBERT, with their markers, lengths,
    query expansion and skipped tokens, and any embedder or plain encoder: then every token, [CLS] and [SEP] too, gives
    its vector of the last hidden state, before the pooling. Vectors have length 1. A text of which no token counts,
    such as `...` where punctuation is skipped, keeps the vector of its first token.

    Args:
        model: card of a multi-vector encoder; its `max_length_tokens` is that of documents, its `prompts` override the
            model's markers.
        threads: of one call; None is one a physical core.
        batch_tokens: padded tokens of one batch. 1024 keeps a batch's activations in cache; larger batches are no
            faster on CPU and take more memory.
    """

    tunes = "late_interaction"

    def __init__(self, model: Model, threads: int | None = None, batch_tokens: int = 1024) -> None:
        check_role(model, "multi_vector")
        check_counts(batch_tokens=batch_tokens)
        check_counts_or_null(threads=threads)
        self.model = model
        self.threads = threads
        self.batch_tokens = batch_tokens
        self._loading = threading.Lock()
        self._loaded: _Loaded | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes of the card; `multilingual` means any."""
        return self.model.languages

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._ready.head.dim

    @property
    def model_id(self) -> str:
        """Weights, tokenizer, modules, markers, lengths, expansion, skipped tokens and backend in one digest."""
        return self._ready.model_id

    @property
    def max_length_tokens(self) -> int | None:
        """Where documents are cut, special tokens included; None is nowhere."""
        return self._ready.model.max_length_tokens

    @property
    def fills_queries(self) -> bool:
        """Whether queries are filled up with mask tokens, which then count like the others (ColBERT's expansion)."""
        rules = self._ready.model.manifest.token_rules
        return rules is not None and rules.expand_to > 0

    def at_hand(self) -> bool:
        """Whether the model's files lie on this machine, or should: a path given is never passed over. Asks no hub."""
        return self.model.path is not None or is_local(self.model)

    def tuned_card(self) -> Model:
        """The card of the encoder."""
        return self.model

    def with_model(self, card: Model) -> Self:
        """The same settings with another model, not loaded."""
        return type(self)(card, self.threads, self.batch_tokens)

    def load(self) -> None:
        """Bring the model into memory, exporting it first where it never was; does nothing the second time."""
        with self._loading:
            if self._loaded is None:
                self._loaded = _load(self.model, self.threads)

    def close(self) -> None:
        """Let go of the model; others who share it keep it."""
        self._loaded = None

    def embed_tokens(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> list[TokenVectors]:
        """The token vectors of each text, in the order of `texts`; at least one a text.

        Raises:
            CallCancelledError: nobody waits for the call any more.
        """
        loaded = self._ready
        encoder, prompt = loaded.encoders[kind], loaded.prompts[kind]
        found: dict[int, TokenVectors] = {}
        prompted = [prompt + text for text in texts]
        for places, rows in token_batches(encoder, prompted, batch_tokens=self.batch_tokens, call=call):
            hidden = loaded.model.session.run(encoder.batch(rows), call)
            found.update(zip(places.tolist(), loaded.head.apply(hidden, rows, kind), strict=True))
        return [found[place] for place in range(len(texts))]

    @property
    def _ready(self) -> _Loaded:
        if self._loaded is None:
            raise RuntimeError(f"OnnxTokenEmbed of {self.model.label}: call load() first")
        return self._loaded


def _load(card: Model, threads: int | None) -> _Loaded:
    model = load_onnx(card, threads=threads)
    own, override = model.manifest.prompts, card.prompts or {}
    prompts: dict[TextKind, str] = {kind: override.get(kind, own[kind]) for kind in ("query", "document")}
    head = TokenHead.read(model.manifest, model.folder)
    tokenizer = (model.folder / TOKENIZER_FILE).read_text(encoding="utf-8")
    encoders: dict[TextKind, TextEncoder] = {
        "query": TextEncoder.of_queries(tokenizer, model.manifest),
        "document": model.encoder,
    }
    return _Loaded(model, head, encoders, prompts, _identity(model, prompts))


def _identity(model: OnnxModel, prompts: dict[TextKind, str]) -> str:
    rules: TokenRules | None = model.manifest.token_rules
    return stable_hash(
        {
            "sources": dict(model.manifest.sources),
            "prompts": {str(kind): prompt for kind, prompt in prompts.items()},
            "max_length_tokens": model.max_length_tokens,
            "token_rules": None if rules is None else dataclasses.asdict(rules),
            "backend": "onnx-fp32-tokens",
        }
    )
