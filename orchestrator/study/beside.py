"""Rows beside configurations: stages of the one run, the ranking before the first rerank, the best possible order."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from orchestrator.corpora.judgements import read_qrels
from orchestrator.evaluation.folder import stage_file
from orchestrator.evaluation.measures import Measures
from orchestrator.study.entry import Entry, Kind, PerQuery
from orchestrator.study.figures import Figures, Values
from orchestrator.study.folders import WHOLE
from orchestrator.study.numbers import rows_words
from orchestrator.trec import one_word, read_run

QRELS_FILE = "qrels.trec"
BEFORE = "before reranking"
"""Words of the row of a stage whose ranking goes into the first rerank."""
_RESERVED = frozenset({WHOLE, "oracle", "null", "best", "auto"})
"""Names that a report gives rows itself, or that `task.reference` takes for others."""
_MOST_ALIKE = 6
_MOST_NAMES = 6
_Told = Callable[[Figures], tuple[str, Values]]
"""Stage and means of what runs are asked for; no means where a run lacks it."""


class Alike(NamedTuple):
    """One row for all runs that have the same figures, the best first; of more than six kinds of runs the first six.

    Attributes:
        rows: what to show.
        n_more: how many others there are.
    """

    rows: list[Entry]
    n_more: int


def stage_run(folder: Path, stage: str) -> Path | None:
    """The run file of the ranking as if the pipeline ended at `stage`; None where the folder has none."""
    path = folder / "runs" / f"{stage_file(stage)}.trec"
    return path if path.is_file() else None


def stage_entries(run: Entry) -> list[Entry]:
    """One row a stage of the only run there is, as if its pipeline ended there, in the order of the pipeline."""
    if run.figures is None:
        return []
    null, stages = run.figures.null_stage, run.figures.baselines
    return [
        _entry(_row_name(stage, stages), "stage", run, metrics, stage, BEFORE if stage == null else "")
        for stage, metrics in stages.items()
    ]


def _row_name(stage: str, stages: Container[str]) -> str:
    """The name of the stage, kept apart from the rows that are in every report."""
    if stage not in _RESERVED:
        return stage
    name = f"{stage}-stage"
    while name in stages:
        name += "-stage"
    return name


def null_entries(runs: Sequence[Entry]) -> Alike:
    """The rankings before a first rerank that some of `runs` have."""
    return _alike(runs, "null", BEFORE, lambda figures: (figures.null_stage or "", figures.null))


def null_of(run: Entry, beside: Sequence[Entry]) -> Entry | None:
    """The one of the null rows `beside` that is the ranking before reranking of `run`; None where there is none."""
    if run.figures is None or not run.figures.null:
        return None
    own = _rounded(run.figures.null)
    nulls = (row for row in beside if row.kind == "null" and row.figures is not None)
    return next((row for row in nulls if row.figures and _rounded(row.figures.metrics) == own), None)


def _rounded(metrics: Values) -> dict[str, float]:
    return {name: round(value, 9) for name, value in metrics.items()}


def oracle_entries(runs: Sequence[Entry]) -> Alike:
    """The best possible orders of the recalled candidates that some of `runs` have."""
    return _alike(runs, "oracle", "best possible order", lambda figures: ("", figures.oracle))


def _alike(runs: Sequence[Entry], kind: Kind, what: str, told: _Told) -> Alike:
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for run in runs:
        if run.figures is not None and told(run.figures)[1]:
            stage, metrics = told(run.figures)
            groups.setdefault((stage, *_rounded(metrics).items()), []).append(run)
    ordered = sorted(groups.values(), key=lambda members: -next(iter(_told_of(members, told)[1].values())))
    rows = [_alike_entry(kind, what, members, told, len(groups) == 1) for members in ordered[:_MOST_ALIKE]]
    return Alike(rows, len(ordered) - len(rows))


def _told_of(members: Sequence[Entry], told: _Told) -> tuple[str, Values]:
    figures = members[0].figures
    return ("", {}) if figures is None else told(figures)


def _alike_entry(kind: Kind, what: str, members: Sequence[Entry], told: _Told, is_only: bool) -> Entry:
    stage, metrics = _told_of(members, told)
    of = "" if is_only else f"of {rows_words([member.name for member in members], _MOST_NAMES)}"
    words = " ".join(part for part in (f"{what}:" if stage or of else what, stage, of) if part)
    return _entry(kind if is_only else f"{kind}-{members[0].name}", kind, members[0], metrics, stage, words)


def _entry(name: str, kind: Kind, run: Entry, metrics: Values, stage: str, words: str) -> Entry:
    ranking = stage_run(run.folder, stage) if stage else None
    figures = Figures(metrics)
    if run.figures is not None:
        figures = replace(figures, n_queries=run.figures.n_queries, corpus=run.figures.corpus)
    per_query = judged_again(ranking, run, tuple(metrics)) if ranking is not None else {}
    return Entry(name, kind, run.folder, words=words, figures=figures, per_query=per_query, ranking=ranking)


def judged_again(ranking: Path, run: Entry, measures: Sequence[str]) -> PerQuery:
    """Query id -> measure -> value of a run file, by the judgements that lie in the folder of `run`.

    Empty where there are none, or where they are of other queries than `run` was judged by.
    """
    path = run.folder / QRELS_FILE
    if not path.is_file():
        return {}
    values = Measures(measures).per_query(read_qrels(path), ranked_ids(ranking))
    ids = in_files(run.per_query)
    found = {ids.get(query_id, query_id): of_query for query_id, of_query in values.items()}
    return found if found.keys() == run.per_query.keys() else {}


def ranked_ids(ranking: Path) -> dict[str, list[str]]:
    """Query id -> document ids, best first, as a run file has them."""
    return {query_id: [doc_id for doc_id, _ in rows] for query_id, rows in read_run(ranking).items()}


def in_files(query_ids: Iterable[str]) -> dict[str, str]:
    """The id of a query as run files have it, without white space -> the id."""
    return {one_word(query_id): query_id for query_id in query_ids}
