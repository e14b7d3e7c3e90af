"""A collection that somebody else made: searched with its own fields, compared with the corpus, never written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models
from qdrant_site import Site, ask, fill_theirs, ids, same, texts

from orchestrator.errors import (
    IndexStateError,
    StageError,
)
from orchestrator.types import Call


@pytest.fixture
def site(tmp_path: Path, server: Any, hash_embed: Any) -> Iterator[Site]:
    opened = Site(tmp_path, server, hash_embed)
    yield opened
    opened.close()


THEIRS = {"collection": "theirs", "existing": True, "id_field": "meta.ref"}
WRITES = {"PUT", "PATCH", "DELETE"}


def test_a_collection_of_the_users_is_searched_and_never_written(site: Site) -> None:
    corpus = site.corpus()
    fill_theirs(site, texts())
    stage = site.open(corpus, **THEIRS, text_field="body")
    assert same(ask(stage, "glaucoma eye", 40), ask(site.open(corpus, engine="edge"), "glaucoma eye", 40))
    only = {"must": [{"key": "n", "range": {"lt": 3}}, {"has_id": [0, 1, 2, 3]}]}
    filtered = site.open(corpus, **THEIRS, filter=only, verify=True)
    assert sorted(ids(filtered, "eye")) == ["d0", "d1", "d2"]
    site.open(corpus, **THEIRS, force=True)
    assert {method for method, _, _ in site.server.requests} & WRITES == set()
    assert {path.rsplit("/", 1)[1] for method, path, _ in site.server.requests if method == "POST"} == {
        "scroll",
        "query",
    }


def test_the_points_ids_are_the_documents_where_no_field_is_named(site: Site) -> None:
    documents = {str(place): text for place, text in enumerate(texts(30).values())}
    fill_theirs(site, documents)
    stage = site.open(site.corpus(documents), collection="theirs", existing=True)
    assert ids(stage, documents["17"], 1) == ["17"]


def test_a_document_of_several_points_counts_once_with_its_best(site: Site) -> None:
    fill_theirs(site, {"d0": "glaucoma eye", "d1": "optic nerve", "d2": "vitamin"})
    vector = site.hash_embed().embed(["glaucoma eyes"], kind="document", call=Call())[0].tolist()
    site.server.client.upsert("theirs", [models.PointStruct(id=9, vector=vector, payload={"meta": {"ref": "d1"}})])
    stage = site.open(site.corpus({"d0": "glaucoma eye", "d1": "optic nerve", "d2": "vitamin"}), **THEIRS)
    found = ask(stage, "glaucoma eyes", 2)
    assert [doc_id for doc_id, _ in found] == ["d1", "d0"]
    assert found[0][1] == pytest.approx(1)


def test_a_hit_that_the_corpus_does_not_hold_is_an_error_or_left_out(site: Site) -> None:
    documents = texts(30)
    fill_theirs(site, documents)
    known = {key: text for key, text in documents.items() if key not in ("d3", "d5")}
    corpus = site.corpus(known)
    message = r"collection 'theirs': 2 of 30 ids are not in corpus 'eyes': 'd3', 'd5'; .*on_unknown: skip"
    with pytest.raises(IndexStateError, match=message):
        site.open(corpus, **THEIRS)
    stage = site.open(corpus, **THEIRS, on_unknown="skip")
    call = Call()
    assert [doc_id for doc_id, _ in ask(stage, documents["d3"], 28, call)].count("d3") == 0
    assert len(ask(stage, documents["d3"], 28)) == 28
    assert "left out 2 of 30 hits that the corpus does not hold" in call.notes
    site.server.client.delete("theirs", models.PointIdsList(points=[3, 5]))
    stage = site.open(corpus, **THEIRS)
    fill = models.PointStruct(id=3, vector=[1.0] * 32, payload={"meta": {"ref": "later"}})
    site.server.client.upsert("theirs", [fill])
    with pytest.raises(StageError, match=r"query 'q': .* 1 of 29 ids are not in corpus 'eyes': 'later'"):
        ask(stage, "eye", 40)
    site.server.client.upsert("theirs", [models.PointStruct(id=3, vector=[1.0] * 32, payload={})])
    with pytest.raises(StageError, match=r"point 3 has no id in payload field 'meta.ref'"):
        ask(stage, "eye", 40)


def test_verify_of_a_collection_of_the_users_is_an_error_that_nothing_mends(site: Site) -> None:
    corpus = site.corpus(texts(30))
    fill_theirs(site, texts(30))
    site.open(corpus, **THEIRS, verify=True)
    later = models.PointStruct(id=99, vector=[1.0] * 32, payload={"meta": {"ref": "later"}})
    site.server.client.upsert("theirs", [later])
    with pytest.raises(StageError, match="1 of 31 ids are not in corpus 'eyes': 'later'"):
        site.open(corpus, **THEIRS, verify=True)
    assert site.reasons == []


def test_a_text_that_the_collection_holds_otherwise_is_told(site: Site) -> None:
    documents = texts(30)
    fill_theirs(site, {**documents, "d4": "an older text"})
    message = "collection 'theirs': 1 of 30 points hold another text or title than corpus 'eyes': 'd4'; choices:"
    with pytest.raises(IndexStateError, match=message):
        site.open(site.corpus(documents), **THEIRS, text_field="body")


def test_titles_are_compared_where_they_have_a_field(site: Site) -> None:
    documents = texts(30)
    fill_theirs(site, documents)
    site.server.client.set_payload("theirs", {"head": ""}, list(range(30)))  # the corpus has no titles
    site.open(site.corpus(documents), **THEIRS, title_field="head")
    site.server.client.set_payload("theirs", {"head": "Eyes"}, [7])
    with pytest.raises(IndexStateError, match="1 of 30 points hold another text or title than corpus 'eyes': 'd7'"):
        site.open(site.corpus(documents), **THEIRS, title_field="head", text_field="body")


def test_a_missing_collection_names_those_that_are_there(site: Site) -> None:
    fill_theirs(site, texts(5))
    with pytest.raises(IndexStateError, match="collection 'their' does not exist; collections: theirs"):
        site.open(site.corpus(texts(5)), collection="their", existing=True)
