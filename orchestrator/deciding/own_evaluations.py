"""Own evaluations for a decision: reads what was kept of a corpus, and finds the stacks of the rules in it."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.config.job import composed
from orchestrator.costs.lengths import Lengths
from orchestrator.deciding.evidence import NONE, Own, StackKey
from orchestrator.deciding.need import Catalogue
from orchestrator.deciding.own_results import Asked, kinds_of, own_results, usable
from orchestrator.deciding.rules import RECALL_KINDS, Rules, Slot, StackRule
from orchestrator.kept.kept_evaluations import EvaluationRecord, KeptEvaluations
from orchestrator.stack.stage_marks import stage_marks


@dataclass(frozen=True, slots=True)
class CorpusFacts:
    """What a decision needs to know of a corpus.

    Attributes:
        key: as folders are named by it.
        content_hash: of its documents.
        n_documents: how many they are.
        split: name of the judgements that are read; empty where nothing is judged.
        lengths: of questions and of the documents found for them.
        topics: hash of the questions and judgements; empty where nothing is judged.
    """

    key: str
    content_hash: str
    n_documents: int
    split: str = ""
    lengths: Lengths = field(default_factory=Lengths.even)
    topics: str = ""


Evaluates = Callable[[Sequence[str]], str]
"""The command that evaluates the stack of some words, over the same corpus and with all else that was set."""


def own_of(
    rules: Rules,
    catalogue: Catalogue,
    corpus: CorpusFacts,
    root: Path,
    words: Sequence[str],
    language: str,
    evaluates: Evaluates,
) -> Own:
    """What own evaluations of `corpus` say of the stacks of `rules`.

    Args:
        rules: the table.
        catalogue: the models that may stand in.
        corpus: whose evaluations.
        root: where state lives.
        words: of the command line, that every stack is run with.
        language: of the corpus, where `words` say auto.
        evaluates: for what is missing.
    """
    kept = KeptEvaluations(root, corpus.key).read()
    if not kept:
        return NONE
    records, notes = usable(kept, corpus.content_hash, corpus.split, corpus.topics)
    if not records:
        return Own(notes=tuple(notes))
    marks = dict(_all_marks(rules, catalogue, records, words, language))
    references = {key[1]: mark for key, mark in marks.items() if key[0] == rules.gains.reference}
    gains, facts = rules.gains, (corpus.content_hash, corpus.split, platform.node())
    commands = dict(_commands(rules, catalogue, evaluates))
    asked = Asked(*facts, marks, references, gains.reference, gains.least_queries, commands)
    return own_results(records, asked, notes)


def _commands(rules: Rules, catalogue: Catalogue, evaluates: Evaluates) -> Iterator[tuple[str | None, str]]:
    """Embedder -> the command that evaluates the reference with it; None -> with the one that is configured."""
    reference = next(stack for stack in rules.stacks if stack.name == rules.gains.reference)
    yield None, evaluates(reference.overrides)
    if "embedder" in reference.slots and "embedder" not in catalogue.fixed:
        for name in _names("embedder", rules, catalogue):
            yield name, evaluates([*reference.overrides, f"model@models.embedder={name}"])


def _all_marks(
    rules: Rules, catalogue: Catalogue, records: Sequence[EvaluationRecord], words: Sequence[str], language: str
) -> Iterator[tuple[StackKey, str]]:
    """Stack with certain models -> mark of its last stage, of stacks that may be among the records."""
    seen = kinds_of(records)
    for stack in rules.stacks:
        if tuple(sorted(stage.kind for stage in stack.stages)) in seen:
            config = composed([*stack.overrides, *words])  # some 0.1 s: of stacks that were evaluated alone
            if config is None or {stage.name for stage in stack.stages} != set(config["pipeline"]["stages"]):
                continue
            if config["corpus"]["language"] == "auto":
                config["corpus"]["language"] = language
            yield from _marks(stack, config, rules, catalogue)


def _marks(
    stack: StackRule, config: Mapping[str, Any], rules: Rules, catalogue: Catalogue
) -> Iterator[tuple[StackKey, str]]:
    inputs = _inputs(stack, config)
    for chosen in itertools.product(*(_names(slot, rules, catalogue) for slot in stack.slots)):
        models: dict[str, str] = dict(zip(stack.slots, chosen, strict=True))
        labels = {slot: catalogue.labels.get(name, name) for slot, name in models.items()}
        mark = stage_marks(config, inputs, labels)[stack.stages[-1].name]
        yield (stack.name, models.get("embedder"), models.get("reranker")), mark


def _names(slot: Slot, rules: Rules, catalogue: Catalogue) -> list[str]:
    """Every model that the rules may put into a slot."""
    if slot in catalogue.fixed:
        return [catalogue.fixed[slot].name]
    named = itertools.chain.from_iterable(row.models(slot) for row in rules.languages.values())
    return [name for name in dict.fromkeys(named) if name in catalogue.models]


def _inputs(stack: StackRule, config: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Stage -> the stages it reads: those it names, for a rerank that names none the one above it."""
    inputs: dict[str, tuple[str, ...]] = {}
    above = ""
    for stage in stack.stages:
        given = tuple(config["pipeline"]["stages"][stage.name].get("inputs") or ())
        inputs[stage.name] = given or (() if stage.kind in RECALL_KINDS else (above,))
        above = stage.name
    return inputs
