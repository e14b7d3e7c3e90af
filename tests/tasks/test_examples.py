"""The examples run as their READMEs say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.words import NO_FOLDER

TREE = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (TREE / "examples").glob("*/README.md"))


def commands(folder: Path) -> list[str]:
    """The lines of the README's blocks that call a program."""
    blocks = re.findall(r"```\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("cd ")]


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_as_its_readme_says(folder: Path, shared_root: Path, tmp_path: Path) -> None:
    assert commands(folder), "an example says how it is run"
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "ORCHESTRATOR_HOME": str(shared_root), "PATH": f"{scripts}:{os.environ['PATH']}"}
    for command in commands(folder):
        inside = "orchestrate " in command
        has_folder = inside and not any(f"orchestrate {verb}" in command for verb in NO_FOLDER)
        keep = f" hydra.run.dir={tmp_path}" if has_folder else ""
        done = subprocess.run(
            command + keep, shell=True, cwd=folder if inside else TREE, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() != ""
