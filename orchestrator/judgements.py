"""Queries and their relevance judgements (qrels), in BEIR's three columns or TREC's four."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orchestrator.beir import BadLineError, OnBadLine, Skipped, find_file, parse_query, read_rows
from orchestrator.errors import ConfigError, DataError, did_you_mean
from orchestrator.log import get_logger
from orchestrator.types import Query

log = get_logger()

Qrels = dict[str, dict[str, int]]

AUTO_SPLITS = ("test", "dev", "validation", "train")
"""What `split: auto` looks for, in this order: what one evaluates on comes before what one trains on."""

_SUFFIXES = (".tsv", ".tsv.gz")


class Judgement(NamedTuple):
    """How relevant one document is for one query; 0 is not at all."""

    query_id: str
    doc_id: str
    relevance: int


@dataclass(frozen=True, slots=True)
class UnknownQrels:
    """How many query ids and document ids of the judgements stand in no line of the corpus."""

    query_ids: int
    doc_ids: int


@dataclass(frozen=True, slots=True)
class Topics:
    """The queries of a corpus and what is known about them.

    Attributes:
        queries: in file order; where there are judgements, only the judged ones.
        qrels: query_id -> doc_id -> relevance, as the file has it.
        unknown: ids of `qrels` that the corpus lacks.
        skipped: how many bad lines were left out.
    """

    queries: tuple[Query, ...]
    qrels: Qrels
    unknown: UnknownQrels
    skipped: int


def load_topics(
    folder: Path,
    split: str,
    on_bad_line: OnBadLine,
    is_known: Callable[[Sequence[str]], npt.NDArray[np.bool_]],
) -> Topics:
    """Queries and judgements of `folder`. Judged ids that nothing has are counted, and warned of once.

    Args:
        folder: in BEIR layout.
        split: name of a qrels file, or `auto`.
        on_bad_line: `fail` or `skip`.
        is_known: bool [n_doc_ids], whether the corpus holds each id.

    Raises:
        ConfigError: `corpus.split` names no file.
        DataError: a file is missing or wrong, or no query is judged.
    """
    source, judged_in = find_file(folder, "queries.jsonl"), find_qrels(folder, split)
    skipped = Skipped(source)
    queries = _read_queries(source, on_bad_line, skipped)
    if judged_in is None:
        return Topics(tuple(queries.values()), {}, UnknownQrels(0, 0), skipped.count)
    skipped_qrels = Skipped(judged_in)
    qrels = read_qrels(judged_in, on_bad_line, skipped_qrels)
    judged = tuple(query for query_id, query in queries.items() if query_id in qrels)
    if not judged:
        raise DataError(str(judged_in), None, f"none of its {len(qrels)} query ids stands in {source}")
    unknown = _unknown(judged_in, queries, qrels, is_known)
    return Topics(judged, qrels, unknown, skipped.count + skipped_qrels.count)


def _read_queries(source: Path, on_bad_line: OnBadLine, skipped: Skipped) -> dict[str, Query]:
    queries: dict[str, Query] = {}
    for number, query in read_rows(source, parse_query, on_bad_line, skipped):
        if queries.setdefault(query.query_id, query) is not query:
            raise DataError(str(source), number, f"_id '{query.query_id}' stands above already; expected it once")
    if not queries:
        raise DataError(str(source), None, "holds no queries; expected lines with _id and text")
    return queries


def _unknown(
    source: Path,
    queries: dict[str, Query],
    qrels: Qrels,
    is_known: Callable[[Sequence[str]], npt.NDArray[np.bool_]],
) -> UnknownQrels:
    doc_ids = list({doc_id for judged in qrels.values() for doc_id in judged})
    unknown = UnknownQrels(len(qrels.keys() - queries.keys()), int((~is_known(doc_ids)).sum()))
    if unknown.query_ids or unknown.doc_ids:
        log.warning("corpus.unknown_qrels", qrels=str(source), query_ids=unknown.query_ids, doc_ids=unknown.doc_ids)
    return unknown


def find_qrels(folder: Path, split: str) -> Path | None:
    """The qrels file of `split` under `folder/qrels`; None when `split` is auto and there are no qrels.

    Raises:
        ConfigError: `corpus.split` names no file, or is auto with several files of other names.
    """
    files = _qrels_files(folder / "qrels")
    if split != "auto":
        if split not in files:
            choices = ", ".join(files) or f"none, since {folder / 'qrels'} holds no .tsv"
            raise ConfigError("corpus.split", f"no '{split}'; splits: {choices}.{did_you_mean(split, files)}")
        return files[split]
    known = [files[name] for name in AUTO_SPLITS if name in files]
    if not known and len(files) > 1:
        looked_for = ", ".join(AUTO_SPLITS)
        raise ConfigError("corpus.split", f"auto finds none of {looked_for}; splits: {', '.join(files)}")
    return known[0] if known else next(iter(files.values()), None)


def qrels_splits(folder: Path) -> tuple[str, ...]:
    """Names of the qrels files under `folder/qrels`, sorted; empty without that folder."""
    return tuple(_qrels_files(folder / "qrels"))


def _qrels_files(folder: Path) -> dict[str, Path]:
    entries = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
    found = {_stem(path.name): path for path in entries if path.name.endswith(_SUFFIXES) and path.is_file()}
    return dict(sorted(found.items()))


def _stem(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".tsv")


def read_qrels(path: Path, on_bad_line: OnBadLine = "fail", skipped: Skipped | None = None) -> Qrels:
    """Judgements as query_id -> doc_id -> relevance, in file order.

    Three columns (query-id, corpus-id, score) or TREC's four (query, iteration, document, score); a header
    line is recognised by a score that is no number.

    Raises:
        DataError: a line has other columns, a score is no whole number, or two lines disagree about one pair.
    """
    qrels: Qrels = {}
    seen_any = False

    def parse(line: str) -> Judgement | None:
        nonlocal seen_any
        first, seen_any = not seen_any, True
        return _parse(line, first)

    for number, row in read_rows(path, parse, on_bad_line, skipped):
        if row is not None:
            known = qrels.setdefault(row.query_id, {}).setdefault(row.doc_id, row.relevance)
            if known != row.relevance:
                raise DataError(str(path), number, _disagreement(row, known))
    return qrels


def _parse(line: str, first: bool) -> Judgement | None:
    columns = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
    if len(columns) not in (3, 4):
        expected = "3 (query-id, corpus-id, score) or 4 (query, iteration, document, score)"
        raise BadLineError(f"found {len(columns)} columns; expected {expected}, separated by tabs")
    relevance = _whole_number(columns[-1])
    if relevance is None and first:
        return None
    if relevance is None:
        raise BadLineError(f"found '{columns[-1]}' as score; expected a whole number")
    return Judgement(columns[0], columns[-2], relevance)


def _whole_number(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def _disagreement(row: Judgement, known: int) -> str:
    pair = f"query '{row.query_id}' and document '{row.doc_id}'"
    return f"{pair} have score {row.relevance} here and {known} above; expected one score a pair"
