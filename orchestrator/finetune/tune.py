"""One tuning from beginning to end: candidates, lessons, steps, verdict, and the folder that any stage loads."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.errors import ConfigError
from orchestrator.evaluation.measures import Measures, Rankings
from orchestrator.finetune import gather, place, words
from orchestrator.finetune.exported import compare_export
from orchestrator.finetune.job import Job, Outcome
from orchestrator.finetune.learning import Learned, learn
from orchestrator.finetune.lessons import Lesson, Lessons, from_triples, with_labels
from orchestrator.finetune.losses import scaled
from orchestrator.finetune.networks import Network, open_network
from orchestrator.finetune.queries import Plan, plan_queries
from orchestrator.finetune.report import keep_record, key_of
from orchestrator.finetune.scoring import Exam, load_holder, ordered, score_exams
from orchestrator.finetune.student import Student, find_student
from orchestrator.finetune.teacher import find_teacher, labels
from orchestrator.finetune.triples import Triple, read_triples
from orchestrator.learned.indexes import open_index
from orchestrator.learning.training import same_words
from orchestrator.learning.verdict import Verdict, judge
from orchestrator.lines import BadLines
from orchestrator.loading import OnBuild
from orchestrator.models import Model, resolve
from orchestrator.pipeline import Pipeline
from orchestrator.stack.graph import Node
from orchestrator.stage import Indexed, Progress


@dataclass
class _Material:
    """All that is needed before the first step."""

    plan: Plan
    found: gather.Found
    lessons: Lessons
    checks: list[Exam]
    finals: list[Exam]
    left_out: int | None


def tune(job: Job, pipeline: Pipeline, progress: Progress, on_build: OnBuild) -> Outcome:
    """Train the model, judge it, write it.

    Args:
        job: what, and how.
        pipeline: has the model, and finds its candidates.
        progress: told about long work.
        on_build: told before an index is built.

    Raises:
        ConfigError: an option does not fit the pipeline or the corpus.
        MissingExtraError: sentence-transformers, datasets or accelerate is not installed.
        ModelNotFoundError: the model to start from is nowhere.
    """
    student = find_student(pipeline.graph, job.kind, job.stage)
    teacher = find_teacher(pipeline.graph, job.teacher, student) if job.teacher else None
    bad = BadLines(pipeline.corpus_spec.on_bad_line)
    triples = read_triples(Path(job.triples).expanduser(), bad) if job.triples is not None else None
    base = resolve(student.card)
    target = place.target_folder(
        pipeline.storage_root, pipeline.open_corpus(progress).key, job.kind, student.card, job.output
    )
    place.check_target(target, base)
    with place.alone(target):
        material = _gather(job, pipeline, student, triples, progress, on_build)
        network = open_network(job.kind, student.card, base, job.tuning, job.seed)
        if not network.new_head:
            load_holder(student.holder)  # what cannot be exported or served is told before hours of training
        _teach(teacher, network, material, progress)
        learned = _learn(job, student, network, base, material, place.work_folder(target), progress)
        with place.written(target) as partial:
            network.write(partial)
            outcome = _conclude(job, pipeline, student, network, learned, material, partial, target, progress)
        shutil.rmtree(place.work_folder(target), ignore_errors=True)
    return outcome


def _gather(
    job: Job,
    pipeline: Pipeline,
    student: Student,
    triples: Sequence[Triple] | None,
    progress: Progress,
    on_build: OnBuild,
) -> _Material:
    corpus = pipeline.corpus
    plan = plan_queries(
        corpus,
        held_out=job.held_out,
        validation=job.validation,
        max_queries=job.max_queries,
        max_held_out=job.max_held_out,
        seed=job.seed,
        triples=job.triples is not None,
    )
    found = gather.find_candidates(
        pipeline,
        student,
        plan.queries,
        depth=job.depth,
        by_parent=plan.by_parent,
        batch_queries=job.batch_queries,
        progress=progress,
        on_build=on_build,
    )
    lessons, left_out = _lessons(job, corpus, plan, found, triples)
    if not lessons.rows:
        raise ConfigError("corpus", "nothing to learn from: no query has a relevant document and enough negatives")
    qrels = plan.qrels or {}
    checks = gather.make_exams(corpus, plan.validation, found, job.tuning.check_candidates, job.depth)
    checks = gather.answerable(checks, qrels, found.parents)[: job.tuning.check_queries]
    finals = gather.make_exams(corpus, plan.held_out, found, job.candidates, job.depth)
    return _Material(plan, found, lessons, checks, finals, left_out)


def _lessons(
    job: Job, corpus: DiskCorpus, plan: Plan, found: gather.Found, triples: Sequence[Triple] | None
) -> tuple[Lessons, int | None]:
    """The lessons, and how many triples ask what a query of the other parts asks."""
    together = job.kind == "cross_encoder" and job.loss == "listwise"
    if triples is None:
        return gather.make_lessons(
            corpus, plan.train, plan.qrels or {}, found, job.rules, job.tuning, job.seed, together
        ), None
    asked = {same_words(query.text) for query in plan.queries}
    own = [triple for triple in triples if same_words(triple.query) not in asked]
    lessons = from_triples(
        own,
        per_query=job.rules.per_query,
        positives=job.tuning.positives_per_query,
        seed=job.seed,
        together=together,
    )
    return lessons, len(triples) - len(own)


def _teach(teacher: Node | None, network: Network, material: _Material, progress: Progress) -> None:
    """Put the teacher's labels, on the student's scale, into the lessons."""
    if teacher is None:
        return
    query_ids = {query.text: query.query_id for query in material.plan.train}
    given = labels(teacher, material.lessons.rows, material.found, query_ids, progress)
    count = len(material.lessons.rows)
    material.lessons = with_labels(material.lessons, given)
    if not material.lessons.rows:
        found = f"'{teacher.name}' scored all texts of none of the {count} lessons"
        raise ConfigError("task.teacher", f"{found}; expected a pointwise rerank, which scores any pair")
    material.lessons.rows = scaled(network, material.lessons.rows)[0]


def _learn(
    job: Job, student: Student, network: Network, base: Path, material: _Material, work: Path, progress: Progress
) -> Learned:
    plan, checks = material.plan, material.checks
    measures = Measures(["nDCG@10"])
    names = material.found.parents
    qrels = {exam.query.query_id: (plan.qrels or {})[exam.query.query_id] for exam in checks}

    def check(current: Network) -> float:
        per_query = measures.per_query(qrels, ordered(checks, current.scores(checks), names))
        return measures.mean(per_query)["nDCG@10"]

    key = key_of(job.kind, job.loss, job.tuning, job.seed, student.card, base, material.lessons, checks)
    rows: Sequence[Lesson] = material.lessons.rows
    return learn(network, rows, job.loss, job.tuning, job.seed, work, key, check if checks else None, progress)


def _conclude(
    job: Job,
    pipeline: Pipeline,
    student: Student,
    network: Network,
    learned: Learned,
    material: _Material,
    partial: Path,
    target: Path,
    progress: Progress,
) -> Outcome:
    """Export the model, judge it as it will serve, and write card and record beside it."""
    card = tuned_card(student.card, partial)
    after = student.holder.with_model(card)
    agreement = compare_export(card, after, network, material.finals or material.checks, material.lessons.rows)
    name, before = f"{student.node.name} tuned", f"{student.node.name} before"
    verdict = _judge(job, pipeline, student, after, network, material, name, before, progress)
    said, won = words.tuning_words(verdict, before)
    told = words.told(
        material.plan, material.lessons, job.rules, learned, material.found.source, job.candidates, material.left_out
    )
    told += [agreement.words(), *words.warnings(pipeline.learned_from(material.plan.held_out))]
    use = words.command(["run"], words.use_words(pipeline.words, student.card, str(target)))
    record = keep_record(
        partial,
        job=dataclasses.asdict(dataclasses.replace(job, measures=None)),  # type: ignore[arg-type]  # not kept
        pipeline=pipeline,
        student=student,
        plan=material.plan,
        lessons=material.lessons,
        source=material.found.source,
        learned=learned,
        agreement=agreement,
        verdict=verdict,
        said=said,
        won=won,
        name=target.name,
        use=use,
    )
    return Outcome(verdict, said, won, told, target, use, record)


def _judge(
    job: Job,
    pipeline: Pipeline,
    student: Student,
    after: object,
    network: Network,
    material: _Material,
    name: str,
    before: str,
    progress: Progress,
) -> Verdict:
    finals, names, plan, root = material.finals, material.found.parents, material.plan, pipeline.storage_root
    others: dict[str, Rankings] = {}
    for holder in (after,) if network.new_head else (student.holder, after):
        _open(pipeline, student.node.name, holder, progress)
    if finals and not network.new_head:
        others[before] = ordered(finals, score_exams(student.holder, finals, root, "before", progress), names)
    others |= material.found.rankings
    own = ordered(finals, score_exams(after, finals, root, "after", progress), names) if finals else {}
    held_out = [query.query_id for query in plan.held_out]
    return judge(name, own, others, plan.qrels or {}, held_out, job.measures, job.seed)


def _open(pipeline: Pipeline, name: str, holder: object, progress: Progress) -> None:
    """The holder as it serves: with its index of the corpus, where it has one. What is built serves afterwards too."""
    load_holder(holder)
    if isinstance(holder, Indexed):
        open_index(holder, pipeline.corpus, pipeline.storage_root, name, progress=progress)


def tuned_card(card: Model, folder: Path) -> Model:
    """The card of the model in `folder`: that of its base, but for where the base lies and how good it is."""
    return dataclasses.replace(card, path=str(folder), package=None, sha256=None, published=(), revision=None)
