"""What an evaluation leaves in its folder: figures, and run files that ir-measures, ranx and trec_eval read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator import storage
from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.corpora.judgements import split_name
from orchestrator.evaluation.baselines import RUN_FILE
from orchestrator.evaluation.quality import Quality
from orchestrator.jobs import METRICS_FILE
from orchestrator.trec import qrels_text, run_text

_SERVED = "served"


def write_folder(folder: Path, quality: Quality, figures: Mapping[str, object]) -> None:
    """Write all files of an evaluation into `folder`, each whole or not at all, metrics.json last: it marks the end.

    Args:
        folder: of the run.
        quality: rankings and judgements.
        figures: the content of metrics.json.
    """
    for name, text in (*_others(quality), *kept_files(quality, figures).items()):
        storage.write_atomic(folder / name, text)


def kept_files(quality: Quality, figures: Mapping[str, object]) -> dict[str, str]:
    """Name -> text of the files that a later evaluation compares with."""
    return {RUN_FILE: run_text(quality.rankings), METRICS_FILE: json.dumps(figures, indent=2) + "\n"}


def _others(quality: Quality) -> Iterator[tuple[str, str]]:
    yield "per_query.json", json.dumps(quality.per_query, indent=2) + "\n"
    yield f"runs/{_SERVED}.trec", run_text(quality.handed_out.rankings, _SERVED)
    for stage, system in quality.systems.items():
        yield f"runs/{stage_file(stage)}.trec", run_text(system.rankings, stage_file(stage))
    yield "qrels.trec", qrels_text(quality.qrels)
    lines = ({"query_id": query.query_id, "text": query.text} for query in quality.queries)
    yield "queries.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def stage_file(stage: str) -> str:
    """A stage's name as part of a file's, another for each stage; `served` is what is handed out, and never a stage."""
    name = storage.slug(stage)
    return name if name == stage != _SERVED else f"{name}-{storage.stable_hash(stage, 8)}"


def corpus_json(corpus: DiskCorpus) -> dict[str, str]:
    """Which documents and judgements figures are of: `name`, `content_hash`, `split`."""
    return {"name": corpus.name, "content_hash": corpus.content_hash, "split": split_name(corpus.spec, corpus.source)}
