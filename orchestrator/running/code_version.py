"""Which code a name leads to: of which version, or with which source. Other code means that results may be others."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

_OWN, _OWN_DISTRIBUTION = "orchestrator", "rerank-orchestrator"
_NAME = re.compile(r"[\w.-]+")
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_FOR_DEVELOPERS = re.compile(r"extra\s*==\s*['\"]dev['\"]")


def code_version(dotted: str) -> str | None:
    """What names the code of a class or function, its version included; None where no file of it is loaded.

    Of a package that was installed: its distribution with version, and the versions of the libraries that this depends
    on. Of our own, and of one that is developed in place: also every source file of it. Of a file outside any package:
    the modules in and below its folder that are loaded, but none that was installed there.

    Args:
        dotted: `package.module.Class`, whose module is loaded.
    """
    parts = dotted.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1))
    module = next((sys.modules[name] for name in names if name in sys.modules), None)
    file = getattr(module, "__file__", None)
    if file is None:  # typed in
        return None
    return f"{dotted} {_version_of(parts[0], str(Path(file).parent))}"


@functools.cache
def _version_of(top: str, folder: str) -> str:
    """Of a top-level package, or of the top-level modules of one folder."""
    if top == _OWN:
        return f"{versions(_OWN_DISTRIBUTION)} {sources(_files_of(_OWN, f'{_OWN}.plugins'))}"
    distribution = _distribution(top)
    if distribution is not None and not _is_developed(distribution):
        return versions(distribution)
    files = list(_files_of(top))
    return sources(files or _loaded_from(folder))


def versions(distribution: str) -> str:
    """`name==version` of a distribution and of what it depends on, as far as that is installed."""
    try:
        required = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return ""
    found = (_NAME.match(line) for line in required if not _FOR_DEVELOPERS.search(line))
    names = [distribution, *sorted({name[0].lower() for name in found if name})]
    return " ".join(f"{name}=={version}" for name in names if (version := _installed(name)) is not None)


def sources(files: Iterable[Path]) -> str:
    """Hex digest of the names and bytes of source files."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(set(files)):
        data = path.read_bytes()
        digest.update(f"{path.parent.name}/{path.name}\0{len(data)}\0".encode(errors="surrogateescape"))
        digest.update(data)
    return digest.hexdigest()


def _files_of(*packages: str) -> Iterator[Path]:
    """Source files of packages, wherever they were installed from; none of a module that is one file."""
    for name in packages:
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):  # a module that was made, not imported
            continue
        for root in (spec.submodule_search_locations if spec else None) or ():
            yield from Path(root).rglob("*.py")


def _loaded_from(folder: str) -> Iterator[Path]:
    """Sources of the loaded modules in and below a folder that are its owner's."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None or not file.endswith(".py") or not Path(file).is_relative_to(folder):
            continue
        inside = Path(file).relative_to(folder).parts
        if _INSTALLED.isdisjoint(inside) and not _is_anothers(name.partition(".")[0]):
            yield Path(file)


def _is_anothers(top: str) -> bool:
    """Whether a top-level name is Python's, ours, or of a distribution that was installed."""
    if top == _OWN or top in sys.stdlib_module_names:
        return True
    distribution = _distribution(top)
    return distribution is not None and not _is_developed(distribution)


def _distribution(top: str) -> str | None:
    """The distribution that brought a top-level name, where one did."""
    return next(iter(_distributions().get(top, ())), None)


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _is_developed(distribution: str) -> bool:
    """Whether it was installed in place (`pip install -e`), so that its version stays while its code changes."""
    told = metadata.distribution(distribution).read_text("direct_url.json")
    return told is not None and re.search(r'"editable":\s*true', told) is not None


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
