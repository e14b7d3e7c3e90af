"""Two systems query by query: how many queries were won, tied and lost, and which changed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

TIE = 1e-9
"""Values that are nearer to each other than this are the same."""


class Tally(NamedTuple):
    """How many queries one system won, tied and lost beside another."""

    wins: int
    ties: int
    losses: int


def tally(differences: Sequence[float] | npt.NDArray[np.float64]) -> Tally:
    """The tally of `differences`, one a query, above 0 where the system that is judged is better."""
    values = np.asarray(differences, dtype=np.float64)
    wins, losses = int((values > TIE).sum()), int((values < -TIE).sum())
    return Tally(wins, len(values) - wins - losses, losses)


def most_changed(differences: Mapping[str, float], n: int) -> tuple[list[str], list[str]]:
    """Ids of the `n` queries that gained most and of the `n` that lost most, the most first; of equal ones by id."""
    ordered = sorted(differences, key=lambda query_id: (-abs(differences[query_id]), query_id))
    gained = [query_id for query_id in ordered if differences[query_id] > TIE]
    lost = [query_id for query_id in ordered if differences[query_id] < -TIE]
    return gained[:n], lost[:n]
