"""A cross-encoder: query and document read together by one transformer, one logit a pair."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Self, cast, get_args

import numpy as np
import numpy.typing as npt

from orchestrator.checks import check_choice, check_counts, check_counts_or_null
from orchestrator.errors import ConfigError
from orchestrator.models.card import Model, check_role
from orchestrator.models.files import digests, list_files, needed_files
from orchestrator.models.int8 import check_agreement, int8_kind
from orchestrator.models.manifest import Manifest
from orchestrator.models.network import TorchPrecision, load_network
from orchestrator.models.onnx import load_onnx, max_length
from orchestrator.models.openvino import OpenVinoSession
from orchestrator.models.resolve import is_local, resolve
from orchestrator.models.session import OnnxSession, Open
from orchestrator.models.template import with_template
from orchestrator.models.tokens import Forward, TextEncoder, token_batches
from orchestrator.stage import Json
from orchestrator.storage import stable_hash
from orchestrator.types import Call, Document, Need, Query, ScoreKind, Vectors

Backend = Literal["onnx", "openvino", "torch"]
Precision = Literal["fp32", "int8", "fp16", "bf16"]

_PRECISIONS: Mapping[Backend, tuple[Precision, ...]] = {
    "onnx": ("fp32", "int8"),
    "openvino": ("fp32",),
    "torch": ("fp32", "fp16", "bf16"),
}
_RUNTIMES: Mapping[str, Open] = {"onnx": OnnxSession, "openvino": OpenVinoSession}


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

    A score does not depend on the batch: to 1e-5 in fp32, exactly in int8, where each pair is a batch of its own, and
    in fp16 and bf16 to what those numbers can hold, some 2e-3 and 4e-2 of the largest score.

    Args:
        model: card of a reranker.
        threads: of one call, backends onnx and openvino; None is one a physical core.
        batch_tokens: padded tokens of one batch; int8 does not read it.
        max_length_tokens: where a pair is cut, special tokens included; None is what the card or the model says.
        backend: `onnx` and `openvino` run on CPU, without torch where the model comes with an ONNX graph or once it is
            exported; `torch` runs on `device`.
        device: `cpu`, `cuda`, `mps`, backend torch only; None is `cuda` where there is one, else `cpu`.
        precision: `fp32`; `int8` with backend onnx; `fp16` and `bf16` with backend torch on a GPU.
        min_agreement: of int8, the least share of pairs of documents that it has to order as fp32 does, on built-in
            texts.
    """

    score_kind: ScoreKind = "logit"
    needs: frozenset[Need] = frozenset({"text"})
    tunes = "cross_encoder"
    cacheable_scores = True
    cost_kind = "cross_encoder"

    def __init__(
        self,
        model: Model,
        threads: int | None = None,
        batch_tokens: int = 1024,
        max_length_tokens: int | None = None,
        backend: Backend = "onnx",
        device: str | None = None,
        precision: Precision = "fp32",
        min_agreement: float = 0.9,
    ) -> None:
        _check(model, backend, device)
        _check_precision(backend, precision, device, min_agreement)
        check_counts(batch_tokens=batch_tokens)
        check_counts_or_null(threads=threads, max_length_tokens=max_length_tokens)
        self.model = model
        self.threads = threads
        self.batch_tokens = batch_tokens
        self.backend: Backend = backend
        self.device = device
        self.precision: Precision = precision
        self.min_agreement = min_agreement
        self._asked_length = max_length_tokens
        self._loading = threading.Lock()
        self._loaded: _Loaded | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes of the card; `multilingual` means any."""
        return self.model.languages

    @property
    def optional_modules(self) -> Mapping[str, str]:
        """Module -> extra that installs it, of the backend."""
        needed = {"torch": {"sentence_transformers": "torch"}, "openvino": {"openvino": "openvino"}}
        return needed.get(self.backend, {})

    @property
    def model_id(self) -> str:
        """Weights, tokenizer, length, backend and precision in one digest. Known after `load()`."""
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
        return type(self)(
            card,
            self.threads,
            self.batch_tokens,
            self._asked_length,
            self.backend,
            self.device,
            self.precision,
            self.min_agreement,
        )

    def at_hand(self) -> bool:
        """Whether the model's files lie on this machine, or should: a path given is never passed over. Asks no hub."""
        return self.model.path is not None or is_local(self.model, graph=self.backend != "torch")

    def load(self) -> None:
        """Bring the model into memory; does nothing the second time.

        The first time of all, a model without a graph of its own is exported, and for int8 the graph is quantised and
        compared with fp32.

        Raises:
            ModelNotFoundError: its files are nowhere.
            MissingExtraError: a library that the backend or the export needs is not installed.
            ConfigError: the model is no reranker, cannot be exported, or int8 disagrees with fp32.
        """
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load_torch() if self.backend == "torch" else self._load_graph()

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
        batch_tokens = 1 if self.precision == "int8" else self.batch_tokens  # 1 token: every pair alone
        scores = np.empty(len(pairs), np.float32)
        for places, batch in token_batches(loaded.encoder, texts, batch_tokens=batch_tokens, call=call):
            scores[places] = loaded.forward(loaded.encoder.batch(batch), call)[:, 0]
            call.report(places.tolist(), scores[places].tolist())
        return scores

    @property
    def _ready(self) -> _Loaded:
        if self._loaded is None:
            raise RuntimeError(f"CrossEncoderRerank of {self.model.label}: call load() first")
        return self._loaded

    def _load_graph(self) -> _Loaded:
        int8 = self.precision == "int8"
        model = load_onnx(
            self.model,
            threads=self.threads,
            max_length_tokens=self._asked_length,
            runtime=_RUNTIMES[self.backend],
            int8=int8,
        )
        if int8:
            check_agreement(self.model, model.manifest, self.min_agreement)
        way = f"{self.backend}-{int8_kind() if int8 else 'fp32'}"
        identity = _identity(self.model, model.manifest, model.max_length_tokens, way)
        return _Loaded(model.encoder, model.session.run, model.max_length_tokens, identity)

    def _load_torch(self) -> _Loaded:
        folder = resolve(self.model)
        sources = digests(folder, needed_files(list_files(folder)), self.model.root)
        network = load_network(self.model, folder, sources)
        manifest = with_template(self.model, network.manifest)
        length = max_length(self.model, manifest, self._asked_length)
        encoder = TextEncoder(network.tokenizer_json, manifest, length)
        network.cast(cast(TorchPrecision, self.precision))  # before it moves: half the memory there
        device = network.to(self.device)
        _check_device(self.precision, device)
        identity = _identity(self.model, manifest, length, f"torch-{device}-{self.precision}")
        return _Loaded(encoder, network.forward, length, identity)


def _check(model: Model, backend: str, device: str | None) -> None:
    check_role(model, "reranker", "model")
    check_choice("backend", backend, get_args(Backend))
    if backend != "torch" and device is not None:
        raise ConfigError("device", f"found '{device}' with backend {backend}, on CPU; expected backend=torch")


def _check_precision(backend: Backend, precision: str, device: str | None, least: float) -> None:
    check_choice("precision", precision, get_args(Precision))
    if precision not in _PRECISIONS[backend]:
        other = next(name for name, has in _PRECISIONS.items() if precision in has)
        choices = ", ".join(_PRECISIONS[backend])
        raise ConfigError(
            "precision",
            f"found '{precision}' with backend {backend}; choices: {choices}, or backend={other}",
        )
    if not 0 <= least <= 1:
        raise ConfigError("min_agreement", f"found {least}; expected a share from 0 to 1")
    _check_device(precision, device)


def _check_device(precision: str, device: str | None) -> None:
    """CPUs emulate half precision: 0.17 of fp32's speed in sentence-transformers' own figures, bf16 0.35 in ours."""
    if precision in ("fp16", "bf16") and device == "cpu":
        raise ConfigError(
            "precision",
            f"found '{precision}' on cpu, which computes it 3 to 6 times slower than fp32; expected a GPU "
            "(device=cuda or mps), precision=fp32, or backend=onnx with precision=int8",
        )


def _identity(model: Model, manifest: Manifest, length: int | None, backend: str) -> str:
    facts: dict[str, Json] = {"sources": dict(manifest.sources), "max_length_tokens": length, "backend": backend}
    if manifest.template is not None:
        facts["template"] = asdict(manifest.template)
    if model.yes_token is not None:
        facts["answers"] = [model.yes_token, model.no_token]
    return stable_hash(facts)
