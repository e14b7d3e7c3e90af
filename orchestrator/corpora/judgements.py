"""Queries and their relevance judgements (qrels), in BEIR's three columns or TREC's four."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.corpora.locate import Source, find_file, resolve
from orchestrator.corpora.queries import read_queries
from orchestrator.errors import ConfigError, DataError, did_you_mean
from orchestrator.lines import BadLineError, BadLines, OnBadLine, read_rows
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
    """How many query ids and document ids of the judgements the corpus does not have."""

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
        by_parent: the ids of `qrels` are those of the documents that the corpus's chunks are part of.
    """

    queries: tuple[Query, ...]
    qrels: Qrels
    unknown: UnknownQrels
    skipped: int
    by_parent: bool = False


@dataclass(frozen=True, slots=True)
class TopicFiles:
    """Where the queries and judgements of a corpus stand.

    Attributes:
        queries: JSON lines, CSV, TSV or text.
        qrels: three columns or TREC's four; None when nothing is judged.
        is_beir: the queries are those of a BEIR folder, where each has an id.
    """

    queries: Path
    qrels: Path | None
    is_beir: bool = False


class Known(Protocol):
    """Says which ids a corpus has."""

    def has_documents(self, doc_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each id is a document's: bool [n]."""
        ...

    def has_parents(self, doc_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each id is that of a document which some chunk is part of: bool [n]."""
        ...


def topic_files(spec: CorpusSpec, source: Source) -> TopicFiles:
    """Where queries and judgements stand: where the configuration says, or else in the BEIR folder.

    Raises:
        ConfigError: no file of questions is named, or `corpus.split` names no qrels file.
        DataError: the BEIR folder has no queries.jsonl.
    """
    queries, qrels, is_beir = spec.queries, spec.qrels, source.format == "beir"
    if qrels is not None and spec.split != "auto":
        raise ConfigError("corpus.split", f"found '{spec.split}' beside corpus.qrels={qrels}; choose one of the two")
    if spec.split != "auto" and not is_beir:
        found = f"found '{spec.split}', but {spec.path} is no BEIR folder with qrels/{spec.split}.tsv"
        raise ConfigError("corpus.split", f"{found}; name the file of judgements: corpus.qrels=FILE")
    if queries is None and not is_beir:
        choices = 'name a file of questions: corpus.queries=FILE, or ask one yourself: orchestrate run "..."'
        raise ConfigError("corpus.queries", f"missing, and {spec.path} holds documents alone; {choices}")
    judged_in = resolve(qrels, "corpus.qrels") if qrels is not None else None
    if qrels is None and is_beir:
        judged_in = find_qrels(source.folder, spec.split)
    asked_in = resolve(queries, "corpus.queries") if queries is not None else None
    return TopicFiles(asked_in or find_file(source.folder, "queries.jsonl"), judged_in, is_beir and queries is None)


def load_topics(files: TopicFiles, on_bad_line: OnBadLine, known: Known) -> Topics:
    """Queries and judgements. Judged ids that nothing has are counted, and warned of once.

    Raises:
        DataError: a file is missing or wrong, or no query is judged.
    """
    bad = BadLines(on_bad_line)
    queries = tuple(read_queries(files.queries, bad, needs_id=files.is_beir))
    if files.qrels is None:
        return Topics(queries, {}, UnknownQrels(0, 0), bad.count)
    qrels = read_qrels(files.qrels, bad)
    judged = tuple(query for query in queries if query.query_id in qrels)
    if not judged:
        raise DataError(str(files.qrels), None, f"none of its {len(qrels)} query ids stands in {files.queries}")
    doc_ids = list({doc_id for judgements in qrels.values() for doc_id in judgements})
    found, by_parent = _found(doc_ids, known)
    if by_parent:
        log.info("corpus.judged_by_parent", qrels=str(files.qrels), counts="a document where its best chunk stands")
    unknown = UnknownQrels(len(qrels.keys() - {query.query_id for query in queries}), len(doc_ids) - found)
    if unknown.query_ids or unknown.doc_ids:
        counts = {"query_ids": unknown.query_ids, "doc_ids": unknown.doc_ids}
        log.warning("corpus.unknown_qrels", qrels=str(files.qrels), **counts)
    return Topics(judged, qrels, unknown, bad.count, by_parent)


def _found(doc_ids: Sequence[str], known: Known) -> tuple[int, bool]:
    """How many of the judged ids there are, and whether they are parents: when few are documents, and more parents."""
    n_documents = int(known.has_documents(doc_ids).sum())
    if 2 * n_documents >= len(doc_ids):  # looking for parents reads the whole store
        return n_documents, False
    n_parents = int(known.has_parents(doc_ids).sum())
    return max(n_documents, n_parents), n_parents > n_documents


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


def split_name(spec: CorpusSpec, source: Source) -> str:
    """The name of the judgements that are read, also where `corpus.split` is auto; empty where nothing is judged.

    Raises:
        ConfigError: as `topic_files`.
    """
    if spec.split != "auto":
        return spec.split
    qrels = topic_files(spec, source).qrels
    return "" if qrels is None else qrels.name.removesuffix(".gz").rpartition(".")[0] or qrels.name


def topics_hash(files: TopicFiles) -> str:
    """A hash of the content of the files: other questions or judgements, another hash.

    Raises:
        OSError: one cannot be read.
    """
    digest = hashlib.sha256()
    for path in filter(None, (files.queries, files.qrels)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def qrels_splits(folder: Path) -> tuple[str, ...]:
    """Names of the qrels files under `folder/qrels`, sorted; empty without that folder."""
    return tuple(_qrels_files(folder / "qrels"))


def _qrels_files(folder: Path) -> dict[str, Path]:
    entries = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
    found = {_stem(path.name): path for path in entries if path.name.endswith(_SUFFIXES) and path.is_file()}
    return dict(sorted(found.items()))


def _stem(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".tsv")


def read_qrels(path: Path, bad: BadLines | None = None) -> Qrels:
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

    for number, row in read_rows(path, parse, bad):
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
