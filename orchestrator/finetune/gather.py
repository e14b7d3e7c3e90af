"""What a training learns from and is judged by: candidates of the pipeline itself, put together by query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.answers.trace import Result
from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.evaluation.measures import Qrels, Rankings
from orchestrator.finetune.lessons import Lessons, Pupil, from_pupils
from orchestrator.finetune.negatives import Rules, choose
from orchestrator.finetune.options import Tuning
from orchestrator.finetune.scoring import Exam, Pairs
from orchestrator.finetune.student import Student
from orchestrator.loading import OnBuild
from orchestrator.pipeline import Pipeline
from orchestrator.running.runner import Runner
from orchestrator.stage import Progress
from orchestrator.types import Call, Document, Query, ScoreKind, Scores


class Unscored:
    """Stands in the pipeline for a rerank: every candidate stays where it is."""

    score_kind: ScoreKind = "rank"

    def score(self, pairs: Pairs, call: Call) -> Scores:
        """float64 [n_pairs], all the same."""
        return np.zeros(len(pairs))


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the pipeline found for one query, as the stage with the student gets it.

    Attributes:
        doc_ids: best first.
        scores: of the stage before, which orders them.
        stage_scores: stage -> its own scores, NaN where it has none.
    """

    doc_ids: tuple[str, ...]
    scores: tuple[float, ...]
    stage_scores: Mapping[str, Scores] = field(default_factory=dict)


@dataclass
class Found:
    """Candidates of many queries.

    Attributes:
        source: the stage whose order they came in.
        candidates: query id -> what the student's stage gets.
        rankings: stage before -> query id -> ids as the judgements name them, to the depth that is judged.
        parents: id -> id as the judgements name it; empty where documents themselves are judged.
    """

    source: str
    candidates: dict[str, Candidates] = field(default_factory=dict)
    rankings: dict[str, Rankings] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)


def find_candidates(
    pipeline: Pipeline,
    student: Student,
    queries: Sequence[Query],
    *,
    depth: int,
    by_parent: bool,
    batch_queries: int,
    progress: Progress,
    on_build: OnBuild,
) -> Found:
    """Candidates for `queries`: of the stage before a rerank; for the embedder of a recall those of the whole pipeline.

    Args:
        pipeline: with its corpus.
        student: says where the candidates are needed.
        queries: what to ask.
        depth: of the rankings that are judged.
        by_parent: the judgements name the documents that the corpus's chunks are part of.
        batch_queries: queries that go through the stages together.
        progress: told ("candidates", queries done, queries in all).
        on_build: told before an index is built.
    """
    runner: Runner | None = None
    if student.reranks:
        runner = pipeline.upstream(student.node.name, Unscored(), progress, on_build, load=False)
        source = student.node.inputs[0]
    else:
        pipeline.load(progress, on_build)
        source = pipeline.graph.result.name
    found = Found(source)
    for start in range(0, len(queries), batch_queries):
        batch = queries[start : start + batch_queries]
        if runner is not None:
            results = runner.run(batch, read_documents=False)
        else:
            results = pipeline.search_many(batch, read_documents=False, enforce_budget=False)
        for result in results:
            _keep(found, result, student, depth, pipeline.corpus if by_parent else None)
        progress("candidates", start + len(batch), len(queries))
    return found


def _keep(found: Found, result: Result, student: Student, depth: int, chunked: DiskCorpus | None) -> None:
    query_id = result.query.query_id
    ranked = result.outputs[found.source]
    ranked = ranked.head(_given(result, found.source)) if student.reranks else ranked
    found.candidates[query_id] = Candidates(ranked.doc_ids, tuple(ranked.scores.tolist()), ranked.stage_scores)
    before = [node.name for node in result.graph.nodes if node.name != student.node.name or not student.reranks]
    for name in before:
        doc_ids = result.outputs[name].doc_ids
        if chunked is not None:
            unknown = [doc_id for doc_id in doc_ids if doc_id not in found.parents]
            found.parents.update(zip(unknown, chunked.parents(unknown), strict=True))
            doc_ids = tuple(dict.fromkeys(found.parents[doc_id] for doc_id in doc_ids))
        found.rankings.setdefault(name, {})[query_id] = doc_ids[:depth]


def _given(result: Result, source: str) -> int:
    """How many documents a rerank after `source` is given: `top_k`, or all where that is another route's stage."""
    passed_on = next((stage.n_out for stage in result.trace.stages if stage.stage == source), 0)
    return max(passed_on, result.graph[source].top_k)


def make_lessons(
    corpus: DiskCorpus,
    queries: Sequence[Query],
    qrels: Qrels,
    found: Found,
    rules: Rules,
    tuning: Tuning,
    seed: int,
    together: bool,
) -> Lessons:
    """The lessons of judged queries, with negatives among their candidates.

    Args:
        corpus: has the texts.
        queries: to learn from.
        qrels: their judgements.
        found: their candidates.
        rules: which candidates are negatives.
        tuning: says how many relevant documents of a query count.
        seed: of the drawing.
        together: one lesson a query.
    """
    pupils = []
    for query in queries:
        own, grades = found.candidates[query.query_id], qrels[query.query_id]
        names = [found.parents[doc_id] for doc_id in own.doc_ids] if found.parents else None
        choice = choose(query.query_id, own.doc_ids, own.scores, grades, rules, names)
        known = [doc_id for doc_id in choice.judged if corpus.find([doc_id])[0] >= 0]
        choice = type(choice)(tuple(known), choice.unjudged, choice.dropped)
        pupils.append(Pupil(query.text, _positives(corpus, own, grades, names), choice))
    return from_pupils(
        pupils,
        lambda doc_ids: [document.full_text for document in corpus.at(corpus.ordinals(doc_ids))],
        per_query=rules.per_query,
        positives=tuning.positives_per_query,
        seed=seed,
        together=together,
    )


def _positives(
    corpus: DiskCorpus, own: Candidates, grades: Mapping[str, int], names: Sequence[str] | None
) -> list[tuple[str, float]]:
    """(id, grade), the highest grade first, then by rank; of judged documents the best-placed chunk."""
    if names is None:
        places = {doc_id: place for place, doc_id in enumerate(own.doc_ids)}
        relevant = [doc_id for doc_id, grade in grades.items() if grade > 0]
        inside = corpus.find(relevant) if relevant else ()
        relevant = [doc_id for doc_id, place in zip(relevant, inside, strict=True) if place >= 0]
        pairs = [(doc_id, float(grades[doc_id])) for doc_id in relevant]
    else:
        first: dict[str, str] = {}
        for doc_id, name in zip(own.doc_ids, names, strict=True):
            if grades.get(name, 0) > 0:
                first.setdefault(name, doc_id)
        pairs = [(doc_id, float(grades[name])) for name, doc_id in first.items()]
        places = {doc_id: place for place, doc_id in enumerate(own.doc_ids)}
    return sorted(pairs, key=lambda pair: (-pair[1], places.get(pair[0], len(places))))


def make_exams(corpus: DiskCorpus, queries: Sequence[Query], found: Found, count: int, depth: int) -> list[Exam]:
    """One exam a query: its first `count` candidates with their texts, the others behind, to `depth`."""
    wanted = {doc_id for query in queries for doc_id in found.candidates[query.query_id].doc_ids[:count]}
    ids = sorted(wanted)
    documents: dict[str, Document] = dict(zip(ids, corpus.at(corpus.ordinals(ids)), strict=True)) if ids else {}
    exams = []
    for query in queries:
        own = found.candidates[query.query_id].doc_ids
        head = tuple(documents[doc_id] for doc_id in own[:count])
        exams.append(Exam(query, head, tuple(own[count:depth])))
    return exams


def answerable(exams: Sequence[Exam], qrels: Qrels, parents: Mapping[str, str]) -> list[Exam]:
    """The exams with a relevant candidate and one that is not: the others come out the same in any order."""
    found = []
    for exam in exams:
        grades = qrels[exam.query.query_id]
        good = [grades.get(parents.get(document.doc_id, document.doc_id), 0) > 0 for document in exam.documents]
        if any(good) and not all(good):
            found.append(exam)
    return found
