"""Corpora to measure on: made up of the sample's sentences, as large as wanted; and what a real one has to tell."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.calibration.ladder import CountTokens
from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.costs.lengths import Lengths
from orchestrator.errors import ConfigError
from orchestrator.pipeline import Pipeline
from orchestrator.types import Query

_SENTENCES = (3, 9)
_MOST_QUESTIONS = 64
_FOUND = 200
_WORDS_OF_A_QUESTION = 10


def write_made_up(folder: Path, texts: Iterable[str], n_documents: int, seed: int = 7) -> None:
    """Write `n_documents` documents of a few sentences each, drawn from `texts`, as corpus.jsonl into `folder`."""
    sentences = [part for text in texts for part in re.split(r"(?<=[.?!])\s+", text) if len(part) > 20]
    drawn = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for place in range(n_documents):
            text = " ".join(drawn.choices(sentences, k=drawn.randint(*_SENTENCES)))
            file.write(json.dumps({"_id": f"d{place}", "text": text}, ensure_ascii=False) + "\n")


def questions(pipeline: Pipeline, most: int = _MOST_QUESTIONS) -> tuple[list[Query], bool]:
    """Some of the corpus's questions, spread evenly; without any, the first words of its documents, and False.

    Raises:
        OrchestratorError: the questions, or the documents, cannot be read.
    """
    corpus = pipeline.corpus
    if asked := _asked(corpus):
        n = min(most, len(asked))
        return [asked[place * len(asked) // n] for place in range(n)], True
    found = []
    for document in corpus.documents():
        words = document.full_text.split()[:_WORDS_OF_A_QUESTION]
        if words:
            found.append(Query(document.doc_id, " ".join(words), corpus.language))
        if len(found) == most:
            break
    return found, False


def _asked(corpus: DiskCorpus) -> list[Query]:
    try:
        return corpus.queries()
    except ConfigError as error:
        if error.path != "corpus.queries" or corpus.spec.queries is not None:
            raise
        return []  # none is named, and none lies beside the documents


def count_lengths(pipeline: Pipeline, asked: Sequence[Query], count: CountTokens) -> Lengths | None:
    """Tokens of the questions, and of the first 200 documents that the pipeline finds for each; None: it finds none."""
    known: dict[str, int] = {}
    rows, lengths = [], []
    for query in asked:
        ids = pipeline.search_many([query], read_documents=False)[0].uncut(_FOUND)
        missing = [doc_id for doc_id in ids if doc_id not in known]
        for doc_id, document in zip(missing, pipeline.corpus.get(missing), strict=True):
            known[doc_id] = count(document.full_text)
        if ids:
            rows.append([known[doc_id] for doc_id in ids])
        lengths.append(count(query.text))
    return Lengths(lengths, rows, f"counted in {pipeline.corpus.name}") if rows else None
