"""From a configuration to a decision, and from a decision to a configuration that runs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.analysis import analyzer
from orchestrator.build import build_corpus, model_cards, plain, resolve_language, storage_root
from orchestrator.calibration.use import corpus_figures, estimated_lengths, measured_here
from orchestrator.corpus import corpus_key, open_corpus
from orchestrator.cost import CostModel, ModelInfo
from orchestrator.decide import Decision, decide
from orchestrator.errors import ConfigError
from orchestrator.languages import MIXED, UNDETERMINED
from orchestrator.lengths import Lengths
from orchestrator.models import Model, is_hub_off, is_local, takes_graph
from orchestrator.need import USUAL_CANDIDATES, Catalogue, Need
from orchestrator.rules import Rules, Slot

if TYPE_CHECKING:
    from omegaconf import DictConfig

_NOT_OF_THE_STACK = frozenset({"scenario", "task", "need", "decision", "cost", "query", "format", "log", "hydra"})
_WORDS_FOR = {"multilingual": UNDETERMINED, "many": UNDETERMINED, "mixed": MIXED}


def decide_for(cfg: DictConfig, words: Sequence[str] = (), flags: Sequence[str] = ()) -> Decision:
    """The decision for `cfg.need`.

    Args:
        cfg: a composed configuration with the groups `decision` and `cost` in it.
        words: the overrides it was composed from. What they say of corpus, models and pipeline becomes part of the
            decision's overrides and goes before what the rules say; a model set there is the only one considered.
        flags: of the command line that the decision's command needs too, such as `--config-dir DIR`.

    Raises:
        ConfigError: a value of need, decision or cost is wrong.
    """
    if cfg.decision is None or cfg.cost is None:
        raise ConfigError("need.auto", "set without the rules to decide by; write +scenario=auto")
    resolve_language(cfg)
    need = need_of(cfg)
    decision = decide(need, Rules.of(plain(cfg.decision)), _costs(cfg), _catalogue(cfg, words))
    made = [*decision.choice.overrides, *_settings(need, cfg)]
    kept = [word for word in words if _root(word) not in _NOT_OF_THE_STACK]
    keys = {_key(word) for word in kept}
    overrides = (*(word for word in made if _key(word) not in keys), *kept)
    return dataclasses.replace(
        decision, choice=dataclasses.replace(decision.choice, overrides=overrides, flags=tuple(flags))
    )


def _costs(cfg: DictConfig) -> CostModel:
    """By what was measured on this machine, and by `cfg.cost` for the rest."""
    return measured_here(CostModel.of(plain(cfg.cost)), storage_root(cfg), corpus_key(build_corpus(cfg)))


def decided(words: Sequence[str], decision: Decision) -> list[str]:
    """The overrides of a run that makes the decision: its own in the place of `+scenario=auto`, and all others."""
    rest = [word for word in words if word not in decision.choice.overrides and _key(word) != "scenario"]
    return [*rest, *decision.choice.overrides]


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _root(word: str) -> str:
    return re.split(r"[.@/]", _key(word), maxsplit=1)[0]


def _settings(need: Need, cfg: DictConfig) -> Iterator[str]:
    if need.latency_ms is not None:
        yield f"budget_ms={need.latency_ms:g}"
    if need.language.split("-")[0] != str(cfg.corpus.language).split("-")[0]:
        yield f"corpus.language={need.language}"


def need_of(cfg: DictConfig) -> Need:
    """`cfg.need` with its blanks filled: from the corpus, from budget_ms, and from what this machine may reach.

    Raises:
        ConfigError: a value is wrong.
    """
    need = cfg.need
    latency_ms = cfg.budget_ms if need.latency_ms is None else need.latency_ms
    documents, lengths = _corpus_facts(cfg)
    candidates = documents if need.candidates is None and documents < USUAL_CANDIDATES else need.candidates
    return Need(
        latency_ms=latency_ms,
        candidates=candidates,
        language=_language(str(cfg.corpus.language if need.language == "auto" else need.language)),
        priority=need.priority.name,
        device=need.device.name,
        lengths=lengths,
        allow=_allowed(plain(need.allow)),
        documents=max(documents, candidates or 0),
    )


def _corpus_facts(cfg: DictConfig) -> tuple[int, Lengths]:
    """How many documents the corpus has, and how long those found are: as told, as counted, or as estimated."""
    root, doc_tokens = storage_root(cfg), cfg.need.doc_tokens
    if doc_tokens is not None and doc_tokens < 1:
        raise ConfigError("need.doc_tokens", f"found {doc_tokens}; expected 1 or more, or null")
    # Opening reads a new corpus into the store, as any run over it would.
    corpus = open_corpus(build_corpus(cfg), root)
    try:
        if doc_tokens is not None:
            return len(corpus), Lengths.even(doc_tokens=doc_tokens)
        counted = corpus_figures(root, corpus.key)
        return len(corpus), counted.lengths if counted else estimated_lengths(corpus.documents())
    finally:
        corpus.close()


def _language(code: str) -> str:
    code = _WORDS_FOR.get(code.lower(), code.lower().replace("_", "-"))
    if code == MIXED:
        return code
    try:
        analyzer(code)
    except ConfigError as error:
        raise ConfigError("need.language", f"{error.detail} Or auto, {MIXED} (both in one), multilingual.") from None
    return code.split("-")[0]


def _allowed(allow: object) -> frozenset[str]:
    """What may be used; a model hub that is switched off on this machine may not."""
    if isinstance(allow, str):
        allow = [allow]
    if allow is not None and not isinstance(allow, list):
        raise ConfigError("need.allow", f"found {allow!r}; expected a list such as [hub,api]")
    words = frozenset(map(str, allow or ()))
    return words - {"hub"} if is_hub_off() else words


def _catalogue(cfg: DictConfig, overrides: Sequence[str]) -> Catalogue:
    root = storage_root(cfg)
    models = {name: _info(name, card, root) for name, card in model_cards().items()}
    fixed: dict[Slot, ModelInfo] = {}
    slots: tuple[Slot, ...] = ("embedder", "reranker")
    for slot in slots:
        if any(word.lstrip("+").startswith((f"model@models.{slot}=", f"models.{slot}.")) for word in overrides):
            card = plain(cfg.models[slot])
            fixed[slot] = _info(str(card.get("path") or card.get("name") or slot), card, root)
    return Catalogue(models, fixed)


def _info(name: str, card: Mapping[str, Any], root: object) -> ModelInfo:
    keys = {field.name for field in dataclasses.fields(Model)} & set(card)
    known = {key: card[key] for key in keys if card[key] not in (None, "???")}
    findable = any(key in known for key in ("name", "path", "package"))
    return ModelInfo(
        name,
        tuple(map(str, card.get("languages") or ())),
        card.get("parameters_millions"),
        card.get("max_length_tokens"),
        findable and is_local(model := Model(**{**known, "storage_root": root}), graph=takes_graph(model.role)),
    )


def scenario_yaml(decision: Decision) -> str:
    """The choice as a scenario file of one's own, which does what the command does."""
    defaults: list[str] = []
    values: dict[str, Any] = {}
    head = ["# @package _global_", "# orchestrate --config-dir my_conf +scenario=mine"]
    for word in decision.choice.overrides:
        key, _, value = word.lstrip("+").partition("=")
        if word.startswith("~"):
            head.append(f"# a file cannot take a stage away; on the command line: '{word}'")
        elif key == "scenario":
            defaults.insert(0, f"  - {value}")
        elif "." in key.partition("@")[0] or key == "budget_ms":
            _put(values, key.split("."), value)
        else:
            defaults.append(f"  - override /{key}: {value}")
    return "\n".join([*head, "defaults:", *defaults, *_lines(values)]) + "\n"


def _put(values: dict[str, Any], keys: Sequence[str], value: str) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
    values[keys[-1]] = value


def _lines(values: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {value}")
    return lines
