"""The measures of an evaluation: any that ir-measures has a provider for, trec_eval for most of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from orchestrator.errors import ConfigError
from orchestrator.ranking import surrogate_scores

if TYPE_CHECKING:
    from ir_measures import Measure, Provider

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
Rankings: TypeAlias = dict[str, tuple[str, ...]]
PerQuery: TypeAlias = Mapping[str, Mapping[str, float]]
"""Query id -> measure -> value."""

_EXAMPLES = "nDCG@10, RR@10, R@100, AP, P@5, Success@5, Judged@10"


class Measures:
    """The measures of one evaluation, computed by ir-measures (trec_eval underneath).

    Args:
        names: for example `["nDCG@10", "RR@10", "R@100", "AP"]`, or a single one; `MRR@10` and `Recall@100` are
            understood too.

    Raises:
        ConfigError: it is no list of names; a name is no measure, lacks a parameter, or nothing that is installed
            computes it.
    """

    def __init__(self, names: Sequence[str] | str) -> None:
        if not isinstance(names, Sequence):
            raise ConfigError("task.measures", f"found {names!r}; expected a list of names, for example: {_EXAMPLES}")
        self.names = [names] if isinstance(names, str) else [str(name) for name in names]
        if not self.names:
            raise ConfigError("task.measures", f"names no measure; expected one or more, for example: {_EXAMPLES}")
        self._measures = [_parse(f"task.measures[{place}]", name) for place, name in enumerate(self.names)]

    @property
    def first_cutoff(self) -> int | None:
        """The k of the first measure that looks at the first k documents; None where none does."""
        return next((int(found) for measure in self._measures if (found := measure.params.get("cutoff"))), None)

    @property
    def recall(self) -> str | None:
        """The first measure that is a recall, as it was named."""
        pairs = zip(self.names, self._measures, strict=True)
        return next((name for name, measure in pairs if measure.NAME == "R"), None)

    def per_query(self, qrels: Qrels, rankings: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
        """Query id -> measure -> value, for every query of `qrels`; a query without a ranking scores 0."""
        import ir_measures

        values: dict[str, dict[str, float]] = {query_id: dict.fromkeys(self.names, 0.0) for query_id in qrels}
        run = {
            query_id: dict(zip(ids, surrogate_scores(len(ids)), strict=True))
            for query_id, ids in rankings.items()
            if ids and query_id in values
        }
        if not run:
            return values
        names: dict[Measure, list[str]] = {}
        for measure, name in zip(self._measures, self.names, strict=True):
            names.setdefault(measure, []).append(name)  # AP and MAP are one measure
        judged = {query_id: dict(grades) for query_id, grades in qrels.items()}
        for metric in ir_measures.iter_calc(list(names), judged, run):
            for name in names[metric.measure]:
                values[metric.query_id][name] = float(metric.value)
        return values

    def mean(self, per_query: PerQuery) -> dict[str, float]:
        """Measure -> mean over queries, each query counting once."""
        return {name: float(np.mean([values[name] for values in per_query.values()])) for name in self.names}


def _parse(path: str, name: str) -> Measure:
    """The measure that `name` is.

    Raises:
        ConfigError: it is none, or nothing computes it; the message starts with `path`.
    """
    import ir_measures

    parsed = name.replace("MRR", "RR", 1) if name.startswith("MRR") else name
    parsed = parsed.replace("Recall", "R", 1) if parsed.startswith("Recall") else parsed
    try:
        measure = ir_measures.parse_measure(parsed)
    except (NameError, ValueError, SyntaxError, TypeError) as error:
        raise ConfigError(path, f"'{name}' is no measure; for example: {_EXAMPLES}") from error
    _check_parameters(path, name, measure)
    _check_provider(path, name, measure)
    return measure


def _check_parameters(path: str, name: str, measure: Measure) -> None:
    known = measure.SUPPORTED_PARAMS
    for key in measure.params:
        if key not in known:
            choices = f"parameters: {', '.join(known)}" if known else "it takes no parameter"
            raise ConfigError(path, f"'{name}': {measure.NAME} has no parameter '{key}'; {choices}")
    lacking = [key for key, about in known.items() if about.required and key not in measure.params]
    if lacking:
        example = _example(measure, lacking)
        raise ConfigError(path, f"'{name}' needs {' and '.join(lacking)}; for example {example}")
    try:
        measure.validate_params()  # type: ignore[no-untyped-call]
    except AssertionError as error:
        raise ConfigError(path, f"'{name}': {error}") from error


def _check_provider(path: str, name: str, measure: Measure) -> None:
    """Refuse a measure that nothing installed computes, and say what would."""
    import ir_measures

    providers = ir_measures.DefaultPipeline.providers
    fitting = [provider for provider in providers if provider.supports(measure)]
    if any(provider.is_available() for provider in fitting):
        return
    if fitting:
        ways = ", or ".join(_installing(provider) for provider in fitting)
        raise ConfigError(path, f"'{name}' is computed by a package that is not installed: {ways}")
    near = {key: provider for provider in providers for key in _unfitting(measure, provider)}
    if not near:
        raise ConfigError(path, f"'{name}': ir-measures has nothing that computes it; for example: {_EXAMPLES}")
    required = [key for key in near if key not in measure.params]
    hint = f"; for example {_example(measure, required)} by {_installing(near[required[0]])}" if required else ""
    raise ConfigError(path, f"'{name}': nothing computes it with {', '.join(near)} as it stands{hint}")


def _installing(provider: Provider) -> str:
    how = provider.install_instructions()  # type: ignore[no-untyped-call]
    return f"{provider.NAME} ({how})" if how else str(provider.NAME)


def _unfitting(measure: Measure, provider: Provider) -> list[str]:
    """Parameters of `measure` that keep `provider` from computing it; empty where it never does."""
    return [
        key
        for supported in provider.SUPPORTED_MEASURES
        if supported.NAME == measure.NAME
        for key, accepted in supported.params.items()
        if not accepted.validate(measure[key])
    ]


def _example(measure: Measure, lacking: Sequence[str]) -> str:
    """`measure` with values for the parameters that it lacks."""
    at = measure.AT_PARAM
    given = {**{key: 1 for key in lacking if key != at}, **{k: v for k, v in measure.params.items() if k != at}}
    inside = f"({','.join(f'{key}={value!r}' for key, value in given.items())})" if given else ""
    cutoff = measure.params.get(at)
    if cutoff is None and at in lacking:
        cutoff = 0.5 if measure.SUPPORTED_PARAMS[at].dtype is float else 10
    return f"{measure.NAME}{inside}" + (f"@{cutoff}" if cutoff is not None else "")
