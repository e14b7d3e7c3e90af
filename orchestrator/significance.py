"""Is a difference between two systems on the same queries more than chance? Paired tests, intervals, many at once.

Sources: Smucker, Allan, Carterette, "A comparison of statistical significance tests for information retrieval
evaluation", CIKM 2007 (the paired t-test and the randomization test agree, and are the ones to use); Holm, "A simple
sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979; Sakai, "Evaluating
evaluation metrics based on the bootstrap", SIGIR 2006 (queries are what is drawn again).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 9_999
ALPHA = 0.05
_TIE = 1e-9
_DRAWN_AT_ONCE = 4_000_000

Values = npt.NDArray[np.float64]


class Pair(NamedTuple):
    """One system beside another: float64 [n_queries] each, in the same order of queries."""

    other: str
    own: Values
    theirs: Values


@dataclass(frozen=True, slots=True)
class Comparison:
    """One system beside another on the same queries.

    Attributes:
        other: the system compared with.
        mean: of the system that is judged.
        other_mean: of the other.
        wins: queries on which the judged system is better; `ties`, `losses` likewise.
        p_t: two-sided p of the paired t-test.
        p_randomization: two-sided p of the paired randomization test.
        p_holm: `p_randomization`, corrected for the number of comparisons made together.
        interval: 95 % bootstrap interval of the difference.
    """

    other: str
    mean: float
    other_mean: float
    wins: int
    ties: int
    losses: int
    p_t: float
    p_randomization: float
    p_holm: float
    interval: tuple[float, float] = (float("nan"), float("nan"))

    @property
    def difference(self) -> float:
        """Above 0 when the judged system is better."""
        return self.mean - self.other_mean

    @property
    def is_better(self) -> bool:
        """Whether the judged system is better, and the corrected p below 0.05."""
        return self.difference > 0 and self.p_holm < ALPHA

    @property
    def is_worse(self) -> bool:
        """Whether the judged system is worse, and the corrected p below 0.05."""
        return self.difference < 0 and self.p_holm < ALPHA


def compare(
    values: Mapping[str, float],
    others: Mapping[str, Mapping[str, float]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Comparison]:
    """One Comparison for each of `others`, in their order.

    Args:
        values: query id -> measure of the system that is judged.
        others: system -> query id -> measure, over the same queries.
        resamples: of the randomization test and of the intervals.
        seed: of the same.

    Raises:
        ValueError: a system has other queries, or there are none.
    """
    own = np.array([values[query_id] for query_id in values])
    found = []
    for name, theirs in others.items():
        if theirs.keys() != values.keys() or not values:
            raise ValueError(f"'{name}' has {len(theirs)} queries, the system judged {len(values)}; expected the same")
        found.append(Pair(name, own, np.array([theirs[query_id] for query_id in values])))
    return compare_pairs(found, resamples=resamples, seed=seed)


def compare_pairs(pairs: Sequence[Pair], *, resamples: int = RESAMPLES, seed: int = 0) -> list[Comparison]:
    """One Comparison for each of `pairs`, in their order; the p-values are corrected over all of them.

    Args:
        pairs: all over the same queries, one or more.
        resamples: of the randomization test and of the intervals.
        seed: of the same.
    """
    if not pairs:
        return []
    differences = [pair.own - pair.theirs for pair in pairs]
    drawn = [paired_randomization(values, resamples=resamples, seed=seed) for values in differences]
    intervals = bootstrap(np.stack(differences, axis=1), resamples=resamples, seed=seed)
    return [
        _comparison(pair, p, corrected, (float(low), float(high)))
        for pair, p, corrected, (low, high) in zip(pairs, drawn, holm(drawn), intervals, strict=True)
    ]


def _comparison(pair: Pair, p_randomization: float, p_holm: float, interval: tuple[float, float]) -> Comparison:
    differences = pair.own - pair.theirs
    wins, losses = int((differences > _TIE).sum()), int((differences < -_TIE).sum())
    return Comparison(
        pair.other,
        float(pair.own.mean()),
        float(pair.theirs.mean()),
        wins,
        len(pair.own) - wins - losses,
        losses,
        paired_t(differences),
        p_randomization,
        p_holm,
        interval,
    )


def bootstrap(values: Values, *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = 0.95) -> Values:
    """float64 [n_columns, 2]: the percentile interval of each column's mean when queries are drawn again.

    One drawing serves all columns, so that intervals made together are of the same samples of queries.

    Args:
        values: float64 [n_queries, n_columns], one query or more.
        resamples: how many samples of n_queries queries are drawn.
        seed: of the drawing.
        confidence: share of the samples' means inside the interval.
    """
    n = len(values)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, max(1, _DRAWN_AT_ONCE // n)):
        rows = min(max(1, _DRAWN_AT_ONCE // n), resamples - start)
        drawn = rng.integers(0, n, size=(rows, n)) + np.arange(rows)[:, None] * n
        # How often each query was drawn: a product with that is much less work than gathering the values.
        times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        means.append(times @ values / n)
    ends = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return np.asarray(ends.T, dtype=np.float64)


def paired_t(differences: Values) -> float:
    """Two-sided p of Student's t-test that the mean of `differences` [n] is 0; 1 when all of them are 0 or n < 2."""
    from scipy import stats

    if len(differences) < 2 or not np.any(np.abs(differences) > _TIE):
        return 1.0
    if np.ptp(differences) <= _TIE:  # the same on every query: no variance, and no chance either
        return 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def paired_randomization(differences: Values, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p that a mean as far from 0 comes from swapping the two systems query by query at random.

    Twice the smaller one-sided p. Exact where `resamples` cover all 2^n assignments; otherwise each side is
    (hits + 1) / (resamples + 1), so never 0.

    Args:
        differences: float64 [n], one a query.
        resamples: how many assignments are drawn.
        seed: of the drawing.
    """
    from scipy import stats

    if not np.any(np.abs(differences) > _TIE):
        return 1.0
    if len(differences) < 2:  # either sign is as likely
        return 1.0

    def mean(values: Values, axis: int = -1) -> Values:
        return np.asarray(np.mean(values, axis=axis))

    found = stats.permutation_test(
        (differences,),
        mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // len(differences)),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected so that one false alarm among all of them stays as rare as alpha says; order kept."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(order))
    highest = 0.0
    for place, row in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p_values[row]))
        corrected[row] = highest
    return [float(p) for p in corrected]
