"""Candidates from a TREC run file."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ConfigError, DataError
from orchestrator.plugins.recall.supplied import SuppliedRecall
from orchestrator.testing import RecallContract
from orchestrator.types import Call, Query

RUN = "q1 Q0 d2 1 9.5 bm25\nq1 Q0 d1 2 7 bm25\nq1 Q0 d3 3 7.0 bm25\n\nq2 Q0 d9 1 0.1 bm25\n"


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.trec"
    path.write_text(RUN)
    return path


class TestContract(RecallContract):
    @pytest.fixture(autouse=True)
    def file(self, run_file: Path) -> None:
        self.path = run_file

    def make(self) -> SuppliedRecall:
        return SuppliedRecall(str(self.path))


def test_order_is_the_files_by_score_and_scores_are_one_over_rank(run_file: Path) -> None:
    stage = SuppliedRecall(str(run_file))
    assert stage.retrieve(Query("q1", "x"), 2, Call()) == [("d2", 1 / 1), ("d1", 1 / 2)]
    assert stage.retrieve(Query("unknown", "x"), 2, Call()) == []


def test_scores_are_kept_where_the_user_says_what_they_are(run_file: Path) -> None:
    stage = SuppliedRecall(str(run_file), score_kind="bm25")
    assert stage.score_kind == "bm25"
    assert stage.retrieve(Query("q1", "x"), 2, Call()) == [("d2", 9.5), ("d1", 7.0)]


def test_an_unknown_kind_of_score_is_refused(run_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"found .bm52.; choices: .*bm25"):
        SuppliedRecall(str(run_file), score_kind="bm52")  # type: ignore[arg-type]


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no file 'nowhere\.trec'; expected a TREC run file"):
        SuppliedRecall("nowhere.trec")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 d1 1 2.0\n", r"run\.trec:6: found 4 columns; expected 6"),
        ("q1 Q0 d8 1 high tag\n", r"run\.trec:6: found rank '1' and score 'high'"),
        ("q1 Q0 d2 1 3.0 tag\n", r"run\.trec:6: query 'q1' and document 'd2' stand twice"),
    ],
)
def test_a_bad_line_is_named(run_file: Path, line: str, message: str) -> None:
    run_file.write_text(RUN + line)
    with pytest.raises(DataError, match=message):
        SuppliedRecall(str(run_file)).load()


def test_a_query_that_the_file_does_not_know_is_declared(run_file: Path) -> None:
    stage, call = SuppliedRecall(str(run_file)), Call()
    assert stage.retrieve(Query("elsewhere", "?"), 5, call) == []
    assert call.notes == [f"{run_file.name} has no line for query 'elsewhere'"]


def test_results_of_another_file_are_others(tmp_path: Path) -> None:
    """Known once the file is read, so that results that are kept between jobs are those of this content."""
    path, found = tmp_path / "run.trec", []
    for line in ("q1 Q0 d1 1 2.0 x\n", "q1 Q0 d2 1 2.0 x\n", "q1 Q0 d1 1 2.0 x\n"):
        path.write_text(line)
        stage = SuppliedRecall(str(path))
        assert stage.depends_on is None
        stage.load()
        found.append(stage.depends_on)
    assert found[0] == found[2] != found[1]
