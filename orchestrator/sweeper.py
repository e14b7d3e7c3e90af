"""Sweeps in which each job runs whatever became of the others.

Hydra's own sweeper gives up before the first job when one of them does not compose, and at the end it raises the
first failure. Here both become rows of the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from orchestrator.failure import Failure, failure_of
from orchestrator.jobs import Job, write_plan
from orchestrator.sweep import end_job

_BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


class KeepGoingSweeper(Sweeper):  # type: ignore[misc]
    """Hydra's basic sweeper, in which a job that fails or does not even compose stops none of the others.

    Args:
        max_batch_size: how many jobs are launched together; None is all.
        params: overrides that the configuration sweeps over, beside those of the command line.

    Attributes:
        every_job: more overrides, of this process's command line.
    """

    every_job: ClassVar[tuple[str, ...]] = ()

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None = None) -> None:
        self._max_batch_size = max_batch_size
        self._params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Run every job that composes.

        Raises:
            HydraException: no job composes, and all for the same reason.
        """
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        words = [f"{key}={value}" for key, value in self._params.items()] + arguments + [*self.every_job]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (product,) = BasicSweeper.split_arguments(parser.parse_overrides(words), None)
        jobs = [Job(num, tuple(overrides)) for num, overrides in enumerate(product)]
        problems = self._problems(jobs)
        sweep = Path(self.config.hydra.sweep.dir).absolute()
        write_plan(sweep, jobs)
        OmegaConf.save(self.config, sweep / "multirun.yaml")
        parts = _runs(jobs, problems, self._max_batch_size or len(jobs))
        return [done for part in parts for done in self._launch(sweep, part, problems)]

    def _problems(self, jobs: Sequence[Job]) -> dict[int, Failure]:
        """Number -> why it does not compose."""
        found: dict[int, Failure] = {}
        errors: list[Exception] = []
        for job in jobs:
            try:
                self.hydra_context.config_loader.load_sweep_config(self.config, list(job.overrides))
            except (HydraException, OmegaConfBaseException) as error:
                found[job.num] = failure_of(error)
                errors.append(error)
        if len(found) == len(jobs) and len({failure.message for failure in found.values()}) == 1:
            raise errors[0]
        return found

    def _launch(self, sweep: Path, part: Sequence[Job], problems: dict[int, Failure]) -> Sequence[Any]:
        first = part[0]
        if first.num not in problems:
            launched: Sequence[Any] = self.launcher.launch([job.overrides for job in part], initial_job_idx=first.num)
            return launched
        log.configure(self.config.log.level.name, json=self.config.log.json)
        for job in part:
            end_job(sweep, sweep / str(job.num), job, 0.0, problems[job.num], self.config.format.name)
        return []


@contextmanager
def keep_going(every_job: Sequence[str] = ()) -> Iterator[None]:
    """Hydra's basic sweeper is a KeepGoingSweeper inside; outside, and for other applications, it is as it was.

    Hydra takes a sweeper only from modules called hydra_plugins.*, which every Hydra application of an environment
    imports; so the class takes the place of the basic one, and `hydra/sweeper=basic` and its options stay what they are.

    Args:
        every_job: overrides that Hydra has not been given: the sweeper adds them to each job.
    """
    known = Plugins.instance().class_name_to_class
    basic = known[_BASIC]
    known[_BASIC] = KeepGoingSweeper
    KeepGoingSweeper.every_job = tuple(every_job)
    try:
        yield
    finally:
        known[_BASIC] = basic


def _runs(jobs: Sequence[Job], problems: dict[int, Failure], size: int) -> Iterator[Sequence[Job]]:
    """Neighbouring jobs of one batch that all compose, or that all do not: so a job's number is its place."""
    part: list[Job] = []
    for job in jobs:
        if part and (job.num % size == 0 or (job.num in problems) != (part[0].num in problems)):
            yield part
            part = []
        part.append(job)
    if part:
        yield part
