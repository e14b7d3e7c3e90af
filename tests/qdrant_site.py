"""Documents that may change, a server that holds their vectors, and the Qdrant recalls opened over them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from orchestrator.corpora.corpus import DiskCorpus, open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.learned.indexes import open_index
from orchestrator.plugins.recall.qdrant import QdrantRecall
from orchestrator.types import Call, Query

WORDS = "glaucoma eye nerve optic pressure vitamin retina cornea lens vision".split()  # noqa: SIM905
N = 600


def texts(n: int = N) -> dict[str, str]:
    """Distinct texts, except that every tenth stands three times."""
    generator = np.random.default_rng(3)
    lines = [" ".join(generator.choice(WORDS, 5)) + f" {i}" for i in range(n)]
    for place in range(0, n - 2, 10):
        lines[place + 1] = lines[place + 2] = lines[place]
    return {f"d{i}": line for i, line in enumerate(lines)}


class Site:
    """A folder with documents that may change, one storage root a name, and the stages opened over it."""

    def __init__(self, folder: Path, server: Any, hash_embed: Any) -> None:
        self.folder, self.server, self.hash_embed = folder, server, hash_embed
        self.stages: list[QdrantRecall] = []
        self.corpora: list[DiskCorpus] = []
        self.reasons: list[str] = []

    def corpus(
        self, documents: Mapping[str, str] | None = None, root: str = "storage", name: str = "eyes"
    ) -> DiskCorpus:
        beir = self.folder / "beir"
        beir.mkdir(exist_ok=True)
        rows = [json.dumps({"_id": key, "text": text}) for key, text in (documents or texts()).items()]
        (beir / "corpus.jsonl").write_text("\n".join(rows))
        self.corpora.append(open_corpus(CorpusSpec(name, str(beir)), self.folder / root))
        return self.corpora[-1]

    def open(self, corpus: DiskCorpus, force: bool = False, verify: bool = False, **options: Any) -> QdrantRecall:
        """A stage ready to retrieve; `reasons` then says what was built."""
        embedder = options.pop("embedder", None) or self.hash_embed()
        place = {} if "engine" in options or "url" in options else {"url": self.server.url}
        self.stages.append(QdrantRecall(embedder, **place, **options))
        self.stages[-1].load()
        self.reasons.clear()
        told = self.reasons.append
        index = open_index(self.stages[-1], corpus, corpus.root, "dense", on_build=told, force=force, verify=verify)
        self.directory = index.directory
        return self.stages[-1]

    def fault(self, method: str, ending: str, how: str, **options: int) -> Any:
        """What goes wrong with requests to a path of the server that ends so."""
        kind = sys.modules[type(self.server).__module__].Fault
        return kind(method, ending, how, **options)

    def close(self) -> None:
        for stage in self.stages:
            stage.close()
        for corpus in self.corpora:
            corpus.close()


def ask(stage: QdrantRecall, text: str, top_k: int = 10, call: Call | None = None) -> list[tuple[str, float]]:
    vector = stage.embedder.embed([text], kind="query", call=Call())[0]
    return list(stage.retrieve(Query("q", text, vector=vector), top_k, call or Call()))


def same(found: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> bool:
    """Equal scores to 1e-5, rank by rank, and equal documents but for those that tie with the last one."""
    scores = [[score for _, score in pairs] for pairs in (found, wanted)]
    kept = [{doc_id for doc_id, score in pairs if score > wanted[-1][1] + 2e-5} for pairs in (found, wanted)]
    return scores[0] == pytest.approx(scores[1], abs=1e-5) and kept[0] == kept[1]


def ids(stage: QdrantRecall, text: str, top_k: int = 10) -> list[str]:
    return [doc_id for doc_id, _ in ask(stage, text, top_k)]


def fill_theirs(site: Site, documents: Mapping[str, str], **options: Any) -> None:
    """A collection as somebody else might fill it: vectors of our embedder, ids and texts in fields of their own."""
    client = site.server.client
    parameters = models.VectorParams(size=32, distance=models.Distance.COSINE)
    client.create_collection("theirs", vectors_config=parameters)
    vectors = site.hash_embed().embed(list(documents.values()), kind="document", call=Call()).tolist()
    points = [
        models.PointStruct(id=place, vector=vector, payload={"meta": {"ref": key}, "body": text, "n": place})
        for place, ((key, text), vector) in enumerate(zip(documents.items(), vectors, strict=True))
    ]
    client.upsert("theirs", points)
    site.server.requests.clear()
