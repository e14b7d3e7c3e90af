"""`orchestrate evaluate`: quality and latency on the corpus's judged queries, and which stages earn their place."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import report
from orchestrator.config.job import plain, sweep_folder, sweeper_direction, task_overrides
from orchestrator.config.words import stack_words
from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.corpora.judgements import topic_files, topics_hash
from orchestrator.errors import ConfigError
from orchestrator.evaluation.baselines import (
    Baseline,
    KeptRuns,
    check_name,
    judge_baseline,
    parents_or_selves,
    read_baselines,
)
from orchestrator.evaluation.by_language import tell_for
from orchestrator.evaluation.findings import Findings, find
from orchestrator.evaluation.folder import corpus_json, kept_files, write_folder
from orchestrator.evaluation.latency import Latency, measure_latency
from orchestrator.evaluation.measures import Measures
from orchestrator.evaluation.objectives import Objectives
from orchestrator.evaluation.quality import Quality, measure_quality
from orchestrator.evaluation.record import is_of_whole_stack, record_of
from orchestrator.evaluation.sentences import sentences
from orchestrator.jobs import Job, Value, current_job, read_plan
from orchestrator.kept.kept_evaluations import KeptEvaluations
from orchestrator.learning.folds import learners
from orchestrator.pipeline import Pipeline
from orchestrator.study.sweep_table import settings_of
from orchestrator.tasks.answering import Answers, Folds
from orchestrator.tasks.flags import count, flag
from orchestrator.tasks.progress import ProgressBars, say_building
from orchestrator.trec import run_text

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True, slots=True)
class _Options:
    """Options of the verb: what is wrong with one is told before anything is loaded."""

    measures: Measures
    objectives: Objectives
    enforced: bool
    folds: Folds | None
    batch_queries: int
    n_changes: int
    save_as: str | None
    baselines: Sequence[str]

    @classmethod
    def of(cls, cfg: DictConfig) -> _Options:
        enforced, folds = flag(cfg, "enforce_budget"), _folds(cfg)
        if enforced and cfg.budget_ms is None:
            raise ConfigError("enforce_budget", "true without a budget; set one, for example budget_ms=200")
        if enforced and folds is not None:
            raise ConfigError("task.folds", f"found {folds.n} beside enforce_budget=true; choose one of the two")
        measures, batch_queries = Measures(plain(cfg.task.measures)), count(cfg, "batch_queries")
        n_changes, save_as = count(cfg, "changes", least=0), _save_as(cfg)
        objectives = Objectives.of(plain(cfg.task.objectives), measures.names, count(cfg, "latency_queries", least=0))
        objectives.check_directions(sweeper_direction())
        return cls(measures, objectives, enforced, folds, batch_queries, n_changes, save_as, _baselines(cfg))


def _folds(cfg: DictConfig) -> Folds | None:
    if cfg.task.folds is None:
        return None
    n, validation = count(cfg, "folds", least=2), cfg.task.validation
    if isinstance(validation, bool) or not isinstance(validation, int | float) or not 0 < validation < 1:
        raise ConfigError("task.validation", f"found {validation!r}; expected a share above 0 and below 1")
    return Folds(n, validation, plain(cfg.task.learner), cfg.task.seed, count(cfg, "batch_queries"))


def _save_as(cfg: DictConfig) -> str | None:
    """The name to keep the run by.

    Raises:
        ConfigError: it is no name, or other jobs of the sweep have the same one.
    """
    name, job = check_name(cfg.task.save_as), current_job.get()
    if name is not None and job is not None and not _is_its_own(cfg, job):
        found = f"found '{name}' in a sweep, whose jobs would replace each other's run"
        expected = f"expected a name for each job, for example 'save_as={name}-${{hydra:job.num}}', or null"
        raise ConfigError("task.save_as", f"{found}; {expected}")
    return name


def _is_its_own(cfg: DictConfig, job: Job) -> bool:
    """Whether no other job of the sweep has this job's name to keep its run by, as far as is known before they run."""
    if "hydra:job" in str(plain(cfg.task)["save_as"]):
        return True
    names = [settings_of(other).get("task.save_as") for other in read_plan(sweep_folder())]
    return names.count(settings_of(job).get("task.save_as")) == 1


def _baselines(cfg: DictConfig) -> list[str]:
    found = plain(cfg.task.baseline)
    named = [] if found is None else found if isinstance(found, list) else [found]
    if not all(isinstance(name, str | int | float) for name in named):
        raise ConfigError("task.baseline", f"found {found!r}; expected a name or a path, or a list of those")
    return [str(name) for name in named]


@dataclass(frozen=True, slots=True)
class _Measured:
    """The two passes, and what follows from them."""

    final: str
    quality: Quality
    latency: Latency | None
    findings: Findings
    figures: dict[str, object]


def run(cfg: DictConfig, output: Path | None) -> Value:
    """Print the figures and what they say; keep them, and the run files of every stage, in `output`.

    Returns:
        What `task.objectives` names, for a sweeper: by default the first of `task.measures`, to maximise.
    """
    options = _Options.of(cfg)
    with Pipeline.from_config(cfg) as pipeline, ProgressBars() as progress:
        if not options.enforced:
            pipeline.fail_with_stages()
        if options.folds is not None:
            learners(pipeline.untrained().graph)
        corpus = pipeline.open_corpus(progress)
        kept = KeptRuns(pipeline.storage_root, corpus.key)
        baselines = read_baselines(options.baselines, kept, corpus.content_hash)
        measured = _measure(cfg, options, pipeline, corpus, baselines, progress)
        if output is not None:
            write_folder(output, measured.quality, measured.figures)
        if not options.enforced and is_of_whole_stack(measured.quality):
            _keep_for_plan(cfg, pipeline, corpus, measured)
        if options.save_as is not None:
            kept.keep(options.save_as, kept_files(measured.quality, measured.figures))
    _show(cfg, measured)
    return options.objectives.values(measured.quality, measured.latency)


def _measure(
    cfg: DictConfig,
    options: _Options,
    pipeline: Pipeline,
    corpus: DiskCorpus,
    baselines: Sequence[Baseline],
    progress: ProgressBars,
) -> _Measured:
    corpus.queries()  # a wrong file of judgements is told before models are loaded
    pipeline.load(progress, say_building)
    answers = Answers(pipeline, corpus, options.enforced, options.folds, progress)
    by_parent, depth = corpus.topics.by_parent, cfg.task.depth
    quality = measure_quality(
        answers.together,
        answers.queries,
        corpus.qrels(),
        options.measures,
        depth=depth,
        batch_queries=options.batch_queries,
        progress=progress,
        judged_ids=corpus.judged_ids if by_parent else None,
        tell=tell_for(corpus.language),
    )
    latency = None
    if cfg.task.latency_queries > 0:
        latency = measure_latency(answers.timed, corpus.queries(), cfg.task.latency_queries, progress=progress)
    as_judged = parents_or_selves(corpus) if by_parent else None
    judged = [judge_baseline(one, quality, options.measures, depth, as_judged) for one in baselines]
    findings = find(quality, options.measures.names[0], judged, options.n_changes, cfg.task.seed)
    figures = report.evaluation_json(quality, latency, findings, corpus_json(corpus), cfg.task.folds)
    return _Measured(pipeline.graph.result.name, quality, latency, findings, figures)


def _keep_for_plan(cfg: DictConfig, pipeline: Pipeline, corpus: DiskCorpus, measured: _Measured) -> None:
    """Keep a record of the figures, by which `orchestrate plan` weighs the stacks."""
    quality = measured.quality
    record = record_of(
        plain(cfg),
        pipeline.graph,
        quality,
        measured.latency,
        {**corpus_json(corpus), "topics": topics_hash(topic_files(corpus.spec, corpus.source))},
        learned=pipeline.seen(quality.queries),
        overrides=stack_words(task_overrides()),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    KeptEvaluations(pipeline.storage_root, corpus.key).keep(record)


def _show(cfg: DictConfig, measured: _Measured) -> None:
    job = current_job.get()
    if cfg.format.name == "json":
        which = {"job": job.num, "overrides": job.overrides} if job else {}
        sys.stdout.write(json.dumps({**which, **measured.figures}, ensure_ascii=False) + "\n")
    elif cfg.format.name == "trec":
        sys.stdout.write(run_text(measured.quality.rankings))
    elif job is None:  # in a sweep, one table compares all jobs at the end
        _print(cfg, measured)


def _print(cfg: DictConfig, measured: _Measured) -> None:
    quality, latency, findings = measured.quality, measured.latency, measured.findings
    console = report.console()
    console.print(report.evaluation_table(measured.final, quality, latency, findings))
    for line in report.legend_lines(quality, latency, cfg.task.depth, cfg.task.folds):
        console.print(line, markup=False)
    for line in report.work_lines(quality, latency, cfg.budget_ms):
        console.print(line, markup=False)
    if (languages := report.language_table(quality, findings.measure)) is not None:
        console.print(languages)
    if findings.compared:
        console.print(report.comparisons_table(findings))
    for line in sentences(quality, findings, latency):
        console.print(f"- {line}", markup=False)
    if (changes := report.changes_table(findings)) is not None:
        console.print(changes)
