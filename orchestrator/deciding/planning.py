"""From a configuration to a decision, and from a decision to a configuration that runs."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.corpus import resolve_language
from orchestrator.config.job import plain
from orchestrator.config.places import storage_root
from orchestrator.config.words import search_path, stack_words
from orchestrator.costs.cost import CostModel
from orchestrator.costs.kept import read as read_calibration
from orchestrator.costs.use import measured_here
from orchestrator.deciding.configured_need import catalogue_of, corpus_facts_of, need_of
from orchestrator.deciding.decide import Decision, decide
from orchestrator.deciding.need import Need
from orchestrator.deciding.own_evaluations import CorpusFacts, own_of
from orchestrator.deciding.rules import Rules
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_NOT_OF_THE_STACK = frozenset({"scenario", "task", "need", "decision", "cost", "query", "format", "log", "hydra"})


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
    reference, root = CostModel.of(plain(cfg.cost)), storage_root(cfg)
    corpus = corpus_facts_of(cfg, reference.query_tokens)
    need = need_of(cfg, corpus)
    rules, catalogue = Rules.of(plain(cfg.decision)), catalogue_of(cfg, words)
    cost = measured_here(reference, root, corpus.key, corpus.content_hash)
    kept = [word for word in words if _root(word) not in _NOT_OF_THE_STACK]
    said = [*_without(_settings(need, cfg), kept), *kept]
    evaluates = partial(_evaluation, flags, said)
    composed_with = [*_search_path(flags), *said]
    own = own_of(rules, catalogue, corpus, root, composed_with, str(cfg.corpus.language), evaluates)
    decision = decide(need, rules, cost, catalogue, own)
    made = [*_without(decision.choice.overrides, kept)]
    embedder = plain(cfg.models.embedder) if "embedder" in catalogue.fixed else None
    overrides = (*made, *_without(_fastest(decision, root, need.device, embedder), [*made, *kept]), *said)
    choice = dataclasses.replace(decision.choice, overrides=overrides, flags=tuple(flags))
    if choice.expected.own is None:
        choice = dataclasses.replace(choice, reasons=(*choice.reasons, _unmeasured(overrides, corpus, flags)))
    return dataclasses.replace(decision, choice=choice)


def decided(words: Sequence[str], decision: Decision) -> list[str]:
    """The overrides of a run that makes the decision: its own in the place of `+scenario=auto`, and all others."""
    rest = [word for word in words if word not in decision.choice.overrides and _key(word) != "scenario"]
    return [*rest, *decision.choice.overrides]


def _unmeasured(overrides: Sequence[str], corpus: CorpusFacts, flags: Sequence[str]) -> str:
    """That the choice was not measured on these documents, and what would."""
    if not corpus.split:
        return "it was not measured on your documents: that takes judged questions (corpus.queries, corpus.qrels)"
    command = _evaluation(flags, (), overrides)
    return f"it was not measured on your documents; what this finds would weigh more: {command}"


def _evaluation(flags: Sequence[str], said: Sequence[str], stack: Sequence[str]) -> str:
    """The command that evaluates a stack on the judgements, and with all else, that this decision goes by."""
    words = [*_without(stack, said), *said]
    split = [word for word in words if _key(word) == "corpus.split"]
    return shlex.join(["orchestrate", "evaluate", *flags, *stack_words(words), *split])


def _fastest(decision: Decision, root: Path, device: str, embedder: Mapping[str, Any] | None) -> Iterator[str]:
    """How the models of the choice run fastest on this machine's CPU, where that is not as they are configured.

    `embedder` is the card that the user has set; one of their own need not have a key for everything.
    """
    chosen = next(one.option for one in decision.candidates if one.is_choice)
    measured = read_calibration(root)
    if chosen is None or measured is None:
        return
    readers = [stage.name for stage in chosen.stack.stages if stage.kind == "cross_encoder"]
    places = {"embedder": "models.embedder"}
    if device == "cpu":  # the one stage that runs on a GPU where there is one
        places["reranker"] = f"pipeline.stages.{''.join(readers[-1:])}.use"
    for setting in measured.settings:
        model = next((model for slot, model in chosen.models.items() if slot == setting.part), None)
        if model is not None and model.name == setting.model and setting.part in places:
            card = embedder if setting.part == "embedder" else None
            for key, value in setting.values.items():
                added = "" if card is None or key in card else "++"
                yield f"{added}{places[setting.part]}.{key}={value}"


def _settings(need: Need, cfg: DictConfig) -> Iterator[str]:
    # Without a limit none holds, whatever the scenario itself would set.
    yield "budget_ms=null" if need.latency_ms is None else f"budget_ms={need.latency_ms:g}"
    if need.language.split("-")[0] != str(cfg.corpus.language).split("-")[0]:
        yield f"corpus.language={need.language}"


def _without(words: Iterable[str], others: Sequence[str]) -> list[str]:
    """Those of `words` that set nothing that `others` set."""
    keys = {_key(word) for word in others}
    return [word for word in words if _key(word) not in keys]


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _root(word: str) -> str:
    return re.split(r"[.@/]", _key(word), maxsplit=1)[0]


def _search_path(flags: Sequence[str]) -> list[str]:
    return search_path((Path(after) for flag, after in itertools.pairwise(flags) if flag == "--config-dir"), flags)
