"""`orchestrate run "a question"`: answer it, or the corpus's own queries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import report
from orchestrator.errors import ConfigError
from orchestrator.log import get_logger
from orchestrator.pipeline import Pipeline
from orchestrator.tasks.progress import ProgressBars, say_building
from orchestrator.types import Query

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from orchestrator.trace import Result

log = get_logger()
_BATCH = 32


def run(cfg: DictConfig, output: Path | None) -> None:
    """Print the answers to stdout, and keep them in `output` as results.jsonl and run.trec."""
    with Pipeline.from_config(cfg) as pipeline, ProgressBars() as progress:
        queries = _queries(cfg, pipeline, progress)
        pipeline.load(progress, say_building)
        writer = _Writer(cfg, pipeline, output)
        for start in range(0, len(queries), _BATCH):
            for result in pipeline.search_many(queries[start : start + _BATCH]):
                writer.write(result)
            progress("run", min(start + _BATCH, len(queries)), len(queries))


def _queries(cfg: DictConfig, pipeline: Pipeline, progress: ProgressBars) -> list[Query]:
    if cfg.query is not None:
        if not cfg.query.strip():
            raise ConfigError("query", 'is empty; expected a question: orchestrate run "what causes glaucoma?"')
        return [Query("q1", cfg.query)]
    corpus = pipeline.open_corpus(progress)
    queries = corpus.queries()
    if not queries:
        raise ConfigError("query", 'missing, and the corpus has no queries; orchestrate run "a question"')
    if cfg.corpus.max_queries is None:
        log.info("run.query", query=queries[0].text, of=len(queries), more='corpus.max_queries=N, or run "a question"')
        return queries[:1]
    return queries


class _Writer:
    """Results to stdout in the format asked for, and to the run's folder as JSON and TREC lines."""

    def __init__(self, cfg: DictConfig, pipeline: Pipeline, output: Path | None) -> None:
        self._format = cfg.format.name
        self._text_chars = int(cfg.task.text_chars)
        self._qrels: Mapping[str, Mapping[str, int]] = {} if cfg.query is not None else pipeline.corpus.qrels()
        self._output = output

    def write(self, result: Result) -> None:
        """Show one result and keep it."""
        line = report.result_json(result) + "\n"
        trec = report.trec_lines(result.query.query_id, result.doc_ids)
        if self._output is not None:
            _append(self._output / "results.jsonl", line)
            _append(self._output / "run.trec", trec)
        if self._format == "table":
            self._show(result)
        else:
            _print(line if self._format == "json" else trec)

    def _show(self, result: Result) -> None:
        console = report.console()
        console.print(f"\n{result.query.query_id}: {result.query.text}", style="bold", markup=False)
        if not len(result.ranked):
            console.print("no document found", style="yellow")
        relevant = self._qrels.get(result.query.query_id)
        console.print(report.result_table(result, relevant, self._text_chars))
        console.print(report.trace_table(result.trace))


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def _print(text: str) -> None:
    import sys

    sys.stdout.write(text)
