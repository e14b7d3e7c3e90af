"""Sentence embeddings by sentence-transformers itself: any of its modules, any device torch knows."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from orchestrator.checks import check_counts
from orchestrator.errors import CallCancelledError, ConfigError, MissingExtraError
from orchestrator.models.card import Model, check_role
from orchestrator.models.description import read_saved
from orchestrator.models.files import digests, list_files, needed_files
from orchestrator.models.kind import check_kind
from orchestrator.models.resolve import is_local, resolve
from orchestrator.models.tokens import plan_batches
from orchestrator.storage import stable_hash
from orchestrator.types import Call, TextKind, Vectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class TorchEmbed:
    """An `Embed` on sentence-transformers; for models the ONNX export does not know, and for GPUs.

    Args:
        model: card of an embedder.
        device: `cpu`, `cuda`, `mps`; None lets sentence-transformers choose.
        batch_tokens: padded tokens of one batch; 1024 for CPU, some 16384 for a GPU.
    """

    tunes = "bi_encoder"
    optional_modules: ClassVar[Mapping[str, str]] = {"sentence_transformers": "torch"}

    def __init__(self, model: Model, device: str | None = None, batch_tokens: int = 1024) -> None:
        check_role(model, "embedder")
        check_counts(batch_tokens=batch_tokens)
        self.model = model
        self.device = device
        self.batch_tokens = batch_tokens
        self._loading = threading.Lock()
        self._loaded: SentenceTransformer | None = None
        self._model_id = ""

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes of the card; `multilingual` means any."""
        return self.model.languages

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._ready.get_embedding_dimension() or 0)

    @property
    def similarity(self) -> str:
        """`cosine` or `dot`, as the model's authors say."""
        return str(self._ready.similarity_fn_name)

    @property
    def model_id(self) -> str:
        """Weights, tokenizer, modules, prompts, length, backend and kind of device in one digest."""
        _ = self._ready
        return self._model_id

    @property
    def max_length_tokens(self) -> int | None:
        """Where texts are cut, special tokens included; None is nowhere."""
        return self._ready.max_seq_length

    def at_hand(self) -> bool:
        """Whether the model's files lie on this machine, or should: a path given is never passed over. Asks no hub."""
        return self.model.path is not None or is_local(self.model)

    def tuned_card(self) -> Model:
        """The card of the embedder."""
        return self.model

    def with_model(self, card: Model) -> Self:
        """The same settings with another model, not loaded."""
        return type(self)(card, self.device, self.batch_tokens)

    def load(self) -> None:
        """Bring the model into memory; does nothing the second time.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            ConfigError: sentence-transformers cannot load the model, it is no embedder, or compares vectors by a
                distance.
        """
        with self._loading:
            if self._loaded is None:
                folder = resolve(self.model)
                check_kind("embedder", read_saved(folder))
                loaded = _load(self.model, folder, self.device)
                self._model_id = _identity(self.model, folder, loaded)
                self._loaded = loaded

    def close(self) -> None:
        """Let go of the model."""
        self._loaded = None

    def embed(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> Vectors:
        """float32 [n_texts, dim], in the order of `texts`.

        Raises:
            CallCancelledError: nobody waits for the call any more.
        """
        model = self._ready
        prompt = model.prompts.get(kind) or ""
        result = np.empty((len(texts), self.dim), np.float32)
        lengths = _token_counts(model, [prompt + text for text in texts])
        for rows in plan_batches(lengths, self.batch_tokens):
            if call.cancelled:
                raise CallCancelledError("the call was cancelled; its results are dropped")
            batch = [texts[row] for row in rows]
            result[rows] = model.encode(batch, prompt=prompt, batch_size=len(batch), show_progress_bar=False)
            call.count(tokens=sum(lengths[row] for row in rows))
        return result

    @property
    def _ready(self) -> SentenceTransformer:
        if self._loaded is None:
            raise RuntimeError(f"TorchEmbed of {self.model.label}: call load() first")
        return self._loaded


def _load(card: Model, folder: Path, device: str | None) -> SentenceTransformer:
    try:
        library = importlib.import_module("sentence_transformers")
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", "sentence_transformers") from error
    try:
        model: SentenceTransformer = library.SentenceTransformer(
            str(folder), device=device, local_files_only=True, prompts=dict(card.prompts or {}) or None
        )
    except Exception as error:  # a damaged file shows as an error of json, safetensors, pickle, torch or transformers
        raise ConfigError("models.embedder", f"sentence-transformers cannot load {card.label}: {error}") from error
    if model.similarity_fn_name not in ("cosine", "dot"):
        found = model.similarity_fn_name
        raise ConfigError("models.embedder", f"found similarity '{found}'; vectors are compared by cosine or dot")
    if card.max_length_tokens is not None:
        model.max_seq_length = card.max_length_tokens
    return model


def _token_counts(model: SentenceTransformer, texts: list[str]) -> list[int]:
    """Tokens of each text, cut as the model cuts; characters by four for a model without a tokenizer."""
    tokenizer = model.tokenizer
    if not texts or not callable(tokenizer):
        return [len(text) // 4 + 1 for text in texts]
    return [len(ids) for ids in tokenizer(texts, truncation=True)["input_ids"]]


def _identity(card: Model, folder: Path, model: SentenceTransformer) -> str:
    return stable_hash(
        {
            "sources": digests(folder, needed_files(list_files(folder)), card.root),
            "prompts": {kind: model.prompts.get(kind) for kind in ("query", "document")},
            "max_length_tokens": model.max_seq_length,
            "backend": f"torch-{model.device.type}",
        }
    )
