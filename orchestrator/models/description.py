"""Reads what sentence-transformers keeps beside a model: modules, prompts, length, similarity. Plain JSON, no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.models.card import Role
from orchestrator.models.files import list_files, transformer_folder
from orchestrator.stage import Json

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "Sigmoid", "GELU")

# In the order in which sentence-transformers concatenates several modes (its Pooling module, version 6).
_OLD_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_TASKS: Mapping[Role, str] = {"embedder": "feature-extraction", "reranker": "sequence-classification"}


@dataclass(frozen=True)
class Description:
    """What stands around the transformer.

    Attributes:
        transformer: folder of the transformer itself.
        modules: what comes after it, in order, as plain mappings with `type` pooling, dense or normalize.
        max_length_tokens: the authors' limit, or None when they set none here.
        lowercase: texts are lowercased before the tokenizer sees them.
        prompts: under `query` and `document`, empty strings where there is none.
        similarity: `cosine` or `dot`.
        truncate_dim: dimensions kept at the end, or None.
    """

    transformer: Path
    modules: tuple[Mapping[str, Json], ...]
    max_length_tokens: int | None
    lowercase: bool
    prompts: Mapping[str, str]
    similarity: str
    truncate_dim: int | None


def describe(folder: Path, role: Role) -> Description:
    """The description of the model in `folder`; a plain transformer gets mean pooling, as sentence-transformers does.

    Raises:
        ConfigError: something that only sentence-transformers itself can run; names it.
    """
    entries = _read(folder / "modules.json", [])
    transformer = folder / (entries[0].get("path", "") if entries else transformer_folder(list_files(folder)))
    text: dict[str, Any] = next(
        (found for name in _TRANSFORMER_CONFIGS if (found := _read(transformer / name, {}))), {}
    )
    _refuse_settings(role, text, transformer)
    whole = _read(folder / "config_sentence_transformers.json", {})
    return Description(
        transformer=transformer,
        modules=_modules(folder, entries) if role == "embedder" else _no_modules(entries, whole),
        max_length_tokens=text.get("max_seq_length"),
        lowercase=bool(text.get("do_lower_case", False)),
        prompts=_prompts(whole),
        similarity=_similarity(whole) if role == "embedder" else "dot",
        truncate_dim=whole.get("truncate_dim"),
    )


def _read(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError as error:
        raise ConfigError("", f"{path}: not JSON ({error})") from error


def _unsupported(role: Role, found: str, expected: str) -> ConfigError:
    advice = "; backend torch runs it: orchestrator.plugins.embed.torch.TorchEmbed" if role == "embedder" else ""
    return ConfigError(f"models.{role}", f"found {found}; ONNX export knows {expected}{advice}")


def _refuse_settings(role: Role, text: Mapping[str, Any], transformer: Path) -> None:
    """Settings of the Transformer module that change what the network is given, and that the export would lose."""
    if (task := text.get("transformer_task", _TASKS[role])) != _TASKS[role]:
        raise _unsupported(role, f"task '{task}' in {transformer}", f"'{_TASKS[role]}'")
    for key in ("processing_kwargs", "query_length", "document_length", "query_expansion"):
        if text.get(key):
            raise _unsupported(role, f"`{key}` in {transformer}", "models without it")


def _modules(folder: Path, entries: list[dict[str, Any]]) -> tuple[Mapping[str, Json], ...]:
    if not entries:
        return ({"type": "pooling", "modes": ["mean"], "include_prompt": True},)
    names = [_class_name(entry) for entry in entries]
    if names[0] != "Transformer":
        raise _unsupported("embedder", f"first module '{entries[0].get('type')}'", "Transformer")
    readers = {"Pooling": _pooling, "Dense": _dense, "Normalize": _normalize}
    modules = []
    for name, entry in zip(names[1:], entries[1:], strict=True):
        if name not in readers:
            raise _unsupported("embedder", f"module '{entry.get('type')}'", ", ".join(readers))
        modules.append(readers[name](folder / entry.get("path", "")))
    if not modules or modules[0]["type"] != "pooling":
        raise _unsupported("embedder", "no Pooling after the Transformer", "Transformer, Pooling, Dense, Normalize")
    return tuple(modules)


def _no_modules(entries: list[dict[str, Any]], whole: Mapping[str, Any]) -> tuple[()]:
    """A cross-encoder is a transformer with its head inside; modules after it, or a prompt, would change scores."""
    for entry in entries[1:]:
        raise _unsupported("reranker", f"module '{entry.get('type')}'", "a Transformer alone")
    name = whole.get("default_prompt_name")
    if name and whole.get("prompts", {}).get(name):
        raise _unsupported("reranker", f"default prompt '{name}'", "cross-encoders without a prompt")
    return ()


def _class_name(entry: Mapping[str, Any]) -> str:
    dotted = str(entry.get("type", ""))
    return dotted.rpartition(".")[2] if dotted.startswith("sentence_transformers.") else dotted


def _pooling(folder: Path) -> Mapping[str, Json]:
    config = _config(folder)
    modes = (
        config.get("pooling_mode")
        or [mode for key, mode in _OLD_POOLING_KEYS.items() if config.get(key, False)]
        or ["mean"]
    )
    modes = [modes] if isinstance(modes, str) else list(modes)
    for mode in modes:
        if mode not in POOLING_MODES:
            raise _unsupported("embedder", f"pooling mode '{mode}' in {folder}", ", ".join(POOLING_MODES))
    return {"type": "pooling", "modes": modes, "include_prompt": bool(config.get("include_prompt", True))}


def _dense(folder: Path) -> Mapping[str, Json]:
    config = _config(folder)
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    name = activation.rpartition(".")[2]
    if not activation.startswith("torch.nn.") or name not in ACTIVATIONS:
        raise _unsupported("embedder", f"activation '{activation}' in {folder}", ", ".join(ACTIVATIONS))
    _only_sentence_embedding(folder, config)
    return {
        "type": "dense",
        "folder": folder.name,
        "activation": name,
        "residual": bool(config.get("use_residual", False)),
    }


def _normalize(folder: Path) -> Mapping[str, Json]:
    _only_sentence_embedding(folder, _read(folder / "config.json", {}))
    return {"type": "normalize"}


def _only_sentence_embedding(folder: Path, config: Mapping[str, Any]) -> None:
    for key in ("module_input_name", "module_output_name"):
        if (name := config.get(key) or "sentence_embedding") != "sentence_embedding":
            raise _unsupported("embedder", f"{key} '{name}' in {folder}", "sentence_embedding")


def _config(folder: Path) -> dict[str, Any]:
    config = _read(folder / "config.json", None)
    if not isinstance(config, dict):
        raise ConfigError("models.embedder", f"{folder}/config.json: not there, though modules.json names the folder")
    return config


def _prompts(whole: Mapping[str, Any]) -> dict[str, str]:
    # As encode_query and encode_document choose in sentence-transformers 6: these two names always exist there, empty
    # when the model gives none, so that neither `passage` nor default_prompt_name is ever reached.
    saved = whole.get("prompts") or {}
    return {kind: saved.get(kind) or "" for kind in ("query", "document")}


def _similarity(whole: Mapping[str, Any]) -> str:
    name = str(whole.get("similarity_fn_name") or "cosine")
    if name not in ("cosine", "dot"):
        raise ConfigError("models.embedder", f"found similarity '{name}'; vectors are compared by cosine or dot")
    return name
