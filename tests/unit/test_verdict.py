"""The verdict in words: wins, does not win, is worse, unknown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from rich.console import Console

from orchestrator import report
from orchestrator.evaluation.measures import Measures
from orchestrator.learning.verdict import Verdict, judge

QRELS = {f"q{n}": {"good": 1} for n in range(14)}


def verdict_of(rankings: Mapping[str, list[str]]) -> Verdict:
    lists = {name: {query: tuple(ids) for query in QRELS} for name, ids in rankings.items()}
    measures = Measures(["RR@10", "R@100"])
    return judge("fused", lists.pop("fused"), lists, QRELS, list(QRELS), measures, seed=1)


def test_better_than_all_is_a_win() -> None:
    verdict = verdict_of({"fused": ["good", "bad"], "bm25": ["bad", "good"], "dense": ["bad"]})
    assert verdict.wins
    assert "wins on 14 queries that it did not learn from: RR@10 1.0000 against 0.5000 of bm25" in verdict.words()


def test_equal_to_one_of_them_is_no_win_and_the_words_name_it() -> None:
    verdict = verdict_of({"fused": ["good", "bad"], "bm25": ["good"], "dense": ["bad"]})
    assert not verdict.wins
    assert "does not win" in verdict.words()
    assert "Not beaten beyond chance: bm25 (p 1). Keep the simpler stack" in verdict.words()


def test_worse_than_one_of_them_is_said() -> None:
    verdict = verdict_of({"fused": ["bad", "good"], "bm25": ["good"], "dense": ["bad"]})
    assert "is worse than one of the others" in verdict.words()


def test_no_query_held_out_says_that_nothing_is_known() -> None:
    verdict = judge("fused", {}, {"bm25": {}}, QRELS, [], Measures(["RR@10"]), seed=1)
    assert not verdict.wins
    assert "not known" in verdict.words()
    assert verdict.as_csv() == "system\n"


def test_rows_hold_means_and_tests() -> None:
    verdict = verdict_of({"fused": ["good"], "bm25": ["bad", "good"]})
    first, second = csv.DictReader(io.StringIO(verdict.as_csv()))
    assert (first["system"], first["RR@10"], first["p_holm"]) == ("fused", "1.0", "")
    assert (second["system"], second["wins"], second["losses"]) == ("bm25", "14", "0")
    assert float(second["difference"]) == 0.5
    assert verdict.as_json()["queries"] == 14


def test_names_of_systems_stay_in_one_piece_beside_four_measures_on_a_hundred_columns() -> None:
    names = ["fused", "shortlist before"]
    lists = {name: dict.fromkeys(QRELS, ("good",)) for name in names}
    measures = Measures(["nDCG@10", "RR@10", "R@100", "AP"])
    verdict = judge("fused", lists.pop("fused"), lists, QRELS, list(QRELS), measures, seed=1)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report.comparison_table(verdict))
    _, head, _, *rows = console.export_text().splitlines()
    assert head.split() == ["system", *measures.names, "diff.", "won/tied/lost", "p", "t", "p", "rand.", "p", "Holm"]
    assert rows[1].startswith(" shortlist before   1.0000")
    assert max(map(len, rows)) <= 100
