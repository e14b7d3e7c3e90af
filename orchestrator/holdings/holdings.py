"""What lies under the storage root: how much of it, whose, when it was last used; and its removal.

Models that a stage learned, models that were tuned and runs kept by name are listed and never removed; evaluations only
where they are named. Folders of the user's (`path:`) lie elsewhere and are not even looked at.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import storage
from orchestrator.kept.entries import Entries, open_entries
from orchestrator.kept.kept_evaluations import FOLDER as EVALUATIONS
from orchestrator.keys import KEY_BYTES
from orchestrator.models.kept import remove_kept
from orchestrator.rows.row_file import KEYS, lock_of
from orchestrator.rows.row_repair import PARTIAL, SET_ASIDE, leftovers, remove
from orchestrator.running.score_cache import FILE as SCORES_FILE
from orchestrator.running.stage_results import FILE as STAGES_FILE

VECTORS = ("vectors", "token_vectors", "sparse_vectors")
LEARNED = ("trained", "tuned", "runs")
NAMED_ONLY = ("evaluations",)
"""Kinds that cost a new measurement, and go only where somebody names them: `all` leaves them out."""
ENTRIES = {"scores": (SCORES_FILE, "scores and orders of all models"), "stages": (STAGES_FILE, "results of stages")}
"""Kinds that are one file of entries, any of which may go alone: the file below the root, and what it holds."""
KINDS = ("scores", "stages", *VECTORS, "models", "indexes", "corpora", "cost", *NAMED_ONLY, *LEARNED)
"""In the order in which they are shown."""

_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Holding:
    """Something that is kept.

    Attributes:
        kind: one of `KINDS`.
        path: of its file or folder.
        about: whose it is: the model, the corpus, or both.
        entries: how many scores, results, texts or documents; None where nothing is counted.
        n_bytes: on disk.
        last_used: seconds since 1970, to a day.
        is_leftover: of a process that was killed; nobody needs it.
    """

    kind: str
    path: Path
    about: str
    entries: int | None
    n_bytes: int
    last_used: float
    is_leftover: bool = False


def holdings(root: Path) -> list[Holding]:
    """All there is, kind by kind, what was used last first."""
    found = [holding for look in _LOOK for holding in look(root)]
    return sorted(found, key=lambda holding: (KINDS.index(holding.kind), -holding.last_used))


def remove_holding(holding: Holding) -> int:
    """Remove it; who has it open keeps it or begins anew, who needs it next makes it again. Returns the bytes freed.

    Raises:
        ValueError: it is a model that was trained or tuned, or a run.
        ConfigError: its folder cannot be written.
    """
    if holding.kind in LEARNED:
        raise ValueError(f"{holding.path}: is kept until somebody removes it by hand ({holding.kind})")
    if holding.kind in ENTRIES:
        open_entries(holding.path).file.remove()
    elif holding.kind in VECTORS:
        with storage.locked(lock_of(holding.path, "write")):
            remove(holding.path)
    elif holding.kind == "models":
        remove_kept(holding.path)
    elif holding.kind in ("indexes", "corpora"):
        storage.remove_generations(holding.path)
    elif holding.kind in NAMED_ONLY:
        shutil.rmtree(holding.path, ignore_errors=True)
    else:
        holding.path.unlink(missing_ok=True)
    return holding.n_bytes - _size(holding)


def entries_bytes(path: Path) -> int:
    """Of a file of entries, what sqlite has beside it, and what was set aside."""
    return sum(storage.size_of(each) for each in path.parent.glob(f"{path.name}*"))


def _size(holding: Holding) -> int:
    return entries_bytes(holding.path) if holding.kind in ENTRIES else storage.size_of(holding.path)


def _entries(root: Path) -> Iterator[Holding]:
    for kind, (name, about) in ENTRIES.items():
        path = root / name
        files = [each for each in path.parent.glob(f"{path.name}*") if each.is_file()]
        if files:
            count = _counted(open_entries(path)) if path.is_file() else 0
            used = max(each.stat().st_mtime for each in files if not each.name.endswith("-shm"))
            yield Holding(kind, path, about, count, entries_bytes(path), used)


def _counted(entries: Entries) -> int:
    try:
        return len(entries)
    finally:
        entries.close()


def _vectors(root: Path) -> Iterator[Holding]:
    for folder in _folders(root / "vectors"):
        meta = _json(folder / "meta.json")
        sparse = meta.get("kind") == "sparse" or folder.name.startswith("sparse-")
        tokens = "precision" in meta or folder.name.startswith("tokens-")
        kind = "token_vectors" if tokens else "sparse_vectors" if sparse else "vectors"
        n_texts = storage.size_of(folder / KEYS.file) // KEY_BYTES
        size = sum(map(storage.size_of, [folder, *leftovers(folder)]))
        model = _noted(folder) or str(meta.get("model_id", folder.name))
        yield Holding(
            kind,
            folder,
            _words({**meta, "model_id": model}, "model_id", "precision", "dim"),
            n_texts,
            size,
            _used(folder),
        )
    for folder in _killed(root / "vectors"):
        about, used = "left by a process that was killed", folder.lstat().st_mtime
        yield Holding("vectors", folder, about, None, storage.size_of(folder), used, is_leftover=True)


def _killed(parent: Path) -> Iterator[Path]:
    """What was set aside for good, or half made, by a process that is gone, and whose folder is gone too."""
    for path in sorted(parent.glob(".*")):
        of = path.name.removeprefix(SET_ASIDE).removeprefix(PARTIAL).rpartition("-")[0]
        is_ours = path.name.startswith((SET_ASIDE, PARTIAL)) and not (parent / of).exists()
        if is_ours and time.time() - path.lstat().st_mtime > _HOUR_S:
            yield path


def _models(root: Path) -> Iterator[Holding]:
    for folder in _folders(root / "models"):
        if (folder / "manifest.json").is_file():
            about = _words(_json(folder / "manifest.json"), "source", "role")
            yield Holding("models", folder, about, None, storage.size_of(folder), _used(folder))


def _indexes(root: Path) -> Iterator[Holding]:
    for folder in _generations(root / "indexes", depth=2):
        manifest = _json((storage.current_generation(folder) or folder) / "manifest.json")
        settings = manifest.get("settings")
        about = _words(settings if isinstance(settings, dict) else {}, "engine", "model_id")
        about = f"{manifest.get('corpus', folder.parent.name)}: {about or 'index'}"
        yield Holding("indexes", folder, about, _count(manifest), storage.size_of(folder), _used(folder))


def _corpora(root: Path) -> Iterator[Holding]:
    for folder in _generations(root / "corpora", depth=1):
        state = _json((storage.current_generation(folder) or folder) / "state.json")
        yield Holding("corpora", folder, folder.name, _count(state), storage.size_of(folder), _used(folder))


def _cost(root: Path) -> Iterator[Holding]:
    for path in sorted((root / "cost").glob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield Holding("cost", path, path.stem, None, storage.size_of(path), path.stat().st_mtime)


def _evaluations(root: Path) -> Iterator[Holding]:
    for folder in _folders(root / EVALUATIONS):
        files = list(folder.glob("[!.]*.json"))
        used = max((path.stat().st_mtime for path in files), default=folder.stat().st_mtime)
        yield Holding("evaluations", folder, folder.name, len(files), storage.size_of(folder), used)


def _trained(root: Path) -> Iterator[Holding]:
    for folder in _generations(root / "trained", depth=2):
        yield Holding("trained", folder, _under(folder), None, storage.size_of(folder), _used(folder))


def _tuned(root: Path) -> Iterator[Holding]:
    for corpus in _folders(root / "tuned"):
        for folder in _folders(corpus):
            yield Holding("tuned", folder, _under(folder), None, storage.size_of(folder), _used(folder))


def _runs(root: Path) -> Iterator[Holding]:
    for folder in _generations(root / "runs", depth=2):
        yield Holding("runs", folder, _under(folder), None, storage.size_of(folder), _used(folder))


_LOOK: tuple[Callable[[Path], Iterable[Holding]], ...] = (
    *(_entries, _vectors, _models, _indexes),
    *(_corpora, _cost, _evaluations, _trained, _tuned, _runs),
)


def _under(folder: Path) -> str:
    return f"{folder.parent.name}: {folder.name}"


def _folders(parent: Path) -> list[Path]:
    """Not hidden; a link is somebody's own arrangement, and left alone."""
    if not parent.is_dir():
        return []
    found = sorted(parent.iterdir())
    return [path for path in found if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")]


def _generations(parent: Path, depth: int) -> list[Path]:
    folders = [parent]
    for _ in range(depth):
        folders = [inner for folder in folders for inner in _folders(folder)]
    return [folder for folder in folders if (folder / storage.CURRENT).is_file()]


def _noted(folder: Path) -> str:
    """The name of the model, where one was noted."""
    try:
        return (folder / storage.USED).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _used(folder: Path) -> float:
    return storage.last_use(folder)


def _count(facts: Mapping[str, Any]) -> int | None:
    count = facts.get("n_documents")
    return count if isinstance(count, int) else None


def _words(facts: Mapping[str, Any], *names: str) -> str:
    return ", ".join(str(facts[name]) for name in names if facts.get(name) is not None)


def _json(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}
