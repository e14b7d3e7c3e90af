"""What the answer of a stage depends on beside the question and its inputs, as one key; known once it is loaded.

The inputs of a stage go into a key by what stands in them, not by how they came about: two ways that lead to the same
candidates lead to the same results, and a gate or a cut before a stage needs no part in its key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from orchestrator.keys import as_bytes, digest, packed
from orchestrator.running.code_version import code_version
from orchestrator.running.scoring import identity
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stage import Json, Trainable
from orchestrator.storage import stable_hash
from orchestrator.types import Query, RankedList

_FORMAT = 1
"""Raised when results are made, or kept, in another way: those of before are then no longer used."""
_PARTS = ("embedder", "encoder")
"""Attributes of a stage that hold a model."""


def stage_key(node: Node, graph: StageGraph, corpus: str, generation: str | None) -> str | None:
    """Names all of that; None for a stage whose results are not to be kept.

    These are: those of a stage that was built in Python, whose arguments nobody can read; those on somebody else's
    machine, unless their scores are kept; those that are told not to be (`cache: off`); and those that say themselves
    that they depend on more than can be named (`depends_on`), or whose code cannot be found.

    Args:
        node: a stage that is loaded, its model and its index open.
        graph: the whole pipeline.
        corpus: hash of its content.
        generation: of the stage's index, where it has one.
    """
    if node.settings is None or node.cache == "off" or (node.is_remote and identity(node) is None):
        return None
    depends_on = getattr(node.stage, "depends_on", {})
    codes = _codes(node)
    if depends_on is None or codes is None:
        return None
    facts: dict[str, Json] = {
        "format": _FORMAT,
        "inputs": list(node.inputs),
        "use": node.settings,
        "code": codes,
        "models": _models(node),
        "score_kind": node.stage.score_kind,
        "passages": asdict(node.passages),
        "top_k": node.top_k if node.kind == "recall" else None,
        "sees": list(graph.sources(node.name)) if isinstance(node.stage, Trainable) else None,
        "corpus": corpus,
        "index": generation,
        "depends_on": depends_on,
    }
    return stable_hash(facts, length=32)


def result_key(node: Node, key: str, query: Query, inputs: Mapping[str, RankedList], together: bytes) -> bytes:
    """The 16-byte key of what one stage makes of one question.

    Args:
        node: the stage.
        key: its own, as `stage_key` gives it.
        query: the question; another id is another question, since a stage may know it.
        inputs: what it is given.
        together: of the questions that are embedded together: a vector's last digits may depend on them. Counts only
            for stages that need vectors.
    """
    asked = [as_bytes(text) for text in (query.query_id, query.text, query.language or "")]
    batch = together if "vectors" in node.needs else b""
    only_ids = node.behaviour in ("pointwise", "window")  # documents are all that these see of their candidates
    lists = [packed(as_bytes(name), _content(ranked, only_ids=only_ids)) for name, ranked in inputs.items()]
    return digest(packed(as_bytes(key), *asked, batch, *lists))


def batch_key(queries: Sequence[Query]) -> bytes:
    """Of questions that are embedded together."""
    return digest(packed(*(as_bytes(query.text) for query in queries)))


def _content(ranked: RankedList, *, only_ids: bool) -> bytes:
    """A list as bytes: equal where a stage cannot tell two lists apart."""
    ids = packed(*map(as_bytes, ranked.doc_ids))
    if only_ids:
        return ids
    shape = f"{ranked.score_kind} {ranked.n_scored} {ranked.tail}".encode()
    columns = [part for name, column in ranked.stage_scores.items() for part in (as_bytes(name), column.tobytes())]
    return packed(ids, ranked.scores.tobytes(), shape, *columns)


def _codes(node: Node) -> list[str] | None:
    kind = type(node.stage)
    if "<locals>" in kind.__qualname__:  # made by a function: what that put into it cannot be told
        return None
    names = {f"{kind.__module__}.{kind.__qualname__}", *_targets(node.settings)}
    found = [code_version(name) for name in sorted(names)]
    return None if None in found else [code for code in found if code is not None]


def _targets(value: Json) -> Iterator[str]:
    """Every class or function that a configuration names."""
    if isinstance(value, Mapping):
        target = value.get("_target_")
        if isinstance(target, str):
            yield target
        for child in value.values():
            yield from _targets(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _targets(child)


def _models(node: Node) -> list[Json]:
    """Digests of the models of a stage: its own and those that it holds."""
    owners = [node.stage, *(getattr(node.stage, part, None) for part in _PARTS)]
    return [getattr(owner, "model_id", None) for owner in owners]
