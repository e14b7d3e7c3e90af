"""Is a difference between two systems on the same queries more than chance? Paired tests, and many comparisons at once.

Sources: Smucker, Allan, Carterette, "A comparison of statistical significance tests for information retrieval
evaluation", CIKM 2007 (the paired t-test and the randomization test agree, and are the ones to use); Holm, "A simple
sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 9_999
ALPHA = 0.05
_TIE = 1e-9

Values = npt.NDArray[np.float64]


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
        resamples: of the randomization test.
        seed: of the same.

    Raises:
        ValueError: a system has other queries, or there are none.
    """
    own = np.array([values[query_id] for query_id in values])
    found = []
    for name, theirs in others.items():
        if theirs.keys() != values.keys() or not values:
            raise ValueError(f"'{name}' has {len(theirs)} queries, the system judged {len(values)}; expected the same")
        found.append((name, np.array([theirs[query_id] for query_id in values])))
    drawn = [paired_randomization(own - other, resamples=resamples, seed=seed) for _, other in found]
    return [
        _comparison(name, own, other, p, corrected)
        for (name, other), p, corrected in zip(found, drawn, holm(drawn), strict=True)
    ]


def _comparison(name: str, own: Values, other: Values, p_randomization: float, p_holm: float) -> Comparison:
    differences = own - other
    wins, losses = int((differences > _TIE).sum()), int((differences < -_TIE).sum())
    return Comparison(
        name,
        float(own.mean()),
        float(other.mean()),
        wins,
        len(own) - wins - losses,
        losses,
        paired_t(differences),
        p_randomization,
        p_holm,
    )


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
