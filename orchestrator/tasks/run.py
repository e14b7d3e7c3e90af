"""`orchestrate run "a question"`: answer it, a file or stream of questions, or the corpus's own queries."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from orchestrator import report
from orchestrator.corpora.queries import read_queries, read_stream
from orchestrator.errors import ConfigError
from orchestrator.lines import BadLines
from orchestrator.log import get_logger
from orchestrator.pipeline import Pipeline
from orchestrator.report.lines import TraceDetail
from orchestrator.tasks.flags import count
from orchestrator.tasks.progress import ProgressBars, say_building
from orchestrator.tasks.waiting import as_they_come
from orchestrator.trec import trec_lines
from orchestrator.types import Query

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from orchestrator.answers.trace import Result

log = get_logger()
STDIN = "-"
_BATCH = 32


def run(cfg: DictConfig, output: Path | None) -> None:
    """Print the answers to stdout as they come, and keep them in `output`: results.jsonl, run.trec, trace.jsonl."""
    _refuse_two_questions(cfg)
    count(cfg, "text_chars")
    trace = _trace_detail(cfg.task.trace)
    with Pipeline.from_config(cfg) as pipeline, ProgressBars() as progress:
        if cfg.task.queries is None:
            batches = _in_batches(_queries(cfg, pipeline, progress), progress)
        elif cfg.task.queries == STDIN:
            batches = _from_stdin(cfg)
        else:
            asked = list(read_queries(_file(cfg.task.queries), BadLines(cfg.corpus.on_bad_line.name)))
            batches = _in_batches(asked, progress)
        pipeline.load(progress, say_building)
        writer = _Writer(cfg, pipeline, output, trace)
        for batch in batches:
            for result in pipeline.search_many(batch):
                writer.write(result)
            sys.stdout.flush()
        writer.close()


def _refuse_two_questions(cfg: DictConfig) -> None:
    if cfg.query is not None and cfg.task.queries is not None:
        raise ConfigError(
            "queries", f"found '{cfg.task.queries}' beside the question '{cfg.query}'; choose one of the two"
        )


def _file(path: str) -> Path:
    found = Path(path).expanduser()
    if not found.is_file():
        what = "a folder" if found.is_dir() else "nothing there"
        raise ConfigError("queries", f"{found}: found {what}; expected a file of questions, or - for standard input")
    return found


def _in_batches(queries: Sequence[Query], progress: ProgressBars) -> Iterator[Sequence[Query]]:
    for start in range(0, len(queries), _BATCH):
        yield queries[start : start + _BATCH]
        progress("run", min(start + _BATCH, len(queries)), len(queries))


def _from_stdin(cfg: DictConfig) -> Iterator[Sequence[Query]]:
    """Batches of the questions that are there: one that comes alone is answered at once."""
    if sys.stdin.isatty():
        log.info("run.queries", reading="standard input, a question a line", end="Ctrl-D")
    # A reader of its own: the interpreter could not shut down while a thread waits in sys.stdin's.
    stream = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115
    return as_they_come(read_stream("<stdin>", stream, BadLines(cfg.corpus.on_bad_line.name)), _BATCH)


def _queries(cfg: DictConfig, pipeline: Pipeline, progress: ProgressBars) -> list[Query]:
    if cfg.query is not None:
        if not cfg.query.strip():
            raise ConfigError("query", 'is empty; expected a question: orchestrate run "what causes glaucoma?"')
        return [Query("q1", cfg.query)]
    queries = pipeline.open_corpus(progress).queries()
    if cfg.corpus.max_queries is None:
        log.info("run.query", query=queries[0].text, of=len(queries), more='corpus.max_queries=N, or run "a question"')
        return queries[:1]
    return queries


class _Writer:
    """Results to stdout in the format asked for, and to the run's folder as JSON and TREC lines."""

    def __init__(self, cfg: DictConfig, pipeline: Pipeline, output: Path | None, trace: TraceDetail | None) -> None:
        self._format = cfg.format.name
        self._text_chars = count(cfg, "text_chars")
        own = cfg.query is None and cfg.task.queries is None
        self._qrels: Mapping[str, Mapping[str, int]] = pipeline.corpus.qrels() if own else {}
        self._judged_ids = pipeline.corpus.judged_ids
        self._trace = trace
        self._output = output
        self._total_ms: list[float] = []
        self._n_degraded = 0

    def write(self, result: Result) -> None:
        """Show one result and keep it."""
        self._total_ms.append(result.trace.total_ms)
        self._n_degraded += bool(result.degraded)
        line = report.result_json(result) + "\n"
        trec = trec_lines(result.query.query_id, result.doc_ids)
        if self._output is not None:
            _append(self._output / "results.jsonl", line)
            _append(self._output / "run.trec", trec)
            if self._trace is not None:
                _append(self._output / "trace.jsonl", report.trace_json(result, self._trace) + "\n")
        if self._format == "table":
            self._show(result)
        else:
            _print(line if self._format == "json" else trec)

    def close(self) -> None:
        """One line on all answers, where there were several."""
        if len(self._total_ms) > 1:
            p50, p95 = (round(float(ms), 1) for ms in np.percentile(self._total_ms, (50, 95)))
            log.info("run.done", queries=len(self._total_ms), p50_ms=p50, p95_ms=p95, degraded=self._n_degraded)

    def _show(self, result: Result) -> None:
        console = report.console()
        console.print(f"\n{result.query.query_id}: {result.query.text}", style="bold", markup=False)
        if not len(result.ranked):
            console.print("no document found", style="yellow")
        console.print(report.result_table(result, self._relevant(result), self._text_chars))
        console.print(report.trace_tree(result))

    def _relevant(self, result: Result) -> Mapping[str, int] | None:
        """Document id -> grade, where the query is judged; a chunk has the grade of its document."""
        judged = self._qrels.get(result.query.query_id)
        if judged is None:
            return None
        return {doc_id: judged.get(self._judged_ids([doc_id])[0], 0) for doc_id in result.doc_ids}


def _trace_detail(found: object) -> TraceDetail | None:
    if found is False or found == "off":  # YAML's own word for false
        return None
    if found == "full" or found == "stages":
        return found
    raise ConfigError("task.trace", f"found {found!r}; expected full, stages or off")


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def _print(text: str) -> None:
    sys.stdout.write(text)
