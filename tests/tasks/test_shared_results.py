"""Jobs that share results of stages, as a person types them: the same figures, less work, times always measured."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plugins.recall.bm25 import BM25Recall
from orchestrator.running import code_version

BM25 = "pipeline=bm25"
TIMES = ("latency_ms", "stage_latency_ms", "reused")
PAID = "This evaluation cost "


@pytest.fixture
def evaluate(orchestrate: Callable, corpus: Path) -> Callable:
    def call(*words: str) -> Any:
        done = orchestrate("evaluate", f"corpus.path={corpus}", "measures=[nDCG@10,R@100]", *words)
        assert done.code == 0, done.err
        return done

    return call


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the questions that BM25 was asked."""
    found: list[str] = []
    whole = BM25Recall.retrieve

    def counting(self: BM25Recall, query: Any, top_k: int, call: Any) -> Any:
        found.append(query.query_id)
        return whole(self, query, top_k, call)

    monkeypatch.setattr(BM25Recall, "retrieve", counting)
    return found


def newest() -> dict[str, Any]:
    path = max(Path().glob("outputs/*/*/metrics.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(path.read_text())


def without_times(figures: dict[str, Any]) -> dict[str, Any]:
    """What is the same however much was kept: neither times nor what was paid."""
    words = [line for line in figures["words"] if not line.startswith(PAID)]
    return {name: value for name, value in figures.items() if name not in (*TIMES, "cost_usd")} | {"words": words}


def test_a_second_evaluation_asks_stages_for_nothing_but_times(evaluate: Callable, asked: list[str]) -> None:
    evaluate(BM25, "latency_queries=0")
    first = newest()
    assert sorted(asked) == ["q1", "q2"]
    assert first["reused"] == {"asked": 2, "reused": 0, "documents": 0, "documents_scored": 0}
    del asked[:]
    done = evaluate(BM25, "latency_queries=2")
    second = newest()
    assert second["reused"]["reused"] == 2
    assert len(asked) == 2 + 2, "two to warm up, two that are timed"
    assert without_times(second) | {"n_latency_queries": 0} == without_times(first)
    assert "2 of 2 stage results were kept from earlier jobs (cache.stages=false makes all anew)." in done.out


def test_nothing_is_shared_where_it_is_switched_off_or_the_budget_is_kept(evaluate: Callable, asked: list[str]) -> None:
    evaluate(BM25, "latency_queries=0")
    for words in (["cache.stages=false"], ["enforce_budget=true", "budget_ms=5000"]):
        del asked[:]
        evaluate(BM25, "latency_queries=0", *words)
        assert set(asked) - {"warm-up"} == {"q1", "q2"}
        assert newest()["reused"]["reused"] == 0


def test_run_keeps_and_uses_none(orchestrate: Callable, corpus: Path, asked: list[str], storage_root: Path) -> None:
    for _ in range(2):
        del asked[:]
        assert orchestrate("run", "optic nerve", BM25, f"corpus.path={corpus}").code == 0
        assert len(asked) == 1
    assert not (storage_root / "stages").exists()


def test_a_changed_corpus_is_asked_anew(evaluate: Callable, asked: list[str], corpus: Path) -> None:
    evaluate(BM25, "latency_queries=0")
    with (corpus / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d9", "title": "", "text": "the optic nerve of an eye, once more"}\n')
    del asked[:]
    evaluate(BM25, "latency_queries=0")
    assert sorted(asked) == ["q1", "q2"]


RERANK = """
class Overlap:
    score_kind = "graded"
    asked = []

    def __init__(self, weight=1.0, model_id=None):
        self.weight, self.model_id = weight, model_id

    def score(self, pairs, call):
        import numpy as np

        Overlap.asked += [(query.query_id, document.doc_id) for query, document in pairs]
        call.count(tokens=len(pairs), cost_usd=0.25 * len(pairs))
        shared = [len({*query.text.split()} & {*document.text.split()}) for query, document in pairs]
        return np.array(shared, float) * self.weight
"""
PIPELINE = """# orchestrate pipeline=shared
defaults:
  - /recall@stages.bm25.use: bm25
  - /recall@stages.other.use: bm25
  - /fusion@stages.fused.use: rrf
  - _self_
stages:
  bm25: {top_k: 4}
  other: {top_k: 4, use: {k1: 1.5}}
  fused: {inputs: [bm25, other], top_k: 4}
  precise: {top_k: 3, use: {_target_: RERANK.Overlap}}
"""
SWEPT = ["pipeline.stages.fused.use.k=10,60", "pipeline.stages.fused.top_k=1,4", "pipeline.stages.precise.top_k=1,2"]
N_JOBS, N_QUERIES, N_STAGES = 8, 2, 4


@pytest.fixture
def sweep(
    orchestrate: Callable, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable:
    """A sweep over a stack with a rerank of the user's own; returns the command's end, and the figures job by job."""
    name = f"rerank_{abs(hash(request.node.name))}"
    (tmp_path / "own" / "conf" / "pipeline").mkdir(parents=True)
    (tmp_path / "own" / f"{name}.py").write_text(RERANK)
    (tmp_path / "own" / "conf" / "pipeline" / "shared.yaml").write_text(PIPELINE.replace("RERANK", name))
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "own"))  # for jobs in processes of their own

    def call(*words: str, swept: Sequence[str] = SWEPT) -> tuple[Any, list[dict[str, Any]]]:
        common = ["evaluate", "latency_queries=0", "measures=[nDCG@10,R@100]", f"corpus.path={corpus}"]
        own = ["--config-dir", str(tmp_path / "own" / "conf"), "pipeline=shared"]
        done = orchestrate("-m", *own, *common, *swept, *words)
        assert done.code == 0, done.err
        folder = max(Path().glob("multirun/*/*"), key=lambda path: path.stat().st_mtime_ns)
        jobs = sorted(folder.glob("*/metrics.json"), key=lambda path: int(path.parent.name))
        return done, [json.loads(path.read_text()) for path in jobs]

    call.rerank = name  # type: ignore[attr-defined]
    yield call
    sys.modules.pop(name, None)


def work(figures: Sequence[dict[str, Any]], key: str) -> int:
    return sum(int(job["reused"][key]) for job in figures)


def test_a_sweep_costs_what_is_different_in_its_jobs_and_finds_the_same(sweep: Callable) -> None:
    _, apart = sweep("cache.stages=false", "cache.scores=false")
    done, shared = sweep("cache.scores=false")
    assert [without_times(job) for job in shared] == [without_times(job) for job in apart]
    assert work(shared, "asked") == work(apart, "asked") == N_JOBS * N_STAGES * N_QUERIES
    assert work(apart, "reused") == 0
    assert 0 < sum(job["cost_usd"] for job in shared) < sum(job["cost_usd"] for job in apart)
    distinct = 1 + 1 + 2 + 2 * 2  # recalls, fusions, and reranks of what each fusion passes on at each depth
    assert work(shared, "asked") - work(shared, "reused") <= distinct * N_QUERIES
    assert work(shared, "documents_scored") <= work(apart, "documents_scored") / 2
    lines = [line for line in done.err.splitlines() if "sweep.job " in line]
    assert "reused=0%" in lines[0]
    assert "reused=100%" in lines[-1]
    assert "left='about " in lines[0]
    assert "left=" not in lines[-1]
    assert f"reused='{work(shared, 'reused')} of 64 stage results'" in done.err


@pytest.mark.slow
def test_another_process_costs_nothing_more(sweep: Callable, asked: list[str]) -> None:
    _, first = sweep()
    del asked[:]
    _, second = sweep()
    assert asked == []
    assert work(second, "reused") == work(second, "asked")
    assert [without_times(job) for job in second] == [without_times(job) for job in first]


def test_kept_scores_are_no_price_of_a_stack(sweep: Callable) -> None:
    named, depths = "+pipeline.stages.precise.use.model_id=overlap", "pipeline.stages.precise.top_k=2,1"
    _, (paid, kept) = sweep("cache.stages=false", named, "pipeline.stages.precise.cache=on", swept=[depths])
    assert paid["cost_usd_per_query"] == paid["stages"]["precise"]["cost_usd_per_query"] > 0
    assert kept["cost_usd_per_query"] is kept["stages"]["precise"]["cost_usd_per_query"] is None
    assert (kept["cost_usd"], paid["cost_usd"] > 0) == (0, True)


@pytest.mark.slow
def test_code_of_ones_own_that_changes_is_asked_anew(sweep: Callable, tmp_path: Path) -> None:
    """The next process reads the file again; here it is loaded again by hand."""
    _, before = sweep()
    path = tmp_path / "own" / f"{sweep.rerank}.py"  # type: ignore[attr-defined]
    path.write_text(RERANK.replace("* self.weight", "* -self.weight"))
    sys.modules.pop(sweep.rerank)  # type: ignore[attr-defined]
    importlib.invalidate_caches()
    code_version._version_of.cache_clear()
    _, after = sweep()
    assert 0 < work(after, "documents_scored") == work(before, "documents_scored")
    assert work(after, "reused") > work(before, "reused"), "what stands before it is kept"


@pytest.mark.slow
def test_what_is_kept_is_shown_and_cleared(sweep: Callable, orchestrate: Callable) -> None:
    _, found = sweep()
    shown = json.loads(orchestrate("cache", "show", "format=json").out)
    (stages,) = [one for one in shown["kept"] if one["kind"] == "stages"]
    assert stages["about"] == "results of stages"
    assert stages["entries"] == work(found, "asked") - work(found, "reused")
    assert Path(stages["path"]).is_file()
    gone = json.loads(orchestrate("cache", "clear", "what=stages", "format=json").out)
    assert [one["kind"] for one in gone["removed"]] == ["stages"]
    _, again = sweep()
    assert work(again, "reused") == work(found, "reused")


@pytest.mark.slow
def test_models_that_are_real_give_the_same_figures_to_the_last_digit(orchestrate: Callable, shared_root: Path) -> None:
    """Learned scores over late interaction, with gates: parts of batches are kept, the rest is made beside them."""
    gate, depth = "pipeline.stages.shortlist.when.max_margin=0.1,0.5", "pipeline.stages.fused.top_k=20,40"
    words = ["-m", "evaluate", "pipeline=late_interaction", gate, depth, "corpus.max_queries=9", "latency_queries=0"]
    kept = []
    for more in ("cache.stages=false", "cache.stages=true", "cache.stages=true"):
        done = orchestrate(*words, f"storage.root={shared_root}", more)
        assert done.code == 0, done.err
        folder = max(Path().glob("multirun/*/*"), key=lambda path: path.stat().st_mtime_ns)
        kept.append([(folder / str(job) / "run.trec").read_text() for job in range(4)])
        figures = [json.loads((folder / str(job) / "metrics.json").read_text()) for job in range(4)]
        kept[-1] += [json.dumps(without_times(job)) for job in figures]
    assert kept[0] == kept[1] == kept[2]
    assert work(figures, "reused") == work(figures, "asked")


@pytest.mark.slow
def test_jobs_side_by_side_share_too(sweep: Callable) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install hydra-joblib-launcher")
    _, alone = sweep("cache.stages=false")
    done, found = sweep("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert [without_times(job) for job in found] == [without_times(job) for job in alone]
    assert work(found, "reused") > 0
    assert "8 of 8" in done.err
