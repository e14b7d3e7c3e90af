"""All that a report tells, put together from the rows that folders hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.errors import ConfigError, OrchestratorError, did_you_mean
from orchestrator.study.beside import BEFORE, null_entries, null_of, oracle_entries, stage_entries
from orchestrator.study.changes import Pair, chosen_pairs, pair_of
from orchestrator.study.effects import Effect, effects
from orchestrator.study.entry import Entry
from orchestrator.study.folders import Evaluations
from orchestrator.study.marks import Marks, is_of_one_collection, is_paired, marks
from orchestrator.study.material import Material

if TYPE_CHECKING:
    from orchestrator.corpora.corpus import DiskCorpus

AUTO, BEST, NULL = "auto", "best", "null"
_OLDER = "an older version of `orchestrate evaluate` wrote them, and evaluating again adds it"


@dataclass(frozen=True, slots=True)
class Study:
    """Configurations side by side.

    Attributes:
        measure: that rows are ordered and judged by.
        measures: all that were measured.
        keys: short names of what was swept; empty for one run.
        rows: one a configuration, failed ones too; of one run its stages and the whole.
        beside: rankings before reranking, and best possible orders.
        best: the row with the highest mean.
        reference: the row that others are tested against; None where there is nothing to test.
        marks: how rows stand to the reference.
        effects: what each swept key did.
        pairs: rows query by query.
        queries: query id -> text, where known.
        documents: document id -> text, where known.
        gaps: sentences on what this report cannot tell, and why.
        n_missing: how many planned jobs have not ended.
    """

    measure: str
    measures: tuple[str, ...]
    keys: tuple[str, ...]
    rows: tuple[Entry, ...]
    beside: tuple[Entry, ...]
    best: Entry
    reference: Entry | None
    marks: Marks
    effects: tuple[Effect, ...] = ()
    pairs: tuple[Pair, ...] = ()
    queries: Mapping[str, str] = field(default_factory=dict, repr=False)
    documents: Mapping[str, str] = field(default_factory=dict, repr=False)
    gaps: tuple[str, ...] = ()
    n_missing: int = 0

    @property
    def is_single(self) -> bool:
        """Whether this is one run, with its stages as rows."""
        return not any(row.kind == "run" and row.name != self.whole.name for row in self.rows)

    @property
    def whole(self) -> Entry:
        """The last row that is a configuration of its own: of one run the whole pipeline."""
        return next(row for row in reversed(self.rows) if row.kind == "run")

    @property
    def subject(self) -> Entry:
        """The row that the report is about: the best, or of one run the whole pipeline."""
        return self.whole if self.is_single else self.best

    @property
    def done(self) -> tuple[Entry, ...]:
        """Rows with figures."""
        return tuple(row for row in self.rows if row.figures is not None)

    @property
    def comparable(self) -> tuple[Entry, ...]:
        """Rows that were judged on the queries of the best."""
        return tuple(row for row in self.done if is_comparable(self.best, row))


def is_comparable(one: Entry, other: Entry) -> bool:
    """Whether both were judged on the same queries of one collection, or on as many where it is not known on which."""
    if one.figures is None or other.figures is None:
        return False
    if one.per_query and other.per_query:
        return is_paired(one, other)
    return one.figures.n_queries == other.figures.n_queries and is_of_one_collection(one, other)


def study_of(found: Evaluations, measure: str | None = None, reference: str = AUTO) -> Study:
    """The comparison of all rows, without their queries one by one.

    Args:
        found: what the folders hold.
        measure: that rows are judged by; None is the first that was measured.
        reference: name of the row that others are tested against, `best`, or `null`, the ranking before reranking, of
            several runs that of the best; `auto` is the best of several, and of one run the `null`.

    Raises:
        ConfigError: there is no such measure or row.
    """
    runs = [entry for entry in found.entries if entry.figures is not None]
    measures = tuple(dict.fromkeys(name for run in runs for name in (run.figures.metrics if run.figures else ())))
    judged_by = _measure(measure, measures)
    is_single = len(found.entries) == 1
    rows = (*stage_entries(runs[0]), runs[0]) if is_single else found.entries
    nulls, oracles = null_entries(() if is_single else runs), oracle_entries(runs)
    beside = (*nulls.rows, *oracles.rows)
    alike = [row for row in rows if is_comparable(runs[0], row) and row.mean(judged_by) is not None]
    if not alike:
        raise ConfigError("task.measure", f"'{judged_by}' was measured in no run on the queries of the first")
    best = max(alike, key=lambda row: (round(row.mean(judged_by) or 0.0, 9), row.kind == "run"))
    beside_what = _reference(reference, best, runs[0] if is_single else None, rows, beside)
    tested = marks(beside_what, [*alike, *nulls.rows], measures) if beside_what else {}
    effect = () if is_single else tuple(effects(alike, found.keys, judged_by))
    study = Study(judged_by, measures, found.keys, rows, beside, best, beside_what, tested, effect)
    gaps = tuple(_gaps(study, nulls.n_more + oracles.n_more, found.n_missing))
    return replace(study, gaps=gaps, n_missing=found.n_missing)


def with_queries(study: Study, corpus: DiskCorpus | None) -> Study:
    """`study` with pairs of its rows query by query.

    Args:
        study: the comparison.
        corpus: what was ranked; None where it cannot be opened.
    """
    gaps = list(study.gaps)
    material = Material(study.best.folder, corpus, study.best.per_query)
    rows = [*study.comparable, *(row for row in study.beside if row.kind == "null")]
    chosen = chosen_pairs(study.best, study.reference or study.best, rows, study.measure)
    try:
        qrels, queries = material.qrels(), material.queries()
    except OrchestratorError as error:
        gaps.append(f"Queries and judgements cannot be read: {error}")
        qrels, queries = {}, {}
    pairs = tuple(pair_of(after, before, study.measure, material.ranking, qrels) for after, before in chosen)
    if pairs and not qrels:
        gaps.append("Judgements are not known here, so that no document is marked.")
    return replace(study, pairs=pairs, queries=queries, documents=material.documents(pairs), gaps=tuple(gaps))


def _measure(wanted: str | None, measures: Sequence[str]) -> str:
    if wanted is None:
        return measures[0]
    if wanted not in measures:
        hint = did_you_mean(wanted, measures)
        raise ConfigError("task.measure", f"found '{wanted}'; measured were: {', '.join(measures)}.{hint}")
    return wanted


def _reference(
    wanted: str, best: Entry, single: Entry | None, rows: Sequence[Entry], beside: Sequence[Entry]
) -> Entry | None:
    """The row that others are tested against."""
    if single is not None and wanted in (AUTO, NULL):
        return _before_reranking(single, rows)
    if wanted in (AUTO, BEST):
        return best
    choices = {row.name: row for row in (*rows, *beside) if row.per_query}
    null = null_of(best, beside)
    if wanted == NULL and null is not None and null.per_query:
        choices.setdefault(NULL, null)
    if wanted not in choices:
        names = ", ".join([BEST, *choices])
        hint = did_you_mean(wanted, [BEST, *choices])
        raise ConfigError("task.reference", f"found '{wanted}'; rows whose queries are known: {names}.{hint}")
    return choices[wanted]


def _before_reranking(run: Entry, rows: Sequence[Entry]) -> Entry | None:
    """The row of the stage before the first rerank; where none reranks, or none is known, the best stage."""
    stages = [row for row in rows if row.kind == "stage"]
    named = [row for row in stages if row.words == BEFORE]
    measure = next(iter(run.figures.metrics)) if run.figures else ""
    return next(iter(named), max(stages, key=lambda row: row.mean(measure) or 0.0, default=None))


def _gaps(study: Study, left_out: int, n_missing: int) -> Iterator[str]:
    figures = [row.figures for row in study.done if row.figures is not None and row.kind == "run"]
    lacking = {
        "95 % intervals": any(one.intervals for one in figures),
        "the best possible order and the ranking before reranking": any(one.oracle for one in figures),
        "tokens and money": any(one.tokens is not None for one in figures),
        "the rankings of stages": any((row.folder / "runs").is_dir() for row in study.done),
    }
    lost = [what for what, known in lacking.items() if not known]
    if lost:
        yield f"These folders do not tell: {', '.join(lost)}; {_OLDER}."
    if not any(one.latency_ms for one in figures):
        yield "Nothing was timed (latency_queries=0), so that speed cannot be weighed."
    if others := [row.title for row in study.done if not is_comparable(study.best, row)]:
        yield (
            f"{', '.join(others[:5])}{' and more' if len(others) > 5 else ''}: judged on other queries or of another "
            "collection than the best; in the table, and nowhere else. Report one collection at a time to compare."
        )
    if not study.marks and len(study.comparable) > 1:
        yield "No test was made: the values of single queries are not known for two rows or more."
    if failed := [row for row in study.rows if row.failure]:
        yield f"{len(failed)} of {len(study.rows)} jobs failed; the reasons stand in the table."
    if n_missing:
        yield f"{n_missing} planned jobs have not ended."
    if left_out:
        yield f"{left_out} more rankings before reranking or best possible orders, of other candidates, are left out."
    if len({tuple(one.corpus.items()) for one in figures if one.corpus}) > 1:
        yield "The rows were not measured on the same state of the same collection."
