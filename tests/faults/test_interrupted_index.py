"""A killed or interrupted `orchestrate index` leaves the old index or the new one, never a half."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORDS = [
    "eye",
    "nerve",
    "heart",
    "blood",
    "kidney",
    "liver",
    "lung",
    "brain",
    "skin",
    "bone",
    "joint",
    "muscle",
    "vein",
    "cell",
    "gene",
    "virus",
    "fever",
    "cough",
    "pain",
]


def write_corpus(folder: Path, n: int, mark: str) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / "corpus.jsonl").open("w") as file:
        for place in range(n):
            words = [WORDS[(place * step + step) % len(WORDS)] for step in range(1, 9)]
            file.write(json.dumps({"_id": f"d{place}", "text": f"{mark} {' '.join(words)} number{place}"}) + "\n")


def command(verb: str, corpus: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", verb, *more, "pipeline=bm25", f"corpus.path={corpus}"]


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "ORCHESTRATOR_HOME": str(root)}


def search(corpus: Path, root: Path, question: str, cwd: Path) -> dict[str, object]:
    words = command("run", corpus, question, "format=json", "pipeline.stages.bm25.top_k=3")
    done = subprocess.run(words, cwd=cwd, env=environment(root), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def wait_for_building(root: Path, kind: str) -> None:
    """Return once a new generation of `kind` is being written."""
    until = time.monotonic() + 60
    while not any((root / kind).rglob(".partial-*")):
        assert time.monotonic() < until, f"no generation of {kind} was begun"
        time.sleep(0.002)


@pytest.mark.parametrize("kind", ["corpora", "indexes"])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_index_leaves_old_or_new(sent: signal.Signals, kind: str, tmp_path: Path) -> None:
    corpus, root = tmp_path / "docs", tmp_path / "root"
    write_corpus(corpus, 50, "old")
    assert search(corpus, root, "old number7", tmp_path)["results"][0]["doc_id"] == "d7"  # type: ignore[index]
    write_corpus(corpus, 10_000, "new")
    process = subprocess.Popen(
        command("index", corpus),
        cwd=tmp_path,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite started with & ignores it
    )
    wait_for_building(root, kind)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if sent == signal.SIGINT else -9), errors
    assert (b"interrupted" in errors) == (sent == signal.SIGINT)
    results = search(corpus, root, "new number9999", tmp_path)["results"]
    assert results[0]["doc_id"] == "d9999"  # type: ignore[index]
    left_over = list(root.rglob(".partial-*"))
    assert left_over == []


def test_two_processes_may_index_at_once(tmp_path: Path) -> None:
    corpus, root = tmp_path / "docs", tmp_path / "root"
    write_corpus(corpus, 3_000, "both")
    running = [
        subprocess.Popen(command("index", corpus), cwd=tmp_path, env=environment(root), stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=120)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    assert sum("index.building" in text for text in told) == 1, "the second waits, then finds it up to date"
