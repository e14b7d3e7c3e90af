"""Weighted sum of normalised scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Self

import numpy as np

from orchestrator.checks import check_choice
from orchestrator.errors import ConfigError
from orchestrator.stage import Knob
from orchestrator.types import Call, Query, RankedList, Scored, ScoreKind

from ..normalisation import NORMALISE, normalised
from .weights import adjusted_weights, check_names, input_weights, weight_knobs


class WeightedFusion:
    """Sum over the inputs of `weight * normalised score`; a document that a list lacks gets that list's floor.

    The list's own scores are brought to one scale first, s being a score of the list, n its length:

    | normalise    | normalised score                                              | floor |
    |--------------|---------------------------------------------------------------|-------|
    | min_max      | (s - min) / (max - min), in [0, 1]                            | 0     |
    | z_score      | (s - mean) / std, population std; ranx calls it zmuv          | -3    |
    | rank         | 1 - (rank - 1) / n, in (0, 1]; equal scores share their ranks | 0     |
    | distribution | (s - (mean - 3 std)) / (6 std), sample std                    | 0     |
    | none         | s; only where all inputs have one kind of score               | 0     |

    Where a list reaches below its floor, its lowest score is the floor: lacking a document never counts for more than
    having it last. Mind `none` with negative scores, for that reason.

    A list whose scores are all equal, a single document above all, says that something was found and not how good it
    is: min-max would make it 0, as if it were absent, and ranks would make it 1. It gets the middle of the scale, 0.5
    (0 for z_score), as Qdrant's fusion does. `none` leaves it alone.

    A list whose stage did not run for a question, or not for all its documents, counts by the order that it came in:
    `normalisation.py` says how. Where `none` meets lists of different kinds for that reason, all of them count by
    `rank`, as there is no scale that their scores share, and the call notes it.

    Sources: min_max, zmuv and rank as in ranx (Bassani, Romelli, CIKM 2022), where a missing document counts 0 and
    equal scores keep their ranks; distribution is distribution-based score fusion (Mazzeschi 2023), as in Qdrant,
    `score_fusion.rs`, where a missing document counts 0 as well. Weighted sum: Fox, Shaw, TREC-2, 1994 (CombSUM).

    Args:
        normalise: `min_max`, `z_score`, `rank`, `distribution` or `none`.
        weights: input stage name -> weight, 0 or more; 1 for those not named.

    Raises:
        ConfigError: an unknown normalisation, or a weight that is negative.
    """

    score_kind: ScoreKind = "weighted"
    cost_kind = "fusion"

    def __init__(self, normalise: str = "min_max", weights: Mapping[str, float] | None = None) -> None:
        check_choice("normalise", normalise, NORMALISE)
        self.normalise = normalise
        self._weights = input_weights(weights)

    def check_inputs(self, inputs: Sequence[str]) -> None:
        """Refuse weights for stages that are no inputs, and weights that leave nothing."""
        check_names(self._weights, inputs)
        if inputs and not any(self._weights.get(name, 1.0) for name in inputs):
            raise ConfigError("weights", f"all inputs weigh 0: {', '.join(inputs)}; expected one above 0")

    def check_score_kinds(self, kinds: Mapping[str, ScoreKind]) -> None:
        """Refuse to add up scores as they are when they are not of one kind.

        Raises:
            ConfigError: `normalise` is `none` and the kinds differ.
        """
        if self.normalise == "none" and len(set(kinds.values())) > 1:
            found = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
            choices = ", ".join(name for name in NORMALISE if name != "none")
            raise ConfigError("normalise", f"'none' cannot mix scores of different kinds: {found}; choices: {choices}")

    def knobs(self, inputs: Sequence[str]) -> Mapping[str, Knob]:
        """The weight of every input."""
        return weight_knobs(self._weights, inputs)

    def adjusted(self, values: Mapping[str, float]) -> Self:
        """One like this with other weights."""
        return type(self)(self.normalise, adjusted_weights(self._weights, values))

    def fuse(self, query: Query, lists: Mapping[str, RankedList], call: Call) -> Scored:
        """(doc_id, score) for every document of `lists`."""
        counted = {name: ranked for name, ranked in lists.items() if len(ranked) and self._weights.get(name, 1.0)}
        scale = self._scale(counted, call)
        place = {doc_id: row for row, doc_id in enumerate(dict.fromkeys(chain(*(r.doc_ids for r in lists.values()))))}
        totals = np.zeros(len(place))
        for name, ranked in counted.items():
            scores = normalised(ranked, scale)
            column = np.full(len(place), min(NORMALISE[scale][1], float(scores.min())))
            column[np.fromiter(map(place.__getitem__, ranked.doc_ids), dtype=np.intp, count=len(ranked))] = scores
            totals += self._weights.get(name, 1.0) * column
        return list(zip(place, totals.tolist(), strict=True))

    def _scale(self, lists: Mapping[str, RankedList], call: Call) -> str:
        """The normalisation; ranks where it is `none` and the lists came with scores of different kinds."""
        kinds = {name: ranked.kind_at(0) for name, ranked in lists.items()}
        if self.normalise != "none" or len(set(kinds.values())) < 2:
            return self.normalise
        found = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        call.note(f"lists weighed by rank, since their scores came in different kinds: {found}")
        return "rank"
