"""What every test gets: no model hub, a storage root of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from servers import LocalServer

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def _logging_ends_with_the_test() -> Iterator[None]:
    """The command line sends events to the stderr of its test, which is closed for the next one."""
    yield
    if "structlog" in sys.modules:
        sys.modules["structlog"].reset_defaults()


@pytest.fixture
def storage_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty storage root; also the default one while the test runs."""
    root = tmp_path / "storage"
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(root))
    return root


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Path]:
    """One storage root for the whole session: models are exported and the sample is indexed once.

    What takes longest, the export of MiniLM and the vectors of the sample, is carried from session to session in
    pytest's cache, until the code that makes it changes. `pytest --cache-clear` forgets it.
    """
    root = tmp_path_factory.mktemp("shared-storage")
    cache = getattr(pytestconfig, "cache", None)
    if cache is None:
        yield root
        return
    kept = cache.mkdir("storage") / _fingerprint()
    if kept.exists():
        shutil.copytree(kept, root, dirs_exist_ok=True)
    yield root
    made = [*root.glob("models/[!.]*all-MiniLM-L6-v2-*"), *root.glob("vectors/*")]
    if _size(made) > _size(kept.glob("*/*")):
        fresh = kept.with_name(f"{kept.name}-{os.getpid()}")
        for path in made:
            shutil.copytree(path, fresh / path.relative_to(root))
        shutil.rmtree(kept, ignore_errors=True)
        fresh.rename(kept)


def _fingerprint() -> str:
    """Of every file that decides what an export or a vector looks like."""
    tree = Path(__file__).parents[1]
    names = ["orchestrator/models/*.py", "plugins/embed/*.py", "orchestrator/vector*.py", "orchestrator/storage.py"]
    paths = sorted(path for name in names for path in tree.glob(name))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def _size(folders: Iterable[Path]) -> int:
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """An HTTP server on a free local port; a test says what it answers."""
    with LocalServer() as running:
        yield running
