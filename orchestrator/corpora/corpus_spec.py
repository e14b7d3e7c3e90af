"""What a corpus is, as the configuration says."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.corpora.chunks import Chunking
from orchestrator.corpora.readers.columns import Columns
from orchestrator.corpora.readers.table import TableOptions
from orchestrator.errors import ConfigError
from orchestrator.lines import OnBadLine


@dataclass(frozen=True, slots=True)
class CorpusSpec:
    """What a corpus is, as the configuration says.

    Attributes:
        name: short name; part of folder names.
        path: a file, a folder, a pattern, or `pkg://package/folder`.
        language: ISO 639-1 code; selects analyzers.
        split: which qrels/<split>.tsv; `auto` takes test, dev, validation or train, or else the only one.
        max_queries: at most so many queries, or None for all.
        on_bad_line: `fail`, or `skip` to leave bad lines out and count them.
        format: one of locate.FORMATS, or `auto` to go by the names of the files.
        columns: which column of a file holds what.
        csv: how CSV and TSV files are written.
        chunk: how long documents are cut.
        queries: a file of questions, or None for those of a BEIR folder.
        qrels: a file of judgements, or None for those of a BEIR folder.
    """

    name: str
    path: str
    language: str = "en"
    split: str = "auto"
    max_queries: int | None = None
    on_bad_line: OnBadLine = "fail"
    format: str = "auto"
    columns: Columns = field(default_factory=Columns)
    csv: TableOptions = field(default_factory=TableOptions)
    chunk: Chunking = field(default_factory=Chunking)
    queries: str | None = None
    qrels: str | None = None

    def __post_init__(self) -> None:
        if self.max_queries is not None and self.max_queries < 1:
            expected = "expected 1 or more, or null for all"
            raise ConfigError("corpus.max_queries", f"found {self.max_queries}; {expected}")
        if self.on_bad_line not in ("fail", "skip"):
            raise ConfigError("corpus.on_bad_line", f"found '{self.on_bad_line}'; choices: fail, skip")
