"""Labels for distillation: what another stage of the pipeline says of the texts of each lesson."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.finetune.gather import Found
from orchestrator.finetune.lessons import Lesson
from orchestrator.finetune.scoring import score_pairs
from orchestrator.finetune.student import Student
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stage import Progress
from orchestrator.types import Document, Query

_AT_ONCE = 64


def find_teacher(graph: StageGraph, name: str, student: Student) -> Node:
    """The stage that teaches: one that scores pairs, or one before the student's, whose scores its candidates carry.

    Raises:
        ConfigError: there is no such stage, or it cannot teach.
    """
    names = [node.name for node in graph.nodes]
    if name not in names:
        raise ConfigError("task.teacher", f"no stage '{name}'; stages: {', '.join(names)}.{did_you_mean(name, names)}")
    node = graph[name]
    if node.name == student.node.name and student.reranks:
        raise ConfigError("task.teacher", f"'{name}' is the stage that learns; expected another one")
    if node.behaviour != "pointwise" and name not in graph.ancestors(student.node.name):
        found = f"'{name}' is no pointwise rerank, and does not stand before '{student.node.name}'"
        raise ConfigError("task.teacher", f"{found}, so that its candidates have no score of it")
    return node


def labels(
    node: Node, rows: Sequence[Lesson], found: Found, query_ids: Mapping[str, str], progress: Progress
) -> list[list[float]]:
    """The teacher's score of each text of each lesson; NaN where it has none.

    Args:
        node: the teacher.
        rows: the lessons.
        found: candidates with the scores of the stages before.
        query_ids: text of a query -> its id.
        progress: told ("teacher", lessons done, lessons in all).
    """
    if node.behaviour == "pointwise":
        return _scored(node, rows, progress)
    known = {}
    for query_id, own in found.candidates.items():
        column = own.stage_scores.get(node.name)
        if column is not None:
            known[query_id] = dict(zip(own.doc_ids, column.tolist(), strict=True))
    nothing: dict[str, float] = {}
    return [
        [known.get(query_ids.get(row.query, ""), nothing).get(doc_id, float("nan")) for doc_id in row.doc_ids]
        or [float("nan")] * len(row.texts)
        for row in rows
    ]


def _scored(node: Node, rows: Sequence[Lesson], progress: Progress) -> list[list[float]]:
    given: list[list[float]] = []
    for start in range(0, len(rows), _AT_ONCE):
        batch = rows[start : start + _AT_ONCE]
        pairs = [(Query("", row.query), Document("", text)) for row in batch for text in row.texts]
        scores = score_pairs(node.stage, pairs)
        cuts = np.cumsum([len(row.texts) for row in batch])[:-1]
        given += [part.tolist() for part in np.split(scores, cuts)]
        progress("teacher", len(given), len(rows))
    return given
