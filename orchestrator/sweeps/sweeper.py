"""Sweeps in which each job runs whatever became of the others.

Hydra's own sweeper gives up before the first job when one of them does not compose, and at the end it raises the
first failure. Here both become rows of the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator import log
from orchestrator.config.failure import failure_of
from orchestrator.errors import ConfigError
from orchestrator.jobs import Job, write_plan
from orchestrator.sweeps.verb import end_job

_BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


class KeepGoingSweeper(Sweeper):
    """Hydra's basic sweeper, in which a job that fails or does not even compose stops none of the others.

    Args:
        max_batch_size: how many jobs are launched together; None is all.
        params: overrides that the configuration sweeps over, beside those of the command line.

    Attributes:
        every_job: more overrides, of this process's command line.
        took_over: whether a sweep of this process came here, and not to another sweeper.
    """

    every_job: ClassVar[tuple[str, ...]] = ()
    took_over: ClassVar[bool] = False

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None = None) -> None:
        self._max_batch_size = max_batch_size
        self._params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self._loader = hydra_context.config_loader
        self._config = config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Run every job that composes.

        Raises:
            HydraException: no job composes, and all for the same reason.
        """
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        type(self).took_over = True
        words = [f"{key}={value}" for key, value in self._params.items()] + arguments + [*self.every_job]
        parser = OverridesParser.create(config_loader=self._loader)
        (product,) = BasicSweeper.split_arguments(parser.parse_overrides(words), None)
        jobs = [Job(num, tuple(overrides)) for num, overrides in enumerate(product)]
        self._refuse_what_fails_everywhere(jobs)
        sweep = Path(self._config.hydra.sweep.dir).absolute()
        write_plan(sweep, jobs)
        OmegaConf.save(self._config, sweep / "multirun.yaml")
        log.configure(self._config.log.level.name, json=self._config.log.json)
        if type(self._launcher).__name__ == "BasicLauncher":
            return [done for job in jobs for done in self._launch_one(sweep, job)]
        size = self._max_batch_size or len(jobs)
        batches = [jobs[start : start + size] for start in range(0, len(jobs), size)]
        return [done for batch in batches for done in self._launch_many(sweep, batch)]

    def _refuse_what_fails_everywhere(self, jobs: Sequence[Job]) -> None:
        """Say once what is wrong with every job; where the first one composes, the others need not be looked at."""
        if self._problem(jobs[0]) is None:
            return
        errors = [self._problem(job) for job in jobs]
        reasons = {failure_of(error).reason if error else None for error in errors}
        if len(reasons) == 1 and errors[0] is not None:
            raise errors[0]

    def _problem(self, job: Job) -> Exception | None:
        """Why a job does not compose."""
        try:
            self._loader.load_sweep_config(self._config, list(job.overrides))
        except (HydraException, OmegaConfBaseException) as error:
            return error
        return None

    def _launch_one(self, sweep: Path, job: Job) -> Sequence[Any]:
        """In this process; the launcher composes first, and what a verb raises it keeps to itself."""
        try:
            launched: Sequence[Any] = self._launcher.launch([job.overrides], initial_job_idx=job.num)
        except (HydraException, OmegaConfBaseException) as error:
            self._fail(sweep, job, error)
            return []
        return launched

    def _launch_many(self, sweep: Path, batch: Sequence[Job]) -> Iterator[Any]:
        """Side by side, but for those that do not compose: a launcher would give up all of them."""
        problems = {job.num: self._problem(job) for job in batch}
        for failed, part in groupby(batch, lambda job: problems[job.num] is not None):
            jobs = list(part)  # neighbours, so that a job's number is its place
            if failed:
                for job in jobs:
                    self._fail(sweep, job, problems[job.num])
            else:
                yield from self._launcher.launch([job.overrides for job in jobs], initial_job_idx=jobs[0].num)

    def _fail(self, sweep: Path, job: Job, error: Exception | None) -> None:
        assert error is not None
        end_job(sweep, sweep / str(job.num), job, 0.0, failure_of(error), self._config.format.name)


@contextmanager
def keep_going(every_job: Sequence[str] = ()) -> Iterator[None]:
    """Hydra's basic sweeper is a KeepGoingSweeper inside; outside, and for other applications, it is as it was.

    Hydra takes a sweeper only from modules called hydra_plugins.*, which every Hydra application of an environment
    imports; so the class takes the place of the basic one, and `hydra/sweeper=basic` stays what it is, options and all.

    Args:
        every_job: overrides that Hydra has not been given: the sweeper adds them to each job.
    """
    known = Plugins.instance().class_name_to_class
    basic = known[_BASIC]
    known[_BASIC] = KeepGoingSweeper
    KeepGoingSweeper.every_job, KeepGoingSweeper.took_over = tuple(every_job), False
    try:
        yield
        if every_job and not KeepGoingSweeper.took_over:
            lost = f"a sweeper chosen in a file was not given {' '.join(every_job)}"
            raise ConfigError("hydra/sweeper", f"{lost}; name it on the command line too: hydra/sweeper=NAME")
    finally:
        known[_BASIC] = basic
