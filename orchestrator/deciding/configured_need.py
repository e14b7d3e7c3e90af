"""From a configuration to what a decision starts from: the need, the corpus, and the models there are."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.analysis import analyzer
from orchestrator.config.corpus import build_corpus
from orchestrator.config.job import card_names, model_cards, plain
from orchestrator.config.objects import target_of
from orchestrator.config.places import storage_root
from orchestrator.corpora.corpus import DiskCorpus, open_corpus
from orchestrator.corpora.judgements import split_name, topic_files, topics_hash
from orchestrator.costs.cost import SETTINGS, ModelInfo
from orchestrator.costs.lengths import Lengths
from orchestrator.costs.use import corpus_figures, estimated_lengths
from orchestrator.deciding.need import USUAL_CANDIDATES, Catalogue, Need
from orchestrator.deciding.own_evaluations import CorpusFacts
from orchestrator.deciding.rules import Slot
from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.languages import MIXED, UNDETERMINED
from orchestrator.models import Model, is_hub_off, is_local, takes_graph
from orchestrator.stack.stage_marks import model_label
from orchestrator.stage import is_remote

if TYPE_CHECKING:
    from omegaconf import DictConfig

_WORDS_FOR = {"multilingual": UNDETERMINED, "many": UNDETERMINED, "mixed": MIXED}


def need_of(cfg: DictConfig, corpus: CorpusFacts) -> Need:
    """`cfg.need` with its blanks filled: from the corpus, from budget_ms, and from what this machine may reach.

    Args:
        cfg: a composed configuration.
        corpus: what is known of the corpus.

    Raises:
        ConfigError: a value is wrong.
    """
    need = cfg.need
    latency_ms = cfg.budget_ms if need.latency_ms is None else need.latency_ms
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
        documents=documents,
    )


def corpus_facts_of(cfg: DictConfig, query_tokens: int) -> CorpusFacts:
    """What a decision needs to know of the corpus; a new one is read into the store, as by any run over it.

    Args:
        cfg: a composed configuration.
        query_tokens: of a question, where nobody counted.

    Raises:
        ConfigError: need.doc_tokens is no length, or the corpus is not there.
    """
    corpus = open_corpus(build_corpus(cfg), storage_root(cfg))
    try:
        lengths, split, topics = _lengths(cfg, corpus, query_tokens), "", ""
        with contextlib.suppress(OrchestratorError, OSError):  # without questions there is no evaluation of it either
            split = split_name(corpus.spec, corpus.source)
            topics = topics_hash(topic_files(corpus.spec, corpus.source))
        return CorpusFacts(corpus.key, corpus.content_hash, len(corpus), split, lengths, topics)
    finally:
        corpus.close()


def _lengths(cfg: DictConfig, corpus: DiskCorpus, query_tokens: int) -> Lengths:
    """How long the documents that are found are: as told, as counted, or as estimated."""
    told = cfg.need.doc_tokens
    if told is not None and told < 1:
        raise ConfigError("need.doc_tokens", f"found {told}; expected 1 or more, or null")
    if told is not None:
        return Lengths.even(query_tokens, told)
    counted = corpus_figures(storage_root(cfg), corpus.key, corpus.content_hash)
    return counted.lengths if counted else estimated_lengths(corpus.documents(), query_tokens)


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


def catalogue_of(cfg: DictConfig, overrides: Sequence[str]) -> Catalogue:
    """The models there are, and those that `overrides` have set, each under the name that the figures call it by."""
    root = storage_root(cfg)
    cards = model_cards()
    names = card_names(cards)
    models = {name: _info(name, card, root) for name, card in cards.items()}
    labels = {name: model_label(card) for name, card in cards.items()}
    fixed: dict[Slot, ModelInfo] = {}
    slots: tuple[Slot, ...] = ("embedder", "reranker")
    for slot in slots:
        if any(_chooses(word, slot) for word in overrides):
            card = plain(cfg.models[slot])
            fixed[slot] = _info(_name(card, names) or slot, card, root)
            labels[fixed[slot].name] = model_label(card)
    tokens = plain(cfg.models.get("multi_vector"))
    encoder = _info(_name(tokens, names) or "multi_vector", tokens, root) if isinstance(tokens, dict) else None
    return Catalogue(models, fixed, labels, encoder)


def _chooses(word: str, slot: Slot) -> bool:
    """Whether a word of the command line says which model stands in a slot, not only how it runs."""
    key = word.lstrip("+").partition("=")[0]
    prefix = f"models.{slot}."
    return key == f"model@models.{slot}" or (key.startswith(prefix) and key.removeprefix(prefix) not in SETTINGS)


def _name(card: Mapping[str, Any], names: Mapping[str, str]) -> str | None:
    """As `known_as` has it: the folder, where there is one; else the card of that model; else its name on the hub."""
    path, name = (None if card.get(key) in (None, "???") else str(card[key]) for key in ("path", "name"))
    return path or (None if name is None else names.get(name, name))


def _info(name: str, card: Mapping[str, Any], root: object) -> ModelInfo:
    keys = {field.name for field in dataclasses.fields(Model)} & set(card)
    known = {key: card[key] for key in keys if card[key] not in (None, "???")}
    findable, remote = any(key in known for key in ("name", "path", "package")), _is_remote(card)
    languages, size, length = (card.get(key) for key in ("languages", "parameters_millions", "max_length_tokens"))
    is_here = findable and not remote and _is_here(Model(**{**known, "storage_root": root}))
    return ModelInfo(name, tuple(map(str, languages or ())), size, length, is_here, remote)


def _is_here(model: Model) -> bool:
    return is_local(model, graph=takes_graph(model.role))


def _is_remote(card: Mapping[str, Any]) -> bool:
    """Whether the class of a card says that it asks somebody else's machine; one that is not there says nothing."""
    with contextlib.suppress(ConfigError):  # of a card that may never be used; where it is, building it tells
        return "_target_" in card and is_remote(target_of("models", card["_target_"]))
    return False
