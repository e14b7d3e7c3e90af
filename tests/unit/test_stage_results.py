"""Results of stages that are kept between jobs: the same answers and figures, no stage asked twice, and when not."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from kept_stages import (
    QUERIES,
    Docs,
    Lists,
    Stack,
    Turns,
    Words,
    none_asked,
    run,
    same,
)
from structlog.testing import capture_logs

from orchestrator.answers.reused import Reused
from orchestrator.errors import ConfigError, StageError, TransientError
from orchestrator.running.runner import Runner
from orchestrator.running.stage_key import stage_key
from orchestrator.running.stage_results import SharedResults, StageResults, check_stage_limits
from orchestrator.stack.cuts import Cut
from orchestrator.stack.gates import Gate
from orchestrator.stack.passages import Passages
from orchestrator.stack.policy import OnError
from orchestrator.types import Call, Document, Query, Scores


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StageResults]:
    kept = StageResults(tmp_path)
    yield kept
    kept.close()


def test_a_second_job_asks_no_stage_and_says_the_same(store: StageResults) -> None:
    first, second = Stack.of(), Stack.of()
    fresh = run(first, store)
    again = run(second, store)
    assert all(len(asked) == len(QUERIES) for asked in first.asked.values())
    assert none_asked(second)
    same(again, fresh)
    same(fresh, run(Stack.of(), None))
    assert Reused.of(result.trace for result in fresh).reused == 0
    everything = 7 * len(QUERIES)
    documents = sum(stage.n_in for result in fresh for stage in result.trace.stages if stage.kind == "rerank")
    assert Reused.of(result.trace for result in again) == Reused(everything, everything, documents, 0)


def test_another_process_finds_them_too(store: StageResults, tmp_path: Path) -> None:
    fresh = run(Stack.of(), store)
    other, stack = StageResults(tmp_path), Stack.of()
    same(run(stack, other), fresh)
    assert none_asked(stack)
    other.close()


def test_answers_with_windows_have_their_passages_again(store: StageResults) -> None:
    windows = {"words": {"passages": Passages(how="windows", size=3, stride=2)}}
    fresh, stack = run(Stack.of(**windows), store), Stack.of(**windows)
    same(run(stack, store), fresh)
    assert fresh[0].passages
    assert none_asked(stack)


def test_what_a_stage_passes_on_needs_it_not_to_be_asked_again(store: StageResults) -> None:
    run(Stack.of(), store)
    stack = Stack.of(near={"top_k": 4})
    found = run(stack, store)
    assert [name for name, asked in stack.asked.items() if asked] == ["words", "learned", "turned"]
    same(found, run(Stack.of(near={"top_k": 4}), None))


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ({"bm25": {"settings": {"k1": 1.2}}}, {"bm25"}),
        ({"bm25": {"top_k": 7}}, {"bm25", "fused", "near", "words", "learned", "turned"}),
        ({"fused": {"settings": {"k": 10}}}, {"fused"}),
        ({"words": {"passages": Passages(how="windows", size=3)}}, {"words", "learned", "turned"}),
        ({"words": {"stage": Words(model_id="others")}}, {"words"}),
        ({"learned": {"stage": Lists(depends_on="another day")}}, {"learned"}),
    ],
)
def test_what_depends_on_a_change_is_asked_anew_and_nothing_else(
    store: StageResults, change: dict[str, Any], anew: set[str]
) -> None:
    """A stage that says the same in spite of the change lets those after it be."""
    run(Stack.of(), store)
    stack = Stack.of(**change)
    before = {name: len(spec.stage.asked) for name, spec in stack.specs.items()}  # type: ignore[union-attr]
    run(stack, store)
    asked = {name for name, spec in stack.specs.items() if len(spec.stage.asked) > before[name]}  # type: ignore[union-attr]
    assert asked == anew


@pytest.mark.parametrize("change", [{"corpus": "another corpus"}, {"generation": "20260101T000000-0123abcd"}])
def test_another_corpus_or_index_is_another_key(store: StageResults, change: dict[str, str]) -> None:
    run(Stack.of(), store)
    stack = Stack.of()
    run(stack, store, **change)  # type: ignore[arg-type]
    assert all(len(asked) == len(QUERIES) for asked in stack.asked.values())


@pytest.mark.parametrize(
    "query", [Query("q0", "another text"), Query("another id", QUERIES[0].text), Query("q0", QUERIES[0].text, "de")]
)
def test_another_question_is_asked(store: StageResults, query: Query) -> None:
    run(Stack.of(), store, [QUERIES[0]])
    stack = Stack.of()
    run(stack, store, [query])
    assert stack.asked["bm25"] == [query.query_id]


def test_only_questions_that_are_new_are_asked_and_vectors_only_beside_the_same_questions(store: StageResults) -> None:
    run(Stack.of(), store, QUERIES[:3])
    stack = Stack.of()
    same(run(stack, store), run(Stack.of(), None))
    assert stack.asked["bm25"] == [query.query_id for query in QUERIES[3:]]
    assert stack.asked["dense"] == [query.query_id for query in QUERIES], "embedded in another batch"


def test_gates_and_cuts_share_what_they_leave_alike(store: StageResults) -> None:
    """Every job says exactly what it says alone, whatever mixture of new and kept results it is made of."""
    drawn = random.Random(4)
    n_asked = n_alone = 0
    for _ in range(25):
        changes: dict[str, dict[str, Any]] = {
            "bm25": {"top_k": drawn.choice([3, 8]), "when": Gate(max_query_words=drawn.choice([None, 5, 8]))},
            "dense": {"top_k": drawn.choice([4, 6])},
            "near": {"cut": drawn.choice([Cut(), Cut("gap")]), "top_k": drawn.choice([3, 7])},
            "words": {"when": Gate(max_margin=drawn.choice([None, 0.2, 0.6]))},
            "turned": {"when": Gate(min_candidates=drawn.choice([None, 4]))},
        }
        queries = drawn.sample(QUERIES, drawn.randrange(1, 8))
        shared, alone = Stack.of(**changes), Stack.of(**changes)
        same(run(shared, store, queries), run(alone, None, queries))
        n_asked += sum(map(len, shared.asked.values()))
        n_alone += sum(map(len, alone.asked.values()))
    assert n_asked < 0.8 * n_alone


def test_tokens_and_money_of_a_batch_add_up(store: StageResults) -> None:
    """Tokens are divided without loss, and the vector of a question is paid once, by the stage that comes first."""
    never = Gate(max_query_words=1)
    for kept in (None, store, store):
        results = run(Stack.of(), kept)
        stages = {stage.stage: [] for stage in results[0].trace.stages}  # type: ignore[var-annotated]
        for result in results:
            for stage in result.trace.stages:
                stages[stage.stage].append(stage)
        assert sum(stage.tokens for stage in stages["dense"]) == sum(len(query.text) for query in QUERIES)
        assert sum(stage.tokens for stage in stages["near"]) == 7 * sum(stage.n_in for stage in stages["near"])
        assert stages["dense"][0].notes == ("embedded",)
        assert stages["near"][0].notes == ()
    gated = {"dense": {"when": never}}
    for kept in (None, store, store):
        results = run(Stack.of(**gated), kept)
        near = [next(stage for stage in result.trace.stages if stage.stage == "near") for result in results]
        paid = sum(stage.tokens for stage in near) - 7 * sum(stage.n_in for stage in near)
        assert paid == sum(len(query.text) for query in QUERIES), "now the rerank needs the vectors first"


def test_repairs_and_notes_are_those_of_the_question(store: StageResults) -> None:
    for kept in (None, store, store):
        results = run(Stack.of(), kept)
        noted = [result.query.query_id for result in results if result.trace.stages[0].notes]
        assert noted == [query.query_id for query in QUERIES if len(query.text) % 2]


@pytest.mark.parametrize(
    "change",
    [
        {"words": {"settings": None}},
        {"words": {"cache": "off"}},
        {"words": {"stage": Words(depends_on=None)}},
        {"words": {"stage": Words(is_remote=True)}},
        {"turned": {"stage": Turns(repairs=1)}},
    ],
)
def test_what_may_differ_the_next_time_is_not_kept(store: StageResults, change: dict[str, Any]) -> None:
    (name,) = change
    run(Stack.of(**change), store)
    stack = Stack.of(**change)
    del stack.specs[name].stage.asked[:]  # type: ignore[union-attr]
    run(stack, store)
    assert {other for other, asked in stack.asked.items() if asked} == {name}, "what follows from it is kept"


def test_a_class_that_a_function_made_is_not_kept(store: StageResults) -> None:
    class Made(Words):
        pass

    run(Stack.of(words={"stage": Made()}), store)
    stack = Stack.of(words={"stage": Made()})
    run(stack, store)
    assert len(stack.asked["words"]) == len(QUERIES)


def test_results_of_remote_stages_are_kept_where_their_scores_are_and_expire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remote() -> dict[str, Any]:
        return {"words": {"stage": Words(is_remote=True, cacheable_scores=True)}}

    store = StageResults(tmp_path, remote_days=30)
    run(Stack.of(**remote()), store)
    for days, asked in ((29.9, set()), (30.1, {"words"})):
        now = __import__("time").time() + days * 86_400
        with monkeypatch.context() as later:
            later.setattr("time.time", lambda now=now: now)
            stack = Stack.of(**remote())
            run(stack, store)
        assert {name for name, found in stack.asked.items() if found} == asked
    store.close()


class Unsure(Words):
    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> Scores:
        if pairs[0][0].query_id == "q1":
            call.unkept([0])
        return super().score(pairs, call)


def test_an_answer_with_a_score_that_is_none_is_not_kept(store: StageResults) -> None:
    run(Stack.of(words={"stage": Unsure()}), store)
    stack = Stack.of(words={"stage": Unsure()})
    run(stack, store)
    assert stack.asked["words"] == ["q1"]


class Fails(Words):
    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> Scores:
        if pairs[0][0].query_id == "q5":
            raise TransientError("service", "busy")
        return super().score(pairs, call)


@pytest.mark.parametrize("how", ["fail", "skip"])
def test_a_stage_that_fails_keeps_nothing(store: StageResults, how: Any) -> None:
    failing = {"words": {"stage": Fails(), "on_error": OnError(how)}}
    if how == "fail":
        with pytest.raises((StageError, TransientError)):
            run(Stack.of(**failing), store)
    else:
        results = run(Stack.of(**failing), store)
        assert [bool(result.degraded) for result in results] == [query.query_id == "q5" for query in QUERIES]
    store.flush()
    stack = Stack.of()
    same(run(stack, store), run(Stack.of(), None))
    assert {name for name, asked in stack.asked.items() if asked} == {"words", "learned", "turned"}


def test_times_are_never_taken_from_what_is_kept(store: StageResults) -> None:
    run(Stack.of(), store)
    stack = Stack.of()
    graph = stack.graph
    shared = SharedResults(store, {node.name: stage_key(node, graph, "a corpus", None) for node in graph.nodes})
    for more in ({"by_query": False}, {"by_query": True, "budget_ms": 60_000.0}):
        results = Runner(graph, Docs()).run(QUERIES[:1], shared=shared, **more)  # type: ignore[arg-type]
        assert not any(stage.reused for stage in results[0].trace.stages)
    assert all(asked == ["q0"] for asked in stack.asked.values())


@pytest.mark.parametrize("n_flipped", [1, 40, 4000])
def test_damage_costs_work_and_never_an_answer(tmp_path: Path, n_flipped: int) -> None:
    store = StageResults(tmp_path)
    expected = run(Stack.of(), store)
    store.close()
    data, drawn = bytearray(store.path.read_bytes()), random.Random(2)
    for _ in range(n_flipped):
        data[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
    store.path.write_bytes(data)
    with capture_logs() as events:
        for _ in range(2):
            same(run(Stack.of(), store), expected)
    warned = [event["event"] for event in events if event["log_level"] == "warning"]
    assert len(warned) == len(set(warned)), "told once each"
    stack = Stack.of()
    same(run(stack, store), expected)
    assert none_asked(stack)
    store.close()


def test_values_that_do_not_fit_are_made_again(store: StageResults) -> None:
    expected = run(Stack.of(), store)
    stack = Stack.of()
    graph = stack.graph
    shared = SharedResults(store, {node.name: stage_key(node, graph, "a corpus", None) for node in graph.nodes})
    rows = store._reading.file.do(lambda file: file.execute("SELECT key FROM entries").fetchall(), [])
    store.keep({key: b"\x02\x00\x00\x00xx" for (key,) in rows}, expires=False)
    store.flush()
    same(Runner(graph, Docs()).run(QUERIES, by_query=True, shared=shared, read_documents=False), expected)
    assert all(len(asked) == len(QUERIES) for asked in stack.asked.values())


def test_the_file_stays_within_its_bounds(tmp_path: Path) -> None:
    store = StageResults(tmp_path, max_mb=0.1)
    for place in range(40):
        queries = [Query(f"{place}-{query.query_id}", f"{query.text} {place}") for query in QUERIES]
        run(Stack.of(), store, queries)
    assert store._writing.n_bytes() <= 0.11 * 2**20
    stack = Stack.of()
    run(stack, store, queries)
    assert none_asked(stack), "the newest stay"
    store.close()


@pytest.mark.parametrize("value", [0, -1, "many", True])
def test_a_wrong_bound_is_told(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^cache\.stages_max_mb: found .*; cache\.stages=false keeps none"):
        check_stage_limits(value, "cache.")
