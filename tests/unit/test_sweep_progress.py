"""How far a sweep is, from what its jobs have left."""

from __future__ import annotations

import pytest

from orchestrator.config.failure import Failure
from orchestrator.jobs import Job, Outcome
from orchestrator.sweeps.sweep_progress import SweepProgress, about, reused


def job(num: int) -> Job:
    return Job(num, ("task=evaluate", f"pipeline.stages.bm25.top_k={num}"))


def outcome(num: int, seconds: float, ended: float, value: float = 0.5, kept: int = 0) -> Outcome:
    figures = {"metrics": {"nDCG@10": value}, "reused": {"asked": 10.0, "reused": float(kept)}}
    return Outcome(job(num), str(num), seconds, None, figures, ended)


def test_one_after_the_other_the_usual_time_counts_for_each_that_is_left() -> None:
    done = [outcome(0, 60, 1060), outcome(1, 10, 1070), outcome(2, 12, 1082, value=0.7, kept=5)]
    progress = SweepProgress.of(done, [job(num) for num in range(13)])
    assert progress.done == "3 of 13"
    assert progress.left_s == pytest.approx(12 * (13 - 3))
    assert progress.best == 0.7
    assert progress.reused == (5, 30)
    assert progress.line == "17% of the work reused, best nDCG@10 0.7000, about 2 min left"


def test_side_by_side_the_rest_takes_so_much_less() -> None:
    done = [outcome(num, 10, 1010) for num in range(4)]
    assert SweepProgress.of(done, [job(num) for num in range(12)]).left_s == pytest.approx(10 * (12 - 4) / 4)


def test_the_last_jobs_tell_how_long_the_next_ones_take() -> None:
    slow = [outcome(num, 100, 100.0 * (num + 1)) for num in range(20)]
    fast = [outcome(20 + num, 1, 2000.0 + num + 1) for num in range(8)]
    assert SweepProgress.of(slow + fast, [job(num) for num in range(38)]).left_s == pytest.approx(1 * 10)


def test_a_sweep_whose_jobs_are_not_planned_tells_what_it_knows() -> None:
    failed = Outcome(job(1), "1", 0.0, Failure("no", 2))
    progress = SweepProgress.of([outcome(0, 4, 1004), failed], [])
    assert (progress.done, progress.left_s, progress.best) == ("2", None, 0.5)
    assert SweepProgress.of([failed], [], planned=20).done == "1 of 20"
    assert SweepProgress.of([outcome(0, 4, 1004)], [], planned=3).left_s == pytest.approx(4 * 2)
    assert SweepProgress.of([failed], []).line == ""


def test_figures_of_before_have_no_reuse() -> None:
    assert reused([Outcome(job(0), "0", 1.0, None, {"metrics": {"nDCG@10": 0.1}})]) == (0, 0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "about 1 s"), (41.4, "about 41 s"), (100, "about 2 min"), (3599, "about 60 min"), (7000, "about 2 h")],
)
def test_times_are_told_as_people_say_them(seconds: float, words: str) -> None:
    assert about(seconds) == words


def test_the_time_between_jobs_counts() -> None:
    done = [outcome(num, 2, 1000 + 5 * num) for num in range(5)]
    elapsed_s = 2 + 4 * 5
    assert SweepProgress.of(done, [job(num) for num in range(10)]).left_s == pytest.approx(elapsed_s / 5 * 5)
