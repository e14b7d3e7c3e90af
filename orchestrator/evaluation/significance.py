"""Is a difference between two systems on the same queries more than chance? Paired tests, intervals, many at once.

Sources: Smucker, Allan, Carterette, "A comparison of statistical significance tests for information retrieval
evaluation", CIKM 2007 (the paired t-test and the randomization test agree, and are the ones to use); Holm, "A simple
sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979; Sakai, "Evaluating
evaluation metrics based on the bootstrap", SIGIR 2006 (queries are what is drawn again).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orchestrator.evaluation.differences import TIE, tally

RESAMPLES = 9_999
SEED = 7
"""Of every drawing where nobody says another: then `evaluate` and `report` give a pair the same p."""
ALPHA = 0.05
_DRAWN_AT_ONCE = 4_000_000
"""Numbers."""
_ROUNDING = 1e-12

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
    seed: int = SEED,
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
    ordered = sorted(values)  # what is drawn at random does not depend on the order of the questions
    own = np.array([values[query_id] for query_id in ordered])
    found = []
    for name, theirs in others.items():
        if theirs.keys() != values.keys() or not values:
            raise ValueError(f"'{name}' has {len(theirs)} queries, the system judged {len(values)}; expected the same")
        found.append(Pair(name, own, np.array([theirs[query_id] for query_id in ordered])))
    return compare_pairs(found, resamples=resamples, seed=seed)


def compare_pairs(pairs: Sequence[Pair], *, resamples: int = RESAMPLES, seed: int = SEED) -> list[Comparison]:
    """One Comparison for each of `pairs`, in their order; the p-values are corrected over all of them.

    Args:
        pairs: all over the same queries, one or more.
        resamples: of the randomization test and of the intervals.
        seed: of the same.
    """
    if not pairs:
        return []
    differences = np.stack([pair.own - pair.theirs for pair in pairs], axis=1)
    drawn = randomization(differences, resamples=resamples, seed=seed).tolist()
    intervals = bootstrap(differences, resamples=resamples, seed=seed).tolist()
    return [
        _comparison(pair, p, corrected, (low, high))
        for pair, p, corrected, (low, high) in zip(pairs, drawn, holm(drawn), intervals, strict=True)
    ]


def _comparison(pair: Pair, p_randomization: float, p_holm: float, interval: tuple[float, float]) -> Comparison:
    differences = pair.own - pair.theirs
    return Comparison(
        pair.other,
        float(pair.own.mean()),
        float(pair.theirs.mean()),
        *tally(differences),
        paired_t(differences),
        p_randomization,
        p_holm,
        interval,
    )


def bootstrap(values: Values, *, resamples: int = RESAMPLES, seed: int = SEED) -> Values:
    """float64 [n_columns, 2]: the 95 % percentile interval of each column's mean when queries are drawn again.

    One drawing serves all columns, so that intervals made together are of the same samples of queries.

    Args:
        values: float64 [n_queries, n_columns], one query or more.
        resamples: how many samples of n_queries queries are drawn.
        seed: of the drawing.
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
    ends = np.quantile(np.concatenate(means), [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    return np.asarray(ends.T, dtype=np.float64)


def paired_t(differences: Values) -> float:
    """Two-sided p of Student's t-test that the mean of `differences` [n] is 0; 1 when all of them are 0 or n < 2."""
    from scipy import stats

    if len(differences) < 2 or not np.any(np.abs(differences) > TIE):
        return 1.0
    if np.ptp(differences) <= TIE:  # the same on every query: no variance, and no chance either
        return 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def paired_randomization(differences: Values, *, seed: int = SEED) -> float:
    """`randomization` of one pair: the p of `differences`, float64 [n]."""
    return float(randomization(differences[:, np.newaxis], seed=seed)[0])


def randomization(differences: Values, *, resamples: int = RESAMPLES, seed: int = SEED) -> Values:
    """Two-sided p of each column that a mean as far from 0 comes from swapping the systems query by query at random.

    Twice the smaller one-sided p. Exact where `resamples` cover all 2^n assignments; otherwise each side is
    (hits + 1) / (resamples + 1), so never 0. All columns are tested under the same assignments, so that the p of a pair
    does not depend on what is tested beside it. (One by one through scipy a column takes .2 s for 150 queries.)

    Args:
        differences: float64 [n_queries, n_columns].
        resamples: how many assignments are drawn.
        seed: of the drawing.

    Returns:
        float64 [n_columns]; 1 for a column without differences.
    """
    n_queries, n_columns = differences.shape
    is_exact = 2**n_queries <= resamples
    own, slack = differences.sum(axis=0), _ROUNDING * np.abs(differences).sum(axis=0)
    above, below = np.zeros(n_columns), np.zeros(n_columns)
    for signs in _all_signs(n_queries) if is_exact else _drawn_signs(n_queries, resamples, seed):
        sums = signs @ differences
        above += (sums >= own - slack).sum(axis=0)
        below += (sums <= own + slack).sum(axis=0)
    hits = np.minimum(above, below)
    p = 2 * hits / 2**n_queries if is_exact else 2 * (hits + 1) / (resamples + 1)
    return np.where(np.abs(differences).max(axis=0, initial=0.0) > TIE, np.minimum(p, 1.0), 1.0)


def _all_signs(n_queries: int) -> Iterator[Values]:
    """Every assignment at once: float64 [2^n_queries, n_queries] of +1 and -1."""
    bits = np.arange(2**n_queries)[:, np.newaxis] >> np.arange(n_queries) & 1
    yield (1 - 2 * bits).astype(np.float64)


def _drawn_signs(n_queries: int, resamples: int, seed: int) -> Iterator[Values]:
    """`resamples` assignments, some at a time: float64 [size, n_queries] of +1 and -1."""
    rng, size = np.random.default_rng(seed), max(_DRAWN_AT_ONCE // n_queries, 1)
    for start in range(0, resamples, size):
        drawn = rng.integers(0, 2, (min(size, resamples - start), n_queries), dtype=np.int8)
        yield (drawn * 2 - 1).astype(np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected so that one false alarm among all of them stays as rare as alpha says; order kept."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(order))
    highest = 0.0
    for place, row in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p_values[row]))
        corrected[row] = highest
    return [float(p) for p in corrected]
