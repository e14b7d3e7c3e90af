"""What a grade of relevance is worth to a learner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.errors import ConfigError
from orchestrator.types import Example, Vectors

from .tokens import Floats

GAINS = ("linear", "exponential")
_MOST = 31
"""2^31 is as far as XGBoost's exponential gain goes; a float32 holds no more anyway."""


def check_grades(examples: Sequence[Example], gain: str) -> None:
    """Refuse grades that have no exponential gain.

    Raises:
        ConfigError: `gain` is `exponential`, and a grade is above 31 or no whole number.
    """
    grades = np.concatenate([example.grades for example in examples]) if examples else np.zeros(1)
    most = float(grades.max(initial=0.0))
    if gain == "exponential" and (most > _MOST or np.any(grades != np.floor(grades))):
        found = f"found exponential, and grades up to {most:g}"
        raise ConfigError("gain", f"{found}; expected whole grades of {_MOST} at most, or gain=linear")


def gains(grades: Vectors, gain: str) -> Floats:
    """float64 [n]: the grade itself (as trec_eval counts it in nDCG), or 2^grade - 1 (Burges et al., ICML 2005)."""
    values = grades.astype(np.float64)
    return np.exp2(values) - 1 if gain == "exponential" else values
