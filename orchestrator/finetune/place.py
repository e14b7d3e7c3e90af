"""Where a tuned model is written: beside its target first, then in its place, never over something of the user's."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import ConfigError
from orchestrator.learned.record import RECORD
from orchestrator.models import Model
from orchestrator.storage import locked, slug

_OLD = ".old"


def target_folder(root: Path, corpus_key: str, kind: str, card: Model, output: str | None) -> Path:
    """`output` where it is given, else `<root>/tuned/<corpus>/<kind>-<base>`."""
    if output is not None:
        return Path(output).expanduser().resolve()
    return root / "tuned" / corpus_key / f"{kind}-{slug(base_name(card).rpartition('/')[2])}"


def base_name(card: Model) -> str:
    """What the model is called, without the folders of this machine: on the hub, or the last part of its path."""
    if not card.path:
        return card.name or card.label
    path = Path(card.path)
    return path.parent.name if path.name == "model" and path.parent.name else path.name


def check_target(target: Path, base: Path) -> None:
    """Nothing, when the folder may be written: it is not there, is empty, or holds a model that we tuned.

    Raises:
        ConfigError: it holds something else, or the very model that the training starts from.
    """
    if target.exists() and not target.is_dir():
        raise ConfigError("task.output", f"{target} is a file; expected a folder")
    if target.resolve() == base.resolve():
        raise ConfigError("task.output", f"{target} holds the model that the training starts from; name another folder")
    names = sorted(entry.name for entry in target.iterdir()) if target.is_dir() else []
    if names and RECORD not in names:
        found = f"{target} holds {', '.join(names[:5])}"
        raise ConfigError("task.output", f"{found}; expected an empty folder, a model that we tuned, or nothing yet")


def work_folder(target: Path) -> Path:
    """Where checkpoints lie while a training runs, beside the target."""
    return target.with_name(f".{target.name}.work")


@contextlib.contextmanager
def alone(target: Path) -> Iterator[None]:
    """One training of a target at a time."""
    with locked(target.with_name(f".{target.name}.lock")):
        yield


@contextlib.contextmanager
def written(target: Path) -> Iterator[Path]:
    """An empty folder with the target's name to write the model into; takes the target's place when the block ends."""
    for leftover in target.parent.glob(f".{target.name}.partial-*"):
        _restore(leftover / _OLD, target)
        shutil.rmtree(leftover, ignore_errors=True)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}-{secrets.token_hex(4)}") / target.name
    partial.mkdir(parents=True)
    old = partial.with_name(_OLD)
    try:
        yield partial
        if target.exists():
            target.rename(old)
        partial.rename(target)
    finally:
        _restore(old, target)
        shutil.rmtree(partial.parent, ignore_errors=True)


def _restore(old: Path, target: Path) -> None:
    """Between the two renames of a swap the model before lies aside; one that is stopped there gets it back."""
    if old.exists() and not target.exists():
        old.rename(target)
