"""Triples and lessons: what a file may hold, what each loss is given, who is judged on what."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.errors import ConfigError, DataError, OrchestratorError
from orchestrator.finetune.lessons import Lesson, Pupil, columns, from_pupils, from_triples, with_labels
from orchestrator.finetune.negatives import Choice
from orchestrator.finetune.queries import plan_queries
from orchestrator.finetune.triples import Triple, read_triples

GOOD = {"query": "what is it", "positive": "a text", "negatives": ["another"]}


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_triples_are_read_with_one_positive_or_several(tmp_path: Path) -> None:
    several = {"query": "q", "positive": ["a", "b", "a"]}
    assert read_triples(write(tmp_path / "t.jsonl", GOOD, "", several)) == [
        Triple("what is it", ("a text",), ("another",)),
        Triple("q", ("a", "b"), ()),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is no JSON"),
        ([1], "found a list; expected a JSON object a line"),
        ({**GOOD, "negative": []}, "found a key 'negative'; keys: query, positive, negatives. Did you mean"),
        ({"query": "q"}, "no 'positive'; expected query, positive, negatives"),
        ({**GOOD, "query": " "}, "'query' is empty; expected a text"),
        ({**GOOD, "query": 3}, "'query' is a number; expected a text"),
        ({**GOOD, "positive": []}, "'positive' is an empty list; expected a text, or a list with at least one"),
        ({**GOOD, "positive": {}}, "'positive' is an object; expected a text, or a list of texts"),
        ({**GOOD, "negatives": "x"}, "'negatives' is a text; expected a list of texts"),
        ({**GOOD, "negatives": ["x", ""]}, "'negatives'[1] is empty; expected a text"),
    ],
)
def test_a_bad_line_of_triples_is_named_with_file_and_line(line: object, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", GOOD, line)
    with pytest.raises(DataError) as caught:
        read_triples(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)


def test_an_empty_or_missing_file_of_triples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no triple"):
        read_triples(write(tmp_path / "t.jsonl"))
    with pytest.raises(ConfigError, match=r"task\.triples: no file"):
        read_triples(tmp_path / "none.jsonl")


def pupils() -> list[Pupil]:
    return [
        Pupil("one", [("p1", 2.0), ("p2", 1.0), ("p3", 1.0)], Choice(("j1",), ("u1",), {"skip": 1, "margin": 2})),
        Pupil("two", [("p4", 1.0)], Choice((), ("u2", "u3", "u4"), {"skip": 1, "margin": 0})),
        Pupil("nothing", [], Choice((), ("u5",), {"skip": 0, "margin": 0})),
    ]


def upper(doc_ids: object) -> list[str]:
    return [str(doc_id).upper() for doc_id in doc_ids]  # type: ignore[attr-defined]


def test_a_lesson_holds_one_relevant_text_and_the_same_number_of_negatives() -> None:
    found = from_pupils(pupils(), upper, per_query=3, positives=2, seed=1)
    assert [row.query for row in found.rows] == ["one", "one", "two"]
    # One candidate is missing of each lesson of the first query: the only document of another query fills up.
    assert found.rows[0].texts == ("P1", "J1", "U1", "P4")
    assert found.rows[1].texts == ("P2", "J1", "U1", "P4")
    assert found.rows[2].texts == ("P4", "U2", "U3", "U4")
    assert [row.grades for row in found.rows] == [(2.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)]
    assert (found.useless, found.dropped, found.filled) == (1, {"skip": 2, "margin": 2}, 2)


def test_a_lesson_together_holds_all_relevant_texts() -> None:
    found = from_pupils(pupils(), upper, per_query=2, positives=2, seed=1, together=True)
    assert found.rows[0].texts == ("P1", "P2", "J1", "U1")
    assert found.rows[0].grades == (2.0, 1.0, 0.0, 0.0)


def test_a_query_without_enough_negatives_gives_no_lesson() -> None:
    found = from_pupils([Pupil("one", [("p1", 1.0)], Choice((), ("u1",)))], upper, per_query=2, positives=1, seed=1)
    assert found.rows == []


def test_triples_become_lessons_and_never_oppose_their_own_positives() -> None:
    triples = [Triple("one", ("a", "b"), ("a", "x")), Triple("two", ("c",), ())]
    found = from_triples(triples, per_query=2, positives=1, seed=1)
    assert found.rows[0].texts == ("a", "x", "c")
    assert found.rows[1].texts[0] == "c"
    assert set(found.rows[1].texts[1:]) == {"a", "b"}
    assert found.filled == 3


def test_lessons_differ_when_anything_that_is_learned_from_differs() -> None:
    first = from_pupils(pupils(), upper, per_query=3, positives=2, seed=1)
    again = from_pupils(pupils(), upper, per_query=3, positives=2, seed=1)
    assert first.digest == again.digest
    assert with_labels(again, [[1.0, 0.0, 0.0, 0.0]] * 3).digest != first.digest


def test_a_lesson_that_the_teacher_did_not_score_as_a_whole_is_left_out() -> None:
    lessons = from_pupils(pupils(), upper, per_query=3, positives=2, seed=1)
    found = with_labels(lessons, [[4.0, 1.0, 2.0, 0.0], [float("nan"), 1.0, 2.0, 0.0], [3.0, 1.0, 2.0, 0.0]])
    assert [row.labels for row in found.rows] == [(4.0, 1.0, 2.0, 0.0), (3.0, 1.0, 2.0, 0.0)]


def test_each_layout_has_the_columns_that_its_loss_reads() -> None:
    rows = [Lesson("q", ("good", "bad", "worse"), (2.0, 0.0, 0.0), (5.0, 1.0, 0.5))]
    texts = {"query": ["q"], "positive": ["good"], "negative_1": ["bad"], "negative_2": ["worse"]}
    assert columns(rows, "tuple") == texts
    assert columns(rows, "graded") == {**texts, "label": [[2.0, 0.0, 0.0]]}
    assert columns(rows, "labelled") == {**texts, "label": [[5.0, 1.0, 0.5]]}
    assert columns(rows, "pairs") == {
        "query": ["q", "q", "q"],
        "text": ["good", "bad", "worse"],
        "label": [1.0, 0.0, 0.0],
    }
    assert columns(rows, "list") == {
        "query": ["q"],
        "texts": [["good", "bad", "worse"]],
        "label": [[2.0, 0.0, 0.0]],
    }


@pytest.fixture
def judged(write_corpus: Callable, opened: Callable[..., DiskCorpus]) -> Callable[..., DiskCorpus]:
    """A corpus whose queries come in pairs that ask the same words."""

    def make(splits: tuple[str, ...] = ("train", "test")) -> DiskCorpus:
        documents = [{"_id": f"d{place}", "text": f"text {place}"} for place in range(40)]
        queries = [{"_id": f"q{place}", "text": f"ask {place // 2}"} for place in range(40)]
        header = "query-id\tcorpus-id\tscore\n"
        per_split = 40 // max(len(splits), 1)
        qrels = {
            split: header + "".join(f"q{n}\td{n}\t1\n" for n in range(number * per_split, (number + 1) * per_split))
            for number, split in enumerate(splits)
        }
        return opened(write_corpus(documents, queries, qrels))

    return make


SETTINGS = {"validation": 0.25, "max_queries": None, "max_held_out": None, "seed": 3}


def test_the_same_words_never_stand_on_two_sides(judged: Callable[..., DiskCorpus]) -> None:
    plan = plan_queries(judged(("train",)), held_out=0.25, triples=False, **SETTINGS)
    parts = [{query.text for query in part} for part in (plan.train, plan.validation, plan.held_out)]
    assert all(parts)
    assert parts[0] & parts[1] == parts[0] & parts[2] == parts[1] & parts[2] == set()
    assert plan == plan_queries(judged(("train",)), held_out=0.25, triples=False, **SETTINGS)


def test_held_out_queries_are_drawn_where_they_are_many(judged: Callable[..., DiskCorpus]) -> None:
    settings = {**SETTINGS, "max_held_out": 5}
    plan = plan_queries(judged(), held_out="test", triples=False, **settings)
    assert len(plan.held_out) == 5
    assert {query.query_id for query in plan.held_out} <= {f"q{place}" for place in range(20, 40)}


def test_with_triples_judged_queries_only_stop_and_judge(judged: Callable[..., DiskCorpus]) -> None:
    plan = plan_queries(judged(), held_out="test", triples=True, **SETTINGS)
    assert (len(plan.train), len(plan.held_out)) == (0, 20)
    assert 0 < len(plan.validation) <= 5
    share = plan_queries(judged(("train",)), held_out=0.2, triples=True, **SETTINGS)
    assert share.train == ()
    assert len(share.validation) + len(share.held_out) <= 40


def test_with_triples_a_corpus_without_judgements_will_do(
    write_corpus: Callable, opened: Callable[..., DiskCorpus]
) -> None:
    corpus = opened(write_corpus([{"_id": "d", "text": "text"}]))
    assert plan_queries(corpus, held_out=0.2, triples=True, **SETTINGS).queries == ()
    with pytest.raises(OrchestratorError, match=r"queries\.jsonl"):
        plan_queries(corpus, held_out=0.2, triples=False, **SETTINGS)
    with pytest.raises(OrchestratorError):
        plan_queries(corpus, held_out="test", triples=True, **SETTINGS)
