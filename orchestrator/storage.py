"""Where state lives, and how it is written: whole or not at all.

Layout under the root:
    scores.sqlite                                     scores and orders that models gave
    stages/results.sqlite                             results of whole stages
    models/<key>/                                     exported models
    vectors/<key>/                                    vectors of one model by text hash: dense, of tokens, sparse
    corpora/<corpus>/<generation>/                    documents by id
    indexes/<corpus>/<settings>/<generation>/         one index
    trained/<corpus>/<stage>-<stack>/<generation>/    one model that a stage learned
    tuned/<corpus>/<what>-<base>/                     one model that was tuned
    runs/<corpus>/<name>/<generation>/                one run that was kept to compare with
    evaluations/<corpus>/                             what evaluations found, a file a stack
    cost/                                             what stages cost on this machine
Every folder with generations holds a text file `current` that names the one in use. A file `used` is touched when a
folder is used, once a day.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from orchestrator.errors import ConfigError, IndexStateError
from orchestrator.log import get_logger
from orchestrator.types import Json

log = get_logger()

CURRENT = "current"
LOCK = "lock"
USED = "used"
_PARTIAL = ".partial-"
_GENERATION = re.compile(r"(\.partial-)?\d{8}T\d{6}-[0-9a-f]{8}")
_DAY_S = 86_400
_RACES = 20
"""How often a reader starts over after a builder took the generation away under it; one is already rare."""

T = TypeVar("T")


def default_root() -> Path:
    """`$ORCHESTRATOR_HOME` where set, otherwise the user's cache directory."""
    home = os.environ.get("ORCHESTRATOR_HOME")
    if home:
        return Path(home).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("orchestrator", appauthor=False))


def stable_hash(value: Json, length: int = 16) -> str:
    """Hex digest of `value` as canonical JSON: same content, same digest, in every process."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()[:length]


def slug(name: str) -> str:
    """`name` as part of a file name: letters, digits, dot, dash, underscore; at most 60 characters."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60] or "unnamed"


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `path` so that a reader sees the old content or the new, and a crash leaves one of the two."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{_PARTIAL}{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_entry(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """Hex blake2b-16 of the bytes in `path`."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@contextlib.contextmanager
def locked(path: Path, wait_s: float | None = None) -> Iterator[None]:
    """Hold an exclusive lock on `path`, between processes and threads, waiting for it; gone with the process.

    Not reentrant. A wait of more than a second is logged, so that nobody thinks the program hangs.

    Args:
        path: of the lock file; made where it is not there.
        wait_s: give up after so many seconds; None waits as long as it takes.

    Raises:
        ConfigError: the folder cannot be written.
        TimeoutError: somebody else held it for `wait_s` seconds.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1 if wait_s is None else wait_s)
        except Timeout:
            if wait_s is not None:
                raise
            _log_wait(path)
            lock.acquire()
    except TimeoutError:
        raise
    except OSError as error:
        raise _not_writable(path.parent, error) from error
    try:
        yield
    finally:
        lock.release()


def current_generation(parent: Path) -> Path | None:
    """The generation in use, or None when there is none yet."""
    try:
        name = (parent / CURRENT).read_text(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    directory = parent / name
    return directory if _GENERATION.fullmatch(name) and directory.is_dir() else None


def use_current(parent: Path, use: Callable[[Path], T]) -> T | None:
    """What `use` makes of the current generation; None when there is none.

    Needs no lock: when a builder switches to a new generation and removes this one meanwhile, `use` runs
    again on the new one. A failure on a generation that is still the current one is passed on.
    """
    for _ in range(_RACES):
        directory = current_generation(parent)
        if directory is None:
            return None
        try:
            return use(directory)
        except (OSError, IndexStateError):
            if current_generation(parent) == directory:
                raise
    raise IndexStateError(f"{parent}: rebuilt {_RACES} times while being opened; is a loop rebuilding it?")


@contextlib.contextmanager
def new_generation(parent: Path) -> Iterator[Path]:
    """An empty folder to build in; it becomes the current generation when the block ends without exception.

    The caller holds `locked(parent / LOCK)`. On an exception, Ctrl-C included, the folder is removed and the
    old generation stays; after a kill the next builder removes what is left. Older generations go after the
    switch: a process that has one open keeps its mapped files.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _remove_others(parent, keep=current_generation(parent))
    name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
    partial = parent / f"{_PARTIAL}{name}"
    partial.mkdir()
    try:
        yield partial
        _sync(partial)
        final = parent / name
        partial.replace(final)
        write_atomic(parent / CURRENT, name + "\n")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _remove_others(parent, keep=final)


def remove_generations(parent: Path) -> None:
    """Remove all that was built in `parent`; what has it open keeps it, and who needs it next builds it again."""
    with locked(parent / LOCK):
        (parent / CURRENT).unlink(missing_ok=True)
        _remove_others(parent, keep=None)
        (parent / USED).unlink(missing_ok=True)


def note_use(folder: Path, whose: str = "") -> bool:
    """Note that `folder` is used today, by which `orchestrate cache prune` goes; False where that cannot be noted.

    Args:
        folder: that is used.
        whose: the name of the model, for people; noted where none is yet.
    """
    path = folder / USED
    try:
        if not path.exists() or (whose and not path.stat().st_size):
            path.write_text(whose, encoding="utf-8")
        elif abs(time.time() - path.stat().st_mtime) > _DAY_S:
            path.touch()
    except OSError:
        return False
    return True


def last_use(folder: Path) -> float:
    """When `folder` was last used, to a day, or changed where no use was noted; seconds since 1970."""
    for path in (folder / USED, folder / CURRENT, folder):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def size_of(path: Path) -> int:
    """Bytes of the file, or of all files in the folder; links count nothing."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size if path.is_file() and not path.is_symlink() else 0
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):  # it went away meanwhile
                total += Path(folder, name).lstat().st_size
    return total


def foreign_entries(parent: Path) -> list[str]:
    """Names in `parent` that this module did not put there, hidden ones aside; empty without a folder."""
    if not parent.is_dir():
        return []
    names = sorted(entry.name for entry in parent.iterdir())
    names = [name for name in names if not name.startswith(".") and name not in (CURRENT, LOCK, USED)]
    return [name for name in names if not _GENERATION.fullmatch(name)]


def _remove_others(parent: Path, keep: Path | None) -> None:
    # Only folders named like a generation: `parent` may be a path of the user's with other things in it.
    for entry in parent.iterdir():
        if entry != keep and _GENERATION.fullmatch(entry.name) and entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)


def _sync(directory: Path) -> None:
    for folder, _, names in os.walk(directory):
        for name in names:
            _sync_entry(Path(folder, name))
        _sync_entry(Path(folder))


def _sync_entry(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder; NTFS journals renames by itself
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _log_wait(path: Path) -> None:
    log.info("storage.waiting", lock=str(path))


def _not_writable(folder: Path, error: OSError) -> ConfigError:
    found = f"cannot write to {folder} ({error.strerror or error})"
    return ConfigError("storage.root", f"{found}; choices: storage.root=DIR, ORCHESTRATOR_HOME=DIR")
