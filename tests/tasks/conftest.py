"""A tiny corpus on disk, and `orchestrate` called in this process with its exit code and output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from orchestrator.cli import run

DOCUMENTS = {
    "d1": "Glaucoma damages the optic nerve of the eye.",
    "d2": "High blood pressure strains the heart and the kidneys.",
    "d3": "The optic nerve carries signals from the eye to the brain.",
    "d4": "青光眼会损害视神经。",
}
QUERIES = {"q1": "optic nerve of the eye", "q2": "blood pressure", "q3": "never judged"}
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td3\t1\nq2\td2\t1\n"


def write_corpus(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in DOCUMENTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    lines = [json.dumps({"_id": key, "text": text}) for key, text in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "qrels" / "test.tsv").write_text(QRELS)
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "tiny")


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def orchestrate(
    storage_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Done]]:
    """`orchestrate(*words)` in an empty folder, with a storage root of its own."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("sys.argv", ["orchestrate"])
    monkeypatch.setenv("COLUMNS", "160")

    def call(*words: str) -> Done:
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        code = run(list(words))
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    yield call
    structlog.reset_defaults()  # else later tests log to this test's stderr, which is closed
