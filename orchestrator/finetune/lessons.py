"""What a model learns from: a query with one relevant text and several that are not, as each loss wants its columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from orchestrator.finetune.negatives import Choice, draw
from orchestrator.finetune.triples import Triple
from orchestrator.storage import stable_hash

Columns: TypeAlias = Mapping[str, Sequence[object]]
"""Column -> one value a row."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One query with texts that it is compared with.

    Attributes:
        query: the question.
        texts: what is relevant first (one text, or several in a lesson that is read as a list), then the negatives.
        grades: of the texts; above 0 for what is relevant, 0 for the others.
        labels: what a teacher says of the texts; empty without one.
        doc_ids: of the texts, where they are documents of the corpus.
    """

    query: str
    texts: tuple[str, ...]
    grades: tuple[float, ...]
    labels: tuple[float, ...] = ()
    doc_ids: tuple[str, ...] = ()


@dataclass
class Pupil:
    """One query before its negatives are drawn.

    Attributes:
        query: the question.
        positives: (id, grade), the best first.
        choice: what can serve as a negative.
    """

    query: str
    positives: Sequence[tuple[str, float]]
    choice: Choice


@dataclass
class Lessons:
    """All that is learned from, and what was left out on the way.

    Attributes:
        rows: the lessons.
        useless: queries that taught nothing, since the corpus has no relevant document for them.
        dropped: rule -> candidates that it kept from being negatives.
        filled: negatives that had to be drawn from other queries' relevant documents, for want of own candidates.
    """

    rows: list[Lesson] = field(default_factory=list)
    useless: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    filled: int = 0

    @property
    def digest(self) -> str:
        """Another value when anything that is learned from differs."""
        return stable_hash(
            [
                [row.query, list(row.texts), list(row.grades), [float(f"{label:.3g}") for label in row.labels]]
                for row in self.rows
            ]
        )


def from_pupils(
    pupils: Sequence[Pupil],
    texts: Callable[[Sequence[str]], Sequence[str]],
    *,
    per_query: int,
    positives: int,
    seed: int,
    together: bool = False,
) -> Lessons:
    """The lessons of judged queries: one for each of the first `positives` relevant documents.

    Args:
        pupils: the queries.
        texts: ids to texts.
        per_query: negatives of a lesson; where candidates are too few, other queries' relevant documents fill up.
        positives: lessons of a query at most.
        seed: of the drawing.
        together: one lesson a query, that holds these relevant documents all.
    """
    generator = np.random.default_rng(seed)
    found = Lessons(dropped={"skip": 0, "margin": 0})
    others = list(dict.fromkeys(doc_id for pupil in pupils for doc_id, _ in pupil.positives))
    drawn: list[tuple[str, list[str], tuple[float, ...]]] = []
    for pupil in pupils:
        found.useless += not pupil.positives
        for rule, count in pupil.choice.dropped.items():
            found.dropped[rule] += count
        relevant = {doc_id for doc_id, _ in pupil.positives}
        for part in _parts(pupil.positives[:positives], together):
            own = [other for other in draw(pupil.choice, per_query, generator) if other not in relevant]
            extra = fill(others, {*relevant, *own}, per_query - len(own), generator)
            if len(own) + len(extra) == per_query:
                found.filled += len(extra)
                grades = (*(grade for _, grade in part), *(0.0 for _ in range(per_query)))
                drawn.append((pupil.query, [*(doc_id for doc_id, _ in part), *own, *extra], grades))
    wanted = list(dict.fromkeys(doc_id for _, doc_ids, _ in drawn for doc_id in doc_ids))
    known = dict(zip(wanted, texts(wanted), strict=True))
    for query, doc_ids, grades in drawn:
        lesson = Lesson(query, tuple(known[doc_id] for doc_id in doc_ids), grades, doc_ids=tuple(doc_ids))
        if not _contradicts_itself(lesson):
            found.rows.append(lesson)
    return found


def _contradicts_itself(lesson: Lesson) -> bool:
    """Whether a negative has the text of a relevant document: the same passage under another id."""
    graded = list(zip(lesson.texts, lesson.grades, strict=True))
    relevant = {text for text, grade in graded if grade > 0}
    return any(text in relevant for text, grade in graded if grade <= 0)


def _parts(positives: Sequence[tuple[str, float]], together: bool) -> list[Sequence[tuple[str, float]]]:
    if together:
        return [positives] if positives else []
    return [[positive] for positive in positives]


def from_triples(
    triples: Sequence[Triple], *, per_query: int, positives: int, seed: int, together: bool = False
) -> Lessons:
    """The lessons of a file of triples; where a line has too few negatives, other lines' positives fill up."""
    generator = np.random.default_rng(seed)
    others = list(dict.fromkeys(text for triple in triples for text in triple.positives))
    found = Lessons()
    for triple in triples:
        for part in _parts([(text, 1.0) for text in triple.positives[:positives]], together):
            choice = Choice(tuple(other for other in triple.negatives if other not in triple.positives), ())
            own = draw(choice, per_query, generator)
            extra = fill(others, {*triple.positives, *own}, per_query - len(own), generator)
            if len(own) + len(extra) == per_query:
                found.filled += len(extra)
                texts = (*(text for text, _ in part), *own, *extra)
                found.rows.append(Lesson(triple.query, texts, (*(1.0 for _ in part), *(0.0 for _ in range(per_query)))))
    return found


def fill(others: Sequence[str], taken: set[str], count: int, generator: np.random.Generator) -> list[str]:
    """At most `count` of `others` that are not `taken`, drawn."""
    if count <= 0:
        return []
    found: list[str] = []
    for place in generator.permutation(len(others)):
        if others[place] not in taken:
            found.append(others[place])
            if len(found) == count:
                break
    return found


def with_labels(lessons: Lessons, labels: Sequence[Sequence[float]]) -> Lessons:
    """The lessons that a teacher has scored as a whole; a text without a score is NaN, and its lesson is left out."""
    rows = [replace(row, labels=tuple(own)) for row, own in zip(lessons.rows, labels, strict=True)]
    return replace(lessons, rows=[row for row in rows if not np.isnan(row.labels).any()])


def columns(rows: Sequence[Lesson], layout: str) -> Columns:
    """The rows as a loss reads them.

    Args:
        rows: all with the same number of texts.
        layout: `tuple` (query, positive, negatives), `graded` (the same with a label: grades as a list), `labelled`
            (with the teacher's labels), `pairs` (query, text, 0 or 1), `list` (query, list of texts, list of grades).
    """
    if layout == "pairs":
        pairs = [
            (row.query, text, float(grade > 0))
            for row in rows
            for text, grade in zip(row.texts, row.grades, strict=True)
        ]
        return {name: [pair[place] for pair in pairs] for place, name in enumerate(("query", "text", "label"))}
    queries = [row.query for row in rows]
    if layout == "list":
        return {
            "query": queries,
            "texts": [list(row.texts) for row in rows],
            "label": [list(row.grades) for row in rows],
        }
    named = ["positive", *(f"negative_{place}" for place in range(1, len(rows[0].texts)))]
    found = {"query": queries, **{name: [row.texts[place] for row in rows] for place, name in enumerate(named)}}
    if layout == "graded":
        return {**found, "label": [list(row.grades) for row in rows]}
    if layout == "labelled":
        return {**found, "label": [list(row.labels) for row in rows]}
    return found
