"""`orchestrate evaluate`: quality and latency on the corpus's judged queries."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import report
from orchestrator.build import plain, sweeper_direction
from orchestrator.errors import ConfigError
from orchestrator.evaluate import Latency, Measures, Quality, measure_latency, measure_quality
from orchestrator.jobs import METRICS_FILE, Value, current_job
from orchestrator.log import get_logger
from orchestrator.objectives import Objectives
from orchestrator.pipeline import Pipeline
from orchestrator.storage import write_atomic
from orchestrator.tasks.flags import flag
from orchestrator.tasks.progress import ProgressBars, say_building
from orchestrator.trec import run_text

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = get_logger()


def run(cfg: DictConfig, output: Path | None) -> Value:
    """Print the figures; keep metrics.json, per_query.json and the uncut run.trec in `output`.

    Returns:
        What `task.objectives` names, for a sweeper: by default the first of `task.measures`, to maximise.
    """
    measures = Measures(cfg.task.measures)
    objectives = Objectives.of(plain(cfg.task.objectives), measures.names, cfg.task.latency_queries)
    objectives.check_directions(sweeper_direction())
    enforced = flag(cfg, "enforce_budget")
    if enforced and cfg.budget_ms is None:
        raise ConfigError("enforce_budget", "true without a budget; set one, for example budget_ms=200")
    with Pipeline.from_config(cfg) as pipeline, ProgressBars() as progress:
        if not enforced:
            pipeline.fail_with_stages()
        corpus = pipeline.open_corpus(progress)
        queries, qrels = corpus.queries(), corpus.qrels()
        pipeline.load(progress, say_building)
        for stage, n in pipeline.learned_from(queries).items():
            if n:
                log.warning("evaluate.learned_from", stage=stage, queries=n, of=len(queries), figures="flatter it")
        quality = measure_quality(
            lambda batch: pipeline.search_many(
                batch, read_documents=False, enforce_budget=enforced, use_kept=not enforced, reuse=not enforced
            ),
            queries,
            qrels,
            measures,
            depth=cfg.task.depth,
            batch_queries=cfg.task.batch_queries,
            progress=progress,
            judged_ids=corpus.judged_ids if corpus.topics.by_parent else None,
        )
        latency = None
        if cfg.task.latency_queries > 0:
            latency = measure_latency(
                lambda batch: pipeline.search_many(batch, enforce_budget=enforced, use_kept=False),
                queries,
                cfg.task.latency_queries,
                progress=progress,
            )
        final = pipeline.graph.result.name
    if output is not None:
        _keep(output, quality, latency)
    _show(cfg, final, quality, latency)
    return objectives.values(quality, latency)


def _keep(output: Path, quality: Quality, latency: Latency | None) -> None:
    write_atomic(output / METRICS_FILE, json.dumps(report.evaluation_json(quality, latency), indent=2) + "\n")
    write_atomic(output / "per_query.json", json.dumps(quality.per_query, indent=2) + "\n")
    write_atomic(output / "run.trec", run_text(quality.rankings))


def _show(cfg: DictConfig, final: str, quality: Quality, latency: Latency | None) -> None:
    job = current_job.get()
    if cfg.format.name == "json":
        which = {"job": job.num, "overrides": job.overrides} if job else {}
        sys.stdout.write(json.dumps({**which, **report.evaluation_json(quality, latency)}, ensure_ascii=False) + "\n")
    elif cfg.format.name == "trec":
        sys.stdout.write(run_text(quality.rankings))
    elif job is None:  # in a sweep, one table compares all jobs at the end
        console = report.console()
        console.print(report.evaluation_table(final, quality, latency))
        timed = f" Latency: {latency.n_queries} of them one at a time, warm; a stage's own." if latency else ""
        uncut = f"stages uncut (a recall ends at its top_k), to depth {cfg.task.depth}"
        console.print(f"{quality.n_queries} judged queries; {uncut}.{timed}", markup=False)
        for line in report.work_lines(quality, latency, cfg.budget_ms):
            console.print(line, markup=False)
