"""What `check` finds around a graph: time, models, documents and caches, each with its whole message."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lint_stages import (
    AT,
    BM25,
    DENSE,
    FUSED,
    Listwise,
    Other,
    Pointwise,
    Source,
    Stage,
    after_hybrid,
    said,
    spec,
)

from orchestrator.costs.cost import Predicted
from orchestrator.lint import CorpusFacts, Facts
from orchestrator.models import Model
from orchestrator.stack.gates import Gate
from orchestrator.stack.passages import Passages
from orchestrator.stack.policy import OnError


def predicting(budget_ms: float | None, **p50_ms: float) -> Facts:
    """Costs by stage, a document each: p95 is twice p50."""

    def predicted(node: Any, n_documents: int) -> Predicted | None:
        ms = p50_ms.get(node.name)
        return None if ms is None else Predicted(ms * n_documents, 2 * ms * n_documents)

    return Facts("en", budget_ms, CorpusFacts(n_documents=1000), {}, predicted, "figures of a test")


def test_a_limit_above_the_budget() -> None:
    assert after_hybrid(max_ms=80, facts=Facts("en", budget_ms=50)) == [
        f"warning: {AT}.precise.max_ms: 80 is more than budget_ms 50, which ends the stage before. Expected at most "
        "50, "
        "or null"
    ]
    assert after_hybrid(max_ms=50, facts=Facts("en", budget_ms=50)) == []


def test_a_stage_that_alone_takes_longer_than_it_may() -> None:
    tail = "Lower top_k of 'fused', raise {}, or let `orchestrate plan` choose. By figures of a test"
    assert after_hybrid(facts=predicting(200, precise=10)) == [
        f"warning: {AT}.precise: is predicted to take 500 ms for half of the questions, more than budget_ms 200 "
        "allows: of "
        f"50 documents some 20 would be scored. {tail.format('budget_ms')}"
    ]
    assert after_hybrid(max_ms=100, facts=predicting(None, precise=10)) == [
        f"warning: {AT}.precise: is predicted to take 500 ms for half of the questions, more than max_ms 100 allows: "
        "of 50 "
        f"documents some 10 would be scored. {tail.format('max_ms')}"
    ]
    gated = after_hybrid(when=Gate(min_candidates=3), facts=predicting(200, precise=10))
    assert gated[0].startswith(f"warning: {AT}.precise: where it runs, is predicted to take 500 ms")
    assert said(DENSE, facts=predicting(200, dense=1)) == [
        f"warning: {AT}.dense: is predicted to take 1,000 ms for half of the questions, more than budget_ms 200 "
        "allows. "
        "Choose a smaller model, raise budget_ms, or let `orchestrate plan` choose. By figures of a test"
    ]


def test_stages_that_together_take_longer_than_the_budget() -> None:
    costs = {"dense": 0.1, "fused": 0.005, "precise": 3}
    together = (
        "of the questions: {} (for half of them: precise 150 ms, dense 100 ms, fused 1.0 ms). What does not fit is "
        "left out and declared. Lower top_k of 'fused', raise budget_ms, or let `orchestrate plan` choose. By "
        "figures of a test"
    )
    assert after_hybrid(facts=predicting(200, **costs)) == [
        "warning: budget_ms: 200 is less than the stages are predicted to take together for half "
        + together.format("251 ms")
    ]
    assert after_hybrid(facts=predicting(400, **costs)) == [
        "remark: budget_ms: 400 is less than the stages are predicted to take together for one in twenty "
        + together.format("502 ms")
    ]
    assert after_hybrid(facts=predicting(502, **costs)) == []
    assert after_hybrid(facts=predicting(None, **costs)) == []


def test_what_a_question_takes_beside_its_stages_counts() -> None:
    facts = predicting(200, precise=3)
    assert after_hybrid(facts=replace(facts, budget_ms=301)) == []
    beside = replace(facts, budget_ms=301, around_ms=lambda most, n: Predicted(most / 100, 0.1 * n))
    assert after_hybrid(facts=beside) == []
    (said_of,) = after_hybrid(facts=replace(beside, budget_ms=300.2))
    assert said_of.startswith("remark: budget_ms: 300.2 is less than the stages are predicted to take together for one")


# Models


def test_a_key_that_is_missing() -> None:
    held = Stage(key_missing="missing; openai wants one: export OPENAI_API_KEY=...")
    assert said(spec("dense", Source(embedder=held), 9), spec("precise", Pointwise(embedder=held), 5)) == [
        f"missing: {AT}.dense.use.embedder.api_key: missing; openai wants one: export OPENAI_API_KEY=..."
    ], "once, where it stands first"


def test_a_key_that_a_fallback_misses() -> None:
    fallback = OnError("fallback", (Other(key_missing="missing"),))
    assert after_hybrid(on_error=fallback) == [f"missing: {AT}.precise.on_error.fallback.api_key: missing"]


def test_a_library_that_is_not_installed() -> None:
    stage = Pointwise(optional_modules={"openvino": "openvino"})
    assert after_hybrid(stage, facts=Facts("en", is_installed=lambda module: False)) == [
        f"missing: {AT}.precise.use: needs the module 'openvino', which is not installed: pip install "
        "'rerank-orchestrator[openvino]'"
    ]
    assert after_hybrid(stage, facts=Facts("en", is_installed=lambda module: True)) == []


def test_a_model_folder_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    stage = Pointwise(model=Model(role="reranker", path=str(path)), at_hand=lambda: True)
    assert after_hybrid(stage) == [
        f"missing: {AT}.precise.use: models.reranker.path is {path}: no such folder. Expected a folder with the "
        "model's "
        "files"
    ]
    path.write_text("")
    assert after_hybrid(stage)[0].endswith("nothing: a file. Expected a folder with the model's files")
    path.unlink()
    path.mkdir()
    assert after_hybrid(stage) == []


def test_a_hub_model_while_the_hub_is_off() -> None:
    model, off = Model(role="reranker", name="org/model"), Facts("en", is_hub_off=True)
    assert after_hybrid(Pointwise(model=model, at_hand=lambda: False), facts=off) == [
        f"missing: {AT}.precise.use: org/model is not on this machine, and the model hub is switched off "
        "(HF_HUB_OFFLINE). Choices: fetch it once with the hub on (orchestrate index), a folder of yours "
        "(models.reranker.path=DIR), or another model"
    ]
    assert after_hybrid(Pointwise(model=model, at_hand=lambda: True), facts=off) == []
    assert after_hybrid(Pointwise(model=model, at_hand=lambda: False)) == [], "the hub will have it"
    assert after_hybrid(Pointwise(model=model), facts=off) == [], "a service's model has no files here"


def test_a_stage_that_was_never_trained() -> None:
    assert after_hybrid(facts=Facts("en", untrained={"precise": "learns, and nothing was trained for it"})) == [
        f"missing: {AT}.precise.use: learns, and nothing was trained for it"
    ]


# Long documents


def windows(**values: Any) -> Passages:
    return Passages(how="windows", **values)


def test_passages_that_are_too_small() -> None:
    assert after_hybrid(passages=windows(size=20)) == [
        f"warning: {AT}.precise.passages.size: 20 tokens, the title's among them, seldom hold an answer and what it is "
        "about. Expected 32 or more, or null for what fits"
    ]


def test_passages_that_do_not_fit_the_model() -> None:
    stage = Pointwise(model=Model(role="reranker", name="m", max_length_tokens=512))
    assert after_hybrid(stage, passages=windows(size=512)) == [
        f"warning: {AT}.precise.passages.size: 512 does not fit: the model reads 512 tokens, the question's among "
        "them, "
        "and passages are cut. Expected well below 512, or null for what fits"
    ]
    assert after_hybrid(stage, passages=windows(size=256)) == []


def test_windows_that_read_far_more_than_they_seem_to() -> None:
    assert after_hybrid(passages=windows(max_windows=21)) == [
        f"warning: {AT}.precise.passages.max_windows: 21 windows of each of 50 documents are up to 1,050 passages a "
        "question, each of which costs what a document costs. Lower it, or top_k of 'fused'"
    ]
    assert after_hybrid(passages=windows(max_windows=None)) == [
        f"warning: {AT}.precise.passages.max_windows: null: a long one of 50 documents is read in as many windows as "
        "it "
        "has, whatever that takes. Expected a number, for example 8: those that match the question best are read"
    ]
    assert after_hybrid(passages=windows(max_windows=None, aggregate="first")) == []
    assert after_hybrid(passages=windows(max_windows=20)) == []


def test_windows_of_chunks() -> None:
    facts = Facts("en", corpus=CorpusFacts(chunk_chars=1200))
    start = f"remark: {AT}.precise.passages.how: windows"
    chunks = "the corpus is cut into chunks of 1200 characters already (corpus.chunk), some 300 tokens"
    assert after_hybrid(passages=windows(), facts=facts) == [
        f"{start}, but {chunks}: nearly all of them go whole. Expected truncate"
    ]
    assert after_hybrid(passages=windows(size=100), facts=facts) == [
        f"{start} of 100 tokens, and {chunks}: each text is cut twice. One of the two will do"
    ]
    assert after_hybrid(facts=facts) == []


# The corpus


def test_a_corpus_that_is_not_there() -> None:
    facts = Facts("en", corpus=CorpusFacts(problem=("corpus.path", "docs: found nothing there")))
    assert said(BM25, facts=facts) == ["missing: corpus.path: docs: found nothing there"]


def test_a_corpus_that_cannot_be_read_here() -> None:
    corpus = CorpusFacts(needs={"pyarrow": "parquet"})
    assert said(BM25, facts=Facts("en", corpus=corpus, is_installed=lambda module: False)) == [
        "missing: corpus: reading it needs the module 'pyarrow', which is not installed: pip install "
        "'rerank-orchestrator[parquet]'"
    ]


def test_a_corpus_that_is_too_large_for_its_engine() -> None:
    tokens = spec("tokens", Source("maxsim", suits_documents=5000), 9)
    assert said(tokens, facts=Facts("en", corpus=CorpusFacts(n_documents=60_000))) == [
        f"warning: {AT}.tokens.use: compares each question with each of 60,000 documents, and is meant for up to "
        "5,000. "
        f"Expected a server with a graph index: {AT}.tokens.use.url=http://localhost:6333"
    ]
    assert said(tokens, facts=Facts("en", corpus=CorpusFacts(n_documents=5000))) == []
    assert said(tokens) == [], "not known before it is read"


def test_a_payload_field_that_no_document_has() -> None:
    payload = ({"year": 2001, "place": {"city": "Ulm"}}, {"source": "a", "tags": [{"name": "x"}]})
    facts = Facts("en", corpus=CorpusFacts(n_documents=2, payload=payload))
    stage = Listwise("weighted", payload_fields={"boosts.fresh.field": "yaer"})
    assert after_hybrid(stage, facts=facts) == [
        f"warning: {AT}.precise.use.boosts.fresh.field: no document has a field 'yaer', of a sample of 2; fields: "
        "place, "
        "source, tags, year. Did you mean 'year'?"
    ]
    for field in ("year", "place.city", "tags.name"):
        assert after_hybrid(Listwise("weighted", payload_fields={"k": field}), facts=facts) == []
    assert (
        "no document has a field 'place.zip'"
        in after_hybrid(Listwise("weighted", payload_fields={"k": "place.zip"}), facts=facts)[0]
    )
    assert after_hybrid(stage) == [], "not known before the corpus is read"


def test_a_filter_that_another_recall_passes_by() -> None:
    filtered = spec("dense", Source("cosine", filter={"must": []}), 100)
    assert said(BM25, filtered, FUSED) == [
        f"warning: {AT}.bm25: brings documents that the filter of 'dense' leaves out: 'fused' merges both. A filter "
        "that "
        "must hold for every result needs a pipeline in which each recall has it"
    ]


# Caches


class SpeaksLater(Pointwise):
    @property
    def model_id(self) -> str:
        raise RuntimeError("call load() first")


def test_scores_that_cannot_be_kept() -> None:
    assert after_hybrid(SpeaksLater(), cache="on") == [
        f"warning: {AT}.precise.cache: on, but SpeaksLater does not say that its scores depend on nothing but the "
        "model "
        "and the two texts (`cacheable_scores`). Expected auto or off, or a class that says so"
    ]
    assert after_hybrid(SpeaksLater(cacheable_scores=True), cache="on") == []
    assert after_hybrid(Pointwise(model_id="m", cacheable_scores=True), cache="on") == []
    assert after_hybrid(cache="auto") == []
