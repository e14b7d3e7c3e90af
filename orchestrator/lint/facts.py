"""What the lint goes by beside the graph: corpus, machine, budget, and what stages cost. Plain data and functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Protocol

from orchestrator.costs.cost import NOTHING, Predicted
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stack.routes import reach
from orchestrator.stage import Rerank

PredictedMs = Callable[[Node, int], Predicted | None]
"""`predicted_ms(node, n_documents)`: what a stage takes for one question, when it reads so many documents, or for a
recall searches so many; with embedding the question where it is the first to need that. None is not known."""
AroundMs = Callable[[int, int], Predicted]
"""`around_ms(most, n_stages)`: what a question takes beside its stages; the largest list has `most` documents."""


class Costs(Protocol):
    """Where predictions come from: the figures of conf/cost, or what was learned on this machine."""

    @property
    def figures(self) -> str:
        """In words, where the figures come from; goes on after "by"."""

    def predicted_ms(self, node: Node, n_documents: int) -> Predicted | None:
        """A `PredictedMs`."""

    def around_ms(self, most: int, n_stages: int) -> Predicted:
        """An `AroundMs`."""


def nothing_predicted(node: Node, n_documents: int) -> Predicted | None:
    """A PredictedMs that knows nothing."""


def nothing_around(most: int, n_stages: int) -> Predicted:
    """An AroundMs that knows nothing."""
    return NOTHING


def is_installed(module: str) -> bool:
    """Whether a top-level module could be imported; imports nothing."""
    return find_spec(module) is not None


@dataclass(frozen=True, slots=True)
class CorpusFacts:
    """What is known of the corpus without reading it.

    Attributes:
        problem: (YAML path or file, why) where it cannot be found; else None.
        n_documents: how many it has; None where it has not been read into the store yet.
        payload: metadata of a sample of its documents; empty where it is not in the store.
        chunk_chars: `corpus.chunk.max_chars`, where documents are cut as they are read.
        needs: module -> extra, of what reading its files takes.
        content_hash: of its documents; None where they were not read into the store yet.
    """

    problem: tuple[str, str] | None = None
    n_documents: int | None = None
    payload: Sequence[Mapping[str, object]] = ()
    chunk_chars: int | None = None
    needs: Mapping[str, str] = field(default_factory=dict)
    content_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known beside the graph.

    Attributes:
        language: ISO 639-1 code of the corpus, `zh-en`, or `und`.
        budget_ms: of one question, or None.
        corpus: its size and payload.
        untrained: stage that learns -> why it has no model to serve with.
        predicted_ms: what stages cost.
        figures: in words, where those costs come from.
        is_installed: whether a module is there.
        is_hub_off: whether model files may not be fetched.
        around_ms: what a question costs beside its stages.
    """

    language: str
    budget_ms: float | None = None
    corpus: CorpusFacts = field(default_factory=CorpusFacts)
    untrained: Mapping[str, str] = field(default_factory=dict)
    predicted_ms: PredictedMs = nothing_predicted
    figures: str = ""
    is_installed: Callable[[str], bool] = is_installed
    is_hub_off: bool = False
    around_ms: AroundMs = nothing_around


def n_read(node: Node, graph: StageGraph, facts: Facts) -> int:
    """How many documents `node` reads, or for a recall searches; 0 where the size of the corpus is not known."""
    size = facts.corpus.n_documents
    if node.kind == "recall":
        return size or 0
    return reach(node, graph) if size is None else min(reach(node, graph), size * len(node.inputs))


def fallbacks(node: Node) -> list[tuple[str, Rerank]]:
    """The reranks that stand in for a stage when it fails, each with its YAML path."""
    found, path = node.on_error.fallbacks, f"{node.path}.on_error.fallback"
    return [(path if len(found) == 1 else f"{path}[{place}]", stage) for place, stage in enumerate(found)]


def parts(node: Node) -> dict[str, object]:
    """The objects of a stage that may hold a model or a key, by their YAML path: itself, its embedder, its encoder."""
    held = {name: getattr(node.stage, name, None) for name in ("embedder", "encoder")}
    return {f"{node.path}.use": node.stage} | {f"{node.path}.use.{name}": one for name, one in held.items() if one}


def distinct_parts(graph: StageGraph) -> dict[str, object]:
    """The same of every stage, each object once, under the path of the first stage that holds it."""
    found: dict[int, tuple[str, object]] = {}
    for node in graph.nodes:
        for path, part in parts(node).items():
            found.setdefault(id(part), (path, part))
        for path, stand_in in fallbacks(node):
            found.setdefault(id(stand_in), (path, stand_in))
    return dict(found.values())
