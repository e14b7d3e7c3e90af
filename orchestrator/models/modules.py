"""Reads the modules that sentence-transformers puts after a transformer: one folder each, plain JSON, no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from orchestrator.errors import ConfigError
from orchestrator.models.card import Role
from orchestrator.stage import Json

Module: TypeAlias = Mapping[str, Json]
"""One module, with `type` pooling, dense or normalize."""

Level: TypeAlias = Literal["sentence_embedding", "token_embeddings"]

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
_LEVELS: Mapping[Role, Level] = {"embedder": "sentence_embedding", "multi_vector": "token_embeddings"}
_TORCH_CLASSES: Mapping[Role, str] = {
    "embedder": "orchestrator.plugins.embed.torch.TorchEmbed",
    "multi_vector": "orchestrator.plugins.embed.torch_tokens.TorchTokenEmbed",
}
# PyLate's Dense has the files and the formula of sentence-transformers' own.
_SAME_AS = {"pylate.models.Dense.Dense": "Dense"}


@dataclass(frozen=True)
class Saved:
    """The JSON files that stand beside a model.

    Attributes:
        folder: of the model.
        transformer: folder of the transformer itself.
        entries: `modules.json`, empty where there is none.
        text: settings of the Transformer module.
        whole: `config_sentence_transformers.json`, empty where there is none.
    """

    folder: Path
    transformer: Path
    entries: list[dict[str, Any]]
    text: dict[str, Any]
    whole: dict[str, Any]


def read_json(path: Path, default: Any) -> Any:
    """The content of `path`, or `default` where there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError as error:
        raise ConfigError("", f"{path}: not JSON ({error})") from error


def torch_way(role: Role) -> str:
    """The end of a message: what runs a model of this role without an export; empty where nothing does."""
    ways: Mapping[Role, str] = {**_TORCH_CLASSES, "reranker": "backend: torch"}
    return f"; {ways[role]} runs it without an export" if role in ways else ""


def unsupported(role: Role, found: str, expected: str) -> ConfigError:
    """The error of a piece that the export does not know, with what does; of a reranker, nothing here does."""
    if role not in _TORCH_CLASSES:
        return ConfigError(f"models.{role}", f"found {found}; expected {expected}")
    advice = f"; backend torch runs it: {_TORCH_CLASSES[role]}"
    return ConfigError(f"models.{role}", f"found {found}; ONNX export knows {expected}{advice}")


def class_name(entry: Mapping[str, Any]) -> str:
    """`Pooling` for any module path of sentence-transformers' Pooling; others keep their dotted name."""
    dotted = str(entry.get("type", ""))
    return _SAME_AS.get(dotted, dotted.rpartition(".")[2] if dotted.startswith("sentence_transformers.") else dotted)


def pooling(folder: Path) -> Module:
    """Tokens to one vector."""
    config = module_config(folder, "embedder")
    modes = (
        config.get("pooling_mode")
        or [mode for key, mode in _OLD_POOLING_KEYS.items() if config.get(key, False)]
        or ["mean"]
    )
    modes = [modes] if isinstance(modes, str) else list(modes)
    for mode in modes:
        if mode not in POOLING_MODES:
            raise unsupported("embedder", f"pooling mode '{mode}' in {folder}", ", ".join(POOLING_MODES))
    return {"type": "pooling", "modes": modes, "include_prompt": bool(config.get("include_prompt", True))}


def dense(folder: Path, role: Role, *, any_level: bool = False) -> Module:
    """A linear layer and its activation, on what a model of this role gives.

    Args:
        folder: of the module.
        role: of the model.
        any_level: take the layer for this role's level even where it was saved for the other one.
    """
    config = module_config(folder, role)
    name = torch_activation(folder, config, role)
    # Where nothing is said, each family of models takes its own level (`_get_module_init_defaults` there).
    if not any_level:
        _check_level(folder, config, role, default=_LEVELS[role])
    return {
        "type": "dense",
        "folder": folder.name,
        "activation": name,
        "residual": bool(config.get("use_residual", False)),
    }


def torch_activation(folder: Path, config: Mapping[str, Any], role: Role) -> str:
    """The activation of the Dense in `folder`, one of `ACTIVATIONS`."""
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    name = activation.rpartition(".")[2]
    if not activation.startswith("torch.nn.") or name not in ACTIVATIONS:
        raise unsupported(role, f"activation '{activation}' in {folder}", ", ".join(ACTIVATIONS))
    return name


def normalize(folder: Path, role: Role) -> Module:
    """Every vector to length 1."""
    _check_level(folder, read_json(folder / "config.json", {}), role, default="sentence_embedding")
    return {"type": "normalize"}


def module_config(folder: Path, role: Role) -> dict[str, Any]:
    """Settings of the module in `folder`.

    Raises:
        ConfigError: there are none.
    """
    config = read_json(folder / "config.json", None)
    if not isinstance(config, dict):
        raise ConfigError(f"models.{role}", f"{folder}/config.json: not there, though modules.json names the folder")
    return config


def _check_level(folder: Path, config: Mapping[str, Any], role: Role, default: Level) -> None:
    for key in ("module_input_name", "module_output_name"):
        if (name := config.get(key) or config.get("module_input_name") or default) != _LEVELS[role]:
            raise unsupported(role, f"{key} '{name}' in {folder}", _LEVELS[role])
