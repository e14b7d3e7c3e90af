"""`orchestrate explain "a question"`: how each document moved from stage to stage, and what dropped the rest."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import report
from orchestrator.answers.flow import flow_of
from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.learning.contributions import Told, told_of
from orchestrator.log import get_logger
from orchestrator.pipeline import Pipeline
from orchestrator.report.effects import told_table
from orchestrator.report.explained import Explained, explained_json
from orchestrator.report.flow_table import dropped_table, flow_table, relevant_lines, way_table
from orchestrator.report.page import page
from orchestrator.report.words import nowhere_words, way_words
from orchestrator.storage import write_atomic
from orchestrator.tasks.flags import count
from orchestrator.tasks.progress import ProgressBars, say_building
from orchestrator.types import Query

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from orchestrator.answers.trace import Result
    from orchestrator.corpora.corpus import DiskCorpus

log = get_logger()


def run(cfg: DictConfig, output: Path | None) -> None:
    """Print the trace and the way of the documents; keep trace.jsonl and the picture, explain.html, in `output`."""
    _check(cfg)
    n_documents = count(cfg, "docs")
    with Pipeline.from_config(cfg) as pipeline, ProgressBars() as progress:
        corpus = pipeline.open_corpus(progress)
        query = _query(cfg, corpus)
        pipeline.load(progress, say_building)
        explained = explain(pipeline.search(query), corpus, is_judged=cfg.query is None)
        followed = None if cfg.task.doc is None else _followed(str(cfg.task.doc), explained, corpus)
        told = told_of(explained.result, corpus, followed) if followed is not None else []
    if output is not None:
        write_atomic(output / "trace.jsonl", report.trace_json(explained.result, "full") + "\n")
    picture = _picture(cfg, output)
    if picture is not None:
        write_atomic(picture, page(explained, followed))
    if cfg.format.name == "json":
        found = explained_json(explained, followed)
        if followed is not None:
            found["contributions"] = [one.as_json() for one in told]
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    else:
        _show(explained, followed, n_documents, told)
    if picture is not None:
        log.info("explain.picture", file=str(picture))


def explain(result: Result, corpus: DiskCorpus, *, is_judged: bool) -> Explained:
    """`result` with the documents that any stage saw, and the judgements of its query.

    Args:
        result: an answer of a pipeline over `corpus`.
        corpus: where the documents are.
        is_judged: whether the query is one of the corpus's own, so that its judgements count.
    """
    flow = flow_of(result)
    known = [
        doc_id for doc_id, is_there in zip(flow.doc_ids, corpus.has_documents(flow.doc_ids), strict=True) if is_there
    ]
    documents = {document.doc_id: document for document in corpus.get(known)}
    judged = corpus.topics.qrels.get(result.query.query_id) if is_judged else None
    if judged is None:
        return Explained(result, flow, documents)
    names = dict(zip(known, corpus.parents(known), strict=True)) if corpus.topics.by_parent else {}
    grades = {doc_id: grade for doc_id in flow.doc_ids if (grade := judged.get(names.get(doc_id, doc_id), 0)) > 0}
    seen = {names.get(doc_id, doc_id) for doc_id in grades}
    missed = tuple(doc_id for doc_id, grade in judged.items() if grade > 0 and doc_id not in seen)
    return Explained(result, flow, documents, grades, missed, is_judged=True)


def _check(cfg: DictConfig) -> None:
    if cfg.format.name == "trec":
        raise ConfigError("format", "found trec, which has no place for the way of a document; expected table or json")
    if cfg.query is not None and not cfg.query.strip():
        raise ConfigError("query", 'is empty; expected a question: orchestrate explain "what causes glaucoma?"')
    if cfg.query is not None and cfg.task.query_id is not None:
        found = f"found '{cfg.task.query_id}' beside the question '{cfg.query}'"
        raise ConfigError("task.query_id", f"{found}; choose one of the two")


def _query(cfg: DictConfig, corpus: DiskCorpus) -> Query:
    """The question asked, the one of the corpus that was named, or the corpus's first."""
    if cfg.query is not None:
        return Query("q1", cfg.query)
    if cfg.task.query_id is None:
        query = corpus.queries()[0]
        log.info(
            "explain.query", query_id=query.query_id, query=query.text, more='query_id=ID, or explain "a question"'
        )
        return query
    asked, queries = str(cfg.task.query_id), {query.query_id: query for query in corpus.topics.queries}
    if asked not in queries:
        first = ", ".join(list(queries)[:5])
        found = f"no query '{asked}' among the corpus's {len(queries):,}; the first: {first}"
        raise ConfigError("task.query_id", f"{found}.{did_you_mean(asked, queries)}")
    return queries[asked]


def _followed(doc_id: str, explained: Explained, corpus: DiskCorpus) -> str:
    """The document to follow: `doc_id`, or of a document that was cut into chunks the one that came farthest.

    Raises:
        ConfigError: there is no such document.
    """
    if bool(corpus.has_documents([doc_id])[0]) or doc_id in explained.flow.fates:
        return doc_id
    if bool(corpus.has_parents([doc_id])[0]):
        chunks = [known for known, held in explained.documents.items() if held.metadata.get("parent_id") == doc_id]
        return explained.flow.best(chunks) or doc_id
    hint = did_you_mean(doc_id, explained.flow.doc_ids)
    found = f"no stage saw '{doc_id}', and the corpus has no such document"
    raise ConfigError("task.doc", f"{found}; expected the id of one of its {len(corpus):,} documents.{hint}")


def _picture(cfg: DictConfig, output: Path | None) -> Path | None:
    """Where the picture goes; its folder is made."""
    if cfg.task.html is None:
        return None if output is None else output / "explain.html"
    path = Path(str(cfg.task.html)).expanduser()
    if path.is_dir():
        raise ConfigError("task.html", f"{path}: found a folder; expected the path of a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _show(explained: Explained, followed: str | None, n_documents: int, told: Sequence[Told]) -> None:
    console = report.console()
    query = explained.result.query
    console.print(f"\n{query.query_id}: {query.text}\n", style="bold", markup=False)
    console.print(report.trace_tree(explained.result))
    if followed is not None:
        _show_one(console, explained, followed)
        for one in told:
            console.print(told_table(one))
        return
    if not explained.flow.answer:
        console.print("\nno document found", style="yellow")
    if explained.flow.fates:
        console.print(flow_table(explained, n_documents))
    for line in relevant_lines(explained):
        console.print(line)
    if len(explained.flow.fates) > len(explained.flow.answer):
        console.print(dropped_table(explained))


def _show_one(console: Console, explained: Explained, doc_id: str) -> None:
    flow = explained.flow
    console.print(f"\n{doc_id}  {explained.label(doc_id, 100)}", style="bold", markup=False)
    if doc_id not in flow.fates:
        console.print(nowhere_words(flow), style="yellow", markup=False)
        return
    console.print(way_table(explained, doc_id))
    console.print(way_words(flow, flow.way(doc_id)), markup=False)
