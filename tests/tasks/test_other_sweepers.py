"""Sweepers that choose the next jobs by what the last ones found: what they are told, and what is left of them."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="pip install 'rerank-orchestrator[sweep]'")
pytestmark = pytest.mark.slow

OPTUNA = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=4"]
SPACE = ["pipeline=bm25", "pipeline.stages.bm25.top_k=choice(1,2,10)", "pipeline.stages.bm25.use.k1=interval(0.5,2.0)"]
TWO = ["objectives=[nDCG@10,p95_ms]", "latency_queries=1"]


def orchestrate(corpus: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the sweeper's own deprecation warnings are no errors there."""
    work = corpus.parent / "work"
    work.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "orchestrator", "-m", "evaluate", f"corpus.path={corpus}", *words]
    environment = {**os.environ, "ORCHESTRATOR_HOME": str(corpus.parent / "root"), "COLUMNS": "160"}
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=300)


def kept(corpus: Path) -> list[dict[str, str]]:
    (path,) = (corpus.parent / "work").glob("multirun/*/*/comparison.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_optuna_weighs_quality_against_latency_and_ends_in_the_same_table(corpus: Path) -> None:
    sampler = ["hydra/sweeper/sampler=nsgaii", "hydra.sweeper.direction=[maximize,minimize]"]
    done = orchestrate(corpus, *OPTUNA, *sampler, *SPACE, *TWO)
    assert done.returncode == 0, done.stderr
    rows = kept(corpus)
    assert [row["status"] for row in rows] == ["done"] * 4
    assert {"bm25.top_k", "bm25.k1", "nDCG@10", "p95 ms"} <= set(rows[0])
    head, _, *lines = [line for line in done.stdout.splitlines() if line]
    assert head.split()[:1] == ["job"]
    assert [line.split()[0] for line in lines[:4]] == ["0", "1", "2", "3"]
    assert "'4 of 4'" in done.stderr
    assert re.search(r"sweep\.job .*'1 of 4'.*left='about ", done.stderr)
    (found,) = (corpus.parent / "work").glob("multirun/*/*/optimization_results.yaml")
    assert "nsgaii" not in found.read_text()
    assert "pipeline.stages.bm25.top_k" in found.read_text()


def test_one_objective_is_the_first_measure(corpus: Path) -> None:
    done = orchestrate(corpus, *OPTUNA, "hydra.sweeper.direction=maximize", *SPACE, "latency_queries=0")
    assert done.returncode == 0, done.stderr
    best = max(float(row["nDCG@10"]) for row in kept(corpus))
    (found,) = (corpus.parent / "work").glob("multirun/*/*/optimization_results.yaml")
    assert f"best_value: {best}" in found.read_text()


def test_a_sweeper_that_looks_the_other_way_is_told(corpus: Path) -> None:
    done = orchestrate(corpus, *OPTUNA, "hydra.sweeper.direction=minimize", *SPACE, *TWO)
    assert done.returncode != 0
    expected = "hydra.sweeper.direction: found minimize for task.objectives nDCG@10, p95_ms"
    assert expected in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
