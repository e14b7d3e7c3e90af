"""How much a calibration measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.costs.timing import LENGTHS


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        seconds: how long each thing is timed, about.
        sample: words that choose the corpus that all kinds of stages are timed on.
        made_up: sizes of the made-up corpora that searches are timed on.
        texts: that the embedder reads in each of the ways that it is tried.
        lengths: tokens of the documents that models are timed with.
    """

    seconds: float = 3.0
    sample: Sequence[str] = ("corpus=sample",)
    made_up: Sequence[int] = (2_000, 20_000)
    texts: int = 32
    lengths: Sequence[int] = LENGTHS


USUAL = Scale()
