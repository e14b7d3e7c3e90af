"""A row of the cost model from times: what made the times is found again, whatever noise lies on them."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.costs.cost import Load
from orchestrator.costs.fit import Point, fit

RNG = np.random.default_rng(0)
TRUE = {"fixed_ms": 4.0, "ms_per_document": 0.5, "ms_per_token": 0.2}


def points(noise: float = 0.0, wild: int = 0) -> list[Point]:
    found = []
    for place in range(60):
        documents = int(RNG.choice([1, 4, 12, 30]))
        tokens = documents * int(RNG.integers(16, 400))
        ms = TRUE["fixed_ms"] + TRUE["ms_per_document"] * documents + TRUE["ms_per_token"] * tokens
        factor = 1 + noise * RNG.standard_normal()
        found.append(Point(Load(documents, tokens, 10), ms * (20 if place < wild else factor)))
    return found


def test_exact_times_give_back_what_made_them() -> None:
    row = fit("cross_encoder", "m", points(), "a test")
    assert {name: getattr(row, name) for name in TRUE} == pytest.approx(TRUE, rel=1e-3)
    assert (row.kind, row.model, row.source) == ("cross_encoder", "m", "a test")
    assert row.error == pytest.approx(0, abs=1e-3)
    assert row.p95_factor == pytest.approx(1, abs=1e-3)


def test_wild_times_hardly_move_the_line() -> None:
    row = fit("cross_encoder", "m", points(noise=0.02, wild=6), "a test")
    load = Load(10, 1500, 10)
    expected = TRUE["fixed_ms"] + 10 * TRUE["ms_per_document"] + 1500 * TRUE["ms_per_token"]
    assert row.ms(load) == pytest.approx(expected, rel=0.03)


def test_noise_shows_as_spread_and_error() -> None:
    row = fit("cross_encoder", "m", points(noise=0.1), "a test")
    assert row.error == pytest.approx(0.1 * 0.6745, abs=0.04), "half of normal noise lies within .6745 of its deviation"
    assert row.p95_factor == pytest.approx(1 + 1.645 * 0.1, abs=0.08)


def test_no_coefficient_is_negative() -> None:
    falling = [Point(Load(n, 0, 0), 10 - n / 100) for n in (1, 10, 100, 200, 300)]
    row = fit("fusion", None, falling, "a test")
    assert row.fixed_ms >= 0
    assert row.ms_per_document == 0


@pytest.mark.parametrize(
    ("kind", "load", "name"),
    [
        ("bm25", Load(documents=1000, results=7), "ms_per_result"),
        ("late_interaction", Load(documents=3, tokens=300, query_tokens=9), "ms_per_query_token"),
    ],
)
def test_each_kind_is_fitted_by_what_its_time_depends_on(kind: str, load: Load, name: str) -> None:
    key = name.removeprefix("ms_per_")
    loads = [load] + [
        Load(**{**{f: getattr(load, f) for f in Load.__slots__}, f"{key}s": n}) for n in (20, 40, 80, 160)
    ]
    row = fit(kind, None, [Point(one, 1 + 0.25 * getattr(one, f"{key}s")) for one in loads], "a test")
    assert getattr(row, name) == pytest.approx(0.25, rel=0.05)
