"""The two kinds of learned model behind one door: trees (LambdaMART) and a weighted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from orchestrator.checks import check_choice
from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.stage import Fitted, Json, Progress
from orchestrator.types import Example, Scores, Vectors

from .boosting import LambdaMart, require_xgboost
from .gains import GAINS
from .linear import MODEL, LinearRanker
from .monotone import directions
from .parameters import Parameters
from .tokens import Floats

_FOR_BOTH = frozenset({"seed", "gain"})
_TREES_ONLY = frozenset(Parameters.__dataclass_fields__) - _FOR_BOTH
_LINEAR_ONLY = frozenset({"l2"})


class Ranker(Protocol):
    """Scores the candidates of one query."""

    @property
    def digest(self) -> str:
        """Changes when any score would."""

    def predict(self, features: Vectors) -> Scores:
        """float64 [n], higher better, from the features of one query's candidates."""

    def contributions(self, features: Vectors) -> Floats:
        """float64 [n, n_features + 1]: what each feature adds to each score of one query's candidates; last the start.

        A row sums to its score.
        """

    def write(self, directory: Path) -> None:
        """Keep it in `directory`."""


class Learner(Protocol):
    """Makes a Ranker."""

    def check(self, options: Mapping[str, Json], names: Sequence[str] = ()) -> None:
        """Refuse options that are wrong.

        Args:
            options: of the training.
            names: of the features, where they are known.

        Raises:
            ConfigError: an option has no such name or a wrong value.
        """

    def fit(
        self,
        train: Sequence[Example],
        validation: Sequence[Example],
        names: Sequence[str],
        options: Mapping[str, Json],
        progress: Progress,
    ) -> tuple[Ranker, Fitted]:
        """The ranker that orders `train` best, and how the training went."""


class _Trees:
    def check(self, options: Mapping[str, Json], names: Sequence[str] = ()) -> None:
        require_xgboost()
        parameters = Parameters.of(_without(options, _LINEAR_ONLY))
        if names:
            directions(names, parameters.monotone)

    def fit(
        self,
        train: Sequence[Example],
        validation: Sequence[Example],
        names: Sequence[str],
        options: Mapping[str, Json],
        progress: Progress,
    ) -> tuple[Ranker, Fitted]:
        return LambdaMart.fit(train, validation, names, Parameters.of(_without(options, _LINEAR_ONLY)), progress)


class _Sum:
    def check(self, options: Mapping[str, Json], names: Sequence[str] = ()) -> None:
        for name in _without(options, _TREES_ONLY | _LINEAR_ONLY | _FOR_BOTH):
            raise ConfigError(
                name, f"no such option; options of a linear model: l2, gain.{did_you_mean(name, ['l2', 'gain'])}"
            )
        _l2(options)
        _gain(options)

    def fit(
        self,
        train: Sequence[Example],
        validation: Sequence[Example],
        names: Sequence[str],
        options: Mapping[str, Json],
        progress: Progress,
    ) -> tuple[Ranker, Fitted]:
        return LinearRanker.fit(train, validation, names, _l2(options), progress, _gain(options))


_LEARNERS: Mapping[str, Learner] = {"trees": _Trees(), "linear": _Sum()}


def learner_of(options: Mapping[str, Json]) -> Learner:
    """The learner that `options` name under `model`; trees where they name none.

    Raises:
        ConfigError: there is no such learner.
    """
    name = str(options.get("model", "trees"))
    check_choice("model", name, _LEARNERS)
    return _LEARNERS[name]


def read_ranker(directory: Path) -> Ranker:
    """The model that was written into `directory`.

    Raises:
        IndexStateError: it is missing or damaged.
        MissingExtraError: it is one of trees, and xgboost is not installed.
    """
    if (directory / MODEL).is_file():
        return LinearRanker.read(directory)
    require_xgboost()
    return LambdaMart.read(directory)


def _without(options: Mapping[str, Json], names: frozenset[str]) -> dict[str, Json]:
    return {name: value for name, value in options.items() if name != "model" and name not in names}


def _l2(options: Mapping[str, Json]) -> float:
    value = options.get("l2", 0.03)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ConfigError("l2", f"found {value!r}; expected a number from 0")
    return float(value)


def _gain(options: Mapping[str, Json]) -> str:
    gain = options.get("gain", "linear")
    check_choice("gain", gain, GAINS)
    return str(gain)
