"""Which measures there are, and what is said of one that nothing computes."""

from __future__ import annotations

import importlib.util

import ir_measures
import pytest

from orchestrator.errors import ConfigError
from orchestrator.evaluation.measures import Measures

QRELS = {"q1": {"a": 2, "b": 0, "c": 1}, "q2": {"a": 1}}
RANKINGS = {"q1": ("x", "a", "b", "c"), "q2": ()}


@pytest.mark.parametrize(
    "name", ["nDCG@20", "Judged@10", "Judged", "AP@5", "P@1", "Success@5", "infAP", "Bpref", "IPrec@0.5"]
)
def test_a_measure_is_what_ir_measures_says(name: str) -> None:
    measures = Measures([name])
    (metric,) = ir_measures.iter_calc(
        [ir_measures.parse_measure(name)], {"q1": QRELS["q1"]}, {"q1": {"x": 4, "a": 3, "b": 2, "c": 1}}
    )
    assert measures.per_query(QRELS, RANKINGS) == {"q1": {name: pytest.approx(metric.value)}, "q2": {name: 0.0}}


def test_one_measure_may_stand_under_two_names() -> None:
    row = Measures(["AP", "MAP", "AP(rel=2)"]).per_query(QRELS, RANKINGS)["q1"]
    assert row["AP"] == row["MAP"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert row["AP(rel=2)"] == pytest.approx(1 / 2)


def test_a_single_measure_needs_no_list() -> None:
    assert Measures("nDCG@10").names == ["nDCG@10"]
    with pytest.raises(ConfigError, match=r"task\.measures: names no measure"):
        Measures([])
    with pytest.raises(
        ConfigError, match=r"task\.measures: found None; expected a list of names, for example: nDCG@10"
    ):
        Measures(None)  # type: ignore[arg-type]


def test_rankings_of_nothing_are_worth_nothing() -> None:
    assert Measures(["RR@10", "AP"]).per_query(QRELS, {}) == {query: {"RR@10": 0.0, "AP": 0.0} for query in QRELS}


def test_the_first_cutoff_and_the_first_recall_are_known() -> None:
    measures = Measures(["AP", "nDCG@20", "Recall@100", "R@5"])
    assert (measures.first_cutoff, measures.recall) == (20, "Recall@100")
    assert (Measures(["AP"]).first_cutoff, Measures(["AP"]).recall) == (None, None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quality", "'quality' is no measure; for example: nDCG@10"),
        ("P", "'P' needs cutoff; for example P@10"),
        ("INSQ", "'INSQ' needs max_rel; for example INSQ(max_rel=1)"),
        ("AP(level=2)", "'AP(level=2)': AP has no parameter 'level'; parameters: cutoff, rel, judged_only"),
        ("nDCG(dcg='log3')@10", "'nDCG(dcg='log3')@10': invalid param dcg='log3'"),
        (
            "RBP(p=0.9)",
            "'RBP(p=0.9)': nothing computes it with rel as it stands; for example RBP(rel=1,p=0.9) by cwl_eval",
        ),
        ("AP(0.5)", "'AP(0.5)' is no measure"),
    ],
)
def test_a_measure_that_cannot_be_computed_is_told_with_what_it_lacks(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Measures(["nDCG@10", name])
    assert str(raised.value).startswith(f"task.measures[1]: {message}")


def test_a_missing_provider_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ir_measures.cwl_eval, "_is_available", False)
    with pytest.raises(ConfigError) as raised:
        Measures(["RBP(p=0.9,rel=1)"])
    found = "'RBP(p=0.9,rel=1)' is computed by a package that is not installed"
    assert str(raised.value) == f"task.measures[0]: {found}: cwl_eval (pip install ir-measures[cwl_eval])"


@pytest.mark.skipif(importlib.util.find_spec("cwl") is None, reason="pip install ir-measures[cwl_eval]")
def test_rank_biased_precision_is_its_formula() -> None:
    """Moffat and Zobel, TOIS 2008: (1 - p) times the sum of p^(rank - 1) over the relevant documents."""
    name = "RBP(p=0.9,rel=1)"
    values = Measures([name]).per_query(QRELS, RANKINGS)
    assert values["q1"][name] == pytest.approx((1 - 0.9) * (0.9**1 + 0.9**3), abs=1e-6)
