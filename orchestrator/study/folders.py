"""The rows that folders hold: of one evaluation, of a sweep, or of several of either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import ConfigError, DataError
from orchestrator.evaluation.baselines import RUN_FILE
from orchestrator.jobs import JOB_FILE, METRICS_FILE, PLAN_FILE, Job, Outcome, read_outcomes, read_plan
from orchestrator.study.entry import Entry
from orchestrator.study.figures import read_figures, read_per_query
from orchestrator.study.sweep_table import SweepTable

WHOLE = "whole"
"""Name of the one row of a folder that holds one run."""
_MARKS = (PLAN_FILE, JOB_FILE, METRICS_FILE)
"""What a folder of `evaluate` holds one of."""
_EXPECTED = "expected the folder of an evaluation (outputs/...) or of a sweep of them (multirun/...)"
_MEASURED = "expected what `orchestrate evaluate` writes"
_OTHER_VERB = "left no metrics.json, so it was no evaluation or did not end"


@dataclass(frozen=True, slots=True)
class Evaluations:
    """What some folders hold.

    Attributes:
        entries: one a configuration, in the order of the jobs; failed ones too.
        keys: short names of what was swept.
        n_missing: how many jobs were planned and have not ended.
    """

    entries: tuple[Entry, ...]
    keys: tuple[str, ...]
    n_missing: int = 0


@dataclass(frozen=True, slots=True)
class _Found:
    """One job, and where it lies."""

    root: Path
    outcome: Outcome

    @property
    def folder(self) -> Path:
        return self.root / self.outcome.folder


def read_folders(folders: Mapping[str, Path]) -> Evaluations:
    """The evaluations in all of `folders`.

    Args:
        folders: the key that a folder was given by, for messages -> the folder.

    Raises:
        ConfigError: a folder is not there, holds no evaluation, or one of which every job failed.
        DataError: a file in it is damaged.
    """
    found: list[_Found] = []
    plans: list[Job] = []
    n_missing = 0
    for key, folder in folders.items():
        jobs: list[_Found] = []
        for root in evaluated(key, folder):
            outcomes, plan = _outcomes(root), _plan(root)
            jobs += [_Found(root, outcome) for outcome in outcomes]
            plans += plan
            n_missing += max(len(plan) - len(outcomes), 0)
        _check_some_done(key, folder, jobs)
        found += jobs
    # Without their figures, which are read and checked below: the table tells settings alone.
    outcomes_alone = [replace(one.outcome, figures={}) for one in found]
    table = SweepTable.of(outcomes_alone, [*plans, *(one.outcome.job for one in found)])
    several = len({one.root for one in found}) > 1 and len({one.outcome.job.num for one in found}) < len(found)
    entries = tuple(_entries(found, table, several))
    keys = dict.fromkeys(key for entry in entries for key, value in entry.settings.items() if value)
    return Evaluations(entries, tuple(keys), n_missing)


def evaluated(key: str, folder: Path) -> list[Path]:
    """The runs and sweeps in `folder`: itself, or those below it.

    Raises:
        ConfigError: there are none.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing there"
        raise ConfigError(key, f"{folder}: found {found}; {_EXPECTED}")
    if any((folder / name).is_file() for name in _MARKS):
        return [folder]
    marked = sorted({path.parent for name in _MARKS for path in folder.rglob(name)})
    roots = [path for path in marked if not any(other in path.parents for other in marked)]
    if not roots:
        held = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        some = ", ".join(held[:5]) + (", ..." if len(held) > 5 else "") or "nothing"
        raise ConfigError(key, f"{folder}: found no metrics.json in it or below it (it holds {some}); {_EXPECTED}")
    return roots


def _outcomes(root: Path) -> list[Outcome]:
    try:
        return read_outcomes(root) or [Outcome(Job(0, _overrides(root)), ".")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        for path in root.rglob(METRICS_FILE):  # says which file it is, where it is one of these
            read_figures(path.parent)
        raise DataError(str(root), None, f"a {JOB_FILE} in it is damaged, or no job's: {error!r}") from error


def _plan(root: Path) -> list[Job]:
    try:
        return read_plan(root)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(str(root / PLAN_FILE), None, f"is damaged: {error!r}") from error


def _overrides(root: Path) -> tuple[str, ...]:
    """What was typed for a run that was no job of a sweep."""
    import yaml

    path = root / ".hydra" / "overrides.yaml"
    if not path.is_file():
        return ()
    try:
        return tuple(map(str, yaml.safe_load(path.read_text(encoding="utf-8")) or ()))
    except (yaml.YAMLError, TypeError) as error:
        raise DataError(str(path), None, f"expected a list of overrides, found {error}") from error


def _check_some_done(key: str, folder: Path, jobs: Sequence[_Found]) -> None:
    if any((one.folder / METRICS_FILE).is_file() and not one.outcome.failure for one in jobs):
        return
    failures = [one.outcome.failure.reason for one in jobs if one.outcome.failure]
    if failures:
        which = "the one job" if len(jobs) == 1 else f"{len(failures)} of its {len(jobs)} jobs"
        raise ConfigError(key, f"{folder}: {which} failed and none left figures; the first: {failures[0]}")
    raise ConfigError(key, f"{folder}: none of its {len(jobs)} jobs left a metrics.json; {_EXPECTED}")


def _entries(found: Sequence[_Found], table: SweepTable, several: bool) -> Iterator[Entry]:
    for place, one in enumerate(found):
        job, failure = one.outcome.job, one.outcome.failure
        name = WHOLE if len(found) == 1 else str(place if several else job.num)
        settings = dict(table.settings(job)) if len(found) > 1 else {}
        if several:
            settings = {"folder": one.root.name, **settings}
        entry = Entry(name, "run", one.folder, settings, failure=failure.reason if failure else "")
        yield entry if failure else _with_figures(entry, one.outcome.seconds)


def _with_figures(entry: Entry, seconds: float) -> Entry:
    figures = read_figures(entry.folder)
    if figures is None:
        return replace(entry, failure=_OTHER_VERB)
    if not figures.metrics:
        raise DataError(str(entry.folder / METRICS_FILE), None, f"holds no measure; {_MEASURED}")
    run = entry.folder / RUN_FILE
    return replace(
        entry,
        figures=figures,
        per_query=read_per_query(entry.folder),
        ranking=run if run.is_file() else None,
        seconds=seconds or None,
    )
