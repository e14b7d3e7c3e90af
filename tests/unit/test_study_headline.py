"""What a report says of its rows in words: what to take, what was not told apart, what to be wary of."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import FAIR, GOOD, POOR, Evaluation, said, studied, sweep

from orchestrator.evaluation.sentences import FEW_QUERIES
from orchestrator.study.headline import headline
from orchestrator.study.numbers import difference_words


def test_a_faster_row_that_is_not_told_apart_is_recommended_with_its_loss(tmp_path: Path) -> None:
    nearly = [1] * 39 + [2]
    jobs = {
        "k=1": Evaluation([1] * 40, p95=80.0),
        "k=2": Evaluation(nearly, p95=20.0),
        "k=3": Evaluation([5] * 40, p95=1.0),
    }
    told = said(studied(sweep(tmp_path, jobs)))
    assert "Best of 3 by RR@10: row 0 (k=1), 1.0000 (95 % interval 0.9500 to 1.0500) over 40 queries." in told
    assert "1 other row is worse beyond chance, 1 is not told apart from it" in told
    loss = difference_words(-0.5 / 40)
    assert f"Take row 1 (k=2) unless {loss} RR@10 matters: not told apart from the best, and p95 is 20.0 ms" in told
    assert "(4.0 times as fast)" in told


def test_the_best_is_recommended_where_nothing_as_good_is_faster(tmp_path: Path) -> None:
    told = said(studied(sweep(tmp_path, {"k=1": Evaluation(GOOD, p95=5.0), "k=2": Evaluation(POOR, p95=1.0)})))
    assert "It is better than every other row beyond chance" in told
    alone = "no row that is not told apart from it and within 2% of it is clearly faster"
    assert f"Take row 0 (k=1): {alone}." in told


@pytest.mark.parametrize(("reference", "is_old"), [("null", False), ("1", False), ("auto", True)])
def test_nothing_is_advised_where_rows_were_not_compared_with_the_best(
    tmp_path: Path, reference: str, is_old: bool
) -> None:
    jobs = {
        "k=1": Evaluation(GOOD, {"fused": POOR}, p95=80.0, usd=0.004, is_old=is_old),
        "k=2": Evaluation(GOOD, {"fused": POOR}, p95=20.0, usd=0.001, is_old=is_old),
        "k=3": Evaluation(POOR, {"fused": POOR}, p95=1.0, is_old=is_old),
    }
    folder = sweep(tmp_path, jobs)
    if is_old:
        for job in "012":
            (folder / job / "per_query.json").unlink()
    study = studied(folder, reference=reference)
    assert not [one.text for one in headline(study) if one.text.startswith(("Take", "Where money"))]


def test_a_row_that_is_nearly_as_good_and_worse_beyond_chance_is_not_advised(tmp_path: Path) -> None:
    jobs = {"k=1": Evaluation([9] * 200, p95=80.0), "k=2": Evaluation([9] * 190 + [10] * 10, p95=20.0)}
    study = studied(sweep(tmp_path, jobs))
    assert study.marks["1"]["RR@10"].word == "worse"
    assert "Take row 0 (k=1): no row that is not told apart from it" in said(study)


def test_money_is_weighed_where_there_is_some(tmp_path: Path) -> None:
    jobs = {"k=1": Evaluation(GOOD, usd=0.004, tokens=900.0), "k=2": Evaluation(GOOD, usd=0.001)}
    told = said(studied(sweep(tmp_path, jobs)))
    assert "row 1 reaches the same" in told
    assert "900 tokens a question; $4 per 1,000 questions." in told
    assert "Where money matters: row 1 (k=2) costs $1 per 1,000 questions in place of $4" in told


def test_cautions_stand_in_the_headline(tmp_path: Path) -> None:
    run = Evaluation(GOOD, {"fused": POOR}, whole=0.9)
    told = said(studied(run.write(tmp_path / "run")))
    assert "20 queries are few" in told
    assert "10% of its answers fell short of the whole stack." in told
    assert "better beyond chance" in told
    rr = (10 / 2 + 10 / 5) / 20
    assert f"{difference_words(1 - rr)} beside the ranking before reranking, fused ({rr:.4f})" in told


def test_what_evaluate_said_in_words_is_not_said_twice(tmp_path: Path) -> None:
    run = Evaluation(GOOD, {"fused": POOR}, unjudged=0.25, words=("20 queries are few.", "Nobody judged 25%."))
    study = studied(run.write(tmp_path / "run"))
    assert said(study).endswith("20 queries are few. Nobody judged 25%.")
    assert said(study).count("25%") == 1
    assert [one.tone for one in headline(study)[-2:]] == ["", ""], "they are not all of trouble"


@pytest.mark.parametrize(("n_queries", "is_few"), [(FEW_QUERIES - 1, True), (FEW_QUERIES, False)])
def test_rows_that_are_not_told_apart_by_few_queries_are_told_as_that(
    tmp_path: Path, n_queries: int, is_few: bool
) -> None:
    nearly = [1] * (n_queries - 1) + [2]
    study = studied(sweep(tmp_path, {"k=1": Evaluation([1] * n_queries), "k=2": Evaluation(nearly, words=("Said.",))}))
    assert "The other row is not told apart from it" in said(study)
    assert ("queries are few, and more may decide" in said(study)) == is_few


def test_of_equal_rows_the_whole_pipeline_is_the_best(tmp_path: Path) -> None:
    assert studied(Evaluation(GOOD, {"fused": POOR, "dense": GOOD}).write(tmp_path / "run")).best.name == "whole"


def test_a_stage_that_is_better_than_the_whole_is_named(tmp_path: Path) -> None:
    study = studied(Evaluation(POOR, {"fused": FAIR, "shortlist": GOOD}).write(tmp_path / "run"))
    assert "A pipeline that ended at shortlist would reach 1.0000, more than the whole" in said(study)
    assert study.best.name == "shortlist"
    assert "worse beyond chance" in said(study)


def test_reranking_is_told_of_in_a_sweep(tmp_path: Path) -> None:
    jobs = {
        "k=1": Evaluation([1] * 18 + [0] * 2, {"fused": POOR[:18] + [0] * 2}),
        "k=2": Evaluation(POOR, {"fused": POOR}),
    }
    told = said(studied(sweep(tmp_path, jobs)))
    assert "In the best row, before reranking its candidates stood at" in told
    assert ", beyond chance (p < 0.001)." in told
