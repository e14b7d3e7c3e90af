"""What a stack is expected to be worth: a difference in nDCG@10 to a common reference, and how sure that is. Pure.

Published figures are what is expected of a collection that nobody has measured; the user's own results on the same
questions correct that, the more the more questions there are.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_NORMAL = statistics.NormalDist()
_Z_95 = _NORMAL.inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A difference in nDCG@10: its mean, and its standard deviation as far as it is known."""

    mean: float
    sd: float

    def __add__(self, other: Estimate) -> Estimate:
        """Both, one after the other, as an indirect comparison adds them: means add up, and so do variances.

        Bucher, Guyatt, Griffith, Walter, "The results of direct and indirect treatment comparisons", Journal of
        Clinical Epidemiology 50, 1997: A over C is A over B, from one table, and B over C, from another.
        """
        return Estimate(self.mean + other.mean, math.hypot(self.sd, other.sd))

    def scaled(self, share: float) -> Estimate:
        """So much of it."""
        return Estimate(self.mean * share, abs(self.sd * share))


NO_DIFFERENCE = Estimate(0.0, 0.0)


def of_another_collection(mean: float, sd: float, sets: int) -> Estimate:
    """What `mean` over `sets` collections, which vary by `sd`, says about one that is none of them.

    The variance is that between collections, and that of their mean: sd^2 (1 + 1/sets). Higgins, Thompson,
    Spiegelhalter, "A re-evaluation of random-effects meta-analysis", JRSS A 172, 2009, section 4: the predictive
    distribution, taken as normal.
    """
    return Estimate(mean, sd * math.sqrt(1 + 1 / sets))


@dataclass(frozen=True)
class DepthCurve:
    """How much of a rerank's gain is there when it reads so many candidates.

    Attributes:
        shares: depth -> share of the gain at the deepest; between them, and from nothing at depth 0, on straight lines.
    """

    shares: Mapping[int, float]

    def share(self, depth: int) -> float:
        """Of the gain; beyond the deepest, all that is there."""
        below_depth, below = 0, 0.0
        for known, share in sorted(self.shares.items()):
            if depth <= known:
                return below + (share - below) * (depth - below_depth) / (known - below_depth)
            below_depth, below = known, share
        return below

    def part(self, depth: int, measured: int) -> float:
        """Of a gain that was measured at depth `measured`, what is expected at `depth`; never more than all of it."""
        whole = self.share(measured)
        return min(self.share(depth) / whole, 1.0) if whole > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Paired:
    """One system beside another on the same questions.

    Attributes:
        n: how many questions.
        mean: of the differences.
        se: standard error of that mean.
    """

    n: int
    mean: float
    se: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, by the normal distribution."""
        return self.mean - _Z_95 * self.se, self.mean + _Z_95 * self.se

    @property
    def p(self) -> float:
        """Two-sided, of no difference."""
        if self.se == 0:
            return 1.0 if self.mean == 0 else 0.0
        return 2 * (1 - _NORMAL.cdf(abs(self.mean) / self.se))

    @property
    def is_loss(self) -> bool:
        """Whether all of the interval is below 0."""
        return self.interval[1] < 0


@dataclass(frozen=True, slots=True)
class Spread:
    """How much one question's difference varies, before any was seen.

    Attributes:
        sd: of one question's difference.
        weight: how many questions that counts as.
    """

    sd: float
    weight: float


def paired(differences: Sequence[float], spread: Spread) -> Paired:
    """The mean difference, with a standard error that few questions, or equal ones, do not make too small.

    The variance is s^2 = (d0 s0^2 + (n - 1) s_n^2) / (d0 + n - 1). Smyth, "Linear models and empirical Bayes methods",
    Statistical Applications in Genetics and Molecular Biology 3, 2004, equation of the moderated variance.

    Args:
        differences: one a question; at least one.
        spread: s0 and d0 above.
    """
    n = len(differences)
    seen = statistics.variance(differences) if n > 1 else 0.0
    variance = (spread.weight * spread.sd**2 + (n - 1) * seen) / (spread.weight + n - 1)
    return Paired(n, statistics.fmean(differences), math.sqrt(variance / n))


def posterior(prior: Estimate, own: Estimate) -> Estimate:
    """What is expected once one's own measurement is known: both, weighted by how sure each is.

    mean = (m0 / s0^2 + m1 / s1^2) / (1 / s0^2 + 1 / s1^2), variance = 1 / (1 / s0^2 + 1 / s1^2): Gelman and others,
    "Bayesian Data Analysis", third edition, 2013, equations 2.11 and 2.12.
    """
    if prior.sd == 0 or own.sd == 0:
        return prior if prior.sd == 0 else own
    weights = 1 / prior.sd**2, 1 / own.sd**2
    return Estimate((prior.mean * weights[0] + own.mean * weights[1]) / sum(weights), 1 / math.sqrt(sum(weights)))
