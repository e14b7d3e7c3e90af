"""A decision as a scenario file of one's own that does what its command does, and where such a file has to lie."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.words import quote
from orchestrator.deciding.decide import Choice
from orchestrator.errors import ConfigError

GROUP = "scenario"
"""The folder that Hydra reads scenarios from."""
_SUFFIX = ".yaml"
_SCALARS = frozenset({"budget_ms"})
"""Keys of the root that are values and no group of files."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a scenario is saved.

    Attributes:
        file: of it: `<folder>/scenario/<name>.yaml`.
        folder: what `--config-dir` is given.
        others: folders with configs that the scenario needs beside its own.
    """

    file: Path
    folder: Path
    others: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """As `+scenario=` is given it."""
        return self.file.stem

    @property
    def words(self) -> list[str]:
        """Of the command line that runs it."""
        found = ",".join(quote(f"file://{folder.resolve()}") for folder in self.others)
        return [
            "--config-dir",
            str(self.folder),
            *([f"hydra.searchpath=[{found}]"] if self.others else []),
            f"+{GROUP}={self.name}",
        ]

    @property
    def command(self) -> str:
        """The command that runs it."""
        return shlex.join(["orchestrate", *self.words])


def place_of(save: str, config_dirs: Sequence[Path], shipped: Sequence[str]) -> Place:
    """Where `save=...` goes.

    Hydra reads a scenario from a folder of that name inside the folder that `--config-dir` names. So `my.yaml` becomes
    `scenario/my.yaml`, in the folder of `--config-dir` where one was given, and `a/my.yaml` `a/scenario/my.yaml`.

    Args:
        save: a path as it was typed.
        config_dirs: what `--config-dir` was given.
        shipped: names of scenarios that there are already, which go before one's own.

    Raises:
        ConfigError: it is no path of such a file.
    """
    path = Path(save).expanduser()
    if path.suffix != _SUFFIX or not path.stem.replace("-", "_").isidentifier():
        raise ConfigError("task.save", f"found '{save}'; expected a file such as my.yaml or my_conf/scenario/mine.yaml")
    if path.stem in shipped:
        raise ConfigError(
            "task.save", f"'{path.stem}' is the name of a scenario that is there already; choose another one"
        )
    if path.parent.name == GROUP:
        folder = path.parent.parent
    elif path.parent == Path() and config_dirs:
        folder = config_dirs[0]
    else:
        folder = path.parent
    others = tuple(other for other in config_dirs if other.resolve() != folder.resolve())
    return Place(folder / GROUP / path.name, folder, others)


def scenario_of(choice: Choice, value_of: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the file, as plain values.

    Args:
        choice: what to run.
        value_of: word of `choice.overrides` -> its value, as the grammar of the command line reads it.

    Raises:
        ConfigError: a word takes a stage away, which no file can.
    """
    defaults: list[Any] = []
    values: dict[str, Any] = {}
    for word in choice.overrides:
        key = word.lstrip("+").partition("=")[0]
        if word.startswith("~"):
            found = f"the stack needs '{word}', and no file can take something away"
            raise ConfigError("task.save", f"{found}; copy the pipeline without that stage, or run the command instead")
        value = value_of[word]
        if key == GROUP:
            defaults.insert(0, str(value))
        elif "." in key.partition("@")[0] or key in _SCALARS:
            _put(values, key.split("."), value)
        else:
            defaults.append({f"override /{key}": str(value)} if not word.startswith("+") else {f"/{key}": str(value)})
    return {"defaults": defaults, **values}


def scenario_text(body: str, place: Place, choice: Choice, day: str) -> str:
    """The whole file: what runs it, why it is so, and the content.

    Args:
        body: the content as YAML.
        place: where it lies.
        choice: what it is.
        day: of the decision, ISO 8601.
    """
    predicted = f"p50 {choice.predicted.p50_ms:,.1f} ms, p95 {choice.predicted.p95_ms:,.1f} ms"
    head = [
        "# @package _global_",
        f"# {place.command}",
        f"# Stack: {choice.stack}",
        f"# Chosen by orchestrate plan on {day}; predicted {predicted}. Why:",
        *(f"# - {' '.join(reason.split())}" for reason in choice.reasons),
    ]
    return "\n".join(head) + "\n" + body


def body_of(text: str) -> str:
    """Of a file that was saved, all but its comments: what two decisions of different days have in common."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


def _put(values: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
    values[keys[-1]] = value
