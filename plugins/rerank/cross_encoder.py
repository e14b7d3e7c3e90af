"""A cross-encoder: query and document read together by one transformer, one logit a pair."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.models.card import Model
from orchestrator.models.files import digests, list_files, needed_files
from orchestrator.models.manifest import Manifest
from orchestrator.models.network import load_network
from orchestrator.models.onnx import load_onnx, max_length
from orchestrator.models.resolve import is_local, resolve
from orchestrator.models.template import with_template
from orchestrator.models.tokens import Forward, TextEncoder, run_in_batches
from orchestrator.stage import Json
from orchestrator.storage import stable_hash
from orchestrator.types import Call, Document, Need, Query, ScoreKind, Vectors

Backend = Literal["onnx", "torch"]


@dataclass(frozen=True)
class _Loaded:
    encoder: TextEncoder
    forward: Forward
    max_length_tokens: int | None
    model_id: str


class CrossEncoderRerank:
    """A `PointwiseRerank` on any sequence-classification checkpoint with one label, or one that answers yes or no.

    Scores are raw logits, as sentence-transformers' CrossEncoder gives them with an identity activation; pairs longer
    than the model are cut `longest_first`, as there, or by the model's template, whose end always stands. The document
    is read as `Document.full_text`, title first.

    Args:
        model: card of a reranker.
        threads: of one call, backend onnx; None is one a physical core.
        batch_tokens: padded tokens of one batch.
        max_length_tokens: where a pair is cut, special tokens included; None is what the card or the model says.
        backend: `onnx` runs on CPU without torch once the model is exported; `torch` runs on `device`.
        device: `cpu`, `cuda`, `mps`, backend torch only; None is `cuda` where there is one, else `cpu`.
    """

    score_kind: ScoreKind = "logit"
    needs: frozenset[Need] = frozenset({"text"})
    tunes = "cross_encoder"

    def __init__(
        self,
        model: Model,
        threads: int | None = None,
        batch_tokens: int = 1024,
        max_length_tokens: int | None = None,
        backend: Backend = "onnx",
        device: str | None = None,
    ) -> None:
        _check(model, backend, device)
        _check_numbers(threads=threads, batch_tokens=batch_tokens, max_length_tokens=max_length_tokens)
        self.model = model
        self.threads = threads
        self.batch_tokens = batch_tokens
        self.backend: Backend = backend
        self.device = device
        self._asked_length = max_length_tokens
        self._loading = threading.Lock()
        self._loaded: _Loaded | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes of the card; `multilingual` means any."""
        return self.model.languages

    @property
    def model_id(self) -> str:
        """Weights, tokenizer, length and backend in one digest. Known after `load()`."""
        return self._ready.model_id

    @property
    def max_length_tokens(self) -> int | None:
        """Where a pair is cut, special tokens included; None is nowhere. Known after `load()`."""
        return self._ready.max_length_tokens

    def tuned_card(self) -> Model:
        """The card of the cross-encoder."""
        return self.model

    def with_model(self, card: Model) -> Self:
        """The same settings with another model, not loaded."""
        return type(self)(card, self.threads, self.batch_tokens, self._asked_length, self.backend, self.device)

    def at_hand(self) -> bool:
        """Whether the model's files lie on this machine, or should: a path given is never passed over. Asks no hub."""
        return self.model.path is not None or is_local(self.model)

    def load(self) -> None:
        """Bring the model into memory, exporting it first where it never was; does nothing the second time."""
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load_onnx() if self.backend == "onnx" else self._load_torch()

    def close(self) -> None:
        """Let go of the model; others who share it keep it."""
        self._loaded = None

    def token_spans(self, text: str) -> npt.NDArray[np.int64]:
        """int64 [n_tokens, 2]: first and one past the last character of each token of `text`."""
        return self._ready.encoder.token_spans(text)

    def room(self, query: str) -> int | None:
        """Tokens that a document may have beside this query; None is no limit."""
        return self._ready.encoder.room(query)

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> Vectors:
        """float32 [n_pairs], logits, in the order of `pairs`.

        Raises:
            CallCancelledError: nobody waits for the call any more.
        """
        loaded = self._ready
        texts = [(query.text, document.full_text) for query, document in pairs]
        logits = run_in_batches(
            loaded.encoder, texts, loaded.forward, width=1, batch_tokens=self.batch_tokens, call=call
        )
        return logits[:, 0]

    @property
    def _ready(self) -> _Loaded:
        if self._loaded is None:
            raise RuntimeError(f"CrossEncoderRerank of {self.model.label}: call load() first")
        return self._loaded

    def _load_onnx(self) -> _Loaded:
        model = load_onnx(self.model, threads=self.threads, max_length_tokens=self._asked_length)
        identity = _identity(self.model, model.manifest, model.max_length_tokens, "onnx-fp32")
        return _Loaded(model.encoder, model.session.run, model.max_length_tokens, identity)

    def _load_torch(self) -> _Loaded:
        folder = resolve(self.model)
        sources = digests(folder, needed_files(list_files(folder)), self.model.root)
        network = load_network(self.model, folder, sources)
        manifest = with_template(self.model, network.manifest)
        length = max_length(self.model, manifest, self._asked_length)
        encoder = TextEncoder(network.tokenizer_json, manifest, length)
        device = network.to(self.device)
        identity = _identity(self.model, manifest, length, f"torch-{device}-fp32")
        return _Loaded(encoder, network.forward, length, identity)


def _check(model: Model, backend: str, device: str | None) -> None:
    if model.role != "reranker":
        raise ConfigError("model", f"{model.label} is an {model.role}; expected a reranker")
    backends = get_args(Backend)
    if backend not in backends:
        hint = did_you_mean(backend, backends)
        raise ConfigError("backend", f"found '{backend}'; choices: {', '.join(backends)}.{hint}")
    if backend == "onnx" and device is not None:
        raise ConfigError("device", f"found '{device}' with backend onnx, which runs on CPU; expected backend=torch")


def _check_numbers(**values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < 1:
            raise ConfigError(name, f"found {value}; expected a number from 1")


def _identity(model: Model, manifest: Manifest, length: int | None, backend: str) -> str:
    facts: dict[str, Json] = {"sources": dict(manifest.sources), "max_length_tokens": length, "backend": backend}
    if manifest.template is not None:
        facts["template"] = asdict(manifest.template)
    if model.yes_token is not None:
        facts["answers"] = [model.yes_token, model.no_token]
    return stable_hash(facts)
