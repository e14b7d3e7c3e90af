"""Token vectors by sentence-transformers itself: any of its modules, any device torch knows."""

from __future__ import annotations

import importlib
import itertools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from orchestrator.checks import check_counts
from orchestrator.errors import CallCancelledError, ConfigError, MissingExtraError
from orchestrator.models.card import Model, check_role
from orchestrator.models.description import read_saved
from orchestrator.models.files import digests, list_files, needed_files
from orchestrator.models.kind import check_kind
from orchestrator.models.multi_vector import keeps_own_tokens
from orchestrator.models.resolve import is_local, resolve
from orchestrator.models.tokens import plan_batches
from orchestrator.storage import stable_hash
from orchestrator.types import Call, TextKind, TokenVectors, Vectors

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder


class TorchTokenEmbed:
    """An `EmbedTokens` on sentence-transformers; for models the ONNX export does not know, and for GPUs.

    An embedder or a plain encoder gives the vectors of its tokens before the pooling, as with `OnnxTokenEmbed`; any
    other folder is what `MultiVectorEncoder` makes of it. Vectors are brought to length 1 where the model does not.

    Args:
        model: card of a multi-vector encoder; its `max_length_tokens` is that of documents.
        device: `cpu`, `cuda`, `mps`; None lets sentence-transformers choose.
        batch_tokens: padded tokens of one batch; 1024 for CPU, some 16384 for a GPU.
    """

    tunes = "late_interaction"
    optional_modules: ClassVar[Mapping[str, str]] = {"sentence_transformers": "torch"}

    def __init__(self, model: Model, device: str | None = None, batch_tokens: int = 1024) -> None:
        check_role(model, "multi_vector")
        check_counts(batch_tokens=batch_tokens)
        self.model = model
        self.device = device
        self.batch_tokens = batch_tokens
        self._loading = threading.Lock()
        self._loaded: MultiVectorEncoder | None = None
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
    def model_id(self) -> str:
        """Weights, tokenizer, modules, markers, lengths, backend and kind of device in one digest."""
        _ = self._ready
        return self._model_id

    @property
    def max_length_tokens(self) -> int | None:
        """Where documents are cut, special tokens included; None is nowhere."""
        return _setting(self._ready, "document_length") or self._ready.max_seq_length

    @property
    def fills_queries(self) -> bool:
        """Whether queries are filled up with mask tokens, which then count like the others (ColBERT's expansion)."""
        return bool(_setting(self._ready, "query_expansion"))

    def at_hand(self) -> bool:
        """Whether the model's files lie on this machine, or should: a path given is never passed over. Asks no hub."""
        return self.model.path is not None or is_local(self.model)

    def tuned_card(self) -> Model:
        """The card of the encoder."""
        return self.model

    def with_model(self, card: Model) -> Self:
        """The same settings with another model, not loaded."""
        return type(self)(card, self.device, self.batch_tokens)

    def load(self) -> None:
        """Bring the model into memory; does nothing the second time.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            ConfigError: sentence-transformers cannot load the model, or the model merges tokens.
        """
        with self._loading:
            if self._loaded is None:
                folder = resolve(self.model)
                check_kind("multi_vector", read_saved(folder))
                loaded = _load(self.model, folder, self.device)
                self._model_id = _identity(self.model, folder, loaded)
                self._loaded = loaded

    def close(self) -> None:
        """Let go of the model."""
        self._loaded = None

    def embed_tokens(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> list[TokenVectors]:
        """The token vectors of each text, in the order of `texts`; at least one a text.

        Raises:
            CallCancelledError: nobody waits for the call any more.
        """
        model = self._ready
        prompt = model.prompts.get(kind) or ""
        lengths = _token_counts(model, [prompt + text for text in texts], kind)
        found: dict[int, TokenVectors] = {}
        for places in plan_batches(lengths, self.batch_tokens):
            if call.cancelled:
                raise CallCancelledError("the call was cancelled; its results are dropped")
            batch = [texts[place] for place in places]
            rows = model.encode(
                batch, prompt=prompt, task=kind, batch_size=len(batch), show_progress_bar=False, output_value=None
            )
            found.update(zip(places.tolist(), map(_token_vectors, rows), strict=True))
            call.count(tokens=sum(lengths[place] for place in places))
        return [found[place] for place in range(len(texts))]

    @property
    def _ready(self) -> MultiVectorEncoder:
        if self._loaded is None:
            raise RuntimeError(f"TorchTokenEmbed of {self.model.label}: call load() first")
        return self._loaded


def _load(card: Model, folder: Path, device: str | None) -> MultiVectorEncoder:
    try:
        library = importlib.import_module("sentence_transformers")
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", "sentence_transformers") from error
    prompts = dict(card.prompts or {}) or None
    try:
        if keeps_own_tokens(folder):
            model = _own_tokens(folder, device, prompts)
        else:
            model = library.MultiVectorEncoder(str(folder), device=device, local_files_only=True, prompts=prompts)
    except Exception as error:  # a damaged file shows as an error of json, safetensors, pickle, torch or transformers
        raise ConfigError("models.multi_vector", f"sentence-transformers cannot load {card.label}: {error}") from error
    _refuse_merged_tokens(card, model)
    if card.max_length_tokens is not None:
        first: Any = model[0]
        first.document_length = card.max_length_tokens
    return model


def _own_tokens(folder: Path, device: str | None, prompts: dict[str, str] | None) -> MultiVectorEncoder:
    """What an embedder does before its pooling."""
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling

    whole = SentenceTransformer(str(folder), device=device, local_files_only=True, prompts=prompts)
    before = itertools.takewhile(lambda module: not isinstance(module, Pooling), whole)
    modules = [*before, Normalize(module_input_name="token_embeddings")]
    saved = {kind: whole.prompts.get(kind) or "" for kind in ("query", "document")}
    return MultiVectorEncoder(modules=modules, device=device, prompts=saved)


def _refuse_merged_tokens(card: Model, model: MultiVectorEncoder) -> None:
    from sentence_transformers.multi_vector_encoder.modules import BaseTokenPooling

    for module in model:
        if isinstance(module, BaseTokenPooling):
            found = f"{card.label} has a module {type(module).__name__}, which merges tokens"
            raise ConfigError("models.multi_vector", f"{found}; expected one vector a token")


def _setting(model: MultiVectorEncoder, name: str) -> Any:
    """A setting of the first module, which need not be a Transformer."""
    return getattr(model[0], name, None)


def _token_counts(model: MultiVectorEncoder, texts: list[str], kind: TextKind) -> list[int]:
    """Tokens of each text, cut and filled up as the model does; characters by four for a model without a tokenizer."""
    tokenizer = model.tokenizer
    if not texts or not callable(tokenizer):
        return [len(text) // 4 + 1 for text in texts]
    expansion = _setting(model, "query_expansion") if kind == "query" else None
    cut, least = _setting(model, f"{kind}_length"), 0
    if expansion is not None:
        least = expansion["length"]
        cut = least if expansion["strategy"] == "fixed" else cut
    return [max(least, len(ids)) for ids in tokenizer(texts, truncation=True, max_length=cut)["input_ids"]]


def _token_vectors(row: dict[str, Any]) -> TokenVectors:
    """The rows that count; the first one where none does."""
    counts = row["attention_mask"].bool().cpu().numpy()
    where = np.flatnonzero(counts) if counts.any() else np.zeros(1, np.int64)
    vectors: Vectors = row["token_embeddings"].float().cpu().numpy()[where]
    norms = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return TokenVectors(vectors / norms, row["input_ids"].cpu().numpy()[where].astype(np.int32))


def _identity(card: Model, folder: Path, model: MultiVectorEncoder) -> str:
    return stable_hash(
        {
            "sources": digests(folder, needed_files(list_files(folder)), card.root),
            "prompts": {kind: model.prompts.get(kind) for kind in ("query", "document")},
            "lengths": [model.max_seq_length, *(_setting(model, f"{kind}_length") for kind in ("query", "document"))],
            "backend": f"torch-{model.device.type}-tokens",
        }
    )
