"""Nodes with a `_target_` become objects; errors name the YAML path of each."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.config.words import SECRETS
from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.models import Model

_SLOTS = {"embedder": "embed", "multi_vector": "embed_tokens", "sparse": "embed_sparse"}
"""Slot under `models` -> the method that stages call of what stands there. `reranker` holds the card alone."""
_EXAMPLES = {"embedder": "minilm", "multi_vector": "minilm_tokens", "sparse": "bm25", "reranker": "ms_marco_minilm_l6"}
_MODEL_REFERENCE = re.compile(r"^\$\{models\.([\w-]+)\}$")
_ENVIRONMENT = re.compile(r"\$\{oc\.env:\s*(\w+)")
_FILLED_IN = ("model", "storage_root", "key_variable", "slot")
"""Arguments that a class may have and nobody writes."""
_MODEL_KEYS = frozenset(field.name for field in dataclasses.fields(Model)) - {"storage_root", "slot"}


class Builder:
    """Builds nodes depth first and knows the YAML path of each; equal references share one object."""

    def __init__(self, models: DictConfig, storage_root: Path) -> None:
        """`models`: the node that references `${models.NAME}` mean; `storage_root`: given to classes that take one."""
        self._cards = models
        self._root = storage_root
        self._models: dict[str, object] = {}

    def value(self, path: str, parent: DictConfig | ListConfig, key: Any) -> Any:
        """The value of `parent[key]`: nodes with a `_target_` as objects, the rest as plain Python."""
        reference = _MODEL_REFERENCE.match(_raw(parent, key))
        if reference:
            return self._model(reference[1])
        if OmegaConf.is_missing(parent, key):
            raise ConfigError(path, f"missing; set it: {path}=...")
        if key in SECRETS and _raw(parent, key) and "${" not in _raw(parent, key):
            raise ConfigError(
                path, "a key itself, which every run's folder would keep; write ${oc.env:NAME}, its variable"
            )
        try:
            value = parent[key]
        except OmegaConfBaseException as error:
            raise ConfigError(path, str(error).splitlines()[0]) from None
        if isinstance(value, DictConfig):
            children = {name: self.value(f"{path}.{name}", value, name) for name in map(str, value)}
            return self._object(path, children, _key_variable(value)) if "_target_" in children else children
        if isinstance(value, ListConfig):
            return [self.value(f"{path}[{place}]", value, place) for place in range(len(value))]
        return value

    def _model(self, name: str) -> object:
        if name not in self._models:
            if name not in self._cards:
                choices = ", ".join(map(str, self._cards))
                raise ConfigError(f"models.{name}", f"no such model; models: {choices}")
            self._models[name] = self.value(f"models.{name}", self._cards, name)
            _check_slot(name, self._models[name])
        return self._models[name]

    def _object(self, path: str, arguments: dict[str, Any], key_variable: str | None = None) -> object:
        target = target_of(path, arguments.pop("_target_"))
        parameters = inspect.signature(target).parameters
        if "storage_root" in parameters:
            arguments.setdefault("storage_root", self._root)
        if target is Model and path.startswith("models."):
            arguments["slot"] = path.removeprefix("models.")
        if "key_variable" in parameters:
            arguments.setdefault("key_variable", key_variable)
        if "model" in parameters and "model" not in arguments:
            arguments["model"] = self._card(path, arguments)
        _check_arguments(path, target, parameters, arguments)
        try:
            return target(**arguments)
        except ConfigError as error:
            raise ConfigError(f"{path}.{error.path}" if error.path else path, error.detail) from error
        except (TypeError, ValueError) as error:
            raise ConfigError(path, str(error)) from error

    def _card(self, path: str, arguments: dict[str, Any]) -> Model:
        """A model node is flat: the keys of the card become one Model, the rest are the class's own arguments."""
        card = {key: arguments.pop(key) for key in list(arguments) if key in _MODEL_KEYS}
        model = self._object(path, {"_target_": f"{Model.__module__}.{Model.__qualname__}", **card})
        assert isinstance(model, Model)
        return model


def _check_slot(name: str, model: object) -> None:
    """Refuse a model that cannot do what stages ask of the slot `name`; a slot of another name takes anything."""
    if name not in _EXAMPLES or name in _kinds(model):
        return
    card = getattr(model, "model", model)
    label = card.label if isinstance(card, Model) else type(model).__name__
    other = card.role if isinstance(card, Model) else next(iter(_kinds(model)), name)
    found = f"found {label}, " + ("which nothing runs" if other == name else f"which belongs into models.{other}")
    choice = f"a file of conf/model with role {name}, for example model@models.{name}={_EXAMPLES[name]}"
    raise ConfigError(f"models.{name}", f"{found}; expected {choice}")


def _kinds(model: object) -> list[str]:
    """The slots that `model` can stand in."""
    if isinstance(model, Model):
        return [model.role] if model.role == "reranker" else []
    return [slot for slot, method in _SLOTS.items() if callable(getattr(model, method, None))]


def _raw(parent: DictConfig | ListConfig, key: Any) -> str:
    """What stands in the file: an interpolation unresolved."""
    node = parent._get_node(key)
    value = getattr(node, "_value", lambda: None)()
    return value if isinstance(value, str) else ""


def _key_variable(node: DictConfig) -> str | None:
    """The environment variable that `api_key` takes its value from, for messages of stages that lack it."""
    found = _ENVIRONMENT.search(_raw(node, "api_key")) if "api_key" in map(str, node) else None
    return found[1] if found else None


def target_of(path: str, dotted: object) -> Callable[..., object]:
    """The class that a `_target_` names.

    Args:
        path: of the node that it stands in, for messages.
        dotted: what stands there.

    Raises:
        ConfigError: nothing can be imported by that name, or it is no class.
    """
    from hydra.utils import get_object

    if not isinstance(dotted, str) or "." not in dotted:
        raise ConfigError(f"{path}._target_", f"{dotted!r} is no importable class; expected package.module.Class")
    try:
        found = get_object(dotted)
    except Exception as error:
        cause = _root_cause(error)
        raise ConfigError(f"{path}._target_", f"cannot import '{dotted}': {cause}") from error
    if not callable(found):
        raise ConfigError(f"{path}._target_", f"'{dotted}' is no class; expected package.module.Class")
    return found  # type: ignore[no-any-return]


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _check_arguments(
    path: str,
    target: Callable[..., object],
    parameters: Mapping[str, inspect.Parameter],
    arguments: Mapping[str, object],
) -> None:
    name = getattr(target, "__name__", str(target))
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    known = _argument_names(parameters)
    for key in arguments:
        if key not in parameters and not open_ended:
            hint = did_you_mean(key, known)
            raise ConfigError(
                f"{path}.{key}", f"{name} takes no argument '{key}'; arguments: {', '.join(known)}.{hint}"
            )
    for key, parameter in parameters.items():
        variadic = parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        if parameter.default is inspect.Parameter.empty and not variadic and key not in arguments:
            raise ConfigError(f"{path}.{key}", f"missing; {name} needs it. Set it: {path}.{key}=...")


def _argument_names(parameters: Iterable[str]) -> list[str]:
    names = [name for name in parameters if name not in _FILLED_IN]
    return names + sorted(_MODEL_KEYS - set(names)) if "model" in parameters else names
