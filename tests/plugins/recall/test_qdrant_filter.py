"""Every condition selects in every engine what Python selects by its definition; what is no filter is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest

from orchestrator.corpora.corpus import DiskCorpus, open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import ConfigError
from orchestrator.learned.indexes import open_index
from orchestrator.plugins.qdrant.filter import checked_filter
from orchestrator.plugins.recall.qdrant import QdrantRecall
from orchestrator.types import Call, Query

N = 44
SOURCES = ("NIHSeniorHealth", "GARD", "CDC Fact Sheets")
CITIES = ({"lon": 13.40, "lat": 52.52}, {"lon": 2.35, "lat": 48.86}, {"lon": -74.0, "lat": 40.71})


def metadata(i: int) -> dict[str, Any]:
    """Fields of every payload type, some missing, null or empty here and there."""
    row: dict[str, Any] = {
        "source": SOURCES[i % 3],
        "rating": i / 4,
        "tags": [f"t{k}" for k in range(i % 4)],
        "offers": [{"price": i, "kind": "new"}, {"price": i % 5, "kind": "used"}],
        "place": CITIES[i % 3],
        "site": {"name": f"site{i % 2}", "rank": i % 6},
        "number": f"00000000-0000-0000-0000-{i % 8:012d}",
    }
    if i % 7:
        row["year"] = 2000 + i % 25
    if i % 5 != 4:
        row["open"] = i % 2 == 0
    if i % 3:
        row["published"] = f"2024-{1 + i % 12:02d}-{1 + i % 28:02d}T06:30:00Z"
    if i % 4 == 0:
        row["note"] = None if i % 8 else "Checked by a doctor"
    return row


ROWS = [metadata(i) for i in range(N)]


def moment(row: dict[str, Any]) -> datetime | None:
    return datetime.fromisoformat(row["published"]) if "published" in row else None


def metres(a: dict[str, float], b: dict[str, float]) -> float:
    """Haversine on a sphere of 6,371 km."""
    phi = [math.radians(point["lat"]) for point in (a, b)]
    d_lon = math.radians(b["lon"] - a["lon"])
    h = math.sin((phi[1] - phi[0]) / 2) ** 2 + math.cos(phi[0]) * math.cos(phi[1]) * math.sin(d_lon / 2) ** 2
    return 2 * 6_371_000 * math.asin(math.sqrt(h))


Select = Callable[[dict[str, Any], int], bool]


def must(**condition: Any) -> dict[str, Any]:
    return {"must": [condition]}


BERLIN_BOX = {"top_left": {"lon": 13, "lat": 53}, "bottom_right": {"lon": 14, "lat": 52}}
EUROPE = [{"lon": x, "lat": y} for x, y in ((-10, 35), (30, 35), (30, 60), (-10, 60), (-10, 35))]
FRANCE = [{"lon": x, "lat": y} for x, y in ((0, 47), (5, 47), (5, 50), (0, 50), (0, 47))]

CASES: dict[str, tuple[dict[str, Any], Select]] = {
    "match text value": (must(key="source", match={"value": "GARD"}), lambda m, i: m["source"] == "GARD"),
    "match number": (must(key="year", match={"value": 2003}), lambda m, i: m.get("year") == 2003),
    "match true": (must(key="open", match={"value": True}), lambda m, i: m.get("open") is True),
    "match false": (must(key="open", match={"value": False}), lambda m, i: m.get("open") is False),
    "match in list": (must(key="tags", match={"value": "t2"}), lambda m, i: "t2" in m["tags"]),
    "match uuid": (
        must(key="number", match={"value": ROWS[3]["number"]}),
        lambda m, i: m["number"] == ROWS[3]["number"],
    ),
    "match any text": (
        must(key="source", match={"any": ["GARD", "CDC Fact Sheets"]}),
        lambda m, i: m["source"] in ("GARD", "CDC Fact Sheets"),
    ),
    "match any number": (must(key="year", match={"any": [2001, 2010]}), lambda m, i: m.get("year") in (2001, 2010)),
    "match except": (must(key="source", match={"except": ["GARD"]}), lambda m, i: m["source"] != "GARD"),
    "match except number": (
        must(key="year", match={"except": [2001, 2002]}),
        lambda m, i: "year" in m and m["year"] not in (2001, 2002),
    ),
    "match text": (
        must(key="source", match={"text": "sheets cdc"}),
        lambda m, i: m["source"] == "CDC Fact Sheets",
    ),
    "match text any": (
        must(key="source", match={"text_any": "fact gard"}),
        lambda m, i: m["source"] in ("CDC Fact Sheets", "GARD"),
    ),
    "match phrase": (must(key="source", match={"phrase": "fact sheets"}), lambda m, i: "Fact Sheets" in m["source"]),
    "match phrase out of order": (must(key="source", match={"phrase": "sheets fact"}), lambda m, i: False),
    "match prefix": (must(key="source", match={"prefix": "NIH"}), lambda m, i: m["source"].startswith("NIH")),
    "match substring": (must(key="source", match={"substring": "Fact"}), lambda m, i: "Fact" in m["source"]),
    "title": (must(key="title", match={"value": "title 5"}), lambda m, i: i == 5),
    "range": (must(key="rating", range={"gte": 2.5, "lt": 6}), lambda m, i: 2.5 <= m["rating"] < 6),
    "range of integers": (
        must(key="year", range={"gt": 2004, "lte": 2012}),
        lambda m, i: 2004 < m.get("year", 0) <= 2012,
    ),
    "range of times": (
        must(key="published", range={"gte": "2024-03-01", "lt": "2024-07-15T08:30:00+02:00"}),
        lambda m, i: (
            (found := moment(m)) is not None
            and datetime(2024, 3, 1, tzinfo=UTC) <= found < datetime(2024, 7, 15, 6, 30, tzinfo=UTC)
        ),
    ),
    "geo box": (must(key="place", geo_bounding_box=BERLIN_BOX), lambda m, i: m["place"] == CITIES[0]),
    "geo radius": (
        must(key="place", geo_radius={"center": CITIES[0], "radius": 900_000}),
        lambda m, i: metres(m["place"], CITIES[0]) < 900_000,
    ),
    "geo polygon": (
        must(key="place", geo_polygon={"exterior": {"points": EUROPE}}),
        lambda m, i: m["place"] in CITIES[:2],
    ),
    "geo polygon with a hole": (
        must(key="place", geo_polygon={"exterior": {"points": EUROPE}, "interiors": [{"points": FRANCE}]}),
        lambda m, i: m["place"] == CITIES[0],
    ),
    "values count": (must(key="tags", values_count={"gte": 2, "lt": 3}), lambda m, i: len(m["tags"]) == 2),
    "is empty": (must(is_empty={"key": "tags"}), lambda m, i: not m["tags"]),
    "is empty, missing": (must(is_empty={"key": "year"}), lambda m, i: "year" not in m),
    "is empty of a key": (must(key="note", is_empty=False), lambda m, i: m.get("note") is not None),
    "is null": (must(is_null={"key": "note"}), lambda m, i: "note" in m and m["note"] is None),
    "is null of a key": (must(key="note", is_null=True), lambda m, i: "note" in m and m["note"] is None),
    "has id": (must(has_id=["d3", "d9", "of another corpus"]), lambda m, i: i in (3, 9)),
    "has vector": (must(has_vector=""), lambda m, i: True),
    "has another vector": (must(has_vector="image"), lambda m, i: False),
    "path into an object": (must(key="site.name", match={"value": "site1"}), lambda m, i: i % 2 == 1),
    "path into a list": (
        must(key="offers[].price", range={"gt": 40}),
        lambda m, i: any(offer["price"] > 40 for offer in m["offers"]),
    ),
    "nested": (
        must(
            nested={
                "key": "offers",
                "filter": {"must": [{"key": "price", "range": {"lt": 3}}, {"key": "kind", "match": {"value": "new"}}]},
            }
        ),
        lambda m, i: any(offer["price"] < 3 and offer["kind"] == "new" for offer in m["offers"]),
    ),
    "must not": (
        {"must_not": [{"key": "open", "match": {"value": True}}, {"is_empty": {"key": "year"}}]},
        lambda m, i: m.get("open") is not True and "year" in m,
    ),
    "should": (
        {"should": [{"key": "year", "match": {"value": 2001}}, {"has_id": ["d3"]}]},
        lambda m, i: m.get("year") == 2001 or i == 3,
    ),
    "min should": (
        {
            "min_should": {
                "min_count": 2,
                "conditions": [
                    {"key": "open", "match": {"value": True}},
                    {"key": "rating", "range": {"gte": 5}},
                    {"key": "source", "match": {"value": "GARD"}},
                ],
            }
        },
        lambda m, i: (m.get("open") is True) + (m["rating"] >= 5) + (m["source"] == "GARD") >= 2,
    ),
    "all together": (
        {
            "must": {"key": "rating", "range": {"gte": 1}},
            "should": [
                {"must_not": [{"key": "open", "match": {"value": False}}]},
                {"key": "year", "range": {"lt": 2003}},
            ],
            "must_not": [{"has_id": ["d8"]}],
        },
        lambda m, i: m["rating"] >= 1 and (m.get("open") is not False or m.get("year", 9999) < 2003) and i != 8,
    ),
}
INDEXES = {
    "source": "keyword",
    "year": "integer",
    "rating": "float",
    "open": "bool",
    "published": "datetime",
    "title": "text",
    "place": "geo",
    "number": "uuid",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiskCorpus]:
    folder = tmp_path_factory.mktemp("filter")
    rows = [{"_id": f"d{i}", "title": f"title {i}", "text": f"glaucoma eye {i * i}", **ROWS[i]} for i in range(N)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    opened = open_corpus(CorpusSpec("eyes", str(folder)), folder / "storage")
    yield opened
    opened.close()


@pytest.fixture
def opened(corpus: DiskCorpus, shared_server: Any, hash_embed: Any) -> Iterator[Callable[..., QdrantRecall]]:
    stages: list[QdrantRecall] = []

    def open_(engine: str, **options: Any) -> QdrantRecall:
        place = {"url": shared_server.url} if engine == "server" else {"engine": engine}
        stages.append(QdrantRecall(hash_embed(), **place, **options))
        stages[-1].load()
        open_index(stages[-1], corpus, corpus.root, "dense")
        return stages[-1]

    yield open_
    for stage in stages:
        stage.close()


def found(stage: QdrantRecall, top_k: int = N) -> list[str]:
    vector = stage.embedder.embed(["glaucoma"], kind="query", call=Call())[0]
    pairs = stage.retrieve(Query("q", "glaucoma", vector=vector), top_k, Call())
    return [doc_id for doc_id, _ in pairs]


@pytest.mark.parametrize("engine", ["edge", "local", "server"])
@pytest.mark.parametrize("name", CASES)
def test_a_condition_selects_what_its_definition_says(
    name: str, engine: str, opened: Callable[..., QdrantRecall]
) -> None:
    condition, select = CASES[name]
    wanted = [f"d{i}" for i in range(N) if select(ROWS[i], i)]
    assert sorted(found(opened(engine, filter=condition))) == sorted(wanted)


@pytest.mark.parametrize("name", CASES)
def test_payload_indexes_of_edge_change_no_result(name: str, opened: Callable[..., QdrantRecall]) -> None:
    condition, select = CASES[name]
    wanted = {f"d{i}" for i in range(N) if select(ROWS[i], i)}
    assert set(found(opened("edge", filter=condition, payload_indexes=INDEXES))) == wanted


@pytest.mark.parametrize("engine", ["edge", "local", "server"])
def test_a_filtered_ranking_is_the_whole_one_without_the_others(
    engine: str, opened: Callable[..., QdrantRecall]
) -> None:
    condition, select = CASES["all together"]
    whole = found(opened(engine))
    assert len(whole) == N
    wanted = [doc_id for doc_id in whole if select(ROWS[int(doc_id[1:])], int(doc_id[1:]))]
    assert found(opened(engine, filter=condition)) == wanted
    assert found(opened(engine, filter=condition), top_k=3) == wanted[:3]


@pytest.mark.parametrize("engine", ["edge", "local", "server"])
def test_the_text_is_payload_on_demand(engine: str, opened: Callable[..., QdrantRecall]) -> None:
    condition = must(key="text", match={"text": "glaucoma 25"})
    assert found(opened(engine, filter=condition)) == []
    assert found(opened(engine, filter=condition, payload_text=True)) == ["d5"]


def test_a_checked_filter_is_plain_json() -> None:
    given = {
        "must": {"key": "t", "range": {"gte": date(2024, 1, 2), "lt": "2024-01-03T02:00:00+02:00"}},
        "must_not": None,
        "should": [{"key": "a", "match": {"value": 3}}, {"nested": {"key": "b", "filter": {"must": []}}}][:1],
    }
    assert checked_filter("filter", given) == {
        "must": [{"key": "t", "range": {"gte": "2024-01-02T00:00:00.000000Z", "lt": "2024-01-03T00:00:00.000000Z"}}],
        "should": [{"key": "a", "match": {"value": 3}}],
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "filter: is empty; expected any of must, should, must_not, min_should, or null for no filter"),
        ([], r"filter: found \[\]; expected a mapping with must, should"),
        ({"musst": []}, "filter.musst: unknown; choices: must, should, must_not, min_should. Did you mean 'must'?"),
        ({"must": []}, r"filter.must: found \[\]; expected a list of conditions"),
        ({"must": "year"}, "filter.must: found 'year'; expected a list of conditions"),
        (must(), r"filter.must\[0\]: found nothing; expected a condition: key with one of match, range"),
        ({"must": [3]}, r"filter.must\[0\]: found 3; expected a mapping with key, is_empty"),
        (must(key="year"), r"filter.must\[0\]: found none; expected exactly one of match, range, geo_bounding_box"),
        (must(key="", match={"value": 1}), r"filter.must\[0\].key: found ''; expected a text"),
        (
            must(key="a", match={"value": 1}, range={"gt": 1}),
            r"filter.must\[0\]: found match, range; expected exactly one of",
        ),
        (must(key="a", macth={"value": 1}), r"filter.must\[0\].macth: unknown; choices: .*Did you mean 'match'?"),
        (must(match={"value": 1}), r"filter.must\[0\].match: unknown; choices: key, is_empty"),
        (must(key="a", match={}), r"filter.must\[0\].match: found none; expected exactly one of value, any, except"),
        (must(key="a", match={"value": 1.5}), r"match.value: found 1.5; expected a text, a whole number.*by a range"),
        (must(key="a", match={"any": []}), r"match.any: found \[\]; expected a list of 1 or more"),
        (must(key="a", match={"any": ["x", 1]}), "match.any: found .*; expected texts only or whole numbers only"),
        (must(key="a", match={"any": [True]}), r"match.any\[0\]: found True; expected an id"),
        (must(key="a", match={"text": 3}), "match.text: found 3; expected a text"),
        (must(key="a", range={}), "range: has no bound; expected any of lt, gt, lte, gte"),
        (must(key="a", range={"gt": 1, "lt": "2"}), "range.lt: found '2'; expected a number"),
        (must(key="a", range={"gt": float("nan")}), "range.gt: found nan; expected a number"),
        (must(key="a", range={"gt": "soon"}), "range.gt: found 'soon'; expected a date or time in ISO 8601"),
        (must(key="a", range={"from": 1}), "range.from: unknown; choices: lt, gt, lte, gte"),
        (must(key="a", values_count={"gt": 1.5}), "values_count.gt: found 1.5; expected a whole number of 0 or more"),
        (must(key="a", values_count={}), "values_count: has no bound"),
        (must(key="a", is_empty="yes"), "is_empty: found 'yes'; expected true or false"),
        (must(key="a", geo_radius={"radius": 3}), "geo_radius.center: missing"),
        (
            must(key="a", geo_radius={"radius": -3, "center": CITIES[0]}),
            "geo_radius.radius: found -3; expected a number of 0 or more",
        ),
        (
            must(key="a", geo_bounding_box={**BERLIN_BOX, "top_left": {"lon": 200, "lat": 1}}),
            "geo_bounding_box.top_left.lon: found 200; expected a number from -180 to 180",
        ),
        (
            must(key="a", geo_polygon={"exterior": {"points": EUROPE[:4]}}),
            "geo_polygon.exterior.points: ends at .*; expected the first point again",
        ),
        (must(is_empty="a"), "is_empty: found 'a'; expected a mapping with key"),
        (must(has_id=[]), r"has_id: found \[\]; expected a list of 1 or more"),
        (must(has_id=[1.5]), r"has_id\[0\]: found 1.5; expected an id"),
        (must(has_vector=3), "has_vector: found 3; expected a text"),
        (must(nested={"key": "a"}), "nested.filter: missing"),
        (
            must(nested={"key": "a", "filter": must(has_id=["d1"])}),
            r"nested.filter.must\[0\]: stands in a nested filter, whose objects have neither id nor vector",
        ),
        ({"min_should": {"conditions": []}}, "filter.min_should.min_count: missing"),
        (
            {"min_should": {"conditions": [{"has_id": ["a"]}], "min_count": 0}},
            "filter.min_should.min_count: found 0; expected a whole number of 1 or more",
        ),
        (must(slice={"total": 2, "index": 0}), r"filter.must\[0\].slice: unknown; choices"),
    ],
)
def test_what_is_no_filter_is_named_where_it_stands(wrong: Any, message: str, hash_embed: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        QdrantRecall(hash_embed(), filter=wrong)
