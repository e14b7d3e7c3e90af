"""What is shown and written of an answer: JSON lines, the tree of the trace, tables, the picture."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from answers import Finds, Prefers, Sums, ask, explained, skipped, stood_in, stopped, two_recalls
from pages import Reader
from rich.console import Console

from orchestrator import report
from orchestrator.answers.flow import flow_of
from orchestrator.answers.trace import Degraded, Result, Shortfall
from orchestrator.evaluation.latency import Latency
from orchestrator.evaluation.quality import Quality
from orchestrator.evaluation.work import Work
from orchestrator.report.explained import Explained, explained_json
from orchestrator.report.flow_table import dropped_table, flow_table, relevant_lines, way_table
from orchestrator.report.layout import lay_out
from orchestrator.report.page import page
from orchestrator.types import Call, Document, Query


def shown(renderable: object, width: int = 120) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def words(renderable: object, width: int = 120) -> str:
    return " ".join(shown(renderable, width).split())


def timed(result: Result, total_ms: float, *stages: tuple[float, float]) -> Result:
    """`result` with (began, took) of each stage."""
    told = zip(result.trace.stages, stages, strict=True)
    traces = tuple(replace(stage, started_ms=start, ms=ms) for stage, (start, ms) in told)
    return replace(result, trace=replace(result.trace, total_ms=total_ms, stages=traces))


# --- JSON lines


def test_a_row_says_whether_it_was_scored_and_by_which_kind_of_score() -> None:
    line = json.loads(report.result_json(stopped(two_recalls(), "precise", 1)))
    rows = [(row["doc_id"], row["scored"], row["score_kind"], row["score"]) for row in line["results"]]
    assert rows == [("d3", True, "logit", 1.0), ("d1", False, "rrf", 1 / 1)]


def test_shortfalls_stand_in_the_line() -> None:
    line = json.loads(report.result_json(stopped(two_recalls(), "precise", 1)))
    assert line["degraded"] == [
        {"stage": "precise", "reason": "deadline", "detail": "its 12.5 ms were over", "scored": 1, "of": 3}
    ]
    assert line["trace"]["enforced"] is True
    precise = line["trace"]["stages"][-1]
    assert (precise["n_scored"], precise["allowed_ms"], precise["skipped"]) == (1, 12.5, None)


def test_a_stage_that_scored_everything_says_how_much_that_was() -> None:
    stages = json.loads(report.result_json(two_recalls()))["trace"]["stages"]
    assert [stage["n_scored"] for stage in stages] == [3, 4, 6, 3]
    assert all(stage["allowed_ms"] is None for stage in stages)
    started = [stage["started_ms"] for stage in stages]
    assert started == sorted(started)


def test_a_skipped_stage_scored_nothing_and_says_why() -> None:
    result = skipped(two_recalls(), "precise", "few candidates")
    told = replace(result.trace.stages[-1], n_scored=None)
    result = replace(result, trace=replace(result.trace, stages=(*result.trace.stages[:-1], told)))
    precise = json.loads(report.result_json(result))["trace"]["stages"][-1]
    assert (precise["n_scored"], precise["skipped"]) == (0, "few candidates")


def test_a_line_of_the_trace_has_the_way_of_every_candidate() -> None:
    result = stopped(two_recalls(), "precise", 1)
    line = json.loads(report.trace_json(result, "full"))
    told = json.loads(report.result_json(result))
    assert {key: line[key] for key in ("query", "degraded", "trace")} == {
        key: told[key] for key in ("query", "degraded", "trace")
    }
    flow, columns = flow_of(result), line["candidates"]["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in line["candidates"]["rows"]]
    assert [row["doc_id"] for row in rows] == list(flow.doc_ids)
    for row in rows:
        way = flow.way(row["doc_id"])
        assert row["dropped_by"] == way.dropped_by
        for stage in flow.stages:
            step = way.steps.get(stage.name)
            assert row[f"{stage.name}.rank"] == (step.rank if step else None)
            score = step.score if step else None
            assert row[f"{stage.name}.score"] == (None if score is None else float(f"{score:.6g}"))


def test_a_line_of_the_trace_keeps_the_scores_of_a_stand_in_apart() -> None:
    line = json.loads(report.trace_json(stood_in(two_recalls(), "precise", 1), "full"))["candidates"]
    rows = [dict(zip(line["columns"], row, strict=True)) for row in line["rows"]]
    assert line["columns"][-3:] == ["precise.rank", "precise.score", "precise~1.score"]
    assert [row["precise.score"] for row in rows] == [None] * 6
    assert [row["precise~1.score"] for row in rows] == [0.9, *[None] * 5]
    assert [row["precise.rank"] for row in rows] == [1, 2, 3, None, None, None]


def test_a_line_of_the_trace_without_candidates_is_short_however_many_there_are() -> None:
    many = ask(("bm25", Finds(*(f"d{place}" for place in range(1000))), 1000))
    assert "candidates" not in json.loads(report.trace_json(many, "stages"))
    assert len(report.trace_json(many, "stages")) < 1000
    assert 1000 * 10 < len(report.trace_json(many, "full")) < 1000 * 40


def test_a_score_that_json_has_no_number_for_is_left_out() -> None:
    class Endless(Prefers):
        def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
            return np.array([np.inf if document.doc_id == "d1" else 1.0 for _, document in pairs])

    line = report.trace_json(ask(("bm25", Finds("d1", "d2"), 2), ("precise", Endless(), 2)), "full")
    assert json.loads(line)["candidates"]["rows"] == [["d1", None, 1, 2, 1, None], ["d2", None, 2, 1, 2, 1]]


def test_ids_come_out_of_the_line_as_they_went_in() -> None:
    awkward = ('say "no"', "back\\slash", "青光眼", "line\nbreak")
    line = report.trace_json(ask(("bm25", Finds(*awkward), 2)), "full")
    assert "\n" not in line
    rows = json.loads(line)["candidates"]["rows"]
    assert [(row[0], row[1]) for row in rows] == [
        (doc_id, fate) for doc_id, fate in zip(awkward, (None, None, "bm25", "bm25"), strict=True)
    ]


# --- the tree of the trace


def test_the_last_stage_stands_at_the_top_and_its_inputs_below_it() -> None:
    lines = shown(report.trace_tree(two_recalls())).splitlines()
    names = [line.split()[:2] for line in lines[1:5]]
    assert names == [["precise", "rerank"], ["└─", "fused"], ["├─", "bm25"], ["└─", "dense"]]
    assert "3 → 2" in lines[1]
    assert "7 → 3" in lines[2]
    assert "→ 3" in lines[3]
    assert "30 tokens" in lines[1]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_of_the_tree_is_wider_than_the_terminal(width: int) -> None:
    result = stopped(two_recalls(), "precise", 1)
    told = replace(result.trace.stages[-1], notes=("an index was held by another process, so that it was scanned",) * 2)
    result = replace(result, trace=replace(result.trace, stages=(*result.trace.stages[:-1], told)))
    lines = shown(report.trace_tree(result), width).splitlines()
    assert max(map(len, lines)) <= width
    assert (
        " ".join(" ".join(lines).replace("│", " ").split()).count("held by another process, so that it was scanned")
        == 2
    )


def test_bars_lie_where_the_stages_ran() -> None:
    result = timed(two_recalls(), 100.0, (0, 20), (0, 50), (50, 10), (60, 40))
    bars = {}
    for line in shown(report.trace_tree(result), 120).splitlines():
        if found := re.search(r"(\w+) +(recall|fusion|rerank).*?\d\.0  ( *)(━+)", line):
            bars[found[1]] = (len(found[3]), len(found[4]))
    assert bars == {"bm25": (0, 4), "dense": (0, 10), "fused": (10, 2), "precise": (12, 8)}, "of 20 for 100 ms"


def test_times_of_a_batch_whose_stages_began_after_its_share_stay_inside() -> None:
    result = timed(two_recalls(), 10.0, (0, 2), (40, 5), (140, 1), (160, 2))
    assert max(map(len, shown(report.trace_tree(result), 80).splitlines())) <= 80


@pytest.mark.parametrize(
    ("total_ms", "budget_ms", "enforced", "line"),
    [
        (31.0, 50.0, True, "total 31.0 ms of 50 ms; enforced; 30 tokens"),
        (31.0, 50.0, False, "total 31.0 ms of 50 ms; not enforced; 30 tokens"),
        (61.5, 50.0, False, "total 61.5 ms of 50 ms; not enforced; 11.5 ms over; 30 tokens"),
        (31.0, None, False, "total 31.0 ms; 30 tokens"),
    ],
)
def test_the_total_stands_beside_the_budget(total_ms: float, budget_ms: float, enforced: bool, line: str) -> None:
    result = two_recalls()
    trace = replace(result.trace, total_ms=total_ms, budget_ms=budget_ms, enforced=enforced)
    assert line == words(report.trace_tree(replace(result, trace=trace))).split("recall")[-1][-len(line) :]


@pytest.mark.parametrize(
    ("stage", "reason", "scored", "sentence"),
    [
        ("precise", "deadline", 2, "precise ran out of time, 2 of 9 documents scored: why"),
        ("precise", "deadline", 0, "precise ran out of time, 0 of 9 documents scored: why"),
        ("precise", "no_time", 0, "precise was not begun, for lack of time: why"),
        ("dense", "late", 0, "dense was left behind, since another recall had answered: why"),
        ("dense", "error", 3, "dense failed, 3 of 9 documents found: why"),
        ("precise", "circuit_open", 0, "precise was not asked, since it had failed before: why"),
    ],
)
def test_every_shortfall_is_a_sentence(stage: str, reason: Shortfall, scored: int, sentence: str) -> None:
    result = two_recalls()
    trace = replace(result.trace, degraded=(Degraded(stage, reason, "why", scored, 9),))
    assert words(report.trace_tree(replace(result, trace=trace))).endswith(f"! {sentence}")


def test_a_skipped_stage_and_kept_scores_are_told() -> None:
    result = skipped(two_recalls(), "precise", "few candidates")
    told = replace(result.trace.stages[-2], cache_hits=7, repairs={"out_of_range": 2}, cost_usd=0.0021)
    stages = (*result.trace.stages[:2], told, result.trace.stages[-1])
    text = words(report.trace_tree(replace(result, trace=replace(result.trace, stages=stages))))
    assert "skipped: few candidates" in text
    assert "7 from the cache; $0.0021; repaired: 2 out of range" in text


def test_a_stage_that_two_others_read_is_told_once() -> None:
    result = ask(
        ("bm25", Finds("d1", "d2"), 2),
        ("a", Prefers("d2"), 2, "bm25"),
        ("b", Prefers("d1"), 2, "bm25"),
        ("fused", Sums(), 2, "a", "b"),
    )
    lines = shown(report.trace_tree(result)).splitlines()
    assert [line.split()[-1] if "above" in line else "" for line in lines if "bm25" in line] == ["", "above"]


# --- the tables of explain


def test_the_table_shows_the_answer_whole_then_what_came_nearest() -> None:
    said = explained(two_recalls(), relevant=["d6"])
    assert [line.split()[0] for line in _ids(shown(flow_table(said, 1)))] == ["d1", "d3"]
    assert [line.split()[0] for line in _ids(shown(flow_table(said, 4)))] == ["d1", "d3", "d2", "d4"]
    text = words(flow_table(said, 4))
    assert "1 d1 1 – 2 1 ▲1" in text
    assert "d2 2 – 3 3 ✗" in text
    assert "not scored" in words(flow_table(explained(stopped(two_recalls(), "precise", 1)), 4))


def _ids(text: str) -> list[str]:
    return [found[0] for line in text.splitlines() if (found := re.search(r"\bd\d .*", line)) and "Title" not in line]


def test_the_rest_is_summed_up_by_the_stage_that_dropped_it() -> None:
    text = words(dropped_table(explained(two_recalls(), relevant=["d6"])))
    assert "fused 3 of 6 top_k 3 4 d4 Title of d4 5 d5 Title of d5 6 d6 ✓ Title of d6" in text
    assert "precise 1 of 3 top_k 2 3 d2 Title of d2" in text
    assert "bm25" not in text


def test_long_titles_give_way_before_the_numbers_do() -> None:
    said = explained(two_recalls())
    long = {doc_id: replace(document, title="very long " * 20) for doc_id, document in said.documents.items()}
    lines = shown(dropped_table(replace(said, documents=long)), 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["dropped", "by", "documents", "why", "the", "best", "of", "them"]
    assert "3 of 6" in lines[3]
    assert lines[3].rstrip().endswith("…")


def test_relevant_documents_are_told_of_wherever_they_ended() -> None:
    lines = [line.plain for line in relevant_lines(explained(two_recalls(), relevant=["d6", "d1"], missed=["d99"]))]
    assert lines == [
        "✓ relevant document d1: found by bm25 at 1, fused 2, precise 1: in the answer",
        "✓ relevant document d6: found by dense at 4, dropped by fused at 6 (top_k 3)",
        "✗ relevant document d99: no recall found it: bm25 (3 found), dense (4 found)",
    ]


def test_very_many_relevant_documents_are_counted() -> None:
    missed = [f"m{place}" for place in range(50)]
    lines = [line.plain for line in relevant_lines(explained(two_recalls(), missed=missed))]
    assert (len(lines), lines[-1]) == (21, "and 30 other relevant documents; format=json has all")


def test_one_document_is_followed_through_every_stage() -> None:
    text = words(way_table(explained(two_recalls()), "d6"))
    assert "bm25 – 3 did not find it dense 4 4 1 cosine passed on fused 6 6" in text
    assert "dropped: top_k 3 precise – 3 never saw it" in text


def test_what_stood_in_is_named_wherever_its_scores_are_shown() -> None:
    told = explained(stood_in(two_recalls(), "precise", 1))
    assert "0.9 cosine by precise~1" in words(way_table(told, "d3"), 200)
    assert "(precise~1)" in words(flow_table(told, 6), 200)
    assert "precise~1" in words(report.result_table(told.result, None, 20), 200)
    assert "scores of precise~1" in page(told)
    (trouble,) = classes(svg(page(told)), "trouble")
    assert "".join(trouble.itertext()).startswith("error; precise~1 in its pl")
    assert "error; precise~1 in its place, deadline: 1 of 3 scored" in page(told)
    whole = explained_json(told)
    assert [stage["scored_by"] for stage in whole["stages"]] == ["bm25", "dense", "fused", "precise~1"]


def test_a_stage_that_was_never_timed_has_a_dash_for_its_times() -> None:
    metrics = {"nDCG@10": 0.5}
    quality = Quality(metrics, metrics, {"bm25": metrics, "precise": metrics}, {}, {})
    times = {"p50": 1.0, "p95": 2.0, "p99": 3.0}
    latency = Latency(times, {"bm25": times}, 1, Work.of([]), None)
    assert "precise 0.5000 – –" in words(report.evaluation_table("precise", quality, latency))


def test_the_whole_flow_as_json() -> None:
    told = explained_json(explained(two_recalls(), relevant=["d6"], missed=["d99"]))
    assert [(stage["stage"], stage["n_ranked"], stage["n_out"], stage["top_k"]) for stage in told["stages"]] == [
        ("bm25", 3, 3, 3),
        ("dense", 4, 4, 4),
        ("fused", 6, 3, 3),
        ("precise", 3, 2, 2),
    ]
    rows = {row["doc_id"]: row for row in told["documents"]}
    assert rows["d6"]["grade"] == 1
    assert (rows["d6"]["dropped_by"], rows["d6"]["rank"], rows["d1"]["rank"]) == ("fused", None, 1)
    assert rows["d1"]["steps"][-1] == {
        "stage": "precise",
        "rank": 1,
        "moved": 1,
        "score": 1.0,
        "score_kind": "logit",
        "scored_by": "precise",
        "passed_on": True,
    }
    assert told["not_found"] == ["d99"]
    only = explained_json(explained(two_recalls()), "d2")
    assert [row["doc_id"] for row in only["documents"]] == ["d2"]
    assert only["documents"][0]["grade"] is None, "nobody judged this question"
    assert explained_json(explained(two_recalls()), "d99")["not_found"] == ["d99"]


# --- the picture


def svg(text: str) -> ElementTree.Element:
    found = re.search(r"<svg.*?</svg>", text, re.DOTALL)
    assert found is not None
    return ElementTree.fromstring(found[0])


def classes(drawn: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [part for part in drawn.iter() if name in part.get("class", "").split()]


def test_the_page_fetches_nothing_and_escapes_what_documents_say() -> None:
    titles = {
        "d1": "</script><script>alert(1)</script>",
        "d2": '<img src="http://x/y.png" onerror=x>',
        "d3": "$question",
    }
    result = ask(("bm25", Finds("d1", "d2", "d3"), 2), query="<b>what</b> ${oc.env:HOME} $data", titles=titles)
    said = explained(result)
    said = replace(said, documents={**said.documents, **result.documents})
    text = page(said)
    read = Reader(text)
    assert read.fetched == []
    assert "img" not in read.tags
    assert read.tags.count("script") == 2, "our own: data and code"
    assert "<b>what</b> ${oc.env:HOME} $data" in read.texts
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    assert data["docs"][0]["title"] == titles["d1"]
    assert re.findall(r"url\((.*?)\)|@import|fetch\(", text) == ["#hatch"]


def test_a_line_ends_in_a_cross_where_its_document_was_dropped() -> None:
    drawn = svg(page(explained(two_recalls(), relevant=["d6"])))
    documents = {part.get("aria-label", "").split(":")[0]: part for part in classes(drawn, "doc")}
    assert set(documents) == {f"Title of d{place}" for place in range(1, 7)}
    for doc_id, n_ends in (("d1", 0), ("d3", 0), ("d2", 1), ("d6", 1)):
        assert len(classes(documents[f"Title of {doc_id}"], "end")) == n_ends
    kept = {name for name, part in documents.items() if "kept" in part.get("class", "")}
    assert kept == {"Title of d1", "Title of d3"}
    assert ["relevant" in documents[f"Title of d{place}"].get("class", "") for place in (5, 6)] == [False, True]


def test_the_tail_that_was_not_scored_is_hatched_and_its_nodes_are_hollow() -> None:
    drawn = svg(page(explained(stopped(two_recalls(), "precise", 1))))
    (hatched,) = classes(drawn, "unscored")
    block = lay_out(flow_of(stopped(two_recalls(), "precise", 1))).blocks["precise"]
    assert float(hatched.get("y", "")) == pytest.approx(block.edge(1), abs=0.1)
    assert float(hatched.get("height", "")) == pytest.approx(block.edge(3) - block.edge(1), abs=0.1)
    assert len(classes(drawn, "hollow")) == 2
    assert "ran out of time" in page(explained(stopped(two_recalls(), "precise", 1)))
    assert svg(page(explained(two_recalls()))) is not None
    assert classes(svg(page(explained(two_recalls()))), "unscored") == []


def test_a_skipped_stage_says_so_in_the_picture() -> None:
    text = page(explained(skipped(two_recalls(), "precise", "few candidates")))
    assert [part.text for part in classes(svg(text), "trouble")] == ["skipped: few candidates"]
    assert "precise was skipped: few candidates" in text


@pytest.mark.parametrize(
    "make",
    [
        lambda: ask(("bm25", Finds(), 5)),
        lambda: ask(("bm25", Finds(), 5), ("dense", Finds(), 5), ("fused", Sums(), 5, "bm25", "dense")),
        lambda: ask(("bm25", Finds("d1"), 5)),
        lambda: ask(("bm25", Finds("d1", "d2"), 5), ("a", Prefers(), 2, "bm25"), ("b", Prefers(), 1, "a")),
    ],
    ids=["nothing", "nothing_fused", "one", "chain"],
)
def test_small_answers_have_a_picture(make: Callable[[], Result]) -> None:
    text = page(explained(make()))
    assert len(classes(svg(text), "doc")) == len(flow_of(make()).doc_ids)
    assert ("no document found" in text) == (not flow_of(make()).doc_ids)


@pytest.fixture(scope="module")
def large() -> Explained:
    first = [f"d{place}" for place in range(1000)]
    second = [f"d{place}" for place in range(1500, 500, -1)]
    result = ask(
        ("bm25", Finds(*first), 1000),
        ("dense", Finds(*second), 1000),
        ("fused", Sums(), 1000, "bm25", "dense"),
        ("shortlist", Prefers(*first[300:500]), 100),
        ("precise", Prefers(*first[:400:7]), 10),
        titles={"d301": "very long title " * 100},
    )
    return explained(result, relevant=["d999", "d301", "d1400"])


def test_a_thousand_candidates_stay_a_small_page_with_the_rest_counted(large: Explained) -> None:
    text = page(large)
    assert len(text.encode()) < 500_000
    drawn = svg(text)
    documents = classes(drawn, "doc")
    assert len(large.flow.answer) < len(documents) < 300
    assert f"{len(large.flow.fates) - len(documents):,} other documents" in text
    labels = [part.get("aria-label", "") for part in documents]
    for doc_id in ("d999", "d1400"):
        assert any(label.startswith(f"Title of {doc_id}:") for label in labels), "relevant ones are always drawn"
    assert {part.text for part in classes(drawn, "foot")} >= {"900 dropped", "90 dropped"}


def test_every_place_lies_inside_the_picture(large: Explained) -> None:
    layout = lay_out(large.flow, large.grades)
    for block in layout.blocks.values():
        middles = [block.y(rank) for rank in range(1, block.n_seen + 1)]
        assert middles == sorted(middles)
        assert block.top < middles[0]
        assert middles[-1] <= block.top + block.height < layout.height
        assert block.edge(block.n_seen) == pytest.approx(block.top + block.height)
    tops = [(block.x, block.top, block.top + block.height) for block in layout.blocks.values()]
    assert len(set(tops)) == 5
    below = sorted((top, bottom) for x, top, bottom in tops if x == tops[0][0])
    assert below[0][1] < below[1][0], "the two recalls stand below each other"


def test_the_document_that_is_followed_is_drawn_and_stands_out(large: Explained) -> None:
    doc_id = large.flow.dropped("shortlist")[500]
    assert doc_id not in lay_out(large.flow).drawn
    drawn = svg(page(large, doc_id))
    (followed,) = classes(drawn, "followed")
    assert followed.get("aria-label", "").startswith(f"Title of {doc_id}:")
