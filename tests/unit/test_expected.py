"""Arithmetic of expectations, beside formulas written out and numbers of independent implementations."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.deciding.expected import (
    DepthCurve,
    Estimate,
    Paired,
    Spread,
    of_another_collection,
    paired,
    posterior,
)

SPREAD = Spread(0.2, 10)
reals = st.floats(-1, 1)
sds = st.floats(0.001, 1)


def test_differences_along_a_chain_of_tables_add_up_and_so_do_their_variances() -> None:
    total = Estimate(0.05, 0.03) + Estimate(-0.01, 0.04)
    assert (total.mean, total.sd) == pytest.approx((0.05 - 0.01, math.sqrt(0.03**2 + 0.04**2)))


def test_another_collection_varies_as_the_others_do_and_by_what_their_mean_is_not_sure_of() -> None:
    found = of_another_collection(0.0381, 0.0315, 11)
    assert found.sd**2 == pytest.approx(0.0315**2 + 0.0315**2 / 11)


@given(reals, sds, reals, sds)
def test_the_posterior_is_where_the_product_of_both_densities_is_highest(
    prior: float, prior_sd: float, own: float, own_sd: float
) -> None:
    found = posterior(Estimate(prior, prior_sd), Estimate(own, own_sd))
    # Independent: the mode and the curvature of the log of the product of two normal densities.
    slope = (prior - found.mean) / prior_sd**2 + (own - found.mean) / own_sd**2
    assert slope == pytest.approx(0, abs=1e-6 / min(prior_sd, own_sd) ** 2)
    assert found.sd**-2 == pytest.approx(prior_sd**-2 + own_sd**-2)
    assert min(prior, own) - 1e-9 <= found.mean <= max(prior, own) + 1e-9
    assert found.sd < min(prior_sd, own_sd)


def test_what_is_certain_is_not_corrected() -> None:
    assert posterior(Estimate(0.0, 0.0), Estimate(0.4, 0.01)) == Estimate(0.0, 0.0)


def test_the_posterior_follows_a_sample_of_a_known_world() -> None:
    # A world in which collections differ as the prior says: the posterior is right on average, and as sure as it says.
    random = np.random.default_rng(3)
    truth = random.normal(0.04, 0.03, 4000)
    measured = truth + random.normal(0, 0.02, 4000)
    found = [posterior(Estimate(0.04, 0.03), Estimate(float(value), 0.02)) for value in measured]
    errors = np.array([one.mean for one in found]) - truth
    assert errors.mean() == pytest.approx(0, abs=0.001)
    assert errors.std() == pytest.approx(found[0].sd, rel=0.05)


def test_many_differences_have_the_standard_error_of_their_mean() -> None:
    differences = np.random.default_rng(5).normal(0.03, 0.2, 5000)
    found = paired(differences.tolist(), SPREAD)
    assert (found.n, found.mean) == (5000, pytest.approx(differences.mean()))
    assert found.se == pytest.approx(differences.std(ddof=1) / math.sqrt(5000), rel=0.01)


@pytest.mark.parametrize("differences", [[0.1], [0.1, 0.1, 0.1], [0.0] * 12, [0.3, -0.1]])
def test_few_or_equal_differences_are_not_taken_for_certainty(differences: list[float]) -> None:
    n = len(differences)
    seen = sum((value - sum(differences) / n) ** 2 for value in differences)
    assert paired(differences, SPREAD).se == pytest.approx(math.sqrt((10 * 0.2**2 + seen) / (10 + n - 1) / n))


def test_an_interval_and_a_p_that_belong_together() -> None:
    found = Paired(60, -0.021, 0.0097)
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(-0.021)
    assert high - low == pytest.approx(2 * 1.959964 * 0.0097, rel=1e-6)
    assert found.p == pytest.approx(math.erfc(0.021 / 0.0097 / math.sqrt(2)))
    assert found.is_loss
    assert found.p < 0.05
    edge = Paired(60, -1.959964 * 0.01, 0.01)
    assert edge.p == pytest.approx(0.05, abs=1e-6)
    assert not Paired(60, 0.021, 0.0097).is_loss
    assert (Paired(9, 0.0, 0.0).p, Paired(9, 0.1, 0.0).p) == (1.0, 0.0)


CURVE = DepthCurve({50: 0.9, 10: 0.5, 100: 1.0})


@pytest.mark.parametrize(
    ("depth", "share"),
    [(0, 0.0), (5, 0.25), (10, 0.5), (30, 0.7), (50, 0.9), (75, 0.95), (100, 1.0), (1000, 1.0)],
)
def test_shares_lie_on_straight_lines_between_what_is_known(depth: int, share: float) -> None:
    assert CURVE.share(depth) == pytest.approx(share)
    assert CURVE.share(depth) == pytest.approx(np.interp(depth, [0, 10, 50, 100], [0, 0.5, 0.9, 1.0]))


def test_a_part_of_what_was_measured_at_another_depth_is_never_more_than_all_of_it() -> None:
    assert CURVE.part(10, 50) == pytest.approx(0.5 / 0.9)
    assert CURVE.part(100, 50) == 1.0
    assert DepthCurve({}).part(10, 50) == 1.0


def test_half_a_gain_is_half_as_unsure() -> None:
    assert Estimate(-0.04, 0.02).scaled(0.5) == Estimate(-0.02, 0.01)


def test_paired_is_what_the_standard_library_says_of_mean_and_variance() -> None:
    differences = [0.1, 0.0, 0.4, -0.2]
    found = paired(differences, Spread(0.0, 0.0))
    assert found.mean == statistics.fmean(differences)
    assert found.se == pytest.approx(statistics.stdev(differences) / 2)
