"""Which files `corpus.path` means, and in which format they are."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orchestrator.corpora.markdown import SUFFIXES as MARKDOWN_SUFFIXES
from orchestrator.errors import ConfigError, DataError

FORMATS = ("beir", "jsonl", "csv", "tsv", "parquet", "files")
BEIR_LAYOUT = "corpus.jsonl[.gz] (_id, text), queries.jsonl[.gz] (_id, text), qrels/<split>.tsv[.gz]"
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "files",
    **dict.fromkeys(MARKDOWN_SUFFIXES, "files"),
}
_COMPRESSED = ("jsonl", "csv", "tsv")
EXPECTED = (
    "a file .jsonl, .csv or .tsv (each also .gz) or .parquet, a folder of such files, "
    "a folder of .txt and .md files, or a folder in BEIR layout, with corpus.jsonl"
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of documents.

    Attributes:
        path: where it lies.
        name: its path below the corpus's folder, with `/`.
    """

    path: Path
    name: str

    @property
    def is_markdown(self) -> bool:
        """Whether its name says Markdown."""
        return self.name.lower().endswith(MARKDOWN_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Source:
    """The documents of a corpus.

    Attributes:
        root: the folder, or the file where there is only one.
        format: one of FORMATS.
        names: of the files, below the folder, sorted.
        pattern: what the names match, where a pattern says which files they are.
        left_out: how many files of the folder are of no such format.
    """

    root: Path
    format: str
    names: Sequence[str]
    pattern: str | None = None
    left_out: int = 0

    @property
    def identity(self) -> str:
        """The same for the same place, whatever lies there."""
        return self.pattern or str(self.root.resolve())

    @property
    def folder(self) -> Path:
        """What the names are below."""
        return self.root.parent if self.root.is_file() else self.root

    def files(self) -> Iterator[SourceFile]:
        """The files, in order."""
        folder = self.folder
        return (SourceFile(folder / name, name) for name in self.names)


def locate(path: str, wanted: str = "auto", without: Collection[Path] = ()) -> Source:
    """The files that `path` means.

    Args:
        path: a file, a folder, a pattern with `*`, or `pkg://package/...` for what lies inside a package.
        wanted: one of FORMATS, or `auto` to go by the names of the files.
        without: files that hold no documents though they lie there, such as the questions.

    Raises:
        ConfigError: `corpus.path` names nothing, or files of several formats; `corpus.format` is none.
        DataError: the folder holds no such files.
    """
    if wanted not in ("auto", *FORMATS):
        raise ConfigError("corpus.format", f"found '{wanted}'; choices: auto, {', '.join(FORMATS)}")
    root = resolve(path, "corpus.path")
    if root is None:
        return _pattern(path, wanted)
    if root.is_file():
        return Source(root, _format_of_file(root, wanted), (root.name,))
    if wanted == "beir" or (wanted == "auto" and _looks_like_beir(root)):
        return Source(root, "beir", (find_file(root, "corpus.jsonl").name,))
    return _folder(root, wanted, {file.resolve() for file in without})


def resolve(path: str, key: str) -> Path | None:
    """The file or folder that `path` names, absolute; None for a pattern.

    Raises:
        ConfigError: there is nothing; the message begins with `key`.
    """
    if path.startswith("pkg://"):
        return _in_package(path, key)
    found = Path(path).expanduser().absolute()
    if found.is_file() or (key == "corpus.path" and found.is_dir()):
        return found
    if key == "corpus.path" and glob.has_magic(path):
        return None
    expected = EXPECTED if key == "corpus.path" else "a file"
    raise ConfigError(key, f"{found}: found {'a folder' if found.is_dir() else 'nothing there'}; expected {expected}")


def find_file(folder: Path, stem: str) -> Path:
    """`folder/stem`, or `folder/stem.gz` where only that exists.

    Raises:
        DataError: neither exists; tells what the folder holds.
    """
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    raise DataError(
        str(folder), None, f"found {_content(folder)}; expected {stem} or {stem}.gz, of the layout {BEIR_LAYOUT}"
    )


def _in_package(path: str, key: str) -> Path:
    from importlib.resources import files

    package, _, inside = path.removeprefix("pkg://").partition("/")
    try:
        found = files(package).joinpath(inside)
    except (ModuleNotFoundError, TypeError, ValueError) as error:
        raise ConfigError(key, f"{path}: no package '{package}' is installed") from error
    if not isinstance(found, Path) or not found.exists():
        raise ConfigError(key, f"{path}: package '{package}' holds no '{inside}'")
    return found


def _looks_like_beir(folder: Path) -> bool:
    """Also when corpus.jsonl is the one that is missing: queries are not to be taken for documents."""
    names = ("corpus.jsonl", "corpus.jsonl.gz", "queries.jsonl", "queries.jsonl.gz")
    return any((folder / name).is_file() for name in names) or (folder / "qrels").is_dir()


def _pattern(pattern: str, wanted: str) -> Source:
    full = Path(pattern).expanduser().absolute()
    anchor = Path(full.anchor)
    matches = anchor.glob(str(full.relative_to(anchor)))
    found = sorted(file for file in matches if file.is_file() and not file.name.startswith("."))
    if not found:
        raise ConfigError("corpus.path", f"{pattern}: no file matches; expected {EXPECTED}")
    if wanted == "beir":
        raise ConfigError("corpus.format", f"beir is a folder with {BEIR_LAYOUT}; {pattern} is a pattern")
    root = Path(os.path.commonpath([file.parent for file in found]))
    names = [file.relative_to(root).as_posix() for file in found]
    groups = _by_format(names) if wanted == "auto" else {wanted: names}
    kind = _one_format(root, groups, wanted)
    return Source(root, kind, sorted(groups[kind]), str(full))


def _folder(root: Path, wanted: str, without: Collection[Path]) -> Source:
    names = [name for name in _walk(root) if (root / name).resolve() not in without]
    groups = _by_format(names)
    kind = _one_format(root, groups, wanted)
    return Source(root, kind, sorted(groups[kind]), left_out=len(names) - len(groups[kind]))


def _walk(root: Path) -> Iterator[str]:
    """Names of all files below `root`, with `/`.

    What is hidden is left out, and so is what links to folders, and the folders that our own runs leave.
    """
    for folder, folders, files in os.walk(root, onerror=_refuse):
        if ".hydra" in folders:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(folder).relative_to(root)
        yield from ((below / name).as_posix() for name in files if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise DataError(str(error.filename), None, f"the folder cannot be read ({error.strerror})") from error


def _by_format(names: Collection[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        kind = _format_of_name(name)
        if kind is not None:
            groups.setdefault(kind, []).append(name)
    return groups


def _format_of_name(name: str) -> str | None:
    lowered = name.lower()
    kind = _SUFFIXES.get(PurePosixPath(lowered.removesuffix(".gz")).suffix)
    return kind if kind in _COMPRESSED or not lowered.endswith(".gz") else None


def _format_of_file(path: Path, wanted: str) -> str:
    if wanted == "beir":
        raise ConfigError("corpus.format", f"beir is a folder with {BEIR_LAYOUT}; {path} is a file")
    kind = wanted if wanted != "auto" else _format_of_name(path.name)
    if kind is None:
        formats = ", ".join(FORMATS[1:])
        expected = f"expected {EXPECTED}; if it is one under another name: corpus.format={formats.replace(', ', '|')}"
        raise ConfigError("corpus.path", f"{path}: found a file whose name tells no format; {expected}")
    return kind


def _one_format(root: Path, groups: dict[str, list[str]], wanted: str) -> str:
    if wanted != "auto" and wanted in groups:
        return wanted
    found = ", ".join(f"{len(names)} of {kind}" for kind, names in sorted(groups.items()))
    if wanted != "auto":
        raise DataError(str(root), None, f"found {found or _content(root)}; expected files of corpus.format={wanted}")
    if not groups:
        raise DataError(str(root), None, f"found {_content(root)}; expected {EXPECTED}")
    if len(groups) > 1:
        choices = "|".join(sorted(groups))
        raise ConfigError("corpus.format", f"{root} holds files of several formats: {found}; choose one: {choices}")
    return next(iter(groups))


def _content(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "an empty folder"
