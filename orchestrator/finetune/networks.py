"""Models that learn: opened with sentence-transformers from a checkpoint, asked for scores, written back."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from orchestrator.errors import ConfigError, MissingExtraError
from orchestrator.finetune.options import Tuning
from orchestrator.finetune.scoring import Exam
from orchestrator.log import get_logger
from orchestrator.models import Model
from orchestrator.models.description import describe
from orchestrator.models.files import list_files, transformer_folder
from orchestrator.models.multi_vector import keeps_own_tokens
from orchestrator.models.network import quiet as quiet_transformers
from orchestrator.models.reranker import Classifier
from orchestrator.types import Scores

log = get_logger()

_BATCH = 32


class Network:
    """A model in memory, on torch, that can be trained.

    Attributes:
        kind: `bi_encoder`, `cross_encoder` or `late_interaction`.
        model: sentence-transformers' own object.
        new_head: a cross-encoder's head is new, with random weights: its scores mean nothing yet.
    """

    def __init__(self, kind: str, model: Any, new_head: bool = False) -> None:
        self.kind, self.model, self.new_head = kind, model, new_head
        self._length = model.max_seq_length

    def prompts(self) -> Mapping[str, str]:
        """What stands before a `query` and before a `document`."""
        if self.kind == "cross_encoder":
            return {}
        return {kind: self.model.prompts.get(kind) or "" for kind in ("query", "document")}

    def shorten(self, max_length_tokens: int | None) -> None:
        """Cut texts at so many tokens while it learns; `write` gives the model its own length back.

        A multi-vector encoder has a length for queries and one for documents: its trainer cuts documents itself.
        """
        if self.kind == "late_interaction":
            return
        if max_length_tokens is not None and (self._length is None or max_length_tokens < self._length):
            self.model.max_seq_length = max_length_tokens

    def document_length(self, max_length_tokens: int | None) -> int | None:
        """Where a multi-vector encoder's documents are cut while it learns; None is where it cuts them itself."""
        own = getattr(self.model[0], "document_length", None) or self._length
        if max_length_tokens is None or (own is not None and own <= max_length_tokens):
            return None
        return max_length_tokens

    def freeze_embeddings(self) -> int:
        """Keep the table of word embeddings as it is; returns how many numbers that are."""
        weights = list(self.model.transformers_model.get_input_embeddings().parameters())
        for weight in weights:
            weight.requires_grad_(False)
        return sum(weight.numel() for weight in weights)

    def scores(self, exams: Sequence[Exam]) -> list[Scores]:
        """The scores of each exam's documents, as the model is now."""
        pairs = [(exam.query.text, document.full_text) for exam in exams for document in exam.documents]
        cuts = np.cumsum([len(exam.documents) for exam in exams])[:-1]
        return np.split(self.pair_scores(pairs), cuts)

    def pair_scores(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """float64 [n_pairs]; logits of a cross-encoder, else what the model's authors compare vectors by."""
        if not pairs:
            return np.empty(0)
        if self.kind == "cross_encoder":
            return self._logits(pairs)
        queries = list(dict.fromkeys(query for query, _ in pairs))
        documents = list(dict.fromkeys(document for _, document in pairs))
        settings = {"batch_size": _BATCH, "show_progress_bar": False, "convert_to_numpy": True}
        asked = dict(zip(queries, self.model.encode_query(queries, **settings), strict=True))
        read = dict(zip(documents, self.model.encode_document(documents, **settings), strict=True))
        return np.array([self._similarity(asked[query], read[document]) for query, document in pairs])

    def write(self, folder: Path) -> None:
        """Write it as sentence-transformers does, without a model card."""
        self.model.max_seq_length = self._length
        with quiet():
            self.model.save_pretrained(str(folder), create_model_card=False)

    def _logits(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        identity = require("torch").nn.Identity()
        found = self.model.predict(
            [list(pair) for pair in pairs], batch_size=_BATCH, show_progress_bar=False, activation_fn=identity
        )
        return np.asarray(found, dtype=np.float64).reshape(-1)

    def _similarity(self, query: Any, document: Any) -> float:
        left, right = np.asarray(query, np.float64), np.asarray(document, np.float64)
        if self.kind == "late_interaction":
            return float((left @ right.T).max(axis=1).sum())
        product = float(left @ right)
        if self.model.similarity_fn_name == "dot":
            return product
        return product / max(float(np.linalg.norm(left) * np.linalg.norm(right)), 1e-12)


def open_network(kind: str, card: Model, folder: Path, tuning: Tuning, seed: int) -> Network:
    """The model in `folder`, ready to learn.

    Args:
        kind: what it is.
        card: its card, for prompts and messages.
        folder: its checkpoint, as `resolve` finds it.
        tuning: device, and whether a cross-encoder may have, or has to have, a new head.
        seed: of a new head's weights.

    Raises:
        MissingExtraError: sentence-transformers, datasets or accelerate is not installed.
        ConfigError: it cannot be loaded, or is of another kind.
    """
    for name in ("torch", "transformers", "datasets", "accelerate"):
        require(name)
    library = require("sentence_transformers")
    require("torch").manual_seed(seed)
    try:
        with quiet():
            if kind == "cross_encoder":
                return _cross_encoder(library, card, folder, tuning)
            return _encoder(library, kind, card, folder, tuning)
    except (ConfigError, MissingExtraError):
        raise
    except Exception as error:  # a damaged file shows as an error of json, safetensors, pickle, torch or transformers
        raise ConfigError(card.key, f"sentence-transformers cannot load {card.label}: {error}") from error


def trained_head(folder: Path) -> bool:
    """Whether the checkpoint in `folder` is a cross-encoder already, by what its configuration says."""
    config = json.loads((folder / transformer_folder(list_files(folder)) / "config.json").read_text(encoding="utf-8"))
    return any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ())


def require(name: str) -> ModuleType:
    """The module `name` of the `train` extra.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError("train", name) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no reports of the libraries below: what matters is told by ours."""
    own = logging.getLogger("sentence_transformers")
    level = own.level
    own.setLevel(logging.ERROR)
    try:
        with quiet_transformers(require("transformers")):
            yield
    finally:
        own.setLevel(level)


def _cross_encoder(library: ModuleType, card: Model, folder: Path, tuning: Tuning) -> Network:
    _refuse_other_scoring(card, folder)
    has_head = trained_head(folder)
    if not has_head and tuning.new_head is False:
        found = f"{card.label} is no cross-encoder: it has no trained head"
        raise ConfigError("task.tuning.new_head", f"found false, and {found}; expected true or null")
    fresh = tuning.new_head is True or not has_head
    if fresh:
        reason = "asked for" if has_head else "the checkpoint has none"
        log.info("finetune.new_head", model=card.label, reason=reason, scores_before="none, they would be random")
    place = folder / transformer_folder(list_files(folder)) if fresh else folder
    model = library.CrossEncoder(str(place), num_labels=1, local_files_only=True, device=tuning.device)
    if fresh and has_head:
        _renew(model)
    return Network("cross_encoder", model, fresh)


def _refuse_other_scoring(card: Model, folder: Path) -> None:
    """Refuses rerankers whose score is no label of a classifier: a new head would throw away what they learned."""
    try:
        reranker = describe(folder, "reranker").reranker
    except ConfigError:
        return  # an encoder of another kind, which gets a new head
    if card.template is not None or (reranker and not (isinstance(reranker.scoring, Classifier) and not reranker.chat)):
        found = f"{card.label} is a generative reranker, or scores by layers of sentence-transformers"
        expected = "a sequence classifier with one label, for example model@models.reranker=bge_reranker_base"
        raise ConfigError(card.key, f"{found}; what can be tuned is {expected}")


def _renew(model: Any) -> None:
    """Random weights in the layers after the encoder, as a checkpoint without a head would have them."""
    network = model.transformers_model
    body = getattr(network, network.base_model_prefix)
    inside = {id(part) for part in body.modules()}
    for part in network.modules():
        if id(part) not in inside and part is not network:
            network._init_weights(part)


def _encoder(library: ModuleType, kind: str, card: Model, folder: Path, tuning: Tuning) -> Network:
    settings = {
        "local_files_only": True,
        "device": tuning.device,
        "prompts": dict(card.prompts) if card.prompts else None,
    }
    if kind == "late_interaction":
        return Network(kind, _late_interaction(library, folder, settings))
    model = library.SentenceTransformer(str(folder), **settings)
    if model.similarity_fn_name not in ("cosine", "dot"):
        found = model.similarity_fn_name
        raise ConfigError(card.key, f"found similarity '{found}'; vectors are compared by cosine or dot")
    return Network(kind, model)


def _late_interaction(library: ModuleType, folder: Path, settings: Mapping[str, Any]) -> Any:
    """What the checkpoint is; of an embedder or a plain encoder the tokens before the pooling, as its stage reads it.

    sentence-transformers itself would put a projection with random weights after it.
    """
    if not keeps_own_tokens(folder):
        return library.MultiVectorEncoder(str(folder), **settings)
    normalize = require("sentence_transformers.base.modules").Normalize
    pooling = require("sentence_transformers.sentence_transformer.modules").Pooling
    whole = library.SentenceTransformer(str(folder), **settings)
    before = itertools.takewhile(lambda module: not isinstance(module, pooling), whole)
    prompts = {kind: whole.prompts.get(kind) or "" for kind in ("query", "document")}
    return library.MultiVectorEncoder(
        modules=[*before, normalize(module_input_name="token_embeddings")], device=settings["device"], prompts=prompts
    )
