"""Which model of a pipeline is trained: the stage, what holds its model, and what makes its candidates."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.models.card import Model
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stage import Tunable

_ADVICE = {
    "bi_encoder": "for example: pipeline=bi_encoder, pipeline=dense",
    "cross_encoder": "for example: pipeline=cross_encoder",
    "late_interaction": "for example: pipeline=late_interaction",
}


@dataclass(frozen=True, slots=True)
class Student:
    """A model that is to be trained.

    Attributes:
        kind: `bi_encoder`, `cross_encoder` or `late_interaction`.
        node: the stage it works in.
        holder: the stage itself, or its embedder: what has the card, and scores.
    """

    kind: str
    node: Node
    holder: Tunable

    @property
    def card(self) -> Model:
        """Of the model as it is."""
        return self.holder.tuned_card()

    @property
    def reranks(self) -> bool:
        """Whether the stage orders candidates itself; a recall only finds them."""
        return self.node.kind == "rerank"


def find_student(graph: StageGraph, kind: str, name: str | None) -> Student:
    """The stage of `graph` whose model is of that kind: the one named, or the only one; reranks before recalls.

    Raises:
        ConfigError: there is none, several, or no such one.
    """
    found = {node.name: student for node in graph.nodes if (student := _student(node, kind)) is not None}
    if name is not None and name not in found:
        choices = f"{', '.join(found) or 'none'}.{did_you_mean(name, found)}"
        raise ConfigError("task.stage", f"'{name}' is no stage with a model of kind {kind}; stages that are: {choices}")
    if name is not None:
        return found[name]
    if not found:
        raise ConfigError(
            "pipeline.stages", f"no stage has a model of kind {kind} that can be trained; {_ADVICE[kind]}"
        )
    reranks = [student for student in found.values() if student.reranks]
    several = {id(student.holder): student for student in reranks or found.values()}
    if len(several) > 1:
        names = ", ".join(student.node.name for student in several.values())
        raise ConfigError("task.stage", f"missing, and several stages have a model of kind {kind}: {names}")
    return next(iter(several.values()))


def _student(node: Node, kind: str) -> Student | None:
    held = getattr(node.stage, "embedder", None) if node.kind == "recall" or node.behaviour == "pointwise" else None
    for holder in (node.stage, held):
        if isinstance(holder, Tunable) and holder.tunes == kind:
            return Student(kind, node, holder)
    return None
