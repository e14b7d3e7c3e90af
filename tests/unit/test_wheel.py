"""The wheel holds what the tree holds: a new sub-package or data file is missing until it is listed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
FOLDERS = {"orchestrator": "orchestrator", "plugins": "orchestrator/plugins", "conf": "orchestrator/conf"}


def test_the_wheel_holds_the_tree(tmp_path: Path) -> None:
    if not (TREE / "pyproject.toml").exists():
        pytest.skip("not run from a checkout")
    copy = tmp_path / "tree"  # not in the checkout: a build folder there may hold files that are long gone
    for folder in FOLDERS:
        shutil.copytree(TREE / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TREE / name, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tree = {
        f"{installed}/{path.relative_to(TREE / folder).as_posix()}"
        for folder, installed in FOLDERS.items()
        for path in (TREE / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == tree
    assert {name.split("/")[0] for name in inside} == {"orchestrator"}, "nothing else is installed globally"
