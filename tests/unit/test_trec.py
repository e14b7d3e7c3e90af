"""Run files and judgements in TREC's columns, in and out."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from orchestrator.corpora.judgements import read_qrels
from orchestrator.errors import DataError
from orchestrator.trec import qrels_text, read_run, run_text


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text(run_text({"q1": ["b", "a"], "q2": ["c"]}))
    assert read_run(path) == {"q1": [("b", 2.0), ("a", 1.0)], "q2": [("c", 1.0)]}


def test_a_run_is_ordered_by_score_and_equal_scores_by_rank(tmp_path: Path) -> None:
    path = tmp_path / "run.trec.gz"
    path.write_bytes(gzip.compress(b"q Q0 low 1 0.5 t\nq Q0 second 3 2 t\n\nq Q0 first 2 2.0 t\n"))
    assert read_run(path) == {"q": [("first", 2.0), ("second", 2.0), ("low", 0.5)]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 d 1 0.5", "found 5 columns; expected 6 (query, Q0, document, rank, score, tag)"),
        ("q Q0 d one 0.5 t", "found rank 'one' and score '0.5'; expected a whole number and a number"),
        ("q Q0 d 1 nan t", "found score 'nan'; expected a finite number"),
        ("q Q0 a 9 0.1 t", "query 'q' and document 'a' stand twice"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "run.trec"
    path.write_text(f"q Q0 a 1 9 t\n{line}\n")
    with pytest.raises(DataError, match=r"run\.trec") as raised:
        read_run(path)
    assert message in str(raised.value)
    assert ":2" in str(raised.value)
    assert "corpus.on_bad_line" not in str(raised.value)


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.trec.*no such file"):
        read_run(tmp_path / "nowhere.trec")


def test_judgements_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "qrels.trec"
    path.write_text(qrels_text({"q 1": {"a b": 2, "c": 0}}))
    assert read_qrels(path) == {"q%201": {"a%20b": 2, "c": 0}}
