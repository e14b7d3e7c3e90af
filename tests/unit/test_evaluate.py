"""Metrics equal trec_eval's; two passes; queries that nobody judged do not count."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import ConfigError
from orchestrator.evaluation.latency import measure_latency
from orchestrator.evaluation.measures import Measures

IDS = [f"d{n}" for n in range(12)]
qrels_of = st.dictionaries(st.sampled_from(IDS), st.integers(0, 3), min_size=1)
ranking_of = st.lists(st.sampled_from(IDS), unique=True)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["q1", "q2", "q3"]), st.tuples(qrels_of, ranking_of), min_size=1))
def test_metrics_are_those_of_trec_eval(cases: dict[str, tuple[dict[str, int], list[str]]]) -> None:
    qrels = {query: judged for query, (judged, _) in cases.items()}
    rankings = {query: ranking for query, (_, ranking) in cases.items()}
    run = {query: {doc: 1.0 - rank / 100 for rank, doc in enumerate(ids)} for query, ids in rankings.items()}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "map", "recall.5", "recip_rank"}).evaluate(run)
    measures = Measures(["nDCG@10", "AP", "Recall@5", "MRR"])
    ours = measures.per_query(qrels, rankings)
    names = {"nDCG@10": "ndcg_cut_10", "AP": "map", "Recall@5": "recall_5", "MRR": "recip_rank"}
    for query in qrels:
        for our_name, their_name in names.items():
            assert ours[query][our_name] == pytest.approx(theirs.get(query, {}).get(their_name, 0.0), abs=1e-9)
    assert measures.mean(ours)["AP"] == pytest.approx(np.mean([ours[query]["AP"] for query in qrels]))


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(ConfigError, match=r"task\.measures\[1\]: 'quality' is no measure"):
        Measures(["AP", "quality"])


def test_latency_times_a_spread_sample_one_at_a_time() -> None:
    from orchestrator.running.runner import Runner
    from orchestrator.stack.graph import StageGraph, StageSpec
    from orchestrator.types import Call, Document, Query, Scored

    class Source:
        score_kind = "bm25"

        def retrieve(self, query: Query, top_k: int, call: Call) -> Scored:
            asked.append(query.query_id)
            return [("d1", 1.0)]

    class Docs:
        def read(self, doc_ids: list[str]) -> list[Document]:
            return [Document(doc_id, "") for doc_id in doc_ids]

    asked: list[str] = []
    runner = Runner(StageGraph.of([StageSpec("a", Source(), 1)]), Docs())  # type: ignore[arg-type]
    queries = [Query(str(place), "x") for place in range(9)]
    latency = measure_latency(runner.run, queries, 3)
    assert asked == ["0", "4", "8", "0", "4", "8"]
    assert latency.n_queries == 3
    assert latency.total["p50"] <= latency.total["p95"] <= latency.total["p99"]
    assert set(latency.stages) == {"a"}
