"""Config becomes objects. With schema.py and cli.py the only place that knows OmegaConf and Hydra."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.config.words import SECRETS
from orchestrator.corpora.chunks import Chunking
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.corpora.readers.columns import Columns
from orchestrator.corpora.readers.table import TableOptions
from orchestrator.errors import ConfigError, PipelineError, did_you_mean
from orchestrator.log import get_logger
from orchestrator.models import Model
from orchestrator.running.score_cache import ScoreCache, check_limits
from orchestrator.running.stage_results import StageResults, check_stage_limits
from orchestrator.stack.cuts import Cut
from orchestrator.stack.gates import Gate
from orchestrator.stack.graph import CacheUse, Settings, StageGraph, StageSpec
from orchestrator.stack.passages import Passages
from orchestrator.stack.policy import BY_PLACE, OnError
from orchestrator.storage import default_root

log = get_logger()
_P = TypeVar("_P")

_SAMPLE_DOCUMENTS = 100
_SLOTS = {"embedder": "embed", "multi_vector": "embed_tokens", "sparse": "embed_sparse"}
"""Slot under `models` -> the method that stages call of what stands there. `reranker` holds the card alone."""
_EXAMPLES = {"embedder": "minilm", "multi_vector": "minilm_tokens", "sparse": "bm25", "reranker": "ms_marco_minilm_l6"}
_MODEL_REFERENCE = re.compile(r"^\$\{models\.([\w-]+)\}$")
_ENVIRONMENT = re.compile(r"\$\{oc\.env:\s*(\w+)")
_FILLED_IN = ("model", "storage_root", "key_variable", "slot")
"""Arguments that a class may have and nobody writes."""
_MODEL_KEYS = frozenset(field.name for field in dataclasses.fields(Model)) - {"storage_root", "slot"}


def storage_root(cfg: DictConfig) -> Path:
    """Where state lives: `storage.root`, or the default."""
    root = cfg.storage.root
    return Path(root).expanduser() if root else default_root()


def build_score_cache(cfg: DictConfig) -> ScoreCache | None:
    """Where scores of models are kept, as `cfg.cache` says; None where they are not.

    Raises:
        ConfigError: a value under `cache` is wrong.
    """
    check_limits(cfg.cache.max_mb, cfg.cache.remote_days, "cache.")
    return ScoreCache(storage_root(cfg), cfg.cache.max_mb, cfg.cache.remote_days) if cfg.cache.scores else None


def build_stage_results(cfg: DictConfig) -> StageResults | None:
    """Where results of stages are kept between jobs, as `cfg.cache` says; None where they are not.

    Raises:
        ConfigError: a value under `cache` is wrong.
    """
    check_stage_limits(cfg.cache.stages_max_mb, "cache.")
    limits = cfg.cache.stages_max_mb, cfg.cache.remote_days
    return StageResults(storage_root(cfg), *limits) if cfg.cache.stages else None


def build_graph(cfg: DictConfig) -> StageGraph:
    """The stage graph of `cfg.pipeline`, every stage constructed, nothing loaded.

    Raises:
        ConfigError: a value under some `use` or `models` is wrong; the message starts with its path.
        PipelineError: the stages do not form a graph.
    """
    builder = _Builder(cfg)
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


class _Builder:
    """Builds nodes depth first and knows the YAML path of each; equal references share one object."""

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg = cfg
        self._root = storage_root(cfg)
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
            if name not in self._cfg.models:
                choices = ", ".join(map(str, self._cfg.models))
                raise ConfigError(f"models.{name}", f"no such model; models: {choices}")
            self._models[name] = self.value(f"models.{name}", self._cfg.models, name)
            _check_slot(name, self._models[name])
        return self._models[name]

    def _object(self, path: str, arguments: dict[str, Any], key_variable: str | None = None) -> object:
        target = _target(path, arguments.pop("_target_"))
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


def _target(path: str, dotted: object) -> Callable[..., object]:
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


def plain(node: object) -> Any:
    """A node as plain Python, its interpolations left as they stand."""
    return OmegaConf.to_container(node) if isinstance(node, DictConfig | ListConfig) else node


def yaml_text(data: Mapping[str, Any]) -> str:
    """`data` as YAML that a configuration reads as it is: what looks like a number and is a word stands in quotes."""
    return str(OmegaConf.to_yaml(OmegaConf.create(dict(data))))


def composed(words: Sequence[str]) -> dict[str, Any] | None:
    """What the configuration of a run would be, as plain values; None where `words` do not go together.

    Only while Hydra runs, or inside `Pipeline.compose`.
    """
    from hydra import compose
    from hydra.errors import HydraException

    try:
        return cast(dict[str, Any], plain(compose("config", overrides=list(words))))
    except (HydraException, OmegaConfBaseException):
        return None


def task_overrides() -> list[str]:
    """The overrides of the job that runs, as Hydra was given them; none outside of one."""
    from hydra.core.hydra_config import HydraConfig

    return [str(word) for word in HydraConfig.get().overrides.task] if HydraConfig.initialized() else []


def sweep_folder() -> Path:
    """The folder of the sweep whose job runs."""
    from hydra.core.hydra_config import HydraConfig

    return Path(HydraConfig.get().sweep.dir)


def sweeper_direction() -> Any:
    """Where the sweeper of this job looks for better figures, as it was given; None where it says nothing of it."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    sweeper = HydraConfig.get().sweeper
    return plain(sweeper.direction) if "direction" in sweeper else None


def model_cards() -> dict[str, dict[str, Any]]:
    """Every card of the group `model`, of this package, of --config-dir and of other packages, by name.

    Only while Hydra runs, or inside `Pipeline.compose`.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    loader = GlobalHydra.instance().config_loader()
    cards = {}
    for name in loader.get_group_options("model", results_filter=ObjectType.CONFIG):
        loaded = loader.repository.load_config(f"model/{name}")  # type: ignore[attr-defined]
        cards[str(name)] = plain(loaded.config)
    return cards


def card_names(cards: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, str]:
    """Name of a model on the hub -> name of its card, of `cards`, or of all where Hydra runs."""
    cards = model_cards() if cards is None else cards
    # One model may have two cards, of which the one for its token vectors is not what the figures call it.
    first = sorted(cards, key=lambda name: (cards[name].get("role") != "multi_vector", name))
    return {str(cards[name]["name"]): name for name in first if cards[name].get("name")}


def resolve_language(cfg: DictConfig) -> None:
    """Put the language of a hundred of the corpus's documents in the place of `corpus.language: auto`.

    Raises:
        OrchestratorError: the corpus cannot be read.
    """
    if cfg.corpus.language != "auto":
        return
    from orchestrator.corpora.corpus import open_corpus
    from orchestrator.detection import detect_many

    corpus = open_corpus(build_corpus(cfg), storage_root(cfg))
    try:
        cfg.corpus.language = detect_many(document.full_text for document in corpus.sample(_SAMPLE_DOCUMENTS))
    finally:
        corpus.close()
    log.info("corpus.language", corpus=corpus.name, detected=cfg.corpus.language)


def build_corpus(cfg: DictConfig) -> CorpusSpec:
    """What `cfg.corpus` names; without a `name` the folder's own."""
    corpus = cfg.corpus
    if OmegaConf.is_missing(corpus, "path"):
        raise ConfigError("corpus.path", "missing; set it to a file or folder of documents: corpus.path=docs.jsonl")
    return CorpusSpec(
        name=corpus.name or Path(corpus.path.removesuffix("/")).name,
        path=corpus.path,
        language=corpus.language,
        split=corpus.split,
        max_queries=corpus.max_queries,
        on_bad_line=corpus.on_bad_line.name,
        format=corpus.format.name,
        columns=_columns(corpus.columns),
        csv=TableOptions(_typed(corpus.csv.delimiter), corpus.csv.quote, _names(corpus.csv.header)),
        chunk=Chunking(corpus.chunk.max_chars, corpus.chunk.overlap_chars),
        queries=corpus.queries,
        qrels=corpus.qrels,
    )


def _columns(columns: DictConfig) -> Columns:
    text = columns.text
    if not isinstance(text, str | ListConfig):
        raise ConfigError("corpus.columns.text", f"found {text!r}; expected a name, [name, name] or auto")
    texts = text if isinstance(text, str) else tuple(map(str, text))
    return Columns(columns.id, texts, columns.title, columns.parent, _names(columns.metadata))


def _typed(delimiter: str | None) -> str | None:
    r"""A tab, where someone typed \t in a shell or in YAML's single quotes."""
    return "\t" if delimiter == "\\t" else delimiter


def _names(names: ListConfig | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(map(str, names))


def corpus_of_run(folder: Path) -> tuple[CorpusSpec, Path] | None:
    """What the run that left `folder` ranked, and the storage root that it used; None where the folder does not tell.

    Relative paths are those of the folder that the run was started in.
    """
    import yaml

    from orchestrator.config.schema import CorpusSchema

    try:
        kept = OmegaConf.load(folder / ".hydra" / "config.yaml")
        cfg = OmegaConf.merge({"corpus": OmegaConf.structured(CorpusSchema), "storage": {"root": None}}, kept)
        assert isinstance(cfg, DictConfig)
        spec, started_in = build_corpus(cfg), _started_in(folder)
        paths = {key: _below(started_in, getattr(spec, key)) for key in ("path", "queries", "qrels")}
        return dataclasses.replace(spec, **paths), storage_root(cfg)  # type: ignore[arg-type]
    except (OSError, OmegaConfBaseException, ConfigError, yaml.YAMLError, AttributeError):
        return None


def _started_in(folder: Path) -> Path:
    """The folder that a run was started in, as Hydra kept it."""
    path = folder / ".hydra" / "hydra.yaml"
    found = OmegaConf.select(OmegaConf.load(path), "hydra.runtime.cwd") if path.is_file() else None
    return Path(str(found)) if found else Path()


def _below(folder: Path, path: str | None) -> str | None:
    if path is None or path.startswith("pkg://") or Path(path).expanduser().is_absolute():
        return path
    return str(folder / path)
