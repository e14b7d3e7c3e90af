"""The paired randomization test for many rows at once, all under the same assignments.

The p-values of a report are these, corrected for the rows of its table. Those that `evaluate` prints and keeps come
from `significance.compare`, pair by pair, corrected for the stages and baselines of the one run: of the same pair the
two differ a little by what was drawn, and by that correction.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orchestrator.significance import RESAMPLES, Values, paired_randomization

_BATCH = 4_000_000
"""Numbers drawn at a time."""
_ROUNDING = 1e-12


def randomization(differences: Values, *, resamples: int = RESAMPLES, seed: int = 0) -> Values:
    """Two-sided p of each column, float64 [n_rows]: `significance.paired_randomization`, all columns in one go.

    One by one through scipy a row takes .2 s for 150 queries, so that 64 jobs under four measures would wait a minute;
    together they take a second. Where all 2^n assignments can be enumerated, scipy does so.

    Args:
        differences: float64 [n_queries, n_rows].
        resamples: how many assignments are drawn.
        seed: of the drawing.
    """
    n_queries, n_rows = differences.shape
    if not n_rows or 2**n_queries <= resamples:
        found = [paired_randomization(column, resamples=resamples, seed=seed) for column in differences.T]
        return np.array(found, dtype=np.float64)
    own, slack = differences.sum(axis=0), _ROUNDING * np.abs(differences).sum(axis=0)
    above, below = np.zeros(n_rows), np.zeros(n_rows)
    drawn, rng = 0, np.random.default_rng(seed)
    while drawn < resamples:
        size = min(max(_BATCH // n_queries, 1), resamples - drawn)
        sums = _signs(rng, size, n_queries) @ differences
        above += (sums >= own - slack).sum(axis=0)
        below += (sums <= own + slack).sum(axis=0)
        drawn += size
    p = 2 * (np.minimum(above, below) + 1) / (resamples + 1)
    return np.minimum(p, 1.0)


def _signs(rng: np.random.Generator, size: int, n_queries: int) -> npt.NDArray[np.float64]:
    """+1 or -1 for each query of each assignment: float64 [size, n_queries]."""
    return (rng.integers(0, 2, (size, n_queries), dtype=np.int8) * 2 - 1).astype(np.float64)
