"""The documents: whether they are there, how many, and what they hold, as far as the store tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.errors import did_you_mean
from orchestrator.lint.facts import Facts
from orchestrator.lint.finding import Finding, lacks
from orchestrator.stack.graph import Node, StageGraph

_SHOWN_FIELDS = 12


def findings(graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """A corpus that is not there, recalls it is too large for, fields that no document has, filters that leak."""
    yield from _not_there(facts)
    for node in graph.nodes:
        yield from _too_large(node, facts)
        yield from _no_such_field(node, facts)
        yield from _filter_leaks(node, graph)


def _not_there(facts: Facts) -> Iterator[Finding]:
    if facts.corpus.problem is not None:
        yield Finding(*facts.corpus.problem, "missing")
    for module, extra in facts.corpus.needs.items():
        if not facts.is_installed(module):
            yield Finding("corpus", f"reading it {lacks(module, extra)}", "missing")


def _too_large(node: Node, facts: Facts) -> Iterator[Finding]:
    suits, size = getattr(node.stage, "suits_documents", None), facts.corpus.n_documents
    if suits is not None and size is not None and size > suits:
        yield Finding(
            f"{node.path}.use",
            f"compares each question with each of {size:,} documents, and is meant for up to {suits:,}. Expected a "
            f"server with a graph index: {node.path}.use.url=http://localhost:6333",
        )


def _no_such_field(node: Node, facts: Facts) -> Iterator[Finding]:
    sample = facts.corpus.payload
    if not sample:
        return
    for key, field in getattr(node.stage, "payload_fields", {}).items():
        if not any(_has(metadata, field) for metadata in sample):
            names = sorted({name for metadata in sample for name in metadata})
            shown = ", ".join(names[:_SHOWN_FIELDS]) + (", ..." if len(names) > _SHOWN_FIELDS else "")
            yield Finding(
                f"{node.path}.use.{key}",
                f"no document has a field '{field}', of a sample of {len(sample)}; fields: {shown or 'none'}."
                f"{did_you_mean(field, names)}",
            )


def _has(metadata: Mapping[str, object], field: str) -> bool:
    """Whether a payload has a value at a field, or at a dotted path, through lists too."""
    if metadata.get(field) is not None:
        return True
    first, _, rest = field.partition(".")
    below = metadata.get(first)
    held = below if isinstance(below, list) else [below]
    return bool(rest) and any(isinstance(one, Mapping) and _has(one, rest) for one in held)


def _filter_leaks(node: Node, graph: StageGraph) -> Iterator[Finding]:
    if node.kind != "fusion":
        return
    recalls = {name: graph[name] for name in graph.ancestors(node.name) if graph[name].kind == "recall"}
    filtered = [name for name, recall in recalls.items() if getattr(recall.stage, "filter", None)]
    for name in recalls.keys() - set(filtered) if filtered else ():
        yield Finding(
            graph[name].path,
            f"brings documents that the filter of '{filtered[0]}' leaves out: '{node.name}' merges both. A filter that "
            f"must hold for every result needs a pipeline in which each recall has it",
        )
