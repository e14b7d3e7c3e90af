"""What models need: their files, keys and libraries on this machine, and training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.lint.facts import Facts, distinct_parts, fallbacks, parts
from orchestrator.lint.finding import Finding, lacks
from orchestrator.stack.gate_languages import shown_languages
from orchestrator.stack.graph import Node, StageGraph


def findings(graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """Keys, files, libraries and trained models that are not here."""
    for path, part in distinct_parts(graph).items():
        yield from _key(path, part)
        yield from _libraries(path, part, facts)
        yield from _files(path, part, facts, _needed_for(part, graph))
    for node in graph.nodes:
        if node.name in facts.untrained:
            yield Finding(f"{node.path}.use", facts.untrained[node.name], "missing")


def _key(path: str, part: object) -> Iterator[Finding]:
    missing = getattr(part, "key_missing", None)
    if missing:
        yield Finding(f"{path}.api_key", str(missing), "missing")


def _libraries(path: str, part: object, facts: Facts) -> Iterator[Finding]:
    for module, extra in getattr(part, "optional_modules", {}).items():
        if not facts.is_installed(module):
            yield Finding(path, lacks(module, extra), "missing")


def _needed_for(part: object, graph: StageGraph) -> str:
    """`, which questions in zh need,`, where every stage that holds `part` asks for the language of a question."""
    gates = [node.when for node in graph.nodes if any(one is part for one in _held(node))]
    if not all(gate.asked for gate in gates):
        return ""
    return f", which questions in {shown_languages(frozenset[str]().union(*(gate.languages for gate in gates)))} need,"


def _held(node: Node) -> list[object]:
    return [*parts(node).values(), *(stand_in for _, stand_in in fallbacks(node))]


def _files(path: str, part: object, facts: Facts, needed_for: str) -> Iterator[Finding]:
    at_hand, card = getattr(part, "at_hand", None), getattr(part, "model", None)
    if at_hand is None or card is None:
        return
    key = f"{card.key}.path"
    if card.path is not None:
        folder = Path(card.path).expanduser()
        if not folder.is_dir():
            found = "a file" if folder.exists() else "no such folder"
            what = f"{key} is {card.path}{needed_for.rstrip(',')}"
            yield Finding(path, f"{what}: {found}. Expected a folder with the model's files", "missing")
    elif facts.is_hub_off and not at_hand():
        yield Finding(
            path,
            f"{card.label}{needed_for} is not on this machine, and the model hub is switched off (HF_HUB_OFFLINE). "
            f"Choices: fetch it once with the hub on (orchestrate index), a folder of yours ({key}=DIR), or another "
            "model",
            "missing",
        )
