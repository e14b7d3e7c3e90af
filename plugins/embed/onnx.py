"""Sentence embeddings on ONNX Runtime, equal to sentence-transformers' own to 1e-5."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import numpy.typing as npt

from orchestrator.checks import check_counts, check_counts_or_null
from orchestrator.models.card import Model, check_role
from orchestrator.models.head import Head
from orchestrator.models.onnx import OnnxModel, load_onnx
from orchestrator.models.resolve import is_local
from orchestrator.models.tokens import Inputs, run_in_batches
from orchestrator.storage import stable_hash
from orchestrator.types import Call, TextKind, Vectors


@dataclass(frozen=True)
class _Loaded:
    model: OnnxModel
    head: Head
    prompts: dict[TextKind, str]
    prompt_lengths: dict[TextKind, int]
    model_id: str


class OnnxEmbed:
    """An `Embed` that needs no torch once its model is exported.

    Pooling, Dense and Normalize layers, prompts and length are read from the model's sentence-transformers files; the
    card's `prompts` and `max_length_tokens` override them. A plain transformer gets mean pooling.

    Args:
        model: card of an embedder.
        threads: of one call; None is one a physical core.
        batch_tokens: padded tokens of one batch. 1024 keeps a batch's activations in cache; larger batches are no
            faster on CPU and take more memory.
    """

    tunes = "bi_encoder"

    def __init__(self, model: Model, threads: int | None = None, batch_tokens: int = 1024) -> None:
        check_role(model, "embedder")
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
    def similarity(self) -> str:
        """`cosine` or `dot`, as the model's authors say; `cosine` when they say nothing."""
        return self._ready.model.manifest.similarity

    @property
    def model_id(self) -> str:
        """Weights, tokenizer, modules, prompts, length and backend in one digest."""
        return self._ready.model_id

    @property
    def max_length_tokens(self) -> int | None:
        """Where texts are cut, special tokens included; None is nowhere."""
        return self._ready.model.max_length_tokens

    def at_hand(self) -> bool:
        """Whether the model's files lie on this machine, or should: a path given is never passed over. Asks no hub."""
        return self.model.path is not None or is_local(self.model, graph=True)

    def tuned_card(self) -> Model:
        """The card of the embedder."""
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

    def embed(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> Vectors:
        """float32 [n_texts, dim], in the order of `texts`.

        Raises:
            CallCancelledError: nobody waits for the call any more.
        """
        loaded = self._ready
        prompt = loaded.prompts[kind]
        return run_in_batches(
            loaded.model.encoder,
            [prompt + text for text in texts],
            partial(_forward, loaded, loaded.prompt_lengths[kind]),
            width=loaded.head.dim,
            batch_tokens=self.batch_tokens,
            call=call,
        )

    def token_spans(self, text: str) -> npt.NDArray[np.int64]:
        """int64 [n_tokens, 2]: first and one past the last character of each token of the whole `text`."""
        return self._ready.model.encoder.token_spans(text)

    @property
    def _ready(self) -> _Loaded:
        if self._loaded is None:
            raise RuntimeError(f"OnnxEmbed of {self.model.label}: call load() first")
        return self._loaded


def _forward(loaded: _Loaded, prompt_length: int, inputs: Inputs, call: Call | None = None) -> Vectors:
    return loaded.head.apply(loaded.model.session.run(inputs, call), inputs["attention_mask"], prompt_length)


def _load(card: Model, threads: int | None) -> _Loaded:
    model = load_onnx(card, threads=threads)
    own, override = model.manifest.prompts, card.prompts or {}
    prompts: dict[TextKind, str] = {kind: override.get(kind, own[kind]) for kind in ("query", "document")}
    lengths = {kind: model.encoder.prompt_length(prompt) if prompt else 0 for kind, prompt in prompts.items()}
    identity = stable_hash(
        {
            "sources": dict(model.manifest.sources),
            "prompts": {str(kind): prompt for kind, prompt in prompts.items()},
            "max_length_tokens": model.max_length_tokens,
            "backend": "onnx-fp32",
        }
    )
    return _Loaded(model, Head.read(model.manifest, model.folder), prompts, lengths, identity)
