"""A collection on a server is kept in step with the corpus: what changed is sent, and nobody sees half of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models
from qdrant_site import N, Site, ask, ids, same, texts

from orchestrator.errors import (
    PermanentError,
    TransientError,
)
from orchestrator.plugins.qdrant import wire


@pytest.fixture
def site(tmp_path: Path, server: Any, hash_embed: Any) -> Iterator[Site]:
    opened = Site(tmp_path, server, hash_embed)
    yield opened
    opened.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow one another at once."""
    monkeypatch.setattr(wire, "_WAIT_S", 0.0)


def test_another_machine_takes_a_complete_collection_as_it_is(site: Site) -> None:
    wanted = ask(site.open(site.corpus()), "glaucoma")
    n_batches = len(site.server.sent("PUT", "/points"))
    other = site.open(site.corpus(root="another machine's storage"))
    assert site.reasons == ["missing"]
    assert len(site.server.sent("PUT", "/points")) == n_batches
    assert ask(other, "glaucoma") == wanted


def test_a_changed_corpus_sends_what_changed_and_each_reader_sees_its_own_state(site: Site) -> None:
    documents = texts()
    old = site.open(site.corpus(documents), collection="docs")
    before = {text: ask(old, text, 50) for text in ("glaucoma eye", documents["d50"], "quite new")}
    del documents["d50"]
    documents |= {"d7": "quite new in the eye", "added": "quite new in the lens"}
    site.server.requests.clear()
    new = site.open(site.corpus(documents), collection="docs")
    assert site.reasons == ["the corpus changed"]
    (batch,) = site.server.sent("PUT", "/points")
    assert sorted(point["payload"]["doc_id"] for point in batch["points"]) == ["added", "d7"]
    (marked,) = site.server.sent("POST", "/points/payload")
    assert marked["payload"] == {"_until": 2}
    assert len(marked["points"]) == 2  # what d7 was, and d50
    assert ids(new, "quite new in the eye", 1) == ["d7"]
    assert ids(new, "quite new in the lens", 1) == ["added"]
    assert "d50" not in ids(new, documents["d51"], N)
    assert len(ids(new, "eye", 5000)) == len(documents)
    for text, wanted in before.items():
        assert ask(old, text, 50) == wanted, "who opened the collection before sees it as it was"
    fresh = {"engine": "edge"}
    assert same(ask(new, "quite new", 50), ask(site.open(site.corpora[-1], **fresh), "quite new", 50))


def test_points_that_nobody_sees_any_more_go_with_the_next_update(site: Site) -> None:
    documents = texts(30)
    for change in range(3):
        documents["d0"] = f"changed {change}"
        site.open(site.corpus(documents), collection="docs")
    assert len(site.server.points("docs")) == 31  # thirty, and the d0 of the generation before
    del documents["d1"]
    site.open(site.corpus(documents), collection="docs")
    assert len(site.server.points("docs")) == 30
    assert len(ids(site.stages[-1], "eye", 100)) == 29


@pytest.mark.parametrize("how", ["drop", "lost", "500", pytest.param("slow", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("impatient")
def test_an_upload_goes_on_where_it_stopped(site: Site, how: str) -> None:
    corpus = site.corpus()
    place = {"url": site.server.url, "timeout_s": 0.5, "collection": "docs"}
    site.server.faults = [site.fault("PUT", "/points", how, skip=1)]
    with pytest.raises(TransientError, match=rf"^{site.server.url}: (upsert: |no answer within 0.5 s)"):
        site.open(corpus, **place)
    assert not list((corpus.root / "indexes").rglob("collection.json")), "nothing serves a half-filled collection"
    arrived = {point.payload["doc_id"] for point in site.server.points("docs")}
    assert len(arrived) >= 256
    site.server.faults = []
    site.server.requests.clear()
    stage = site.open(corpus, **place)
    assert site.reasons == ["missing"]
    sent = [point["payload"]["doc_id"] for body in site.server.sent("PUT", "/points") for point in body["points"]]
    assert sorted(sent) == sorted(set(texts()) - arrived)
    assert same(ask(stage, "glaucoma", 50), ask(site.open(corpus, engine="edge"), "glaucoma", 50))


@pytest.mark.parametrize("how", ["drop", "lost", "500", "429"])
@pytest.mark.usefixtures("impatient")
def test_a_passing_failure_of_an_upload_is_tried_again(site: Site, how: str) -> None:
    corpus = site.corpus()
    site.server.faults = [site.fault("PUT", "/points", how, skip=1, times=2)]
    stage = site.open(corpus, collection="docs")
    assert len(site.server.sent("PUT", "/points")) == 3 + 2
    assert len(ids(stage, "eye", N)) == N


@pytest.mark.usefixtures("impatient")
def test_a_refused_upload_is_not_tried_again(site: Site) -> None:
    site.server.faults = [site.fault("PUT", "/points", "400")]
    with pytest.raises(PermanentError, match="upsert: answered 400: made to fail"):
        site.open(site.corpus(), collection="docs")
    assert len(site.server.sent("PUT", "/points")) == 1


_INDEX = """
import sys
from pathlib import Path
from conftest import HashEmbed
from orchestrator.corpora.corpus import open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.learned.indexes import open_index
from orchestrator.plugins.recall.qdrant import QdrantRecall
folder, url = Path(sys.argv[1]), sys.argv[2]
corpus = open_corpus(CorpusSpec("eyes", str(folder / "beir")), folder / "storage")
stage = QdrantRecall(HashEmbed(), url=url, collection="docs")
stage.load()
open_index(stage, corpus, corpus.root, "dense")
"""


def test_a_killed_upload_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    corpus = site.corpus()
    site.server.faults = [site.fault("PUT", "/points", "slow", skip=1)]
    command = [sys.executable, "-c", _INDEX, str(tmp_path), site.server.url]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while len(site.server.sent("PUT", "/points")) < 2:
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    site.server.faults = []
    time.sleep(1.3)  # the request that was under way ends
    arrived = len(site.server.points("docs"))
    assert 256 <= arrived < N
    site.server.requests.clear()
    stage = site.open(corpus, collection="docs")
    assert sum(len(body["points"]) for body in site.server.sent("PUT", "/points")) == N - arrived
    assert len(ids(stage, "eye", N)) == N


@pytest.mark.usefixtures("impatient")
def test_a_broken_update_leaves_everybody_the_old_state(site: Site) -> None:
    documents = texts()
    old = site.open(site.corpus(documents), collection="docs")
    wanted = ask(old, "glaucoma eye", 100)
    changed = {key: f"{text} glaucoma eye" for key, text in documents.items()}
    site.server.faults = [site.fault("POST", "/points/payload", "500")]  # all written, nothing marked
    with pytest.raises(TransientError, match="mark replaced points: answered 500"):
        site.open(site.corpus(changed), collection="docs")
    assert ask(old, "glaucoma eye", 100) == wanted
    site.server.faults = []
    site.server.requests.clear()
    new = site.open(site.corpus(changed), collection="docs")
    assert site.server.sent("PUT", "/points") == [], "all had arrived before"
    fresh = ask(site.open(site.corpora[-1], engine="edge"), "glaucoma eye", 100)
    assert same(ask(new, "glaucoma eye", 100), fresh)


def test_verify_compares_every_document_and_index_mends(site: Site) -> None:
    corpus = site.corpus(texts(40))
    site.open(corpus, collection="docs")
    points = site.server.points("docs")
    site.server.client.set_payload("docs", {"text_hash": "another"}, points=[points[0].id])
    site.server.client.delete("docs", models.PointIdsList(points=[points[1].id]))
    stage = site.open(corpus, collection="docs", verify=True)
    assert len(site.reasons) == 1
    assert "collection 'docs': 2 documents are missing or changed, 0 are not in the corpus: 'd" in site.reasons[0]
    assert len(ids(stage, "eye", 100)) == 40
    site.open(corpus, collection="docs", verify=True)
    assert site.reasons == []


def test_a_collection_that_lost_points_is_mended_when_it_is_opened(site: Site) -> None:
    corpus = site.corpus(texts(40))
    site.open(corpus, collection="docs")
    site.server.client.delete("docs", models.PointIdsList(points=[site.server.points("docs")[0].id]))
    site.open(corpus, collection="docs")
    assert "collection 'docs' shows 39 documents; expected 40" in site.reasons[0]
    site.server.client.delete_collection("docs")
    assert len(ids(site.open(corpus, collection="docs"), "eye", 100)) == 40
    assert "collection 'docs' is gone; expected generation" in site.reasons[0]


def test_verify_mends_a_collection_that_is_gone(site: Site) -> None:
    corpus = site.corpus(texts(40))
    site.open(corpus, collection="docs")
    site.server.client.delete_collection("docs")
    assert len(ids(site.open(corpus, collection="docs", verify=True), "eye", 100)) == 40
    assert "collection 'docs' is gone" in site.reasons[0]


def test_a_payload_that_is_to_hold_the_text_is_written_again(site: Site) -> None:
    corpus = site.corpus(texts(40))
    site.open(corpus, collection="docs")
    only = {"must": [{"key": "text", "match": {"value": texts()["d7"]}}]}
    assert ids(site.open(corpus, collection="docs", payload_text=True, filter=only), "eye") == ["d7"]


def test_force_sends_every_document_again_and_switches_whole(site: Site) -> None:
    corpus = site.corpus(texts(300))
    old = site.open(corpus, collection="docs")
    before = ask(old, "glaucoma", 20)
    site.server.requests.clear()
    new = site.open(corpus, collection="docs", force=True)
    assert site.reasons == ["forced"]
    assert sum(len(body["points"]) for body in site.server.sent("PUT", "/points")) == 300
    assert ask(old, "glaucoma", 20) == before == ask(new, "glaucoma", 20)
    assert len(ids(new, "eye", 1000)) == 300
