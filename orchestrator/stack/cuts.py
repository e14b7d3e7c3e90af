"""How many documents a stage passes on: its `top_k`, or fewer where the scores say so."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

from orchestrator.checks import check_choice, check_counts
from orchestrator.errors import ConfigError
from orchestrator.types import RankedList, ScoreKind, Scores

CutHow = Literal["fixed", "ratio", "gap", "threshold"]
NEVER_NEGATIVE: frozenset[ScoreKind] = frozenset({"bm25", "rrf", "probability", "graded"})
"""Kinds of scores with a zero that means nothing found, so that half of a score means something."""
_BELONGS = {"ratio": "ratio", "value": "threshold", "kind": "threshold"}


@dataclass(frozen=True, slots=True)
class Cut:
    """How many of a stage's documents are passed on: at least `min`, at most the stage's `top_k`.

    - `fixed`: `top_k`, whatever the scores are.
    - `ratio`: those that score at least `ratio` times the best score.
    - `gap`: those before the largest drop between neighbours; of equal ones the last, and all where nothing drops. As
      Weaviate's `autocut`, which looks for jumps too (docs.weaviate.io, additional operators), and counts them.
    - `threshold`: those that score at least `value`, a score of kind `kind`.

    Only rows that the stage itself scored are judged. Where it did not run, or another stage answered in its place, the
    first `top_k` are passed on, whatever their scores: the runner asks no cut there. Of a list that the stage scored in
    part, the rest only fills up to `min`.

    Attributes:
        how: one of the above.
        ratio: above 0, at most 1.
        value: the least score.
        kind: what `value` is; has to be what the stage scores.
        min: least documents.

    Raises:
        ConfigError: a value is missing, out of range, or belongs to another `how`; its path is below `cut`.
    """

    how: CutHow = "fixed"
    ratio: float | None = None
    value: float | None = None
    kind: ScoreKind | None = None
    min: int = 1

    def __post_init__(self) -> None:
        check_choice("how", self.how, get_args(CutHow))
        for key, how in _BELONGS.items():
            if getattr(self, key) is not None and self.how != how:
                raise ConfigError(key, f"found with how={self.how}; expected how={how}, or leave it out")
        check_counts(min=self.min)
        if self.how == "fixed" and self.min != 1:
            found = f"found {self.min} with how=fixed, which passes on top_k"
            raise ConfigError("min", f"{found}; choices: ratio, gap, threshold")
        if self.how == "ratio":
            _check_ratio(self.ratio)
        if self.how == "threshold":
            _check_value(self.value, self.kind)

    @property
    def settings(self) -> dict[str, object]:
        """What is set, by its key; empty for `fixed`."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {} if self.how == "fixed" else {key: value for key, value in found.items() if value is not None}

    def refuse_for(self, *kinds: ScoreKind) -> None:
        """Refuse a cut that means nothing on scores of these kinds.

        Args:
            kinds: what the stage scores; several where its model tells which of them, once it is loaded.

        Raises:
            ConfigError: the cut and the kind do not go together; the message names the choices.
        """
        given = " or ".join(kinds)
        if self.how != "fixed" and "rank" in kinds:
            found = f"found '{self.how}', but the stage gives ranks, whose distances mean nothing"
            raise ConfigError("how", f"{found}; expected fixed")
        if self.how == "ratio" and not NEVER_NEGATIVE.issuperset(kinds):
            found = f"found 'ratio', but the stage's scores are of kind {given}, which may be below 0"
            having = ", ".join(sorted(NEVER_NEGATIVE))
            raise ConfigError(
                "how", f"{found}. Kinds that a ratio means something on: {having}; choices: gap, threshold"
            )
        if self.how == "threshold" and self.kind not in kinds:
            found = f"found {self.kind}, but the stage's scores are of kind {given}"
            expected = f"expected kind={kinds[0]} and a value of that kind"
            raise ConfigError("kind", f"{found}, where {self.value:g} means something else; {expected}")

    def keep(self, ranked: RankedList, top_k: int, own_kind: ScoreKind | None = None) -> int:
        """How many of the first rows of `ranked` are passed on, `top_k` at most.

        Args:
            ranked: the stage's whole list, as the stage itself scored it.
            top_k: of the stage.
            own_kind: what the loaded stage scores; scores of another kind are not judged. None goes by what the cut
                itself asks of a kind.
        """
        most = min(len(ranked), top_k)
        if self.how == "fixed" or not ranked.n_scored or not self._judges(ranked.score_kind, own_kind):
            return most
        good = self._good(ranked.scores[: ranked.n_scored], top_k)
        return max(good, min(self.min, most))

    def _judges(self, kind: ScoreKind, own_kind: ScoreKind | None) -> bool:
        if own_kind is not None and kind != own_kind:
            return False
        if self.how == "threshold":
            return kind == self.kind
        return kind in NEVER_NEGATIVE if self.how == "ratio" else kind != "rank"

    def _good(self, scores: Scores, top_k: int) -> int:
        """How many of `top_k` are good enough; `scores` fall."""
        shown = scores[:top_k]
        if self.how == "gap":
            return _before_gap(scores, self.min, top_k)
        if self.how == "threshold":
            assert self.value is not None
            return int(np.count_nonzero(shown >= self.value))
        assert self.ratio is not None
        best = float(shown[0])
        # Below 0 in spite of its kind, as a stage of somebody's may be: then no share of it means anything.
        return int(np.count_nonzero(shown >= self.ratio * best)) if best > 0 else len(shown)


def _before_gap(scores: Scores, least: int, top_k: int) -> int:
    """How many rows stand before the largest drop of those after row `least` and not after row `top_k`."""
    most = min(len(scores), top_k)
    drops = -np.diff(scores[least - 1 : top_k + 1])  # drops[i] is the one after row least + i
    if not len(drops) or not drops.max() > 0:
        return most
    # 1e-9: of evenly spaced scores the last digits of their distances decide nothing.
    return least + int(np.flatnonzero(drops >= drops.max() * (1 - 1e-9))[-1])


def _check_ratio(ratio: float | None) -> None:
    if ratio is None:
        found = "missing; how=ratio passes on what scores at least so much of the best"
        raise ConfigError("ratio", f"{found}. Set it, for example 0.5")
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
        raise ConfigError("ratio", f"found {ratio!r}; expected a number above 0, 1 at most")


def _check_value(value: float | None, kind: str | None) -> None:
    if value is None:
        raise ConfigError("value", "missing; how=threshold passes on what scores at least so much. Set it")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError("value", f"found {value!r}; expected a number")
    if kind is None:
        kinds = ", ".join(kind for kind in get_args(ScoreKind) if kind != "rank")
        raise ConfigError("kind", f"missing; {value:g} means another thing for each kind of score. Choices: {kinds}")
    check_choice("kind", kind, get_args(ScoreKind))


TOP_K = Cut()
"""The first `top_k`, whatever their scores."""
