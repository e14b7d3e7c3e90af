"""What stands behind the figures: rankings, judgements, texts of queries and documents, where they can be had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from orchestrator.corpora.judgements import read_qrels
from orchestrator.corpora.queries import read_queries
from orchestrator.lines import BadLines
from orchestrator.study.beside import QRELS_FILE, in_files, ranked_ids
from orchestrator.study.changes import Pair, Ranking
from orchestrator.study.entry import Entry
from orchestrator.trec import one_word

if TYPE_CHECKING:
    from orchestrator.corpora.corpus import DiskCorpus

QUERIES_FILE = "queries.jsonl"
_CHARS = 4000


@dataclass(slots=True)
class Material:
    """What the folder of one job and its corpus hold; a report shows the same for all rows.

    Attributes:
        folder: of a job.
        corpus: what it ranked; None where it cannot be opened.
        query_ids: of the judged queries, as per_query.json has them.
    """

    folder: Path
    corpus: DiskCorpus | None
    query_ids: Iterable[str]
    _rankings: dict[Path, Ranking] = field(default_factory=dict, init=False, repr=False)

    def ranking(self, entry: Entry) -> Ranking:
        """Query id -> document ids as files have them, best first; empty where the row has no run file."""
        if entry.ranking is None:
            return {}
        if entry.ranking not in self._rankings:
            ids = in_files(self.query_ids)
            read = ranked_ids(entry.ranking)
            self._rankings[entry.ranking] = {ids.get(query_id, query_id): ranked for query_id, ranked in read.items()}
        return self._rankings[entry.ranking]

    def qrels(self) -> dict[str, dict[str, int]]:
        """Query id -> document id as files have it -> grade; empty where neither folder nor corpus tells."""
        path = self.folder / QRELS_FILE
        if path.is_file():
            ids = in_files(self.query_ids)
            return {ids.get(query_id, query_id): judged for query_id, judged in read_qrels(path).items()}
        if self.corpus is None:
            return {}
        return {
            query_id: {one_word(doc_id): grade for doc_id, grade in judged.items()}
            for query_id, judged in self.corpus.qrels().items()
        }

    def queries(self) -> dict[str, str]:
        """Query id -> its text; empty where neither folder nor corpus tells."""
        path = self.folder / QUERIES_FILE
        if path.is_file():
            return {query.query_id: query.text for query in read_queries(path, BadLines(can_skip=False))}
        return {} if self.corpus is None else {query.query_id: query.text for query in self.corpus.queries()}

    def documents(self, pairs: Iterable[Pair]) -> dict[str, str]:
        """Document id as files have it -> title and beginning of the text; those that cannot be had are missing.

        A document that was ranked in chunks has the text of its first chunk.
        """
        if self.corpus is None:
            return {}
        wanted = dict.fromkeys(
            shown.doc_id
            for pair in pairs
            for changed in pair.changed
            for shown in (*changed.documents_before, *changed.documents_after)
        )
        return dict(_texts(self.corpus, wanted))


def _texts(corpus: DiskCorpus, wanted: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    own = {doc_id: (doc_id, unquote(doc_id), f"{unquote(doc_id)}#1") for doc_id in wanted}
    ids = list(dict.fromkeys(name for names in own.values() for name in names))
    there = {name for name, place in zip(ids, corpus.find(ids).tolist(), strict=True) if place >= 0} if ids else set()
    chosen = {doc_id: next((name for name in names if name in there), None) for doc_id, names in own.items()}
    read = [name for name in chosen.values() if name is not None]
    documents = {document.doc_id: document for document in corpus.get(read)}
    for doc_id, name in chosen.items():
        if name is not None:
            document = documents[name]
            yield doc_id, " ".join(f"{document.title} {document.text[:_CHARS]}".split())
