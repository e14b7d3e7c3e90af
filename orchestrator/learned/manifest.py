"""What an index or a model was made from and which files it has: written beside it, compared when it is opened."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import storage
from orchestrator.stage import Json

_NAME = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size and checksum of one file; both None for a file that its engine rewrites by itself."""

    size: int | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Says what an index, or a model that a stage learned, is.

    Attributes:
        settings: the stage's `index_settings`, or what its model depends on.
        corpus: name of the corpus.
        content_hash: of the corpus when the index was built or the model trained.
        n_documents: how many documents it held.
        files: relative path, with `/`, of each file.
        format: of this file.
        about: how it came to be, for people; never compared.
    """

    settings: Mapping[str, Json]
    corpus: str
    content_hash: str
    n_documents: int
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    format: int = _FORMAT
    about: Mapping[str, Json] = field(default_factory=dict)

    def differences(self, other: Manifest) -> list[str]:
        """One line for each setting that `other` has otherwise, and for the corpus; empty when all are equal."""
        found, expected = (flatten({**m.settings, "corpus": m.corpus}) for m in (self, other))
        names = dict.fromkeys([*found, *expected])
        return [
            f"  {name}: {_difference(found, expected, name)}"
            for name in names
            if found.get(name) != expected.get(name) or (name in found) != (name in expected)
        ]

    def damage(self, directory: Path, verify: bool) -> str | None:
        """What is wrong with the files in `directory`, or None; checksums are read only when `verify` is set."""
        for name, entry in self.files.items():
            path = directory / name
            if not path.is_file():
                return f"{name} is missing"
            size = path.stat().st_size
            if entry.size not in (None, size):
                return f"{name} has {size} bytes, expected {entry.size}"
            if verify and entry.digest not in (None, storage.file_digest(path)):
                return f"{name} is not what was written"
        return None

    def write(self, directory: Path, rewritten: Iterable[str]) -> None:
        """List the files of `directory` and write all to its manifest.json.

        Args:
            directory: holds the finished index.
            rewritten: patterns of relative paths whose size and content may change.
        """
        patterns = tuple(rewritten)
        complete = dataclasses.replace(self, files=dict(_entries(directory, patterns)))
        storage.write_atomic(directory / _NAME, json.dumps(dataclasses.asdict(complete), indent=1))


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest in `directory`; None when there is none that this version can read."""
    try:
        data = json.loads((directory / _NAME).read_text(encoding="utf-8"))
        files = {str(name): FileEntry(**entry) for name, entry in data.pop("files").items()}
        manifest = Manifest(**data, files=files)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return manifest if manifest.format == _FORMAT else None


def flatten(value: Mapping[str, Json], prefix: str = "") -> dict[str, Json]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`, so that a difference is named by its own key."""
    flat: dict[str, Json] = {}
    for key, item in value.items():
        nested = flatten(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
        flat.update(nested)
    return flat


def _difference(found: Mapping[str, Json], expected: Mapping[str, Json], name: str) -> str:
    here, there = found.get(name), expected.get(name)
    if isinstance(here, list) and isinstance(there, list):
        lacks, has = ([str(item) for item in a if item not in b] for a, b in ((there, here), (here, there)))
        parts = [f"{word} {', '.join(items)}" for word, items in (("lacks", lacks), ("has besides", has)) if items]
        return "; ".join(parts) or "the same in another order"
    return f"found {_shown(found, name)}, expected {_shown(expected, name)}"


def _shown(settings: Mapping[str, Json], name: str) -> str:
    return json.dumps(settings[name], ensure_ascii=False) if name in settings else "nothing"


def _entries(directory: Path, rewritten: tuple[str, ...]) -> Iterator[tuple[str, FileEntry]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            name = path.relative_to(directory).as_posix()
            if any(fnmatch.fnmatch(name, pattern) for pattern in rewritten):
                yield name, FileEntry(None, None)
            else:
                yield name, FileEntry(path.stat().st_size, storage.file_digest(path))
