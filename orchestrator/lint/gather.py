"""The facts about a corpus on this machine, as far as they are known without reading its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.corpora.corpus import corpus_format, stored_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import ConfigError, DataError, OrchestratorError
from orchestrator.lint.facts import CorpusFacts

_SAMPLE = 200


def corpus_facts(spec: CorpusSpec, root: Path) -> CorpusFacts:
    """What is known of a corpus: where it cannot be found, why; how many documents and a sample, where it is stored."""
    chunk = spec.chunk.max_chars
    try:
        found = corpus_format(spec)
    except ConfigError as error:
        return CorpusFacts(problem=(error.path, error.detail), chunk_chars=chunk)
    except DataError as error:
        return CorpusFacts(problem=("corpus.path", str(error)), chunk_chars=chunk)
    needs = {"pyarrow": "parquet"} if found == "parquet" else {}
    needs |= {"semantic_text_splitter": "chunks"} if chunk is not None else {}
    size, payload, content_hash = _stored(spec, root)
    return CorpusFacts(n_documents=size, payload=payload, chunk_chars=chunk, needs=needs, content_hash=content_hash)


def _stored(spec: CorpusSpec, root: Path) -> tuple[int | None, tuple[Mapping[str, object], ...], str | None]:
    """Its size, the metadata of documents at even distances, and the hash of all of them."""
    try:
        corpus = stored_corpus(spec, root)
    except OrchestratorError:  # a run reads the files again, and says what is wrong with them
        return None, (), None
    if corpus is None:
        return None, (), None
    try:
        metadata = tuple(document.metadata for document in corpus.sample(_SAMPLE))
        return len(corpus), metadata, corpus.content_hash
    finally:
        corpus.close()
