"""Boosts by payload: each value as a formula, each mistake by its path."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from math import log1p
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import ConfigError
from orchestrator.plugins.rerank.boost import BoostRerank
from orchestrator.plugins.rerank.boosts import read_date
from orchestrator.ranking import rescored as rescored_list
from orchestrator.ranking import unscored
from orchestrator.testing import ListRerankContract, ranked
from orchestrator.types import Call, Document, Query

NOW = "2026-11-01"
FRESH = {"field": "date", "weight": 0.2, "recency": {"half_life_days": 10}}


def rescored(payloads: list[dict[str, Any]], boosts: dict[str, Any], now: str | None = NOW) -> tuple[np.ndarray, Call]:
    ids = [f"d{place}" for place in range(len(payloads))]
    documents = {doc_id: Document(doc_id, "", "", payload) for doc_id, payload in zip(ids, payloads, strict=True)}
    listed, call = ranked(ids, [float(-place) for place in range(len(ids))]), Call(documents=documents)
    return BoostRerank(boosts, now=now).rescore(Query("q", "x"), listed, call), call


def added(payload: dict[str, Any], boost: dict[str, Any], now: str | None = NOW) -> float:
    """What one boost adds to the middle of three candidates, which stands at 0.5."""
    scores, _ = rescored([{}, payload, {}], {"b": boost}, now)
    return float(scores[1]) - 0.5


class TestContract(ListRerankContract):
    def make(self) -> BoostRerank:
        return BoostRerank({"fresh": FRESH})

    def documents(self) -> list[Document]:
        dates = ("2026-10-01", "2026-10-30", "soon", None)
        return [Document(doc_id, "", "", {"date": day}) for doc_id, day in zip("abcd", dates, strict=True)]


@pytest.mark.parametrize(
    ("decay", "days", "value"),
    [
        ("exp", 0, 1.0),
        ("exp", 10, 0.5),
        ("exp", 30, 0.5**3),
        ("gauss", 10, 0.5),
        ("gauss", 20, 0.5**4),
        ("linear", 10, 0.5),
        ("linear", 40, 0.0),
        ("exp", -5, 1.0),
    ],
)
def test_recency_decays_by_half_after_its_half_life(decay: str, days: int, value: float) -> None:
    day = (date(2026, 11, 1) - timedelta(days=days)).isoformat()
    boost = {"field": "date", "weight": 0.2, "recency": {"half_life_days": 10, "decay": decay}}
    assert added({"date": day}, boost) == pytest.approx(0.2 * value)


def test_what_is_fresh_has_its_full_value() -> None:
    boost = {"field": "date", "recency": {"half_life_days": 10, "fresh_days": 7}}
    assert added({"date": "2026-10-25"}, boost) == pytest.approx(1.0)
    assert added({"date": "2026-10-15"}, boost) == pytest.approx(0.5)


def test_without_now_ages_count_from_today() -> None:
    ten_days_ago = (datetime.now(UTC).date() - timedelta(days=10)).isoformat()
    assert added({"date": ten_days_ago}, FRESH, now=None) == pytest.approx(0.1, rel=0.1)  # else midnight, just now


def test_sources_are_worth_what_the_yaml_says() -> None:
    boost = {"field": "meta.source", "weight": 0.3, "values": {"handbook": 1, "forum": -0.5}, "missing": 0.1}
    assert added({"meta": {"source": "handbook"}}, boost) - added({}, boost) == pytest.approx(0.3 * (1 - 0.1))
    assert added({"meta": {"source": "forum"}}, boost) == pytest.approx(-0.15)
    assert added({"meta": {"source": ["forum", "handbook"]}}, boost) == pytest.approx(0.3)
    assert added({"meta": {"source": "elsewhere"}}, boost) == pytest.approx(0.03)


def test_numbers_are_scaled_between_their_bounds() -> None:
    assert added({"stars": "4"}, {"field": "stars", "number": {"max": 5}}) == pytest.approx(0.8)
    assert added({"stars": 10**400}, {"field": "stars", "number": {"max": 5}}) == 0.0
    assert added({"stars": 9}, {"field": "stars", "number": {"max": 5}}) == pytest.approx(1.0)
    assert added({"stars": 1}, {"field": "stars", "number": {"min": 2, "max": 5}}) == pytest.approx(0.0)
    clicks = {"field": "clicks", "number": {"max": 10000, "log": True}}
    assert added({"clicks": 99}, clicks) == pytest.approx(log1p(99) / log1p(10000))


def test_boosts_add_up_on_the_normalised_score() -> None:
    boosts = {"fresh": FRESH, "source": {"field": "s", "weight": 0.3, "values": {"a": 1}}}
    scores, call = rescored([{}, {"date": NOW, "s": "a"}, {"s": "a"}, {}], boosts)
    np.testing.assert_allclose(scores, [1, 2 / 3 + 0.2 + 0.3, 1 / 3 + 0.3, 0], atol=1e-9)
    assert call.notes == []


def test_a_boost_after_a_stage_that_did_not_run_keeps_the_order_that_came() -> None:
    ids = [f"d{place:02}" for place in range(20)]
    came = unscored(ranked(ids, [float(30 - place) for place in range(20)]))
    call = Call(documents={doc_id: Document(doc_id, "", "", {"s": "a"} if doc_id == "d19" else {}) for doc_id in ids})
    stage = BoostRerank({"source": {"field": "s", "weight": 0.06, "values": {"a": 1}}})
    scores = stage.rescore(Query("q", "x"), came, call)
    np.testing.assert_allclose(scores, [*(1 - place / 19 for place in range(19)), 0.06])
    assert rescored_list("boost", came, scores, "weighted").doc_ids == (*ids[:18], "d19", "d18")


def test_a_field_that_no_candidate_has_is_told() -> None:
    _, call = rescored([{"datum": "2026-01-01"}, {"date": "soon"}], {"fresh": FRESH})
    assert call.notes == ["boost 'fresh': no candidate has a value in 'date' that it can use"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024", datetime(2024, 1, 1, tzinfo=UTC)),
        (2024, datetime(2024, 1, 1, tzinfo=UTC)),
        ("2024-05", datetime(2024, 5, 1, tzinfo=UTC)),
        ("20240506", datetime(2024, 5, 6, tzinfo=UTC)),
        (20240506, datetime(2024, 5, 6, tzinfo=UTC)),
        (20249999, datetime(1970, 8, 23, 8, 59, 59, tzinfo=UTC)),
        ("2024-05-06T10:00:00Z", datetime(2024, 5, 6, 10, tzinfo=UTC)),
        ("2024-05-06T10:00:00+02:00", datetime(2024, 5, 6, 8, tzinfo=UTC)),
        (1_700_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("1700000000", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (1_700_000_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (date(2024, 1, 2), datetime(2024, 1, 2, tzinfo=UTC)),
        ("soon", None),
        ("20241399", None),
        ("0000", None),
        ("12", None),
        (True, None),
        (None, None),
        (float("nan"), None),
        (1e30, None),
    ],
)
def test_dates_are_read_as_people_write_them(value: object, expected: datetime | None) -> None:
    assert read_date(value) == expected


@pytest.mark.parametrize(
    ("boosts", "path", "said"),
    [
        ({}, "boosts", "expected name -> field, weight"),
        ({"b": {"field": "x"}}, "boosts.b", "found none of them; expected exactly one of: recency, values, number"),
        ({"b": {**FRESH, "values": {"a": 1}}}, "boosts.b", "found recency and values"),
        ({"b": {**FRESH, "wieght": 1}}, "boosts.b.wieght", "Did you mean 'weight'?"),
        ({"b": {"values": {"a": 1}}}, "boosts.b.field", "found None; expected the name of a payload field"),
        ({"b": {**FRESH, "weight": "x"}}, "boosts.b.weight", "found 'x'; expected a number"),
        ({"b": {"field": "x", "recency": {}}}, "boosts.b.recency.half_life_days", "missing; expected a number above 0"),
        ({"b": {"field": "x", "recency": {"half_life_days": -1}}}, "boosts.b.recency.half_life_days", "found -1"),
        (
            {"b": {"field": "x", "recency": {"half_life_days": 1, "decay": "log"}}},
            "boosts.b.recency.decay",
            "choices: exp, gauss, linear",
        ),
        ({"b": {"field": "x", "values": {}}}, "boosts.b.values", "expected a mapping such as {handbook: 1"),
        ({"b": {"field": "x", "values": {"a": True}}}, "boosts.b.values.a", "found True; expected a number"),
        ({"b": {"field": "x", "number": {"min": 5, "max": 5}}}, "boosts.b.number.max", "expected a number above 5"),
        ({"b": {"field": "x", "number": {"min": -1, "max": 5, "log": True}}}, "boosts.b.number.min", "a number from 0"),
    ],
)
def test_a_wrong_boost_is_refused(boosts: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        BoostRerank(boosts)
    assert caught.value.path == path


def test_a_now_that_is_no_date_is_refused() -> None:
    with pytest.raises(ConfigError, match="found 'soon'; expected a date such as 2026-11-01"):
        BoostRerank({"fresh": FRESH}, now="soon")


def test_results_are_those_of_the_day_that_ages_are_counted_from(monkeypatch: pytest.MonkeyPatch) -> None:
    boosts = {"fresh": {"field": "date", "weight": 0.2, "recency": {"half_life_days": 10}}}
    fixed, today = BoostRerank(boosts, now="2026-11-01"), BoostRerank(boosts)
    assert fixed.depends_on.startswith("2026-11-01")
    before = today.depends_on
    monkeypatch.setattr("orchestrator.plugins.rerank.boost._today", lambda: datetime(2031, 5, 6, tzinfo=UTC))
    assert today.depends_on.startswith("2031-05-06")
    assert today.depends_on != before
    assert fixed.depends_on.startswith("2026-11-01")
