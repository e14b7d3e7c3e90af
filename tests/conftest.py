"""What every test gets: no model hub, a storage root of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import LocalServer

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture
def storage_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty storage root; also the default one while the test runs."""
    root = tmp_path / "storage"
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(root))
    return root


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One storage root for the whole session: models are exported and the sample is indexed once."""
    return tmp_path_factory.mktemp("shared-storage")


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """An HTTP server on a free local port; a test says what it answers."""
    with LocalServer() as running:
        yield running
