"""What models need: their files, keys and libraries on this machine, training, and the language of the questions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.graph import Node, StageGraph
from orchestrator.languages import MIXED
from orchestrator.lint.facts import Facts, distinct_parts
from orchestrator.lint.finding import Finding, lacks


def findings(graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """Keys, files, libraries and trained models that are not here; models of another language."""
    for path, part in distinct_parts(graph).items():
        yield from _key(path, part)
        yield from _libraries(path, part, facts)
        yield from _files(path, part, facts)
    for node in graph.nodes:
        if node.name in facts.untrained:
            yield Finding(f"{node.path}.use", facts.untrained[node.name], "missing")
        yield from _wrong_language(node, facts)


def _key(path: str, part: object) -> Iterator[Finding]:
    missing = getattr(part, "key_missing", None)
    if missing:
        yield Finding(f"{path}.api_key", str(missing), "missing")


def _libraries(path: str, part: object, facts: Facts) -> Iterator[Finding]:
    for module, extra in getattr(part, "optional_modules", {}).items():
        if not facts.is_installed(module):
            yield Finding(path, lacks(module, extra), "missing")


def _files(path: str, part: object, facts: Facts) -> Iterator[Finding]:
    at_hand, card = getattr(part, "at_hand", None), getattr(part, "model", None)
    if at_hand is None or card is None:
        return
    key = f"models.{card.role}.path"
    if card.path is not None:
        folder = Path(card.path).expanduser()
        if not folder.is_dir():
            found = "a file" if folder.exists() else "no such folder"
            yield Finding(path, f"{key} is {card.path}: {found}. Expected a folder with the model's files", "missing")
    elif facts.is_hub_off and not at_hand():
        yield Finding(
            path,
            f"{card.label} is not on this machine, and the model hub is switched off (HF_HUB_OFFLINE). Choices: fetch "
            f"it once with the hub on (orchestrate index), a folder of yours ({key}=DIR), or another model",
            "missing",
        )


def _wrong_language(node: Node, facts: Facts) -> Iterator[Finding]:
    owner = getattr(node.stage, "embedder", node.stage)
    known = tuple(getattr(owner, "languages", ()))
    if not known or "multilingual" in known:
        return
    if node.when.languages:
        unknown = [code for code in node.when.languages if code not in known]
        if unknown:
            found = f"lets questions in {', '.join(unknown)} through, which its model does not know: {', '.join(known)}"
            yield Finding(f"{node.path}.when.languages", f"{found}. {_choice()}")
        return
    language = facts.language
    own = {"zh", "en"} if language == MIXED else {language.split("-")[0]}
    if not own <= {*known, *node.when.not_languages}:
        yield Finding(
            f"{node.path}.use",
            f"its model knows {', '.join(known)}, the corpus is '{language}' (corpus.language). {_choice()}",
        )


def _choice() -> str:
    return (
        "Choose a model for that language or a multilingual one, for example "
        "model@models.reranker=bge_reranker_v2_m3 or model@models.embedder=bge_m3"
    )
