"""Configs of installed packages: entry points of the group `orchestrator.conf` join Hydra's search path.

A package says in its pyproject.toml

    [project.entry-points."orchestrator.conf"]
    any_name = "my_package.conf"

where `my_package/conf/` holds an `__init__.py` and folders named as ours: `rerank/`, `pipeline/`, ... Its options stand
beside the shipped ones, which they never replace.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from orchestrator.errors import ConfigError

GROUP = "orchestrator.conf"
_OURS = "pkg://orchestrator.conf"


@dataclass(frozen=True, slots=True)
class InstalledConfigs:
    """The configs of one installed distribution.

    Attributes:
        distribution: its name, as pip shows it.
        package: dotted name of the package that holds the folders.
    """

    distribution: str
    package: str

    @property
    def folder(self) -> Path:
        """Where the package's folders are."""
        return Path(str(files(self.package)))


def installed_configs() -> list[InstalledConfigs]:
    """Every entry point of the group, in the order of distribution names.

    Raises:
        ConfigError: one does not lead to a package; the message names its distribution.
    """
    found = {_checked(point) for point in entry_points(group=GROUP)}
    return sorted(found, key=lambda each: (each.distribution, each.package))


def register() -> None:
    """Let Hydra search these configs too, wherever it searches ours."""
    Plugins.instance().register(InstalledConfigsPlugin)


class InstalledConfigsPlugin(SearchPathPlugin):
    """Appends installed configs after our own, and leaves the search paths of other Hydra applications alone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra before it reads any config."""
        if all(entry.path != _OURS for entry in search_path.get_path()):
            return
        for configs in installed_configs():
            search_path.append(provider=configs.distribution, path=f"pkg://{configs.package}")


def _checked(point: EntryPoint) -> InstalledConfigs:
    distribution = point.dist.name if point.dist is not None else "unknown"
    problem = _problem(point.value)
    if problem:
        raise ConfigError(
            f"distribution '{distribution}'",
            f"its entry point {point.name} = '{point.value}' (group {GROUP}) {problem}; expected a package with an "
            f"__init__.py and folders such as rerank/ or pipeline/. Mend it, or: pip uninstall {distribution}",
        )
    return InstalledConfigs(distribution, point.value)


def _problem(package: str) -> str:
    try:
        spec = importlib.util.find_spec(package)
    except Exception as error:  # noqa: BLE001 - a parent package is imported on the way, and may fail in any way
        return f"cannot be imported ({type(error).__name__}: {error})"
    if spec is None:
        return "leads to no module"
    if spec.submodule_search_locations is None:
        return "leads to a module, not to a package"
    return "" if spec.origin is not None else "leads to a folder without an __init__.py"
