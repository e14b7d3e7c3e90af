"""`orchestrate explain`, as a person types it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

BM25 = "pipeline=bm25"
TOP_1 = "pipeline.stages.bm25.top_k=1"


def chain(corpus: Path, *words: str) -> list[str]:
    """BM25, then a learned-nothing rerank that keeps its order and passes on one document."""
    folder = Path("mine/pipeline")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chain.yaml").write_text(
        "defaults:\n  - /recall@stages.bm25.use: bm25\n  - /rerank@stages.precise.use: 'null'\n  - _self_\n"
        "stages:\n  bm25: {top_k: 10}\n  precise: {top_k: 1}\n"
    )
    return ["--config-dir", "mine", "explain", *words, "pipeline=chain", f"corpus.path={corpus}"]


def folder_of(verb: str = "explain") -> Path:
    (folder,) = Path("outputs").glob(f"*/*-{verb}-*")
    return folder


def squeezed(text: str) -> str:
    return " ".join(text.split())


def test_a_question_is_answered_with_the_way_of_its_documents(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate(*chain(corpus, "optic nerve"))
    assert done.code == 0, done.err
    text = squeezed(done.out)
    assert "q1: optic nerve stage kind in → out ms precise rerank 2 → 1" in text
    assert re.search(r"1 d3 1 1 .* d1 2 2 ✗", text) or re.search(r"1 d1 1 1 .* d3 2 2 ✗", text)
    assert "precise 1 of 2 top_k 1 2 d" in text
    assert "✓" not in text, "nobody judged this question"


def test_it_keeps_the_picture_and_the_trace(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate(*chain(corpus, "optic nerve"))
    assert done.code == 0, done.err
    folder = folder_of()
    page = (folder / "explain.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "Glaucoma damages the optic nerve" in page
    (line,) = (folder / "trace.jsonl").read_text().splitlines()
    assert json.loads(line)["candidates"]["columns"][2:4] == ["bm25.rank", "bm25.score"]
    assert str(folder / "explain.html") in done.err


def test_the_picture_goes_where_it_is_wanted(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate(*chain(corpus, "optic nerve", "html=pictures/one.html"))
    assert done.code == 0, done.err
    assert "<svg" in Path("pictures/one.html").read_text(encoding="utf-8")
    assert not (folder_of() / "explain.html").exists()
    assert orchestrate(*chain(corpus, "optic nerve", "html=pictures")).code == 2


def test_without_a_question_the_first_judged_query_is_explained(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate(*chain(corpus))
    assert done.code == 0, done.err
    text = squeezed(done.out)
    assert "q1: optic nerve of the eye" in text
    assert text.count("relevant document d") == 2
    assert re.search(r"relevant document d\d: found by bm25 at 1, precise 1: in the answer", text)
    assert re.search(r"relevant document d\d: found by bm25 at 2, dropped by precise at 2 \(top_k 1\)", text)


def test_a_judged_query_is_named_by_its_id(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate(*chain(corpus, "query_id=q2"))
    assert done.code == 0, done.err
    assert "✓ relevant document d2: found by bm25 at 1, precise 1: in the answer" in squeezed(done.out)
    wrong = orchestrate(*chain(corpus, "query_id=qq2"))
    assert wrong.code == 2
    assert "task.query_id: no query 'qq2' among the corpus's 2; the first: q1, q2." in wrong.err
    assert "Did you mean" in wrong.err
    both = orchestrate(*chain(corpus, "optic nerve", "query_id=q2"))
    assert "beside the question 'optic nerve'; choose one of the two" in both.err


def test_a_relevant_document_that_nothing_found_says_so(orchestrate: Callable, corpus: Path) -> None:
    with (corpus / "qrels" / "test.tsv").open("a") as file:
        file.write("q2\td4\t1\n")
    done = orchestrate(*chain(corpus, "query_id=q2"))
    assert "✗ relevant document d4: no recall found it: bm25 (1 found)" in squeezed(done.out)


def test_one_document_is_followed(orchestrate: Callable, corpus: Path) -> None:
    first = orchestrate(*chain(corpus, "optic nerve", "format=json"))
    dropped = next(row["doc_id"] for row in json.loads(first.out)["documents"] if row["rank"] is None)
    done = orchestrate(*chain(corpus, "optic nerve", f"doc={dropped}"))
    assert done.code == 0, done.err
    text = squeezed(done.out)
    assert "bm25 2 2" in text
    assert "dropped: top_k 1" in text
    assert "found by bm25 at 2, dropped by precise at 2 (top_k 1)" in text


def test_a_document_that_no_recall_found_is_told_apart_from_one_that_is_not_there(
    orchestrate: Callable, corpus: Path
) -> None:
    done = orchestrate(*chain(corpus, "optic nerve", "doc=d2"))
    assert done.code == 0, done.err
    assert "no recall found it: bm25 (2 found)" in squeezed(done.out)
    wrong = orchestrate(*chain(corpus, "optic nerve", "doc=dd3"))
    assert wrong.code == 2
    assert "task.doc: no stage saw 'dd3', and the corpus has no such document" in wrong.err
    assert "Did you mean 'd3'?" in wrong.err


@pytest.mark.parametrize("doc_id", ["007", "1e3"])
def test_ids_that_look_like_numbers_stay_as_typed(doc_id: str, orchestrate: Callable, corpus: Path) -> None:
    with (corpus / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"_id": doc_id, "text": "optic nerve optic nerve"}) + "\n")
    done = orchestrate(*chain(corpus, "optic nerve", f"doc={doc_id}", "format=json"))
    assert done.code == 0, done.err
    assert [row["doc_id"] for row in json.loads(done.out)["documents"]] == [doc_id]


def test_json_has_the_whole_flow(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate(*chain(corpus, "query_id=q1", "format=json"))
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert set(told) == {"query", "degraded", "trace", "stages", "documents", "not_found"}
    assert [stage["stage"] for stage in told["stages"]] == ["bm25", "precise"]
    assert {row["doc_id"]: row["grade"] for row in told["documents"]} == {"d1": 2, "d3": 1}
    first, second = told["documents"]
    assert (first["rank"], first["dropped_by"]) == (1, None)
    assert (second["rank"], second["dropped_by"], second["found_by"]) == (None, "precise", ["bm25"])


def test_chunks_are_judged_and_followed_by_their_document(orchestrate: Callable, tmp_path: Path) -> None:
    pytest.importorskip("semantic_text_splitter")
    text = "The optic nerve carries signals. " * 8 + "Glaucoma harms it. " * 8
    (tmp_path / "long.jsonl").write_text(json.dumps({"_id": "long", "text": text}) + "\n")
    (tmp_path / "asked.jsonl").write_text(json.dumps({"_id": "a", "text": "glaucoma"}) + "\n")
    (tmp_path / "judged.tsv").write_text("query-id\tcorpus-id\tscore\na\tlong\t1\n")
    words = [f"corpus.queries={tmp_path / 'asked.jsonl'}", f"corpus.qrels={tmp_path / 'judged.tsv'}"]
    words += ["corpus.chunk.max_chars=150", "doc=long", TOP_1]
    done = orchestrate("explain", BM25, f"corpus.path={tmp_path / 'long.jsonl'}", *words)
    assert done.code == 0, done.err
    assert re.search(r"\nlong#\d", done.out)
    assert "found by bm25 at 1: in the answer" in squeezed(done.out)
    whole = orchestrate("explain", BM25, f"corpus.path={tmp_path / 'long.jsonl'}", *words[:3])
    assert "✓ relevant document long#" in whole.out


def test_an_answer_without_documents_is_explained_too(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate(*chain(corpus, "xylophone"))
    assert done.code == 0, done.err
    assert "no document found" in done.out
    assert "no document found" in (folder_of() / "explain.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optic nerve", "format=trec"], "format: found trec, which has no place for the way of a document"),
        ([" "], "query: is empty; expected a question"),
        (["optic nerve", "other words"], "unexpected word 'other words': explain takes one argument, the query"),
        (["optic nerve", "dosc=3"], "dosc"),
    ],
)
def test_mistakes_are_told(words: list[str], message: str, orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate(*chain(corpus, *words))
    assert done.code == 2, done.err
    assert message in done.err
    assert done.out == ""


@pytest.mark.parametrize("query", ["青光眼的症状是什么？", "x=1", "null"])
def test_awkward_questions_arrive_as_typed(query: str, corpus: Path, orchestrate: Callable) -> None:
    done = orchestrate("explain", query, BM25, f"corpus.path={corpus}", "format=json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["query"]["text"] == query
