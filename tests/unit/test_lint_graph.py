"""What `check` finds in a graph: depths, gates, scores and failures, each with its whole message."""

from __future__ import annotations

import pytest
from lint_stages import (
    AT,
    BM25,
    ENGLISH,
    HYBRID,
    Listwise,
    Mixes,
    Other,
    Pointwise,
    Source,
    after_hybrid,
    said,
    spec,
)

from orchestrator.lint import Facts
from orchestrator.models import Model
from orchestrator.stack.cuts import Cut
from orchestrator.stack.gates import Gate
from orchestrator.stack.graph import StageSpec
from orchestrator.stack.policy import OnError


def test_a_sound_pipeline_gives_no_finding() -> None:
    assert after_hybrid(Pointwise(languages=["en"])) == []


def test_a_top_k_that_grows() -> None:
    assert f"warning: {AT}.precise.top_k: 80 is more than its input can pass on: fused (50). Expected at most 50" in (
        after_hybrid(top_k=80)
    )


def test_a_rerank_of_one_document() -> None:
    assert said(spec("bm25", Source(), 1), spec("precise", Pointwise(), 1)) == [
        f"warning: {AT}.precise: cannot change the result: 'bm25' passes on one document only"
    ]


SHORT = spec("short", Pointwise(), 50)


def test_a_rerank_whose_work_is_done_again() -> None:
    assert said(*HYBRID, SHORT, spec("precise", Pointwise(), 5)) == [
        f"warning: {AT}.short: cannot change the result: it drops nothing (top_k 50), and 'precise' scores the same "
        "documents again. Lower its top_k or drop it"
    ]


@pytest.mark.parametrize(
    ("reader", "facts"),
    [
        (spec("precise", Pointwise(), 5), Facts("en", budget_ms=50)),
        (spec("precise", Pointwise(), 5, max_ms=50), ENGLISH),
        (spec("precise", Pointwise(), 5, when=Gate(min_candidates=3)), ENGLISH),
        (spec("precise", Pointwise(), 5, on_error=OnError("skip")), ENGLISH),
        (spec("precise", Pointwise(is_remote=True), 5), ENGLISH),
    ],
    ids=["budget", "max_ms", "gate", "skip", "remote"],
)
def test_a_rerank_whose_order_may_show_is_left_alone(reader: StageSpec, facts: Facts) -> None:
    assert said(*HYBRID, SHORT, reader, facts=facts) == []


def test_a_rerank_after_the_last_cut() -> None:
    assert after_hybrid(top_k=50) == [
        f"remark: {AT}.precise: reorders 50 documents and drops none: 'fused' has decided which they are, so that "
        f"measures of the set (R@50) cannot see it. To let it choose, raise {AT}.fused.top_k or lower its own"
    ]
    assert after_hybrid(top_k=50, cut=Cut("gap")) == []


def test_a_cut_of_nothing() -> None:
    assert after_hybrid(cut=Cut("gap", min=5)) == [
        f"warning: {AT}.precise.cut.min: 5 is not below top_k 5, so that nothing is ever cut; expected at most 4, or "
        "no cut"
    ]


# Gates


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (
            Gate(min_candidates=51),
            "min_candidates: 51 is more than the 50 documents that its input can pass on: the stage never runs. "
            "Expected at most 50",
        ),
        (
            Gate(max_candidates=50),
            "max_candidates: 50 is no less than the 50 documents that its input can pass on: it always holds. "
            "Expected at most 49, or null",
        ),
        (
            Gate(max_margin=0.1, margin_rank=50),
            "margin_rank: is 50, and the input passes on 50: with margin=relative it takes 51 documents, so that the "
            "stage always runs. Expected at most 49",
        ),
        (
            Gate(max_margin=0.1, margin_rank=51, margin="absolute"),
            "margin_rank: is 51, and the input passes on 50: with margin=absolute it takes 51 documents, so that the "
            "stage always runs. Expected at most 50",
        ),
        (
            Gate(min_left_ms=40),
            "min_left_ms: 40 asks for what is left of a budget, and budget_ms is null: it always holds",
        ),
    ],
)
def test_a_gate_that_holds_always_or_never(gate: Gate, message: str) -> None:
    assert after_hybrid(when=gate) == [f"warning: {AT}.precise.when.{message}"]


def test_a_gate_that_decides_something_is_left_alone() -> None:
    assert after_hybrid(when=Gate(min_candidates=50, max_margin=0.1, margin_rank=49)) == []
    assert after_hybrid(when=Gate(max_candidates=49)) == []
    assert after_hybrid(when=Gate(min_left_ms=40), facts=Facts("en", budget_ms=50)) == []


def test_a_gate_that_asks_for_the_whole_budget() -> None:
    assert after_hybrid(when=Gate(min_left_ms=50), facts=Facts("en", budget_ms=50)) == [
        f"warning: {AT}.precise.when.min_left_ms: 50 is no less than budget_ms 50: the stage never runs. Expected less"
    ]


def test_the_margin_of_ranks() -> None:
    specs = (BM25, spec("short", Listwise(), 20), spec("precise", Pointwise(), 5, when=Gate(max_margin=0.2)))
    assert said(*specs) == [
        f"warning: {AT}.precise.when.max_margin: reads the margin of 'short', which gives ranks: their distances are "
        "always the same. Expected an input with scores: bm25"
    ]


# Scores


def test_a_threshold_whose_kind_the_model_tells() -> None:
    cut = Cut("threshold", value=0.5, kind="cosine")
    assert after_hybrid(Pointwise("cosine", score_kinds=("cosine", "dot")), cut=cut) == [
        f"remark: {AT}.precise.cut.kind: cosine; whether the scores are cosine or dot, the model says when it is "
        "loaded. "
        "Where they are not cosine, nothing is cut below top_k 5"
    ]


FALLBACK = OnError("fallback", (Other("cosine"),))


def test_a_fallback_that_a_cut_does_not_judge() -> None:
    assert after_hybrid(cut=Cut("threshold", value=0.5, kind="logit"), on_error=FALLBACK) == [
        f"warning: {AT}.precise.on_error.fallback: scores cosine, and `cut` judges logit: where the fallback answers, "
        "nothing is cut below top_k 5. Expected a fallback of the same kind, or a top_k that is right for both"
    ]


def test_a_fallback_before_an_absolute_margin() -> None:
    gate = Gate(max_margin=2, margin="absolute")
    short = spec("short", Pointwise(), 20, on_error=FALLBACK)
    assert said(*HYBRID, short, spec("precise", Pointwise(), 5, when=gate)) == [
        f"warning: {AT}.short.on_error.fallback: scores cosine, and 'precise' has an absolute max_margin of logit: "
        "where "
        "the fallback answers, it means something else. Expected margin=relative, or a fallback of the same kind"
    ]


def test_a_fallback_that_a_fusion_cannot_mix() -> None:
    two = [spec(name, Pointwise(), 20, "bm25", on_error=FALLBACK if name == "a" else OnError()) for name in "ab"]
    assert said(BM25, *two, spec("fused", Mixes(), 5, "a", "b")) == [
        f"warning: {AT}.a.on_error.fallback: scores cosine, with which 'fused' would stop: normalise: cannot mix"
    ]


# Failures


REMOTE = {"is_remote": True, "base_url": "https://api.example.org/v1"}


def test_a_remote_stage_that_ends_the_question_beside_a_budget() -> None:
    message = (
        f"warning: {AT}.precise.on_error: fail, on somebody else's machine: one that does not answer ends the "
        "question, "
        "though budget_ms 50 asks for the best answer in time. Expected skip (its default), or a fallback"
    )
    stage, budget = Pointwise(**REMOTE), Facts("en", budget_ms=50)
    assert after_hybrid(stage, on_error=OnError("fail"), facts=budget) == [message]
    assert after_hybrid(stage, on_error=OnError("fail")) == []
    assert after_hybrid(stage, on_error=OnError("skip"), facts=budget) == []
    assert said(spec("dense", Source(**REMOTE), 9, on_error=OnError("fail")), facts=budget) == [], "the only recall"


def test_a_fallback_on_the_same_service() -> None:
    elsewhere = {**REMOTE, "base_url": "https://other.example.org/v1"}
    assert after_hybrid(Pointwise(**REMOTE), on_error=OnError("fallback", (Other(**REMOTE),))) == [
        f"warning: {AT}.precise.on_error.fallback: asks api.example.org, as the stage does: where one gets no "
        "answer, the "
        "other may get none either. Expected a stage that needs neither, for example bi_encoder"
    ]
    assert after_hybrid(Pointwise(**REMOTE), on_error=OnError("fallback", (Other(**elsewhere),))) == []


def test_a_fallback_that_is_its_stage_again() -> None:
    small, large = (Model(role="reranker", name=name) for name in ("small", "large"))
    again = OnError("fallback", (Pointwise(model=small),))
    assert after_hybrid(Pointwise(model=small), on_error=again) == [
        f"warning: {AT}.precise.on_error.fallback: is the same class with the same model as the stage: what fails "
        "there "
        "fails here. Expected a stage that needs neither, for example bi_encoder"
    ]
    assert after_hybrid(Pointwise(model=large), on_error=again) == []
    assert after_hybrid(Pointwise(model=small, backend="torch"), on_error=again) == [], "it runs elsewhere"
