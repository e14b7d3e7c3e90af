"""Folders of the model store: made whole or not at all, by one process at a time."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from orchestrator.models.manifest import Manifest, file_sizes
from orchestrator.storage import locked, note_use

_PARTIAL = ".partial-"


def find_or_make(target: Path, make: Callable[[Path], Manifest]) -> Manifest:
    """The manifest of the folder `target`; `make` fills the folder first where it is not there.

    Two processes at once make it once; one killed in the middle leaves nothing that is taken for a whole one.

    Args:
        target: the folder.
        make: fills an empty folder, and gives its manifest; the sizes of files are added here.
    """
    manifest = Manifest.read(target)
    if manifest is None:
        with locked(_lock_of(target)):
            manifest = Manifest.read(target) or _make(target, make)
    note_use(target)
    return manifest


def remove_kept(target: Path) -> None:
    """Remove the folder `target`; what has it open keeps it, and who needs it next makes it again."""
    with locked(_lock_of(target)):
        aside = target.with_name(f"{_PARTIAL}{target.name}-{os.getpid()}-{secrets.token_hex(4)}")
        target.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _lock_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _make(target: Path, make: Callable[[Path], Manifest]) -> Manifest:
    """Builds beside the target and renames at the end. The caller holds the target's lock."""
    _remove(target, target.parent.glob(f"{_PARTIAL}{target.name}-[0-9]*"))
    partial = target.with_name(f"{_PARTIAL}{target.name}-{os.getpid()}-{secrets.token_hex(4)}")
    partial.mkdir(parents=True)
    try:
        manifest = make(partial)
        manifest = replace(manifest, files=file_sizes(partial))
        manifest.write(partial)
        partial.replace(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def _remove(target: Path, leftovers: Iterator[Path]) -> None:
    for entry in [target, *leftovers]:
        shutil.rmtree(entry, ignore_errors=True)
