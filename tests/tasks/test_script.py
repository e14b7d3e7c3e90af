"""The installed script in processes of its own: stdout and stderr, exit codes, awkward queries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(sys.executable).parent / "orchestrate"


def orchestrate(*words: str, root: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ORCHESTRATOR_HOME": str(root)}
    return subprocess.run([SCRIPT, *words], cwd=cwd, env=environment, capture_output=True, text=True)


def test_a_query_survives_the_shell_and_a_sweep(shared_root: Path, tmp_path: Path) -> None:
    query = "青光眼 & 'quotes', x=${y} \"b\" {c: [1, 2]} null \\"
    words = ["run", query, "pipeline=bm25", "format=json"]
    single = orchestrate(*words, root=shared_root, cwd=tmp_path)
    assert single.returncode == 0, single.stderr
    assert json.loads(single.stdout)["query"]["text"] == query
    sweep = orchestrate("-m", *words, "pipeline.stages.bm25.top_k=1,2", root=shared_root, cwd=tmp_path)
    assert sweep.returncode == 0, sweep.stderr
    assert [json.loads(line)["query"]["text"] for line in sweep.stdout.splitlines()] == [query, query]
    assert "2 of 2" in sweep.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["run", "x", "pipeline.stages.fused.topk=3"],
            2,
            "choices at that place: use, inputs, top_k, passages, when, cut, on_error, max_ms, cache. Did you mean",
        ),
        (["run", "x", "pipeline=cross_encoder"], 1, "choices:\n  - models.reranker.path=DIR"),
    ],
)
def test_a_mistake_is_one_message_on_stderr(
    words: list[str], code: int, message: str, shared_root: Path, tmp_path: Path
) -> None:
    done = orchestrate(*words, root=shared_root, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_hydra_full_error_shows_everything(shared_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    done = orchestrate("+scenario=nope", root=shared_root, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
