"""What names the code of a class: changes with it, and with nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from orchestrator.running import code_version as module
from orchestrator.running.code_version import code_version, sources, versions


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> Iterator[None]:
    module._version_of.cache_clear()
    yield
    module._version_of.cache_clear()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of a user's own modules on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def version(name: str) -> str | None:
    module._version_of.cache_clear()
    return code_version(name)


def test_a_module_of_ones_own_counts_with_those_beside_it(own: Path) -> None:
    (own / "my_stage.py").write_text("import my_words\n\nclass Mine:\n    pass\n")
    (own / "my_words.py").write_text("WORDS = 1\n")
    (own / "never_loaded.py").write_text("")
    importlib.import_module("my_stage")
    before = version("my_stage.Mine")
    assert before is not None
    assert before.startswith("my_stage.Mine ")
    (own / "never_loaded.py").write_text("other = 1\n")
    assert version("my_stage.Mine") == before
    (own / "my_words.py").write_text("WORDS = 2\n")
    assert version("my_stage.Mine") != before


def test_a_module_of_ones_own_counts_with_those_in_folders_below_it(own: Path) -> None:
    for folder in ("my_helpers", "venv/lib/site-packages"):
        (own / folder).mkdir(parents=True)
    (own / "my_stage.py").write_text("import my_helpers.score, my_library\n\nclass Mine:\n    pass\n")
    (own / "my_helpers" / "score.py").write_text("WEIGHT = 1\n")
    library = own / "venv" / "lib" / "site-packages" / "my_library.py"
    library.write_text("")
    sys.path.append(str(library.parent))
    importlib.import_module("my_stage")
    before = version("my_stage.Mine")
    library.write_text("other = 1\n")
    assert version("my_stage.Mine") == before
    (own / "my_helpers" / "score.py").write_text("WEIGHT = 2\n")
    assert version("my_stage.Mine") != before


def test_a_package_of_ones_own_counts_with_all_its_files(own: Path) -> None:
    (own / "my_package" / "inner").mkdir(parents=True)
    (own / "my_package" / "__init__.py").write_text("")
    (own / "my_package" / "stage.py").write_text("class Mine:\n    pass\n")
    importlib.import_module("my_package.stage")
    before = version("my_package.stage.Mine")
    (own / "my_package" / "inner" / "late.py").write_text("imported = 'when first asked'\n")
    assert version("my_package.stage.Mine") != before


def test_our_own_code_counts_with_core_and_plugins() -> None:
    importlib.import_module("orchestrator.plugins.fusion.rrf")
    found = code_version("orchestrator.plugins.fusion.rrf.ReciprocalRankFusion")
    assert found is not None
    core, plugins = (Path(name).parent for name in map(_file, ("orchestrator", "orchestrator.plugins")))
    assert found.endswith(sources([*core.rglob("*.py"), *plugins.rglob("*.py")]))
    assert f" numpy=={metadata.version('numpy')} " in found


def test_installed_packages_count_by_version() -> None:
    importlib.import_module("structlog")
    found = code_version("structlog.stdlib.BoundLogger")
    assert found == f"structlog.stdlib.BoundLogger {versions('structlog')}"
    assert f"structlog=={metadata.version('structlog')}" in str(found)


def test_what_was_typed_in_has_no_version() -> None:
    assert code_version("builtins.dict") is None
    assert code_version("no_such_module_anywhere.Thing") is None


def test_files_count_by_name_and_content_in_any_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("a")
    two.write_text("b")
    before = sources([one, two])
    assert sources([two, one, two]) == before
    one.write_text("ab")
    two.write_text("")
    assert sources([one, two]) != before


def _file(name: str) -> str:
    found = sys.modules[name].__file__
    assert found is not None
    return found
