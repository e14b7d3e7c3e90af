"""`pipeline` of a configuration becomes a stage graph."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar, cast, get_args

from omegaconf import DictConfig, ListConfig, OmegaConf

from orchestrator.config.objects import Builder
from orchestrator.config.places import storage_root
from orchestrator.config.words import SECRETS
from orchestrator.errors import ConfigError, PipelineError, did_you_mean
from orchestrator.stack.cuts import Cut
from orchestrator.stack.gates import Gate
from orchestrator.stack.graph import CacheUse, Settings, StageGraph, StageSpec
from orchestrator.stack.passages import Passages
from orchestrator.stack.policy import BY_PLACE, OnError

_P = TypeVar("_P")


def build_graph(cfg: DictConfig) -> StageGraph:
    """The stage graph of `cfg.pipeline`, every stage constructed, nothing loaded.

    Raises:
        ConfigError: a value under some `use` or `models` is wrong; the message starts with its path.
        PipelineError: the stages do not form a graph.
    """
    builder = Builder(cfg.models, storage_root(cfg))
    specs = []
    for name, stage in cfg.pipeline.stages.items():
        path = f"pipeline.stages.{name}"
        for key, hint in (("use", _use_hint(str(name))), ("top_k", f"set it: {path}.top_k=10")):
            if OmegaConf.is_missing(stage, key):
                raise PipelineError(f"{path}.{key}", f"missing; {hint}")
        built = builder.value(f"{path}.use", stage, "use")
        passages = _policy(Passages, f"{path}.passages", stage.passages)
        when, cut = _policy(Gate, f"{path}.when", stage.when), _policy(Cut, f"{path}.cut", stage.cut)
        on_error = _on_error(f"{path}.on_error", builder.value(f"{path}.on_error", stage, "on_error"))
        spec = StageSpec(str(name), built, int(stage.top_k), tuple(stage.inputs), passages, when, cut)
        specs.append(
            dataclasses.replace(
                spec,
                on_error=on_error,
                max_ms=stage.max_ms,
                cache=_cache(f"{path}.cache", stage.cache),
                settings=_settings(stage.use),
            )
        )
    return StageGraph.of(specs)


def _settings(use: object) -> Settings | None:
    """All that stands under `use`, its references resolved, without secrets."""
    if not isinstance(use, DictConfig):
        return None
    found = OmegaConf.to_container(use, resolve=True, enum_to_str=True)
    return cast(Settings, _without_secrets(found))


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_secrets(child) for key, child in value.items() if key not in SECRETS}
    return [_without_secrets(child) for child in value] if isinstance(value, list) else value


def _policy(policy: Callable[..., _P], path: str, node: DictConfig) -> _P:
    """What a stage declares beside `use`: its class has the keys of the schema."""
    try:
        return policy(**{str(key): _value(node[key]) for key in node})
    except ConfigError as error:
        raise ConfigError(f"{path}.{error.path}", error.detail) from None
    except TypeError:
        known = [str(key) for key in inspect.signature(policy).parameters]
        key = next(str(key) for key in node if str(key) not in known)
        hint = did_you_mean(key, known)
        raise ConfigError(f"{path}.{key}", f"no such key; keys: {', '.join(known)}.{hint}") from None


def _value(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    return tuple(value) if isinstance(value, ListConfig) else value


def _cache(path: str, value: object) -> CacheUse:
    """auto, on or off; YAML itself makes booleans of the last two."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value in get_args(CacheUse):
        return cast(CacheUse, value)
    raise ConfigError(path, f"found {value!r}; choices: auto, on, off.{did_you_mean(str(value), get_args(CacheUse))}")


def _on_error(path: str, value: object) -> OnError:
    """null, fail, skip, or {fallback: <rerank>}, where several stand in a list, in the order they are tried."""
    if value is None:
        return BY_PLACE
    if isinstance(value, dict) and set(value) == {"fallback"}:
        given = value["fallback"]
        stages = tuple(given) if isinstance(given, list) else (given,)
        for place, stage in enumerate(stages):
            if stage is None or isinstance(stage, str | int | float | dict):
                where = f"{path}.fallback" + (f"[{place}]" if isinstance(given, list) else "")
                choice = (
                    "a rerank, for example from the defaults list: /rerank@stages.precise.on_error.fallback: bi_encoder"
                )
                raise ConfigError(where, f"found {stage!r}; expected {choice}")
        return OnError("fallback", stages)
    if value in ("fail", "skip"):
        return OnError(value)
    found = "{" + ", ".join(map(str, value)) + "}" if isinstance(value, dict) else repr(value)
    hint = did_you_mean(str(value), ("fail", "skip", "fallback"))
    raise ConfigError(path, f"found {found}; choices: fail, skip, {{fallback: <rerank>}}, null.{hint}")


def _use_hint(name: str) -> str:
    return f"say what the stage is, for example rerank@pipeline.stages.{name}.use=cross_encoder"
