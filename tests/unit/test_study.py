"""Evaluations side by side: what folders hold, marks, fronts, effects, queries that changed, and the words on it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from evaluations import FAIR, GOOD, POOR, Evaluation, query_id, said, studied, sweep, write_sweep

from orchestrator.errors import ConfigError
from orchestrator.evaluation.significance import compare, holm, paired_randomization
from orchestrator.study.effects import MOST_VALUES
from orchestrator.study.entry import Entry
from orchestrator.study.figures import Figures
from orchestrator.study.front import AXES, Point, axes_of, front, points
from orchestrator.study.numbers import difference_words, ms_words, p_words, rows_words, usd_words

RNG = np.random.default_rng(11)


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
        assert mark.p == comparison.p_holm, "the same drawing"
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
    assert pair.tally == (2, 17, 1)
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


# --- numbers


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
