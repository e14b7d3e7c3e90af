"""What kind of model a folder holds, told from its JSON files, so that none is loaded as another kind.

An embedding model loaded as a cross-encoder gives a number for every pair, and so does a reranker loaded as an
embedder: neither shows in a result, but as bad quality (FlagOpen/FlagEmbedding#308, #1285).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.models.card import Role
from orchestrator.models.modules import Saved, class_name, read_json

_SLOTS: Mapping[Role, str] = {
    "embedder": "an embedding model, for models.embedder",
    "multi_vector": "a multi-vector encoder, for models.multi_vector",
    "reranker": "a cross-encoder, for models.reranker",
    "sparse": "a sparse encoder, for models.sparse",
}
# `model_type` in config_sentence_transformers.json.
_SAVED_AS: Mapping[str, Role] = {
    "SentenceTransformer": "embedder",
    "MultiVectorEncoder": "multi_vector",
    "CrossEncoder": "reranker",
    "SparseEncoder": "sparse",
}
_CLASSIFIER = "ForSequenceClassification"
_CAUSAL = "ForCausalLM"
_CAUSAL_IS = (
    "a language model that writes, or one that answers yes or no, for models.reranker with `template` and `yes_token`; "
    "embedding models of this class come with modules.json"
)
_EXPECTED: Mapping[Role, str] = {
    "embedder": "an embedding model",
    "multi_vector": "a multi-vector encoder, an embedding model or a plain encoder",
    "reranker": "a cross-encoder with a trained head",
}
_LEARN = "`orchestrate train cross_encoder` makes a cross-encoder of it"
_CLASSES = {2: "two classes, as yes and no", 3: "three classes, as of inference (NLI)"}
# Endings of transformers' class names, and what such a checkpoint is.
_OTHER_HEADS: Mapping[str, str] = {
    "ForMaskedLM": f"a language model without a score, or a sparse encoder; {_LEARN}",
    "ForPreTraining": f"a language model without a score; {_LEARN}",
    "ForTokenClassification": "a model that labels words",
    "ForQuestionAnswering": "a model that finds answers in a text",
    "ForMultipleChoice": "a model that chooses among answers",
}


def check_kind(role: Role, saved: Saved) -> None:
    """Refuses a model that is clearly of another kind than `role`; says nothing where its files do not tell.

    Args:
        role: what it is to be used as.
        saved: the JSON files beside it.

    Raises:
        ConfigError: names what it is, and the slot it belongs to.
    """
    config = read_json(saved.transformer / "config.json", {})
    if role == "reranker":
        _check_reranker(saved, config)
    elif role in ("embedder", "multi_vector"):
        _check_encoder(role, saved, config)


def check_labels(role: Role, name: str, labels: int) -> None:
    """Refuses a classifier that gives several numbers a pair: which of them is relevance nothing tells.

    Raises:
        ConfigError: names how many there are, and what such models are.
    """
    if labels != 1:
        classes = _CLASSES.get(labels, f"{labels} classes")
        raise ConfigError(
            f"models.{role}",
            f"{name} gives {labels} numbers a pair; expected 1, a relevance score. It is a classifier of {classes}, "
            "not a reranker",
        )


def _check_reranker(saved: Saved, config: Mapping[str, Any]) -> None:
    if (kind := saved.whole.get("model_type")) == "CrossEncoder" and len(saved.entries) > 1:
        return  # its modules make the score: a Pooling, layers
    if (other := _SAVED_AS.get(str(kind), "reranker")) != "reranker":
        raise _other("reranker", saved, f"saved as {kind}", _SLOTS[other])
    if _pools(saved):
        raise _other("reranker", saved, "modules.json has a Pooling", _SLOTS["embedder"])
    for name in config.get("architectures") or []:
        _check_head(str(name), saved)
    if any(str(name).endswith(_CLASSIFIER) for name in config.get("architectures") or []):
        check_labels("reranker", str(saved.folder), _labels(config))


def _check_head(name: str, saved: Saved) -> None:
    if name == "HF_ColBERT":
        raise _other("reranker", saved, f"config.json says {name}", _SLOTS["multi_vector"])
    if name.endswith("Model"):
        what = f"an encoder without a head, as embedding models are: for models.embedder; {_LEARN}"
        raise _other("reranker", saved, f"config.json says {name}", what)
    for ending, what in _OTHER_HEADS.items():
        if name.endswith(ending):
            raise _other("reranker", saved, f"config.json says {name}", what)


def _check_encoder(role: Role, saved: Saved, config: Mapping[str, Any]) -> None:
    kind = str(saved.whole.get("model_type"))
    if (other := _SAVED_AS.get(kind)) in ("reranker", "sparse"):
        raise _other(role, saved, f"saved as {kind}", _SLOTS[other])
    if _pools(saved) or (role == "multi_vector" and saved.entries):
        return  # that says more than the name of a class
    for name in map(str, config.get("architectures") or []):
        if name.endswith(_CLASSIFIER):
            what = _SLOTS["reranker"] if _labels(config) == 1 else "a classifier of single texts or pairs"
            raise _other(role, saved, f"config.json says {name}", what)
        if name.endswith(_CAUSAL) and not saved.entries:
            raise _other(role, saved, f"config.json says {name}, and there is no modules.json", _CAUSAL_IS)


def _pools(saved: Saved) -> bool:
    return any(class_name(entry) == "Pooling" for entry in saved.entries)


def _labels(config: Mapping[str, Any]) -> int:
    """As transformers counts them: names of labels, or else `num_labels`, or else 2; 1 with code of its authors."""
    names = config.get("id2label")
    return len(names) if names else int(config.get("num_labels") or (1 if config.get("auto_map") else 2))


def _other(role: Role, saved: Saved, found: str, what: str) -> ConfigError:
    expected = _EXPECTED[role]
    return ConfigError(f"models.{role}", f"{saved.folder} is no {role} ({found}); expected {expected}. It is {what}")
