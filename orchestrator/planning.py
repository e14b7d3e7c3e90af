"""From a configuration to a decision, and from a decision to a configuration that runs."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.analysis import analyzer
from orchestrator.build import build_corpus, model_cards, plain, resolve_language, storage_root
from orchestrator.calibration.kept import read as read_calibration
from orchestrator.calibration.use import corpus_figures, estimated_lengths, measured_here
from orchestrator.corpus import DiskCorpus, open_corpus
from orchestrator.cost import CostModel, ModelInfo
from orchestrator.decide import Choice, Decision, decide
from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.judgements import split_name
from orchestrator.languages import MIXED, UNDETERMINED
from orchestrator.lengths import Lengths
from orchestrator.models import Model, is_hub_off, is_local, takes_graph
from orchestrator.need import USUAL_CANDIDATES, Catalogue, Need
from orchestrator.own_evaluations import CorpusFacts, own_of
from orchestrator.rules import Rules, Slot
from orchestrator.stage_marks import model_label
from orchestrator.words import quote, stack_words

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
    corpus = corpus_facts_of(cfg)
    need = need_of(cfg, corpus)
    rules, catalogue = Rules.of(plain(cfg.decision)), _catalogue(cfg, words)
    kept = [word for word in words if _root(word) not in _NOT_OF_THE_STACK]
    path = _search_path(flags)
    own = own_of(rules, catalogue, corpus, storage_root(cfg), [*path, *kept], str(cfg.corpus.language))
    decision = decide(need, rules, _costs(cfg, corpus.key), catalogue, own)
    made = [*decision.choice.overrides, *_fastest(decision, storage_root(cfg)), *_settings(need, cfg)]
    keys = {_key(word) for word in kept}
    overrides = (*(word for word in made if _key(word) not in keys), *kept)
    choice = dataclasses.replace(decision.choice, overrides=overrides, flags=tuple(flags))
    if choice.expected.own is None:
        choice = dataclasses.replace(choice, reasons=(*choice.reasons, _unmeasured(choice, corpus)))
    return dataclasses.replace(decision, choice=choice)


def _unmeasured(choice: Choice, corpus: CorpusFacts) -> str:
    """That the choice was not measured on these documents, and what would."""
    if not corpus.split:
        return "it was not measured on your documents: that takes judged questions (corpus.queries, corpus.qrels)"
    command = shlex.join(["orchestrate", "evaluate", *choice.flags, *stack_words(choice.overrides)])
    return f"it was not measured on your documents; what this finds would weigh more: {command}"


def _fastest(decision: Decision, root: Path) -> Iterator[str]:
    """How the models of the choice run fastest on this machine, where that is not as they are shipped."""
    chosen = next(one.option for one in decision.candidates if one.is_choice)
    measured = read_calibration(root)
    if chosen is None or measured is None:
        return
    readers = [stage.name for stage in chosen.stack.stages if stage.kind == "cross_encoder"]
    places = {"embedder": "models.embedder", "reranker": f"pipeline.stages.{''.join(readers[-1:])}.use"}
    for setting in measured.settings:
        model = next((model for slot, model in chosen.models.items() if slot == setting.part), None)
        if model is not None and model.name == setting.model:
            yield from (f"{places[setting.part]}.{key}={value}" for key, value in setting.values.items())


def _costs(cfg: DictConfig, corpus: str) -> CostModel:
    """By what was measured on this machine, for the corpus of that key too, and by `cfg.cost` for the rest."""
    return measured_here(CostModel.of(plain(cfg.cost)), storage_root(cfg), corpus)


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


def need_of(cfg: DictConfig, corpus: CorpusFacts | None = None) -> Need:
    """`cfg.need` with its blanks filled: from the corpus, from budget_ms, and from what this machine may reach.

    Args:
        cfg: a composed configuration.
        corpus: what is known of the corpus; None looks.

    Raises:
        ConfigError: a value is wrong.
    """
    need = cfg.need
    latency_ms = cfg.budget_ms if need.latency_ms is None else need.latency_ms
    corpus = corpus_facts_of(cfg) if corpus is None else corpus
    documents = corpus.n_documents
    candidates = documents if need.candidates is None and documents < USUAL_CANDIDATES else need.candidates
    return Need(
        latency_ms=latency_ms,
        candidates=candidates,
        language=_language(str(cfg.corpus.language if need.language == "auto" else need.language)),
        priority=need.priority.name,
        device=need.device.name,
        lengths=corpus.lengths,
        allow=_allowed(plain(need.allow)),
        documents=max(documents, candidates or 0),
    )


def corpus_facts_of(cfg: DictConfig) -> CorpusFacts:
    """What a decision needs to know of the corpus; a new one is read into the store, as by any run over it.

    Raises:
        ConfigError: need.doc_tokens is no length, or the corpus is not there.
    """
    corpus = open_corpus(build_corpus(cfg), storage_root(cfg))
    try:
        lengths, split = _lengths(cfg, corpus), ""
        with contextlib.suppress(OrchestratorError):  # without questions there is no evaluation of it either
            split = split_name(corpus.spec, corpus.source)
        return CorpusFacts(corpus.key, corpus.content_hash, len(corpus), split, lengths)
    finally:
        corpus.close()


def _lengths(cfg: DictConfig, corpus: DiskCorpus) -> Lengths:
    """How long the documents that are found are: as told, as counted, or as estimated."""
    told = cfg.need.doc_tokens
    if told is not None and told < 1:
        raise ConfigError("need.doc_tokens", f"found {told}; expected 1 or more, or null")
    if told is not None:
        return Lengths.even(doc_tokens=told)
    counted = corpus_figures(storage_root(cfg), corpus.key)
    return counted.lengths if counted else estimated_lengths(corpus.documents())


def _search_path(flags: Sequence[str]) -> list[str]:
    folders = [after for flag, after in itertools.pairwise(flags) if flag == "--config-dir"]
    found = ",".join(quote(f"file://{Path(folder).resolve()}") for folder in folders)
    return [f"hydra.searchpath=[{found}]"] if folders else []


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
    cards = model_cards()
    models = {name: _info(name, card, root) for name, card in cards.items()}
    labels = {name: model_label(card) for name, card in cards.items()}
    fixed: dict[Slot, ModelInfo] = {}
    slots: tuple[Slot, ...] = ("embedder", "reranker")
    for slot in slots:
        if any(word.lstrip("+").startswith((f"model@models.{slot}=", f"models.{slot}.")) for word in overrides):
            card = plain(cfg.models[slot])
            fixed[slot] = _info(str(card.get("path") or card.get("name") or slot), card, root)
            labels[fixed[slot].name] = model_label(card)
    return Catalogue(models, fixed, labels)


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
