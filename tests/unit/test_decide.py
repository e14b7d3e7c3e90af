"""The decision helper as a table: exact choices for named situations, and promises over hundreds of needs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from orchestrator.costs.cost import CostModel, ModelInfo, Predicted, StageCost
from orchestrator.costs.lengths import Lengths
from orchestrator.deciding.decide import Decision, decide
from orchestrator.deciding.evidence import NONE, Evidence, Own
from orchestrator.deciding.need import Catalogue, Need
from orchestrator.deciding.options import Option, consider, knows_language
from orchestrator.deciding.rules import RERANK_KINDS, Rules
from orchestrator.deciding.worth import advise
from orchestrator.errors import ConfigError
from orchestrator.report.decision import need_line

CONF = Path(str(files("orchestrator.conf")))


def load(path: str) -> dict:
    content = OmegaConf.to_container(OmegaConf.load(CONF / path))
    assert isinstance(content, dict)
    return content


def card(path: Path) -> ModelInfo:
    data = OmegaConf.load(path)
    size, length = data.get("parameters_millions"), data.get("max_length_tokens")
    return ModelInfo(path.stem, tuple(data.get("languages") or ()), size, length, local=path.stem == "minilm")


RULES = Rules.of(load("decision/default.yaml"))
COST = CostModel.of(load("cost/reference.yaml"))
CARDS = Catalogue({path.stem: card(path) for path in (CONF / "model").glob("*.yaml")})
ONE_RERANKER = Catalogue(CARDS.models, {"reranker": CARDS.models["ettin_reranker_17m"]})
STACKS = {stack.name: stack for stack in RULES.stacks}
MODEL_KEYS = ("model@models.embedder=", "model@models.reranker=")
EVERYTHING = frozenset({"hub", "api", "llm", "trained"})


def chosen(catalogue: Catalogue = CARDS, rules: Rules = RULES, **need: Any) -> Decision:
    own = need.pop("own", NONE)
    return decide(Need(**need), rules, COST, catalogue, own)  # type: ignore[arg-type]


def worth(decision: Decision) -> float:
    return decision.choice.expected.estimate.mean


def models(decision: Decision) -> list[ModelInfo]:
    words = [word for word in decision.choice.overrides if word.startswith(MODEL_KEYS)]
    return [CARDS.models[word.partition("=")[2]] for word in words]


def kinds(decision: Decision) -> set[str]:
    return {stage.kind for stage in STACKS[decision.choice.name].stages}


@pytest.mark.parametrize(
    ("need", "name", "more"),
    [
        # no reranking when the budget is tiny, or with twenty candidates or fewer
        ({"latency_ms": 25}, "hybrid", []),
        ({"latency_ms": 17}, "edge", []),
        ({"latency_ms": 40, "candidates": 1000}, "hybrid", ["pipeline.stages.dense.top_k=1000"]),
        ({"latency_ms": 5}, "bm25", []),
        ({"latency_ms": 1000, "candidates": 20}, "hybrid", ["pipeline.stages.bm25.top_k=20"]),
        ({"latency_ms": 60_000, "candidates": 8, "priority": "precision"}, "hybrid", ["pipeline.stages.dense.top_k=8"]),
        # dot products with the recall's own vectors rank as the recall does, so that merging by rank is better
        ({"latency_ms": 5000, "candidates": 1000, "priority": "speed"}, "hybrid", []),
        # a cross-encoder over the top 50 as the usual default, over one or two hundred for precision
        ({}, "cross_encoder", ["model@models.reranker=ettin_reranker_32m"]),
        ({"latency_ms": 2500}, "cross_encoder", ["model@models.reranker=ettin_reranker_17m"]),
        ({"latency_ms": 10_000, "candidates": 100, "priority": "precision"}, "high_precision", []),
        ({"latency_ms": 10_000, "candidates": 200, "priority": "precision"}, "high_precision", []),
        # two stages for a thousand, where precision counts; else fifty of a thousand are as good in half the time
        ({"latency_ms": 6000, "candidates": 1000, "priority": "precision"}, "two_stage", []),
        ({"latency_ms": 6000, "candidates": 1000}, "cross_encoder", ["pipeline.stages.bm25.top_k=1000"]),
        # learned fusion where there is one; a hosted reranker or a language model where they are all there is
        ({"latency_ms": 70, "allow": frozenset({"hub", "trained"})}, "learned", []),
        ({"latency_ms": 1000, "language": "de", "allow": frozenset({"hub", "api"})}, "hosted_api", []),
        # late interaction where no cross-encoder is at hand, or where one does not fit
        ({"allow": frozenset()}, "balanced", []),
        ({"latency_ms": 150}, "balanced", []),
        ({"latency_ms": 150, "candidates": 1000}, "balanced", ["pipeline.stages.bm25.top_k=1000"]),
        ({"latency_ms": 150, "language": "de"}, "hybrid", []),
        # Chinese without a network
        ({"latency_ms": 150, "language": "zh", "allow": frozenset()}, "bm25", []),
        ({"latency_ms": 150, "language": "zh", "allow": frozenset({"trained"})}, "chinese", []),
    ],
)
def test_named_situations_get_the_stack_they_are_known_for(need: dict, name: str, more: list[str]) -> None:
    choice = chosen(**need).choice
    assert choice.name == name
    assert choice.misses_by_ms is None
    assert set(more) <= set(choice.overrides)


@pytest.mark.parametrize(
    ("language", "embedder", "reranker"),
    [
        ("en", "minilm", "ettin_reranker_32m"),
        ("zh", "bge_m3", "bge_reranker_v2_m3"),
        ("zh-en", "bge_m3", "bge_reranker_v2_m3"),
        ("de", "multilingual_e5_small", "mmarco_minilm_l12"),
        ("und", "multilingual_e5_small", "mmarco_minilm_l12"),
    ],
)
def test_the_language_chooses_the_models(language: str, embedder: str, reranker: str) -> None:
    decision = chosen(language=language, device="gpu", candidates=100)
    assert [model.name for model in models(decision)] == [embedder, reranker]


def test_a_chinese_model_that_does_not_fit_makes_way_for_a_multilingual_one() -> None:
    decision = chosen(language="zh", latency_ms=2000, candidates=50)
    assert decision.choice.name == "cross_encoder"
    assert "mmarco_minilm_l12" in {model.name for model in models(decision)}
    assert any("bge_reranker_v2_m3 would be better, but does not fit" in reason for reason in decision.choice.reasons)


BUDGETS = (3.0, 10.0, 20.0, 30.0, 60.0, 150.0, 400.0, 1000.0, 2500.0, 6000.0, 30_000.0, None)
CANDIDATES = (None, 20, 21, 150, 1000)
ALLOWED = (frozenset[str](), frozenset({"hub"}), frozenset({"trained", "api"}), EVERYTHING)
SERIES = list(
    itertools.product(("en", "zh", "zh-en", "de"), ("precision", "balanced", "speed"), ("cpu", "gpu"), ALLOWED)
)


@pytest.mark.parametrize(
    ("language", "priority", "device", "allow"),
    SERIES,
    ids=["-".join([*map(str, s[:3]), *sorted(s[3])]) for s in SERIES],
)
def test_every_need_of_the_table_keeps_the_promises(
    language: str, priority: str, device: str, allow: frozenset[str]
) -> None:
    for candidates in CANDIDATES:
        before, indifferent = -1.0, RULES.gains.indifferent(priority)
        for latency_ms in BUDGETS:
            need = Need(latency_ms, candidates, language, priority, device, allow=allow)
            decision = decide(need, RULES, COST, CARDS)
            keeps_the_budget(decision, need)
            keeps_to_language_and_network(decision, need)
            assert worth(decision) >= before - indifferent, f"more budget, lower expected quality: {need}"
            before = worth(decision)


@settings(max_examples=200, deadline=None)
@given(
    latency_ms=st.floats(0.5, 100_000) | st.none(),
    more=st.floats(1, 50),
    candidates=st.integers(1, 20_000) | st.none(),
    language=st.sampled_from(["en", "zh", "zh-en", "ja", "ru", "und"]),
    priority=st.sampled_from(["precision", "balanced", "speed"]),
    device=st.sampled_from(["cpu", "gpu"]),
    lengths=st.integers(1, 5000).map(lambda tokens: Lengths.even(COST.query_tokens, tokens)),
    documents=st.integers(1, 10_000_000),
    allow=st.frozensets(st.sampled_from(sorted(EVERYTHING))),
)
def test_any_need_keeps_the_promises(latency_ms: float | None, more: float, **need: object) -> None:
    asked = Need(latency_ms, **need)  # type: ignore[arg-type]
    decision = decide(asked, RULES, COST, CARDS)
    keeps_the_budget(decision, asked)
    keeps_to_language_and_network(decision, asked)
    richer = Need(None if latency_ms is None else latency_ms * more, **need)  # type: ignore[arg-type]
    indifferent = RULES.gains.indifferent(asked.priority)
    assert worth(decide(richer, RULES, COST, CARDS)) >= worth(decision) - indifferent


def keeps_the_budget(decision: Decision, need: Need) -> None:
    choice = decision.choice
    names = [choice.name, *(other.name for other in decision.rejected)]
    assert sorted(names) == sorted(STACKS), "every stack is chosen or has its one reason"
    assert all(other.reason for other in decision.rejected)
    assert [one.name for one in decision.candidates if one.is_choice] == [choice.name]
    if choice.misses_by_ms is None:
        assert choice.predicted.p95_ms <= need.budget_ms
    else:
        assert choice.predicted.p95_ms == pytest.approx(need.budget_ms + choice.misses_by_ms)
        assert not any(one.fits for one in decision.candidates)
    if need.reach <= 20:
        assert not kinds(decision) & RERANK_KINDS


def keeps_to_language_and_network(decision: Decision, need: Need) -> None:
    for model in models(decision):
        assert knows_language(model, need.language)
        assert model.local or "hub" in need.allow
        if need.language in ("zh", "zh-en"):
            assert model.languages != ("en",)
    learned = "ltr" in kinds(decision) and decision.choice.name != "balanced"  # whose model comes with the package
    for used, word in (("api" in kinds(decision), "api"), ("llm" in kinds(decision), "llm"), (learned, "trained")):
        assert not used or word in need.allow


def option_of(name: str, decision: Decision) -> Option:
    (found,) = [one.option for one in decision.candidates if one.name == name]
    assert found is not None
    return found


@pytest.mark.parametrize("budget", [300, 400, 600, 800])
def test_the_depth_is_the_largest_that_fits(budget: float) -> None:
    option = option_of(
        "cross_encoder",
        chosen(ONE_RERANKER, latency_ms=budget, candidates=100, lengths=Lengths.even(COST.query_tokens, 60)),
    )
    a_pair = COST.predict(
        "cross_encoder", 1, lengths=Lengths.even(COST.query_tokens, 60), model=CARDS.models["ettin_reranker_17m"]
    ).p95_ms
    assert budget - a_pair < option.predicted.p95_ms <= budget
    assert 10 <= option.reads < 50
    assert option.top_ks["fused"] == option.reads


def test_a_prediction_is_the_sum_of_its_stages() -> None:
    decision = chosen(latency_ms=150, candidates=1000, documents=100_000, priority="speed")
    parts = [
        COST.embed(CARDS.models["minilm"]),
        COST.predict("bm25", 100_000),
        COST.predict("dense", 100_000),
        COST.predict("fusion", 2000),
    ]
    assert decision.choice.predicted.p50_ms == pytest.approx(sum(part.p50_ms for part in parts))
    assert decision.choice.predicted.p95_ms == pytest.approx(1.5 * sum(part.p50_ms for part in parts))


def test_where_nothing_fits_the_fastest_is_named_with_what_it_misses_by() -> None:
    decision = chosen(latency_ms=0.1, documents=1_000_000)
    p95 = 1.5 * (0.07 + 7.5e-6 * 1_000_000)
    assert decision.choice.name == "bm25"
    assert decision.choice.misses_by_ms == pytest.approx(p95 - 0.1)
    assert (
        decision.choice.reasons[0]
        == f"nothing fits 0.1 ms: this is the fastest, its p95 {p95 - 0.1:.0f} ms over the budget"
    )


@pytest.mark.parametrize(
    ("name", "need", "reason"),
    [
        ("two_stage", {"candidates": 100}, "for 201 or more candidates; there are 100"),
        ("low_latency", {"candidates": 20}, "for 21 or more candidates; there are 20"),
        ("high_precision", {}, "for priority precision; this one is balanced"),
        ("hosted_api", {"device": "gpu"}, "for device cpu; this one is gpu"),
        ("chinese", {}, "for language zh or zh-en; this one is en"),
        ("prototype_llm", {}, "needs a language model: allow=[hub,llm]"),
        ("cross_encoder", {"allow": frozenset()}, "reranker ettin_reranker_32m is not on this machine"),
        ("cross_encoder", {"latency_ms": 150}, "even with 10 candidates reranked: "),
        ("edge", {"latency_ms": 150}, "fits (p95 17 ms), expected -.046, below +.038 of balanced"),
        ("low_latency", {"latency_ms": 150}, "expected -.046 against hybrid; a rerank has to gain more than 0.005"),
    ],
)
def test_each_other_stack_has_one_reason_against_it(name: str, need: dict, reason: str) -> None:
    (found,) = [other.reason for other in chosen(**need).rejected if other.name == name]
    assert reason in found


def test_an_english_model_is_passed_over_for_chinese_whatever_the_rules_say() -> None:
    data = load("decision/default.yaml")
    data["languages"]["zh"] = {"embedder": ["minilm"], "reranker": ["ms_marco_minilm_l6"], "because": "a mistake"}
    decision = chosen(rules=Rules.of(data), language="zh")
    assert decision.choice.name == "bm25"
    assert "minilm knows en only; the language is zh" in {other.reason for other in decision.rejected}


def test_a_model_that_the_user_has_set_is_the_only_one_considered() -> None:
    mine = ModelInfo("/models/mine", (), 110, 512, local=True)
    need = {"allow": frozenset(), "latency_ms": 20_000, "language": "de"}
    decision = chosen(Catalogue(CARDS.models, {"reranker": mine, "embedder": mine}), **need)
    assert decision.choice.name == "cross_encoder"
    assert not any("models.reranker" in word for word in decision.choice.overrides)
    assert "reranker /models/mine: as you have set" in decision.choice.reasons
    pair = COST.predict(
        "cross_encoder", 50, lengths=Lengths.even(COST.query_tokens, 140), model=CARDS.models["ms_marco_minilm_l6"]
    ).p50_ms
    assert decision.choice.predicted.p50_ms > pair * 110 / 22.7


def test_a_reason_says_what_is_not_known() -> None:
    unknown = ModelInfo("mine", local=True)
    reasons = chosen(Catalogue(CARDS.models, {"reranker": unknown}), language="de").choice.reasons
    assert any("how much mine works is not known" in reason for reason in reasons)
    assert "nothing is published about mine: taken as ms_marco_minilm_l6" in reasons
    assert "its figures are of collections in 'en', taken for 'de' too: none are known" in reasons
    assert reasons[-1] == COST.origin
    assert "not measured on this machine" in COST.origin


def test_a_reason_warns_of_an_index_that_takes_long() -> None:
    minutes = (5.8 + 0.256 * 140) * 100_000 / 60_000
    reasons = chosen(documents=100_000, latency_ms=150).choice.reasons
    assert f"indexing embeds 100,000 documents once: some {minutes:.0f} minutes, their token vectors apart" in reasons
    reasons = chosen(documents=2_000, latency_ms=40).choice.reasons
    assert "indexing embeds 2,000 documents once: about a minute" in reasons
    long = chosen(documents=100_000, latency_ms=150, lengths=Lengths.even(15, 5_000)).choice.reasons
    cut = (5.8 + 0.256 * 256) * 100_000 / 60_000  # where MiniLM cuts
    assert f"indexing embeds 100,000 documents once: some {cut:.0f} minutes, their token vectors apart" in long


def test_more_candidates_than_documents_are_reckoned_as_that_many_documents_and_said() -> None:
    few, many = (chosen(documents=count, candidates=1000, latency_ms=150) for count in (700, 1000))
    assert few.choice.predicted == many.choice.predicted
    told = "1000 candidates of 700 documents (fewer than candidates: reckoned as 1,000) of "
    assert told in need_line(Need(documents=700, candidates=1000))
    assert "1000 candidates of 1,000 documents of " in need_line(Need(documents=1000, candidates=1000))


def test_an_embedder_that_is_a_service_is_no_model_to_download() -> None:
    service = ModelInfo("openai_3_small", is_remote=True)
    catalogue = Catalogue(CARDS.models, {"embedder": service})
    for allow in (frozenset({"hub"}), frozenset()):
        reasons = chosen(catalogue, latency_ms=150, documents=100_000, allow=allow).choice.reasons
        assert "embedder openai_3_small is a service: documents and questions are sent to it" in reasons
        assert "how long openai_3_small takes is in none of the figures: `orchestrate calibrate` asks it" in reasons, (
            "nobody measured it"
        )
        assert not any("model hub" in reason or "indexing" in reason for reason in reasons)
    here = chosen(Catalogue(CARDS.models, {"embedder": CARDS.models["minilm"]}), latency_ms=150)
    there = chosen(catalogue, latency_ms=150)
    question = COST.embed(CARDS.models["minilm"])
    assert there.choice.predicted.p50_ms == pytest.approx(here.choice.predicted.p50_ms - question.p50_ms)
    row = StageCost("embed", "here", "openai_3_small", fixed_ms=80.0)
    measured = decide(Need(latency_ms=350), RULES, COST.with_measured([row], "here"), catalogue, NONE).choice
    assert not any("how long" in reason for reason in measured.reasons)
    assert measured.predicted.p95_ms > 80 * COST.spread["remote"]


def test_of_embedders_the_first_that_fits_is_taken_whatever_others_gained_over_references_of_their_own() -> None:
    weak = {
        ("hybrid", "multilingual_e5_small", None): 0.0,
        ("cross_encoder", "multilingual_e5_small", "bge_reranker_v2_m3"): 0.4,
    }
    own = Own(
        {key: (Evidence(50, {f"q{n}": gain for n in range(50)}, "2026-11-01", ()),) for key, gain in weak.items()}
    )
    found = chosen(language="zh", priority="precision", own=own)
    assert "model@models.embedder=bge_m3" in found.choice.overrides


def test_own_results_with_different_embedders_are_not_held_against_each_other() -> None:
    def option(stack: str, embedder: str | None, gain: float) -> Option:
        catalogue = Catalogue(CARDS.models, {"embedder": CARDS.models[embedder]} if embedder else {})
        differences = {f"q{n}": gain + 0.001 * (n % 3) for n in range(60)}
        own = Own({(stack, embedder, None): (Evidence(100, differences, "2026-11-01", ()),)})
        found = consider(STACKS[stack], Need(latency_ms=150), RULES, COST, catalogue, own)
        assert isinstance(found, Option)
        assert found.expected.own is not None
        return found

    rerank, edge = option("balanced", "minilm", -0.02), option("edge", "minilm", 0.02)
    assert advise([rerank, edge], RULES.gains).is_measured
    assert not advise([rerank, option("edge", "bge_m3", 0.02)], RULES.gains).is_measured
    assert advise([rerank, option("bm25", None, 0.2)], RULES.gains).is_measured, "bm25 has none"


def test_one_service_says_nothing_of_another() -> None:
    row = StageCost("api", "here", "tei", fixed_ms=5.0)
    cost = COST.with_measured([row], "here")
    need = Need(latency_ms=1000, allow=EVERYTHING)
    option = consider(STACKS["hosted_api"], need, RULES, cost, ONE_RERANKER, NONE)
    assert isinstance(option, Option)
    assert option.predicted.p50_ms > 110
    cohere = COST.with_measured([StageCost("api", "here", "rerank-v4.0-fast", fixed_ms=5.0)], "here")
    faster = consider(STACKS["hosted_api"], need, RULES, cohere, ONE_RERANKER, NONE)
    assert isinstance(faster, Option)
    assert faster.predicted.p50_ms < 110


def test_rows_of_vectors_are_those_of_their_model() -> None:
    rows = [StageCost(kind, "here", "minilm", fixed_ms=1.0) for kind in ("dense", "late_interaction")]
    rows += [StageCost(kind, "here", "large", fixed_ms=50.0) for kind in ("dense", "late_interaction")]
    cost = COST.with_measured(sorted(rows, key=lambda row: row.model == "minilm"), "here")
    for encoder, ms in (("minilm", 1.0), ("large", 50.0), ("other", 1.0)):
        catalogue = Catalogue(CARDS.models, {"embedder": ModelInfo(encoder, local=True)}, encoder=ModelInfo(encoder))
        option = consider(STACKS["balanced"], Need(latency_ms=500), RULES, cost, catalogue, NONE)
        assert isinstance(option, Option)
        usual = (
            sum(
                cost.predict(kind, 200 if kind == "fusion" else 100, lengths=Lengths.even()).p50_ms
                for kind in ("fusion", "ltr")
            )
            + cost.predict("bm25", 10_000, results=100).p50_ms
            + cost.embed(ModelInfo(encoder)).p50_ms
        )
        assert option.predicted.p50_ms == pytest.approx(usual + 2 * ms)


def test_rules_that_allow_nothing_say_so() -> None:
    data = load("decision/default.yaml")
    data["stacks"] = [row for row in data["stacks"] if row["name"] == "prototype_llm"]
    data["stacks"][0].pop("expected")
    data["quality"]["reference"] = "prototype_llm"
    with pytest.raises(
        ConfigError, match=r"^decision\.stacks: no stack may serve this need\. prototype_llm: needs a l"
    ):
        chosen(rules=Rules.of(data))


def test_a_model_without_a_card_is_named() -> None:
    data = load("decision/default.yaml")
    data["languages"]["en"]["reranker"] = ["ms_marco_minilm_l7"]
    with pytest.raises(
        ConfigError, match=r"reranker 'ms_marco_minilm_l7' has no card.*Did you mean 'ms_marco_minilm_l6'"
    ):
        chosen(rules=Rules.of(data))


@pytest.mark.parametrize(
    ("need", "message"),
    [
        ({"latency_ms": 0}, r"^need\.latency_ms: found 0; expected a number above 0"),
        ({"candidates": -1}, r"^need\.candidates: found -1"),
        (
            {"allow": frozenset({"hubb"})},
            r"^need\.allow: found 'hubb'; choices: hub, api, llm, trained\. Did you mean 'hub'",
        ),
    ],
)
def test_a_need_that_makes_no_sense_is_refused(need: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Need(**need)


def test_predictions_add_up() -> None:
    assert Predicted(1.0, 2.0) + Predicted(3.0, 5.0) == Predicted(4.0, 7.0)


def own(**differences: list[float]) -> Own:
    """Evaluations of stacks with MiniLM over the same queries, beside the reference, which is among them."""
    n = len(next(iter(differences.values())))
    by_stack = {"hybrid": [0.0] * n, **differences}
    reads = {"balanced": 100, "low_latency": 200}
    return Own(
        {
            (name, "minilm" if name != "bm25" else None, None): [
                Evidence(reads.get(name, 0), {f"q{place}": value for place, value in enumerate(values)}, "2026-11-20")
            ]
            for name, values in by_stack.items()
        }
    )


def test_own_results_that_show_a_loss_say_do_not_rerank_with_their_figures() -> None:
    losses = [-0.1, -0.05, 0.0, -0.15, -0.1, -0.05] * 10
    decision = chosen(latency_ms=150, own=own(balanced=losses))
    assert decision.choice.name == "hybrid"
    assert decision.advice.is_measured
    reason = next(reason for reason in decision.choice.reasons if reason.startswith("do not rerank"))
    assert reason.startswith("do not rerank: balanced has on 60 of your queries -.075 (95 % -.")
    (rejected,) = [other.reason for other in decision.rejected if other.name == "balanced"]
    assert rejected in reason


def test_own_results_that_gain_nothing_beyond_the_margin_say_it_too() -> None:
    decision = chosen(latency_ms=150, own=own(balanced=[0.004, -0.004] * 1000))
    assert decision.choice.name == "hybrid"
    assert any(reason.startswith("do not rerank: balanced has on 2000 of") for reason in decision.choice.reasons)


def test_own_results_weigh_more_than_published_ones_the_more_queries_there_are() -> None:
    published = worth(chosen(latency_ms=150))
    found = [worth(chosen(latency_ms=150, own=own(balanced=[0.3, 0.1] * half))) for half in (5, 50, 500)]
    assert published < found[0] < found[1] < found[2] < 0.2
    assert found[2] == pytest.approx(0.2, abs=0.01)
    decision = chosen(latency_ms=150, own=own(balanced=[0.3, 0.1] * 50))
    assert decision.choice.expected.basis == "yours n=100"


def test_a_stack_without_a_rerank_wins_by_own_results() -> None:
    decision = chosen(latency_ms=150, own=own(bm25=[0.3, 0.2, 0.1] * 40, balanced=[0.05, 0.06, 0.04] * 40))
    assert decision.choice.name == "bm25"
    reason = next(reason for reason in decision.choice.reasons if reason.startswith("do not rerank"))
    assert "balanced has on 120 of your queries -.150 (95 %" in reason
    assert "against bm25" in reason


def test_among_stacks_as_good_the_faster_one_is_taken() -> None:
    data = load("decision/default.yaml")
    rows = {row["name"]: row for row in data["stacks"]}
    rows["bm25"]["expected"] = {"difference": -0.004, "sd": 0.01, "sets": 3, "source": "a test"}
    del rows["bm25"]["stages"], rows["bm25"]["overrides"]
    rows["bm25"] |= {"stages": {"bm25": {"kind": "bm25", "top_k": 10}}, "overrides": ["pipeline=bm25"]}
    rules = Rules.of(data)
    assert chosen(rules=rules, latency_ms=25).choice.name == "bm25"
    assert chosen(rules=rules, latency_ms=25, priority="precision").choice.name == "hybrid"
    apart = replace(rules, gains=replace(rules.gains, indifference={"balanced": 0.003}))
    assert chosen(rules=apart, latency_ms=25).choice.name == "hybrid"


def test_a_shallow_cross_encoder_is_not_taken_for_a_deep_one() -> None:
    budgets = (400, 700, 1000, 3000)
    decisions = [
        chosen(ONE_RERANKER, latency_ms=budget, candidates=100, lengths=Lengths.even(COST.query_tokens, 60))
        for budget in budgets
    ]
    options = [option_of("cross_encoder", decision) for decision in decisions]
    reads = [option.reads for option in options]
    worths = [option.expected.estimate.mean for option in options]
    assert reads == sorted(reads)
    assert worths == sorted(worths)
    gains, curve = RULES.gains, RULES.gains.curve
    whole = 0.039 + 0.0494
    for depth, found in zip(reads, worths, strict=True):
        assert found == pytest.approx(whole * curve.share(depth) / curve.share(200))
    assert gains.known("cross_encoder", "ettin_reranker_17m", 200).estimate.mean == pytest.approx(whole)


def test_times_that_evaluate_measured_of_the_very_stack_are_told() -> None:
    found = own(balanced=[0.1] * 20)
    key = ("balanced", "minilm", None)
    evidence = replace(found.found[key][0], top_ks=(100, 100, 100, 100), measured=Predicted(20.0, 41.0))
    reasons = chosen(latency_ms=150, own=replace(found, found={**found.found, key: [evidence]})).choice.reasons
    assert "measured by evaluate on 2026-11-20: p95 41 ms" in reasons
    shallow = replace(evidence, top_ks=(50, 50, 50, 50))
    reasons = chosen(latency_ms=150, own=replace(found, found={**found.found, key: [shallow]})).choice.reasons
    assert not any("measured by evaluate" in reason for reason in reasons)


def test_own_results_that_promise_something_are_no_ground_against_a_rerank() -> None:
    promising = [0.2, -0.18] * 10
    decision = chosen(latency_ms=45, candidates=200, priority="speed", own=own(low_latency=promising))
    (option,) = [one.option for one in decision.candidates if one.name == "low_latency"]
    assert option is not None
    assert option.expected.basis == "yours n=20"
    assert not decision.advice.is_measured
    assert not any(reason.startswith("do not rerank") for reason in decision.choice.reasons)
    (rejected,) = [other.reason for other in decision.rejected if other.name == "low_latency"]
    assert rejected.startswith("expected -")


def test_a_rerank_is_said_to_be_measured_only_where_the_stack_beside_it_was() -> None:
    allow = frozenset({"hub", "trained"})
    decision = chosen(latency_ms=150, allow=allow, own=own(balanced=[0.05, 0.03] * 30))
    assert decision.choice.name == "learned", "published figures of it are above both"
    assert not decision.advice.is_measured
    reason = next(reason for reason in decision.choice.reasons if "worth its time" in reason)
    assert "balanced is expected -" in reason
    assert "against learned; a rerank has to gain more than 0.005" in reason


def test_where_nothing_fits_the_others_are_slower_still() -> None:
    decision = chosen(latency_ms=0.1)
    reasons = [other.reason for other in decision.rejected if other.name in ("edge", "hybrid")]
    assert all(reason.startswith("slower: p95 ") and "over the budget" in reason for reason in reasons)
