"""Sweeps as a person types them: one table, failures as rows, exit codes, JSON, Ctrl-C."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.sweeps.sweeper import keep_going
from orchestrator.tasks import evaluate

BM25 = "pipeline=bm25"
FAST = ["evaluate", "latency_queries=1", "measures=[nDCG@10,R@100]"]


@pytest.fixture
def sweep(orchestrate: Callable, corpus: Path) -> Callable:
    return lambda *words: orchestrate("-m", *FAST, f"corpus.path={corpus}", *words)


def kept() -> list[dict[str, str]]:
    (path,) = Path("multirun").glob("*/*/comparison.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_ends_in_one_table_that_is_kept_as_csv(sweep: Callable) -> None:
    done = sweep(BM25, "pipeline.stages.bm25.top_k=1,10", "pipeline.stages.bm25.use.k1=0.9,1.2")
    assert done.code == 0, done.err
    head, rule, *rows = [line for line in done.out.splitlines() if line][:6]
    columns = re.split(r"\s{2,}", head)
    assert columns == ["job", "bm25.top_k", "bm25.k1", "nDCG@10", "R@100", "served nDCG@10", "p50 ms", "p95 ms"]
    assert set(rule) == {"─"}
    assert [row.split()[:3] for row in rows] == [
        ["0", "1", "0.9"],
        ["1", "1", "1.2"],
        ["2", "10", "0.9"],
        ["3", "10", "1.2"],
    ]
    assert done.out.count("nDCG@10") == 2, "no other table"
    lines = kept()
    assert [line["status"] for line in lines] == ["done"] * 4
    (folder,) = Path("multirun").glob("*/*")
    for line in lines:
        figures = json.loads((folder / line["folder"] / "metrics.json").read_text())
        assert float(line["nDCG@10"]) == figures["metrics"]["nDCG@10"]
        assert float(line["served R@100"]) == figures["served"]["R@100"]
        assert float(line["p95 ms"]) == figures["latency_ms"]["p95"]
    assert str(folder / "comparison.csv") in done.err


def test_the_best_of_each_measure_is_marked(sweep: Callable) -> None:
    done = sweep(BM25, "pipeline.stages.bm25.top_k=1,10", "latency_queries=0")
    one, ten = [line for line in done.out.splitlines() if re.match(r" +\d", line)]
    values = {float(line["R@100"]) for line in kept()}
    assert values == {(1 / 2 + 1) / 2, 1.0}
    assert "1.0000*" in ten
    assert "0.7500 " in one
    assert "*" not in one


def test_a_job_of_three_that_does_not_compose_is_a_row(sweep: Callable) -> None:
    done = sweep("pipeline=bm25,nope", "pipeline.stages.bm25.top_k=3,5")
    assert done.code == 1
    assert [line["status"] for line in kept()] == ["done", "done", "failed", "failed"]
    assert done.out.count("failed: In 'config': Could not find 'pipeline/nope'") == 2
    assert "Traceback" not in done.err


def test_a_stage_that_one_pipeline_lacks_fails_there_only(sweep: Callable, tmp_path: Path) -> None:
    done = sweep("pipeline=bm25,hybrid", "pipeline.stages.fused.top_k=10", "model@models.embedder=local_embedder")
    assert done.code == 2, "both by their configuration"
    first, second = kept()
    assert "Could not override 'pipeline.stages.fused.top_k'" in first["reason"]
    assert "models.embedder.path: missing" in second["reason"]


def test_what_is_not_swept_may_name_a_stage_that_the_default_stack_lacks(orchestrate: Callable) -> None:
    words = ["pipeline=cross_encoder,two_stage", "pipeline.stages.precise.top_k=7"]
    done = orchestrate("-m", "check", *words, "rerank@pipeline.stages.precise.use=null")
    assert done.code == 0, done.err
    assert len(re.findall(r"precise .* 7 ", done.out)) == 2
    assert done.out.count("NullRerank") == 2
    assert list(Path.cwd().iterdir()) == [], "check keeps nothing"


def test_a_job_that_fails_while_running_does_not_stop_the_others(sweep: Callable) -> None:
    models = "model@models.reranker=ms_marco_minilm_l6"
    done = sweep(
        "pipeline=cross_encoder,bm25",
        models,
        "recall@pipeline.stages.dense.use=bm25",
        "format=json",
        "latency_queries=0",
    )
    assert done.code == 1
    first, second = map(json.loads, done.out.splitlines())
    assert "ms-marco-MiniLM" in first["error"]["message"] or first["error"]["exit_code"] == 2
    assert "error" in second, "the override names a stage that bm25 lacks"


def test_every_scenario_can_be_swept_where_no_cross_encoder_can_be_had(sweep: Callable, shared_root: Path) -> None:
    done = sweep("+scenario=glob(*)", f"storage.root={shared_root}", "latency_queries=0")
    assert done.code == 1, done.err
    rows = {line["scenario"]: line for line in kept()}
    offline = ("edge", "hybrid", "low_latency", "balanced", "high_precision", "large_candidates")
    assert {rows[name]["status"] for name in offline} == {"done"}
    assert rows["multilingual"]["reason"] == "model 'intfloat/multilingual-e5-small' was not found"


def test_json_lines_hold_every_job_and_every_failure(sweep: Callable) -> None:
    done = sweep("format=json", "pipeline=bm25,nope,bm25", "pipeline.stages.bm25.top_k=1,2")
    assert done.code == 1
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["job"] for line in lines] == list(range(6))
    assert all("pipeline.stages.bm25.top_k=1" in line["overrides"] for line in lines[::2])
    assert [set(line) >= {"metrics", "latency_ms"} for line in lines] == [True, True, False, False, True, True]
    assert lines[2]["error"]["exit_code"] == 2
    assert "Available options in 'pipeline'" in lines[2]["error"]["message"]


def test_one_line_a_job_tells_how_far_it_is_and_the_best_so_far(sweep: Callable) -> None:
    done = sweep(BM25, "pipeline.stages.bm25.top_k=10,1", "latency_queries=0")
    first, second = [line for line in done.err.splitlines() if "sweep.job " in line]
    assert "'1 of 2'" in first
    assert "'2 of 2'" in second
    best = re.search(r"best_so_far=([\d.]+)", second)
    assert best is not None
    assert best[1] in first
    assert "bm25.top_k=1'" in second


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["pipeline=nope", "pipeline.stages.bm25.top_k=1,2"], 2, "Available options in 'pipeline'"),
        ([BM25, "pipeline.stages.bm25.topk=1,2"], 2, "Did you mean 'top_k'?"),
        ([BM25, "corpus.split=nope,never"], 2, "corpus.split"),
        ([BM25, "budget_ms=1,soon"], 1, "budget_ms"),
    ],
)
def test_exit_codes_of_sweeps_that_fail(words: list[str], code: int, message: str, sweep: Callable) -> None:
    """2 when each job failed by its configuration, 1 when some job failed; a mistake all share is told once."""
    done = sweep(*words)
    assert done.code == code, done.err
    assert message in done.err + done.out
    assert "Traceback" not in done.err


def test_a_bug_is_a_row_too_and_is_kept_with_its_trace(sweep: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def measured(*arguments: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError("oh")
        return whole(*arguments, **more)  # type: ignore[arg-type]

    whole = evaluate.measure_quality
    monkeypatch.setattr(evaluate, "measure_quality", measured)
    done = sweep(BM25, "pipeline.stages.bm25.top_k=1,2,3")
    assert done.code == 1
    assert [line["status"] for line in kept()] == ["done", "failed", "done"]
    assert kept()[1]["reason"] == "ZeroDivisionError: oh"
    (job,) = Path("multirun").glob("*/*/1/job.json")
    assert "in measured" in json.loads(job.read_text())["trace"]


def test_ctrl_c_keeps_and_shows_what_is_done(corpus: Path, tmp_path: Path) -> None:
    words = [*FAST, BM25, f"corpus.path={corpus}", "pipeline.stages.bm25.top_k=range(1,500)"]
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "-m", *words],
        cwd=tmp_path,
        env={**os.environ, "ORCHESTRATOR_HOME": str(tmp_path / "root")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite started with & ignores it
    )
    until = time.monotonic() + 120
    while len(list(tmp_path.glob("multirun/*/*/*/job.json"))) < 2:
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    rows = [line for line in out.splitlines() if re.match(r" +\d", line)]
    assert 2 <= len(rows) < 499
    assert "bm25.top_k" in out
    assert f"{len(rows)} of 499" in err
    assert "interrupted" in err


@pytest.mark.slow
def test_jobs_may_run_side_by_side(sweep: Callable) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install hydra-joblib-launcher")
    done = sweep(
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "pipeline=bm25,nope,bm25", "corpus.max_queries=1,2"
    )
    assert done.code == 1, done.err
    assert [line["status"] for line in kept()] == ["done", "done", "failed", "failed", "done", "done"]
    assert "6 of 6" in done.err


def test_a_sweeper_chosen_in_a_file_loses_no_override_in_silence(orchestrate: Callable, corpus: Path) -> None:
    for group, text in (
        (
            "hydra/sweeper",
            "_target_: hydra._internal.core_plugins.basic_sweeper.BasicSweeper\nmax_batch_size: 1\nparams: null\n",
        ),
        ("scenario", "# @package _global_\ndefaults:\n  - override /hydra/sweeper: mine\n"),
    ):
        folder = Path("mine") / group
        folder.mkdir(parents=True)
        (folder / ("mine.yaml" if group != "scenario" else "tuned.yaml")).write_text(text)
    done = orchestrate("-m", "check", "--config-dir", "mine", "+scenario=tuned", BM25, "pipeline.stages.bm25.top_k=1,2")
    assert done.code == 0, done.err
    assert done.out.count("BM25Recall") == 2


def test_overrides_that_another_sweeper_did_not_get_are_an_error() -> None:
    with (
        pytest.raises(ConfigError, match=r"^hydra/sweeper: .* was not given models\.x\.y=1,2"),
        keep_going(["models.x.y=1,2"]),
    ):
        pass
