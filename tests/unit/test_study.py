"""Evaluations side by side: what folders hold, marks, fronts, effects, queries that changed, and the words on it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from evaluations import MEASURES, Evaluation, Jobs, query_id, write_sweep

from orchestrator.errors import ConfigError, DataError
from orchestrator.evaluation.sentences import FEW_QUERIES
from orchestrator.significance import compare, holm, paired_randomization
from orchestrator.study.effects import MOST_VALUES
from orchestrator.study.entry import Entry
from orchestrator.study.figures import Figures, read_figures
from orchestrator.study.folders import read_folders
from orchestrator.study.front import AXES, Point, axes_of, front, points
from orchestrator.study.headline import headline
from orchestrator.study.numbers import difference_words, ms_words, p_words, rows_words, usd_words
from orchestrator.study.randomization import randomization
from orchestrator.study.study import Study, study_of, with_queries

GOOD, FAIR, POOR = [1] * 20, [1] * 14 + [2] * 6, [2] * 10 + [5] * 10
RNG = np.random.default_rng(11)


def studied(folder: Path, measure: str | None = None, reference: str = "auto") -> Study:
    return with_queries(study_of(read_folders({"task.folder": folder}), measure, reference), None)


def sweep(tmp_path: Path, jobs: Jobs, n_planned: int | None = None) -> Path:
    return write_sweep(tmp_path / "sweep", jobs, n_planned=n_planned)


def said(study: Study) -> str:
    return " ".join(one.text for one in headline(study))


# --- folders


def test_the_jobs_of_a_sweep_are_rows_and_a_failed_one_has_its_reason(tmp_path: Path) -> None:
    folder = sweep(tmp_path, {"k=1": Evaluation(GOOD), "k=2": "it broke\nsomewhere", "k=3": Evaluation(POOR)})
    found = read_folders({"task.folder": folder})
    assert found.keys == ("k",)
    assert [(entry.name, entry.settings, entry.failure) for entry in found.entries] == [
        ("0", {"k": "1"}, ""),
        ("1", {"k": "2"}, "it broke"),
        ("2", {"k": "3"}, ""),
    ]
    assert found.entries[0].figures is not None
    assert found.entries[0].figures.metrics["RR@10"] == 1.0
    assert found.entries[2].figures is not None
    assert found.entries[2].figures.metrics["RR@10"] == pytest.approx((10 / 2 + 10 / 5) / 20)
    assert found.entries[1].figures is None


def test_of_one_run_its_stages_are_rows_beside_the_whole(tmp_path: Path) -> None:
    run = Evaluation(GOOD, {"fused": FAIR, "shortlist": POOR})
    study = studied(run.write(tmp_path / "run"))
    assert study.is_single
    assert [(row.name, row.kind) for row in study.rows] == [
        ("fused", "stage"),
        ("shortlist", "stage"),
        ("whole", "run"),
    ]
    assert study.reference is not None
    assert study.reference.name == "fused", "the ranking before the first rerank"
    for row, places in zip(study.rows, (FAIR, POOR, GOOD), strict=True):
        assert dict(row.per_query) == run.judged(places), "read from the run files, by the kept judgements"


def test_several_folders_stand_in_one_table_told_apart_by_their_folder(tmp_path: Path) -> None:
    one = Evaluation(GOOD).write(tmp_path / "a", ["task=evaluate", "k=1"])
    two = write_sweep(tmp_path / "b", {"k=1": Evaluation(FAIR), "k=2": Evaluation(POOR)})
    found = read_folders({"task.folder": one, "task.compare[0]": two})
    assert found.keys == ("folder", "k")
    assert [tuple(entry.settings.values()) for entry in found.entries] == [("a", "1"), ("b", "1"), ("b", "2")]
    assert [entry.name for entry in found.entries] == ["0", "1", "2"]
    assert read_folders({"task.folder": tmp_path}).keys == ("folder", "k"), "the folder above holds both"


def test_jobs_without_a_plan_keep_their_numbers(tmp_path: Path) -> None:
    folder = sweep(tmp_path, {"k=1": Evaluation(GOOD), "k=2": Evaluation(POOR)})
    (folder / "sweep.json").unlink()
    assert [(entry.name, entry.settings) for entry in read_folders({"task.folder": folder}).entries] == [
        ("0", {"k": "1"}),
        ("1", {"k": "2"}),
    ]


def test_an_interrupted_sweep_says_how_many_jobs_are_missing(tmp_path: Path) -> None:
    study = studied(sweep(tmp_path, {"k=1": Evaluation(GOOD), "k=2": Evaluation(POOR)}, n_planned=5))
    assert study.n_missing == 3
    assert "3 planned jobs have not ended." in study.gaps


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("missing", "task.folder: .*x: found nothing there; expected the folder of an evaluation"),
        ("file", "task.folder: .*x: found a file; expected the folder of an evaluation"),
        ("empty", r"task.folder: .*x: found no metrics.json in it or below it \(it holds results.jsonl\); expected"),
        ("failed", "task.folder: .*x: 2 of its 2 jobs failed and none left figures; the first: no such model"),
    ],
)
def test_what_is_no_evaluation_is_refused_with_what_was_expected(tmp_path: Path, made: str, message: str) -> None:
    folder = tmp_path / "x"
    if made == "file":
        folder.write_text("")
    if made == "empty":
        folder.mkdir()
        (folder / "results.jsonl").write_text("")
    if made == "failed":
        write_sweep(folder, {"k=1": "no such model", "k=2": "no such model"})
    with pytest.raises(ConfigError, match=message):
        read_folders({"task.folder": folder})


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = sweep(tmp_path, {"k=1": Evaluation(GOOD), "k=2": Evaluation(POOR)})
    (folder / "1" / "metrics.json").write_text('{"metrics": ')
    with pytest.raises(DataError, match=r"1/metrics\.json: no JSON .*expected what `orchestrate evaluate` writes"):
        read_folders({"task.folder": folder})
    (folder / "1" / "metrics.json").write_text('{"metrics": [1, 2]}')
    with pytest.raises(DataError, match=r"metrics\.json: expected what `orchestrate evaluate` writes, found"):
        read_figures(folder / "1")


@pytest.mark.parametrize("metrics", ["null", "{}"])
def test_figures_without_a_measure_are_named(tmp_path: Path, metrics: str) -> None:
    folder = sweep(tmp_path, {"k=1": Evaluation(GOOD), "k=2": Evaluation(POOR)})
    (folder / "1" / "metrics.json").write_text(f'{{"metrics": {metrics}}}')
    with pytest.raises(DataError, match=r"1/metrics\.json: holds no measure; expected what `orchestrate evaluate`"):
        read_folders({"task.folder": folder})


def test_a_foreign_job_json_is_told_of(tmp_path: Path) -> None:
    folder = sweep(tmp_path, {"k=1": Evaluation(GOOD)})
    (folder / "0" / "job.json").write_text("[1, 2]")
    with pytest.raises(DataError, match=r"sweep: a job\.json in it is damaged, or no job's"):
        read_folders({"task.folder": folder})


# --- marks


def test_every_row_is_tested_against_the_best_with_one_correction(tmp_path: Path) -> None:
    runs = [Evaluation(GOOD), Evaluation(FAIR), Evaluation(POOR)]
    study = studied(sweep(tmp_path, {f"k={n}": run for n, run in enumerate(runs)}))
    assert study.best.name == "0"
    values = [{query: of["RR@10"] for query, of in run.per_query.items()} for run in runs]
    for comparison in compare(values[0], {"1": values[1], "2": values[2]}):
        mark = study.marks[comparison.other]["RR@10"]
        assert mark.difference == pytest.approx(-comparison.difference)
        assert (mark.wins, mark.ties, mark.losses) == (comparison.losses, comparison.ties, comparison.wins)
        assert mark.p == pytest.approx(comparison.p_holm, abs=0.02)
    assert study.marks["2"]["RR@10"].word == "worse"
    assert "0" not in study.marks


def test_rows_may_be_tested_against_another_one(tmp_path: Path) -> None:
    folder = sweep(tmp_path, {"k=1": Evaluation(GOOD), "k=2": Evaluation(POOR)})
    study = studied(folder, reference="1")
    assert study.marks["0"]["RR@10"].word == "better"
    with pytest.raises(ConfigError, match=r"task\.reference: found '7'; rows whose queries are known: best, 0, 1\."):
        studied(folder, reference="7")
    with pytest.raises(ConfigError, match=r"task\.measure: found 'RR'; measured were: RR@10, R@10\."):
        studied(folder, measure="RR")


def test_rankings_before_reranking_and_best_orders_that_are_alike_are_one_row(tmp_path: Path) -> None:
    jobs = {
        "k=1": Evaluation(GOOD, {"fused": POOR}),
        "k=2": Evaluation(FAIR, {"fused": POOR}),
        "k=3": Evaluation(FAIR, {"dense": FAIR}),
    }
    study = studied(sweep(tmp_path, jobs))
    assert [(row.name, row.kind, row.words) for row in study.beside] == [
        ("null-2", "null", "before reranking: dense of row 2"),
        ("null-0", "null", "before reranking: fused of rows 0, 1"),
        ("oracle", "oracle", "best possible order"),
    ]
    assert study.marks["null-0"]["RR@10"].word == "worse"
    assert "oracle" not in study.marks


def test_null_is_that_of_the_best_row_where_there_are_several(tmp_path: Path) -> None:
    jobs = {
        "k=1": Evaluation(GOOD, {"fused": POOR}),
        "k=2": Evaluation(FAIR, {"dense": FAIR}),
    }
    study = studied(sweep(tmp_path, jobs), reference="null")
    assert study.reference is not None
    assert (study.best.name, study.reference.name) == ("0", "null-0")
    assert study.marks["0"]["RR@10"].word == "better"
    assert study.marks["1"]["RR@10"].difference == pytest.approx((14 + 6 / 2) / 20 - (10 / 2 + 10 / 5) / 20)


def test_stages_of_like_names_and_one_called_served_have_rankings_of_their_own(tmp_path: Path) -> None:
    run = Evaluation(GOOD, {"a b": POOR, "a-b": FAIR, "served": POOR})
    rows = studied(run.write(tmp_path / "run")).rows
    for row, places in zip(rows, (POOR, FAIR, POOR, GOOD), strict=True):
        assert dict(row.per_query) == run.judged(places)


@pytest.mark.parametrize("name", ["whole", "oracle", "null", "best"])
def test_a_stage_called_as_a_built_in_row_has_a_name_of_its_own(tmp_path: Path, name: str) -> None:
    run = Evaluation(GOOD, {name: POOR, f"{name}-stage": FAIR}).write(tmp_path / "run")
    study = studied(run)
    assert [row.name for row in study.rows] == [f"{name}-stage-stage", f"{name}-stage", "whole"]
    assert [row.name for row in study.beside] == ["oracle"]
    assert study.reference is study.rows[0], "the ranking before the first rerank"
    assert f"beside the ranking before reranking, {name}-stage-stage" in said(study)
    assert study.best.name == "whole"


def test_rows_of_another_split_stay_out_though_their_query_ids_agree(tmp_path: Path) -> None:
    jobs = {"k=1": Evaluation(GOOD), "k=2": Evaluation(POOR, split="dev"), "k=3": Evaluation(POOR, is_old=True)}
    study = studied(sweep(tmp_path, jobs))
    assert [row.name for row in study.comparable] == ["0", "2"], "of the old one it is not known"
    assert set(study.marks) == {"2"}
    assert [(pair.after.name, pair.before.name) for pair in study.pairs] == [("0", "2")]
    assert any(gap.startswith("row 1 (k=2): judged on other queries or of another collection") for gap in study.gaps)


def test_rows_of_other_queries_stay_out_of_every_comparison(tmp_path: Path) -> None:
    study = studied(sweep(tmp_path, {"k=1": Evaluation(FAIR), "k=2": Evaluation(GOOD[:7]), "k=3": Evaluation(POOR)}))
    assert study.best.name == "0"
    assert [row.name for row in study.comparable] == ["0", "2"]
    assert set(study.marks) == {"2"}
    assert any(gap.startswith("row 1 (k=2): judged on other queries") for gap in study.gaps)


def test_a_folder_of_an_older_version_is_told_with_what_it_lacks(tmp_path: Path) -> None:
    jobs = {"k=1": Evaluation(GOOD, {"fused": POOR}, is_old=True), "k=2": Evaluation(POOR, is_old=True, p95=None)}
    study = studied(sweep(tmp_path, jobs))
    assert study.beside == ()
    assert study.marks["1"]["RR@10"].word == "worse"
    (lacking,) = [gap for gap in study.gaps if gap.startswith("These folders do not tell")]
    assert "95 % intervals" in lacking
    assert "tokens and money" in lacking
    assert "the rankings of stages" in lacking
    assert "Judgements are not known here, so that no document is marked." in study.gaps


def test_an_old_single_run_has_no_test_and_says_so(tmp_path: Path) -> None:
    study = studied(Evaluation(GOOD, {"fused": POOR}, is_old=True).write(tmp_path / "run"))
    assert study.marks == {}
    assert "not tested, since the values of its single queries are not known" in said(study)


def test_many_rows_are_tested_at_once_as_one_by_one() -> None:
    differences = RNG.normal([0.0, 0.05, 0.1, 0.2], 0.3, (60, 4))
    alone = [paired_randomization(column) for column in differences.T]
    assert randomization(differences) == pytest.approx(alone, abs=0.05)
    assert randomization(differences).tolist() == randomization(differences).tolist()
    few = differences[:9]
    assert randomization(few).tolist() == [paired_randomization(column) for column in few.T], "all assignments"
    assert randomization(np.zeros((60, 2))).tolist() == [1.0, 1.0]
    assert randomization(np.full((60, 1), 0.1)).tolist() == [2 / (9_999 + 1)]
    assert randomization(np.zeros((60, 0))).tolist() == []


def test_many_queries_are_tested_too() -> None:
    differences = np.stack([np.zeros(1_100), np.full(1_100, 0.1)], axis=1)
    assert randomization(differences, resamples=99).tolist() == [1.0, 2 / (99 + 1)]


# --- fronts


def entry(name: str, quality: float, p95: float | None, usd: float | None = None) -> Entry:
    times = {} if p95 is None else {"p95": p95}
    return Entry(name, "run", Path(), figures=Figures({"m": quality}, latency_ms=times, usd=usd))


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    found = [
        Point(entry(name, q, c), c, q)
        for name, c, q in (("a", 10, 0.5), ("b", 20, 0.7), ("c", 15, 0.5), ("d", 30, 0.6))
    ]
    assert [point.entry.name for point in front(found)] == ["a", "b"]


def test_of_equal_points_one_is_on_the_front_and_random_ones_agree_with_the_definition() -> None:
    same = [Point(entry(name, 0.5, 1.0), 1.0, 0.5) for name in "ab"]
    assert [point.entry.name for point in front(same)] == ["a"]
    found = [Point(entry(str(n), q, c), c, q) for n, (c, q) in enumerate(RNG.random((60, 2)).tolist())]
    beaten = {
        one.entry.name
        for one, other in itertools.permutations(found, 2)
        if other.cost <= one.cost and other.quality >= one.quality
    }
    assert {point.entry.name for point in front(found)} == {point.entry.name for point in found} - beaten


def test_there_is_an_axis_for_what_costs_something() -> None:
    rows = [entry("a", 0.5, 10.0, 0.0), entry("b", 0.6, 20.0, 0.002)]
    assert [axis.key for axis in axes_of(rows)] == ["p95", "usd"]
    money = next(axis for axis in AXES if axis.key == "usd")
    assert [(point.entry.name, point.cost) for point in points(rows, money, "m")] == [("a", 0.0), ("b", 2.0)]
    assert axes_of([entry("a", 0.5, None)]) == ()


# --- effects


def grid(tmp_path: Path) -> tuple[Path, dict[tuple[str, str], Evaluation]]:
    """Two keys of two values: `good` is better than `bad` by much, `x` and `y` differ by nothing systematic."""
    made = {}
    for kind, letter in itertools.product(("good", "bad"), ("x", "y")):
        low, high = (1, 3) if kind == "good" else (4, 9)
        made[kind, letter] = Evaluation(RNG.integers(low, high, 20).tolist())
    jobs = {f"kind={kind} letter={letter}": run for (kind, letter), run in made.items()}
    return sweep(tmp_path, jobs), made


def mean_rr(run: Evaluation) -> float:
    return float(np.mean([of["RR@10"] for of in run.per_query.values()]))


def test_an_effect_is_the_mean_over_jobs_and_the_difference_with_all_else_equal(tmp_path: Path) -> None:
    folder, made = grid(tmp_path)
    study = studied(folder)
    kind, letter = study.effects
    assert (kind.key, letter.key) == ("kind", "letter"), "the greatest spread first"
    best, worst = kind.values
    assert (best.value, worst.value, best.n_jobs, best.paired) == ("good", "bad", 2, None)
    assert best.mean == pytest.approx((mean_rr(made["good", "x"]) + mean_rr(made["good", "y"])) / 2)
    gaps = [mean_rr(made["bad", one]) - mean_rr(made["good", one]) for one in "xy"]
    assert worst.paired is not None
    assert (worst.paired.other, worst.paired.n_pairs) == ("good", 2)
    assert worst.paired.difference == pytest.approx(np.mean(gaps))
    assert (worst.paired.low, worst.paired.high) == (pytest.approx(min(gaps)), pytest.approx(max(gaps)))


def test_an_effect_is_tested_over_queries_and_corrected_for_all_of_them(tmp_path: Path) -> None:
    folder, made = grid(tmp_path)
    kind, letter = studied(folder).effects

    def by_query(pairs: list[tuple[Evaluation, Evaluation]]) -> np.ndarray:
        rows = [[a.per_query[q]["RR@10"] - b.per_query[q]["RR@10"] for q in sorted(a.per_query)] for a, b in pairs]
        return np.mean(rows, axis=0)

    best, other = letter.values[0].value, letter.values[1].value
    vectors = [
        by_query([(made["bad", one], made["good", one]) for one in "xy"]),
        by_query([(made[one, other], made[one, best]) for one in ("good", "bad")]),
    ]
    expected = holm([paired_randomization(vector) for vector in vectors])
    found = [effect.values[1].paired for effect in (kind, letter)]
    assert [paired.p for paired in found if paired] == pytest.approx(expected, abs=0.06)
    assert found[0] is not None
    assert found[0].is_beyond_chance


def test_values_that_never_meet_have_no_paired_difference(tmp_path: Path) -> None:
    study = studied(sweep(tmp_path, {"a=1 b=1": Evaluation(GOOD), "a=2 b=2": Evaluation(POOR)}))
    assert [value.paired for effect in study.effects for value in effect.values] == [None] * 4


def test_a_key_of_too_many_values_is_only_counted(tmp_path: Path) -> None:
    n = MOST_VALUES + 1
    (effect,) = studied(sweep(tmp_path, {f"k=0.{place}1": Evaluation(GOOD) for place in range(n)})).effects
    assert (effect.values, effect.n_values, effect.spread) == ((), n, 0.0)


# --- queries


def test_queries_that_changed_most_are_shown_with_both_rankings_and_their_judgements(tmp_path: Path) -> None:
    before, after = [3] * 20, [3] * 20
    after[4], after[7], after[9] = 1, 2, 10
    study = studied(sweep(tmp_path, {"k=1": Evaluation(before), "k=2": Evaluation(after)}))
    (pair,) = study.pairs
    assert (pair.after.name, pair.before.name) == ("1", "0")
    assert (pair.wins, pair.ties, pair.losses) == (2, 17, 1)
    assert [change.query_id for change in pair.changed] == [query_id(4), query_id(7), query_id(9)]
    assert pair.changed[0].difference == pytest.approx(1 - 1 / 3)
    assert pair.differences == tuple(sorted(pair.differences, reverse=True))
    first = pair.changed[0].documents_after[0]
    assert (first.doc_id, first.rank, first.other_rank, first.grade) == ("rel%204", 1, 3, 2)
    assert [shown.grade for shown in pair.changed[0].documents_before] == [0, None, 2, None, None]
    assert study.queries[query_id(4)] == "what is <4>?"


def test_of_few_rows_every_pair_is_shown_and_of_many_the_best_beside_the_others(tmp_path: Path) -> None:
    few = studied(write_sweep(tmp_path / "few", {f"k={n}": Evaluation([n + 1] * 20) for n in range(4)}))
    assert {(pair.after.name, pair.before.name) for pair in few.pairs} == set(itertools.combinations("0123", 2))
    many = studied(write_sweep(tmp_path / "many", {f"k={n}": Evaluation([n % 9 + 1] * 20) for n in range(14)}))
    assert {pair.after.name for pair in many.pairs} == {"0"}
    assert len(many.pairs) == 10


# --- words


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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (difference_words(-0.0123), "−0.0123"),
        (difference_words(0.00001), "0"),
        (p_words(0.0004), "p < 0.001"),
        (p_words(0.0123), "p = 0.012"),
        (p_words(0.5), "p = 0.50"),
        (ms_words(12.34), "12.3 ms"),
        (ms_words(1234.0), "1.23 s"),
        (ms_words(None), ""),
        (usd_words(0.0012), "$1.2"),
        (rows_words(["3"], 4), "row 3"),
        (rows_words(list("01234"), 2), "rows 0, 1 and 3 more"),
    ],
)
def test_figures_in_words(words: str, expected: str) -> None:
    assert words == expected


def test_metrics_of_the_folder_are_read_as_they_were_written(tmp_path: Path) -> None:
    run = Evaluation(GOOD, {"fused": FAIR}, usd=0.5, tokens=12.0, words=("a",))
    figures = read_figures(run.write(tmp_path / "run"))
    content = json.loads(json.dumps(run.content()))
    assert figures is not None
    assert dict(figures.metrics) == content["metrics"]
    assert (figures.null_stage, dict(figures.null)) == ("fused", content["null"]["metrics"])
    assert (figures.usd, figures.tokens, figures.words, figures.corpus["name"]) == (0.5, 12.0, ("a",), "made")
    assert figures.intervals["RR@10"] == tuple(content["intervals"]["RR@10"])
    assert set(figures.oracle) == set(MEASURES)
