"""What is wrong with a checkpoint that transformers cannot load, or loads with random weights, in one message."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.models.card import Model
from orchestrator.models.description import Description
from orchestrator.models.modules import read_json
from orchestrator.models.reranker import Classifier


class MissingWeightsError(ConfigError):
    """A checkpoint of a network of transformers whose file lacks some of its weights."""


@contextlib.contextmanager
def explained(model: Model, transformer: Path) -> Iterator[None]:
    """Whatever transformers raises inside becomes a ConfigError that says what the checkpoint needs.

    Args:
        model: its card.
        transformer: folder of the checkpoint.
    """
    try:
        yield
    except OrchestratorError:
        raise
    except Exception as error:  # a damaged file shows as an error of json, safetensors, pickle, torch or transformers
        # What transformers says of custom code is how to let it run.
        problem = _own_code(model, transformer) or f": {error}"
        raise ConfigError(model.key, f"transformers cannot load {model.label}{problem}") from error


def check_weights(model: Model, description: Description, missing: Iterable[str]) -> None:
    """Refuses a file that lacks weights: transformers would go on with random numbers in their place.

    Args:
        model: the card.
        description: of the checkpoint.
        missing: names of weights that the network has and the file has not.

    Raises:
        MissingWeightsError: names them.
        ConfigError: they are missing since the network is one of its authors' own code.
    """
    keys = sorted(missing)
    if not is_classifier(description):
        # Nothing reads the pooler: sentence-transformers pools the last hidden state itself.
        keys = [key for key in keys if "pooler" not in key.split(".")]
    if not keys:
        return
    shown = ", ".join(keys[:6]) + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")
    found, path = f"{model.label} lacks the weights {shown}", model.key
    if own_code := _own_code(model, description.transformer):
        raise ConfigError(path, f"{found}{own_code}")
    kind = "a cross-encoder with a trained head" if model.role == "reranker" else "a whole checkpoint"
    raise MissingWeightsError(path, f"{found}; expected {kind}. Is it another kind of model?")


def is_classifier(description: Description) -> bool:
    """Whether its score is the label of a sequence classifier of transformers."""
    return description.reranker is not None and isinstance(description.reranker.scoring, Classifier)


def _own_code(model: Model, transformer: Path) -> str:
    """The end of a message about a checkpoint that comes with code of its own; empty for others."""
    if not read_json(transformer / "config.json", {}).get("auto_map"):
        return ""
    return f": it needs code of its authors, which is not run here; {model.instead or 'expected another model'}"
