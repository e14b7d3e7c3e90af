"""Bounds, comparisons of stages, changes and sentences, from real runs of small pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from answers import Finds, Held, Sums
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from orchestrator import report
from orchestrator.evaluation.findings import find
from orchestrator.evaluation.latency import Latency
from orchestrator.evaluation.measures import Measures
from orchestrator.evaluation.quality import Quality, best_order, measure_quality, unjudged_share
from orchestrator.evaluation.sentences import difference, p_value, sentences, usd
from orchestrator.evaluation.spent import Spent
from orchestrator.running.runner import Runner
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Call, Document, Query, ScoreKind

IDS = [f"d{n}" for n in range(10)]
QUERIES = [Query(f"q{n}", f"question {n}") for n in range(12)]
QRELS = {query.query_id: {IDS[1 + n % 4]: 1, "d9": 0, "never": 1} for n, query in enumerate(QUERIES)}
MEASURES = Measures(["nDCG@10", "R@100"])


class Knows:
    """A rerank that puts one document of each question first, or last; the others keep their order."""

    score_kind: ScoreKind = "logit"
    needs = frozenset({"text"})

    def __init__(self, best: Mapping[str, str], worth: float = 1.0) -> None:
        self.best, self.worth = best, worth

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
        call.count(tokens=7 * len(pairs), cost_usd=0.001 * len(pairs))
        hits = [document.doc_id == self.best.get(query.query_id) for query, document in pairs]
        return np.array([self.worth * hit for hit in hits])


def relevant(n: int = len(QUERIES)) -> dict[str, str]:
    return {query.query_id: next(iter(QRELS[query.query_id])) for query in QUERIES[:n]}


def measured(*stages: tuple[object, ...]) -> Quality:
    specs = [StageSpec(name, stage, top_k, tuple(inputs)) for name, stage, top_k, *inputs in stages]  # type: ignore[arg-type, misc]
    return measure_quality(Runner(StageGraph.of(specs), Held()).run, QUERIES, QRELS, MEASURES, batch_queries=5)


def reranked(knows: Knows, top_k: int = 3) -> Quality:
    return measured(("bm25", Finds(*IDS), 10), ("precise", knows, top_k))


def said(quality: Quality, latency: Latency | None = None) -> list[str]:
    return sentences(quality, find(quality, "nDCG@10", [], 5, seed=7), latency)


def test_the_oracle_is_the_best_order_of_what_was_found() -> None:
    quality = reranked(Knows({}))
    ideal = 1 + 1 / np.log2(3)
    assert quality.oracle.means["nDCG@10"] == pytest.approx(1 / ideal, abs=1e-6), "'never' is found by no recall"
    assert quality.oracle.means["R@100"] == 1 / 2
    assert reranked(Knows(relevant())).metrics["nDCG@10"] == pytest.approx(1 / ideal, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(IDS), unique=True, min_size=1),
    st.dictionaries(st.sampled_from([*IDS, "never"]), st.integers(-1, 3), min_size=1),
    st.integers(1, 12),
)
def test_no_order_is_better_than_the_oracle(ranking: list[str], judged: dict[str, int], depth: int) -> None:
    measures = Measures(["nDCG@5", "AP", "RR@10", "R@3", "P@2"])
    best = best_order(ranking, judged, depth)
    values, bound = (measures.per_query({"q": judged}, {"q": tuple(ids)[:depth]})["q"] for ids in (ranking, best))
    assert all(values[name] <= bound[name] + 1e-9 for name in measures.names)


def test_the_null_row_is_what_the_first_rerank_reads() -> None:
    fused = ("fused", Sums(), 10, "bm25", "dense")
    recalls = (("bm25", Finds(*IDS), 10), ("dense", Finds(*IDS[::-1]), 10))
    quality = measured(*recalls, fused, ("shortlist", Knows({}), 5), ("precise", Knows(relevant()), 3))
    assert quality.null == "fused"
    assert measured(*recalls, fused).null is None


def test_each_rerank_is_compared_with_what_it_reads_and_a_fusion_with_its_best_input() -> None:
    recalls = (("bm25", Finds(*IDS[5:]), 5), ("dense", Finds(*IDS), 10))
    quality = measured(*recalls, ("fused", Sums(), 10, "bm25", "dense"), ("precise", Knows(relevant()), 3))
    findings = find(quality, "nDCG@10", [], 5, seed=7)
    assert [(one.stage, one.comparison.other, one.kind) for one in findings.compared] == [
        ("fused", "dense", "stage"),
        ("precise", "fused", "stage"),
    ]
    for one in findings.compared:
        assert one.comparison.mean == pytest.approx(quality.systems[one.stage].means["nDCG@10"])
        assert one.comparison.p_holm >= one.comparison.p_randomization
    precise = findings.compared[1].comparison
    assert (precise.wins, precise.losses) == (12, 0)
    assert precise.p_randomization == pytest.approx(2 / 2**12)


def test_intervals_hold_the_means() -> None:
    quality = reranked(Knows(relevant(6)))
    for name, (low, high) in find(quality, "nDCG@10", [], 5, seed=7).intervals.items():
        assert low <= quality.metrics[name] <= high
    assert find(quality, "nDCG@10", [], 5, seed=7) == find(quality, "nDCG@10", [], 5, seed=7)


def test_a_stage_that_earns_its_place_is_named() -> None:
    quality = reranked(Knows(relevant()))
    times = {"p50": 58.0, "p95": 60.0, "p99": 61.0}
    latency = Latency(times, {"precise": {"p50": 41.2, "p95": 45.0, "p99": 46.0}}, 5)
    first, *_ = said(quality, latency)
    before = quality.baselines["bm25"]["nDCG@10"]
    after = quality.metrics["nDCG@10"]
    assert first == (
        f"precise earns its place: nDCG@10 {after:.4f}".replace(" 0.", " .")
        + f" after it, {before:.4f} before (+{after - before:.4f}, p < .001)".replace(" 0.", " .").replace("+0.", "+.")
        + ", for 41 ms of 58 ms a query and $10.00 of $10.00 per 1000 queries."
    )


def test_a_stage_that_changes_nothing_does_not_earn_its_place_and_few_queries_are_told_of() -> None:
    first, second, *_ = said(reranked(Knows({})))
    assert first.startswith("precise does not earn its place: nDCG@10 ")
    assert "(+.0000, p 1)" in first
    assert second == "12 judged queries are few: more may decide what these leave open."


def test_a_stage_that_does_harm_is_named() -> None:
    first, *_ = said(reranked(Knows(relevant(), worth=-1.0)))
    assert first.startswith("precise does harm: nDCG@10 ")


def test_a_stage_whose_interval_alone_leaves_out_zero_may_earn_its_place() -> None:
    """Four better of twelve, none worse: the bootstrap says more than 0, the randomization test 2 / 2^4 at best."""
    first, second, *_ = said(reranked(Knows(relevant(4))))
    assert first.startswith("precise may earn its place: ")
    assert "p .12" in first or "p .13" in first
    assert second.startswith("12 judged queries are few")


def test_what_a_stage_does_beside_ordering_is_told() -> None:
    recalls = (("bm25", Finds(*IDS[5:]), 5), ("dense", Finds(*IDS), 10))
    fused = ("fused", Sums(), 10, "bm25", "dense")
    told = said(measured(*recalls, fused, ("shortlist", Knows({}), 5), ("precise", Knows(relevant()), 3)))
    assert told[0].startswith("fused by itself does harm: nDCG@10 ")
    assert "For shortlist, which orders anew, it brings R@100 .5000, dense alone .5000." in told[0]
    assert told[1].endswith("It also cuts 10 candidates to 5 for precise.")


def test_what_is_left_to_the_best_order_is_told() -> None:
    quality = reranked(Knows(relevant(6)))
    (line,) = [line for line in said(quality) if line.startswith("The best order")]
    whole, best = quality.metrics["nDCG@10"], quality.oracle.means["nDCG@10"]
    null = quality.baselines["bm25"]["nDCG@10"]
    assert f"{best - whole:.4f}".removeprefix("0") + " above the whole" in line
    assert f"the reranks go {(whole - null) / (best - null):.0%} of the way there from bm25." in line


def test_unjudged_documents_are_counted_as_ir_measures_does() -> None:
    quality = reranked(Knows({}))
    judged = Measures(["Judged@10", "Judged@3"])
    means = judged.mean(judged.per_query(QRELS, quality.rankings))
    assert unjudged_share(quality.rankings, QRELS, 10) == pytest.approx(1 - means["Judged@10"])
    assert unjudged_share(quality.rankings, QRELS, 3) == pytest.approx(1 - means["Judged@3"])
    assert unjudged_share({}, QRELS, 10) == 0.0
    assert quality.systems["precise"].unjudged == {10: pytest.approx(1 - means["Judged@10"])}
    assert any(line.startswith("Nobody judged 80% of the first 10 documents") for line in said(quality))


def test_the_cutoff_of_the_first_measure_is_looked_at_beside_ten() -> None:
    specs = [StageSpec("bm25", Finds(*IDS), 10)]
    runner = Runner(StageGraph.of(specs), Held())  # type: ignore[arg-type]
    quality = measure_quality(runner.run, QUERIES, QRELS, Measures(["AP", "P@3"]))
    assert list(quality.handed_out.unjudged) == [3, 10]


def test_queries_that_changed_most_stand_in_order_with_their_text() -> None:
    quality = reranked(Knows({**relevant(6), "q8": "d8"}))
    changes = find(quality, "nDCG@10", [], 3, seed=7).changes
    assert changes is not None
    assert changes.against == "bm25"
    gains = [one.difference for one in changes.up]
    assert gains == sorted(gains, reverse=True)
    assert len(gains) == 3
    assert changes.up[0].text == f"question {changes.up[0].query_id[1:]}"
    assert changes.up[0].after == pytest.approx(quality.per_query[changes.up[0].query_id]["nDCG@10"])
    assert [one.query_id for one in changes.down] == ["q8"]
    assert find(quality, "nDCG@10", [], 0, seed=7).changes is None


def test_kept_scores_make_the_timed_queries_tell_what_a_query_costs() -> None:
    quality = reranked(Knows(relevant()))
    assert quality.spent.tokens == {"bm25": 0, "precise": 7 * 10 * 12}
    assert quality.spent.usd_per_query == pytest.approx(0.01)
    kept = all_kept(quality)
    latency = Latency({"p50": 1.0, "p95": 1.0, "p99": 1.0}, {}, 2, spent=quality.spent, warm_up_usd=0.03)
    *_, before, last = said(kept, latency)
    assert before == (
        "120 scores were kept from earlier questions: tokens and money a query are those of the timed queries, "
        "which used none."
    )
    assert last == "This evaluation cost $0.15, $0.15 of it for the timing; a thousand queries cost $10.00."


def test_kept_scores_leave_open_what_a_query_costs_where_none_is_timed() -> None:
    kept = all_kept(reranked(Knows(relevant())))
    figures = report.evaluation_json(kept, None)
    unknown = {"tokens_per_query": None, "cost_usd_per_query": None}
    assert {name: figures[name] for name in unknown} == unknown
    assert figures["stages"] == {"bm25": unknown, "precise": unknown}
    assert figures["cost_usd"] == 0
    assert said(kept)[-1] == (
        "120 scores were kept from earlier questions, so that tokens and money a query are not known; "
        "latency_queries=5 tells them of five queries."
    )
    assert shown(report.evaluation_table("precise", kept, None))[1].split()[-1] == "unj.@10"


def test_results_that_are_used_again_are_not_paid_again() -> None:
    quality = reranked(Knows(relevant()))
    again = replace(quality, spent=replace(quality.spent, paid_usd=0.0))
    assert report.evaluation_json(again, None)["cost_usd"] == 0
    assert report.evaluation_json(again, None)["cost_usd_per_query"] == pytest.approx(0.01)
    assert said(quality)[-1] == "This evaluation cost $0.12; a thousand queries cost $10.00."
    assert said(again)[-1] == "This evaluation cost $0.00; a thousand queries cost $10.00."


def all_kept(quality: Quality) -> Quality:
    """The same, where the score cache had every score."""
    tokens = dict.fromkeys(quality.spent.tokens, 0)
    return replace(quality, spent=Spent(tokens, dict.fromkeys(tokens, 0.0), quality.n_queries, n_kept=120))


def test_tokens_and_money_have_columns_where_there_are_some() -> None:
    quality = reranked(Knows(relevant()))
    times = {"p50": 1058.0, "p95": 1160.0, "p99": 1261.0}
    latency = Latency(times, {"bm25": times, "precise": times}, 5, spent=quality.spent)
    table = report.evaluation_table("precise", quality, latency, find(quality, "nDCG@10", [], 5, seed=7))
    lines = shown(table)
    assert max(map(len, lines)) <= 100
    assert lines[1].split()[-4:] == ["p99", "ms", "tokens", "$/1000"]
    rows = {line.split("  ")[0].strip(): line.split()[-2:] for line in lines}
    assert rows["precise"] == rows["whole, as served"] == ["70", "10"]
    assert rows["bm25"] == ["1160.0", "1261.0"]
    free = replace(quality, spent=Spent())
    assert shown(report.evaluation_table("precise", free, None))[1].split()[-1] == "unj.@10"


def shown(renderable: object) -> list[str]:
    console = Console(width=100, highlight=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get().splitlines()


@pytest.mark.parametrize(
    ("value", "told"), [(0.0022, "+.0022"), (-0.0661, "-.0661"), (1.0, "+1.0000"), (-12.5, "-12.5000"), (0, "+.0000")]
)
def test_differences_have_their_sign(value: float, told: str) -> None:
    assert difference(value) == told


def test_small_numbers_stay_readable() -> None:
    assert [p_value(p) for p in (0.41, 0.0023, 0.0004, 1.0)] == [".41", ".0023", "< .001", "1"]
    assert [usd(value) for value in (0, 12.3, 0.0123, 0.00021)] == ["$0.00", "$12.30", "$0.012", "$0.00021"]
