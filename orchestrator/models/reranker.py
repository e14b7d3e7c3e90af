"""What sentence-transformers keeps beside a reranker: where its score comes from, and how a pair is written for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from orchestrator.models.modules import (
    Module,
    Saved,
    class_name,
    module_config,
    pooling,
    read_json,
    torch_activation,
    unsupported,
)
from orchestrator.stage import Json

_POOLING = ("cls", "lasttoken", "mean", "max")
_CHAINS = "a Transformer alone, with LogitScore, or with Pooling and Dense that end in one score"
_VECTOR, _SCORES = "sentence_embedding", "scores"


@dataclass(frozen=True)
class Classifier:
    """The score is the only label of a sequence-classification head of transformers."""


@dataclass(frozen=True)
class YesNo:
    """The score is what a causal language model says after the pair: logit(yes) - logit(no), or logit(yes) alone.

    Attributes:
        yes_id: token of a yes; None where the files do not say, so that the card has to.
        no_id: token of a no; None is none.
    """

    yes_id: int | None = None
    no_id: int | None = None


@dataclass(frozen=True)
class Layers:
    """The score comes from layers of sentence-transformers on one pooled vector (Ettin rerankers).

    Attributes:
        modules: in order, with `type` pooling, dense or layer_norm.
    """

    modules: tuple[Module, ...]


Scoring: TypeAlias = Classifier | YesNo | Layers


@dataclass(frozen=True)
class Chat:
    """A pair is written by the tokenizer's chat template, which knows the roles `query` and `document`.

    Attributes:
        structured: contents are lists of typed pieces, not plain text.
        settings: further variables of the template.
        prompt: content of a first message of role `system`, or None.
    """

    structured: bool = False
    settings: Mapping[str, Json] = field(default_factory=dict)
    prompt: str | None = None


@dataclass(frozen=True)
class Reranker:
    """How a checkpoint scores a pair."""

    scoring: Scoring
    chat: Chat | None = None


def read_reranker(saved: Saved) -> Reranker:
    """How the checkpoint scores, as its files say.

    Raises:
        ConfigError: something that only sentence-transformers itself can run; names it.
    """
    for key in ("query_length", "document_length", "query_expansion"):
        if saved.text.get(key):
            raise unsupported("reranker", f"`{key}` in {saved.transformer}", "models without it")
    scoring = _scoring(saved)
    _check_task(saved, scoring)
    return Reranker(scoring, _chat(saved))


def _scoring(saved: Saved) -> Scoring:
    names = [class_name(entry) for entry in saved.entries]
    if len(names) < 2:
        plain_causal = not names and architecture(saved.transformer).endswith("ForCausalLM")
        return YesNo() if plain_causal else Classifier()
    if names == ["Transformer", "LogitScore"]:
        return _logit_score(saved.folder / saved.entries[1].get("path", ""))
    if names[:2] == ["Transformer", "Pooling"]:
        return _layers(saved)
    raise unsupported("reranker", f"module '{saved.entries[1].get('type')}'", _CHAINS)


def architecture(transformer: Path) -> str:
    """The class of transformers that wrote the checkpoint, or an empty string."""
    names = read_json(transformer / "config.json", {}).get("architectures") or [""]
    return str(names[0])


def _check_task(saved: Saved, scoring: Scoring) -> None:
    tasks = {Classifier: "sequence-classification", YesNo: "text-generation", Layers: "feature-extraction"}
    expected = tasks[type(scoring)]
    if (task := saved.text.get("transformer_task")) not in (None, expected):
        raise unsupported("reranker", f"task '{task}' in {saved.transformer}", f"'{expected}' with these modules")


def _logit_score(folder: Path) -> YesNo:
    config = module_config(folder, "reranker")
    if (name := config.get("module_input_name", "causal_logits")) != "causal_logits":
        raise unsupported("reranker", f"module_input_name '{name}' in {folder}", "causal_logits")
    if not isinstance(config.get("true_token_id"), int):
        raise unsupported("reranker", f"LogitScore without `true_token_id` in {folder}", "the id of a token")
    no_id = config.get("false_token_id")
    return YesNo(int(config["true_token_id"]), None if no_id is None else int(no_id))


def _layers(saved: Saved) -> Layers:
    modules = tuple(_layer(saved.folder, entry) for entry in saved.entries[1:])
    if modules[-1].get("output") != _SCORES or modules[-1].get("width") != 1:
        raise unsupported("reranker", f"modules of {saved.folder} that end in no score", _CHAINS)
    return Layers(modules)


def _layer(folder: Path, entry: Mapping[str, Any]) -> Module:
    name, place = class_name(entry), folder / entry.get("path", "")
    if name == "Pooling":
        return _pooling(place)
    if name == "Dense":
        return _dense(place)
    if name == "LayerNorm":
        return {"type": "layer_norm", "folder": place.name}
    raise unsupported("reranker", f"module '{entry.get('type')}'", _CHAINS)


def _pooling(folder: Path) -> Module:
    modes = pooling(folder)["modes"]
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in _POOLING:
        raise unsupported("reranker", f"pooling modes {modes} in {folder}", f"one of {', '.join(_POOLING)}")
    return {"type": "pooling", "mode": modes[0]}


def _dense(folder: Path) -> Module:
    config = module_config(folder, "reranker")
    source = config.get("module_input_name") or _VECTOR
    output = config.get("module_output_name") or source
    if source != _VECTOR or output not in (_VECTOR, _SCORES):
        raise unsupported("reranker", f"Dense from {source} to {output} in {folder}", f"{_VECTOR} to {_SCORES}")
    return {
        "type": "dense",
        "folder": folder.name,
        "activation": torch_activation(folder, config, "reranker"),
        "residual": bool(config.get("use_residual", False)),
        "output": output,
        "width": config.get("out_features"),
    }


def _chat(saved: Saved) -> Chat | None:
    message = (saved.text.get("modality_config") or {}).get("message")
    settings = {key: value for key, value in (saved.text.get("processing_kwargs") or {}).items() if value}
    template = dict(settings.pop("chat_template", {}))
    if settings or template.pop("restore_suffix", True) is not True or (message is None and template):
        raise unsupported("reranker", f"`processing_kwargs` in {saved.transformer}", "variables of a chat template")
    prompt = _default_prompt(saved.whole)
    if message is None:
        if prompt:
            found = f"default prompt '{saved.whole.get('default_prompt_name')}' without a chat template"
            raise unsupported("reranker", found, "cross-encoders without a prompt")
        return None
    return Chat(message.get("format") == "structured", template, prompt)


def _default_prompt(whole: Mapping[str, Any]) -> str | None:
    name = whole.get("default_prompt_name")
    return (whole.get("prompts") or {}).get(name) or None if name else None
